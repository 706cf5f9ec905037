"""Runs of the benchmark that nobody has measured, with the figures that a test wants."""

import random
from typing import Any, Dict

from extras.bench import groups, results
from extras.bench.comparison import as_data
from extras.bench.counters import Used
from extras.bench.interleaved import Compared, Cost, Samples
from extras.bench.peers import BASELINE
from extras.bench.results import Measured
from extras.bench.rounds import CASES
from extras.bench.rounds import Samples as TurnSamples
from extras.bench.shapes import Shape


def clients(factor: float = 2.0, noise: float = 0.02, seed: int = 1, other: str = "FastRedis") -> Dict[str, Any]:
    """Return a run in which a client is so many times as fast as redis-py."""
    draw = random.Random(seed)

    def samples(wall_s: float) -> Samples:
        return Samples(1, [Cost(wall_s * draw.gauss(1, noise), wall_s / 2, wall_s / 4) for _ in range(15)])

    compared = [
        Compared(case, {BASELINE: samples(1e-4), other: samples(1e-4 / factor)})
        for case in groups.Extent(15, True).cases("wire")
    ]
    return as_data("blocking clients", {"Python": "3"}, {"coredis": "not there"}, compared)


def trackers() -> Dict[str, Any]:
    def samples(turn_s: float) -> TurnSamples:
        times = [turn_s * (1 + number / 100) for number in range(9)]
        return TurnSamples(dict.fromkeys(CASES, times), [0.1] * 9, [Used(700, 300, 0.2)] * 9, ["GET", "SET"])

    found = [
        Measured(Shape(17), 5000, {"stock": samples(0.002), "ours": samples(0.0005)}),
        Measured(Shape(1000), 300_000, {"stock": samples(0.2), "ours": samples(0.0005)}),
        Measured(Shape(100_000), 30_000_000, {"ours": samples(0.0006)}),
    ]
    return results.as_data(found, None, {"Rasa": "3.6"})


def run() -> Dict[str, Any]:
    return {"tracker": trackers(), "wire": clients()}
