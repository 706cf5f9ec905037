"""What is measured, in which order, and how often, so that a default run ends within a minute and a half or so."""

import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from extras.bench import rounds
from extras.bench.counters import Counters
from extras.bench.results import Measured
from extras.bench.rounds import Lane
from extras.bench.shapes import FLAT_FROM, FLAT_TO, Shape

LEAST_ROUNDS = 5
SECONDS_PER_HISTORY = 6.0

Say = Callable[[str, bool], None]
"""Tells what is being done, and whether that is important."""

ByLane = Dict[str, rounds.Samples]
"""Samples by the name of their lane: a store's, or a number of events."""

_WARM_UP = Shape(17)
_FLATNESS_ROUND_S = 0.1


async def measure(
    trackers: Any, shapes: List[Shape], most_rounds: int, say: Say
) -> Tuple[List[Measured], Optional[ByLane]]:
    """Measure all histories, and ours on the shortest against the longest if both are asked for.

    ``trackers``: an ``extras.bench.trackers.Trackers``. Raises ``DifferentResults`` before a history is timed.
    """
    run = _Run(trackers, most_rounds, say)
    await run.warm_up()
    measured = [await run.history(shape) for shape in shapes]
    return measured, await run.flatness() if {FLAT_FROM, FLAT_TO} <= set(shapes) else None


class _Run:
    """Measures on one server, and says how far it is."""

    def __init__(self, trackers: Any, most_rounds: int, say: Say) -> None:
        self._trackers = trackers
        self._counters = Counters(trackers.client)
        self._most_rounds = most_rounds
        self._say = say

    async def warm_up(self) -> None:
        """Let both stores connect, and ours load its scripts."""
        await rounds.check(self._trackers.sides(_WARM_UP), self._trackers.document(_WARM_UP), self._counters)

    async def history(self, shape: Shape) -> Measured:
        """Measure the stores on one conversation. Raises ``DifferentResults`` before anything is timed."""
        self._say(f"{shape}: are the results the same?", True)
        sides, document = self._trackers.sides(shape), self._trackers.document(shape)
        start = time.monotonic()
        commands = await rounds.check(sides, document, self._counters)
        untimed = self._trackers.untimed_turns(shape)
        lanes = [Lane(side.name, side, document, sides[-1], untimed) for side in sides]
        samples = await self._rounds(str(shape), lanes, time.monotonic() - start)
        for name, names in commands.items():
            samples[name].commands = names
        await rounds.prime(lanes[0])
        return Measured(shape, len(document.read() or b""), samples)

    async def flatness(self) -> ByLane:
        """Measure ours on the shortest and the longest history in turn, so that a machine's moods hit both."""
        lanes = []
        for shape in (FLAT_FROM, FLAT_TO):
            ours = self._trackers.sides(shape)[-1]
            untimed = self._trackers.untimed_turns(shape)
            lanes.append(Lane(str(shape.events), ours, self._trackers.document(shape), ours, untimed))
        return await self._rounds("flatness", lanes, _FLATNESS_ROUND_S)

    async def _rounds(self, what: str, lanes: List[Lane], round_s: float) -> ByLane:
        count = min(self._most_rounds, max(LEAST_ROUNDS, int(SECONDS_PER_HISTORY / round_s)))
        self._say(f"{what}: {count} rounds", True)

        def tell(number: int) -> None:
            self._say(f"{what}: round {number + 1} of {count}", False)

        return await rounds.measure(lanes, self._counters, count, tell)
