"""The benchmark's intervals hold as often as they say, also where clients of one kind are not equally fast."""

import asyncio
import gc
import math
import random
import statistics
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Dict, List

import pytest
from bench_runs import clients, trackers

from extras.bench import __main__ as command
from extras.bench import groups, interleaved, selfcheck, tracker, uncertainty
from extras.bench.cases import Case, Values
from extras.bench.comparison import as_data
from extras.bench.interleaved import Contender, Cost, Maker
from extras.bench.peers import BASELINE
from extras.bench.progress import Progress
from extras.bench.uncertainty import Interval, for_all, interval, outliers


class TestIntervals:
    def test_they_hold_the_true_median_as_often_as_they_say(self) -> None:
        draw = random.Random(7)
        within = [interval([draw.lognormvariate(0, 0.1) for _ in range(15)]).holds(1.0) for _ in range(200)]
        assert 0.95 <= statistics.mean(within) <= 1

    @pytest.mark.parametrize("count", [7, 9, 15, 21, 30])
    @pytest.mark.parametrize("level", [0.95, for_all(0.95, 10)])
    def test_as_many_samples_are_left_out_as_a_coin_allows(self, count: int, level: float) -> None:
        """How many of them are below the median is a number of heads: this is the chance of all that miss it."""
        found = interval([float(number) for number in range(count)], level)
        assert found.low + found.high == count - 1
        if 2 ** (1 - count) > 1 - level:
            assert found.low == 0
        else:
            misses = sum(math.comb(count, below) for below in range(int(found.low) + 1))
            assert 2 * misses / 2**count <= 1 - level

    def test_same_samples_have_the_same_interval(self) -> None:
        values = [random.Random(3).random() for _ in range(9)]
        assert interval(values) == interval(values)

    def test_of_thousands_of_samples(self) -> None:
        assert uncertainty._rank(2_000, 0.95) == pytest.approx(1_000 - 1.96 * 2_000**0.5 / 2, abs=2)

    def test_more_confidence_is_a_wider_interval(self) -> None:
        values = [float(number) for number in range(31)]
        wide, narrow = interval(values, 0.999), interval(values, 0.5)
        assert wide.low < narrow.low < 15 < narrow.high < wide.high

    def test_single_sample(self) -> None:
        assert interval([4.0]) == Interval(4.0, 4.0)

    def test_all_of_several_intervals_hold_together(self) -> None:
        assert for_all(0.95, 10) == pytest.approx(0.995)
        assert for_all(0.95, 0) == pytest.approx(0.95)

    @pytest.mark.parametrize(
        ("values", "far"), [([1, 2, 3, 4, 5], []), ([1, 2, 3, 4, 50], [50]), ([-90, 1, 1, 1, 1], [-90]), ([1, 99], [])]
    )
    def test_far_values_are_reported(self, values: List[float], far: List[float]) -> None:
        assert outliers(values) == far


class Quiet:
    """A server that is never asked for anything but what it has used."""

    def info(self) -> Dict[str, int]:
        return {"total_net_input_bytes": 0, "total_net_output_bytes": 0}


class Placed:
    """Makes clients that are all the same, but each some per cent faster or slower for as long as it lives.

    The machine's speed drifts, and what one sample takes varies. ``is_kept``: as if each side had one client for all
    rounds.
    """

    PLACE, NOISE, DRIFT = 0.03, 0.02, 0.01

    def __init__(self, draw: random.Random, is_kept: bool) -> None:
        self._draw = draw
        self._is_kept = is_kept
        self._kept: Dict[str, Contender] = {}
        self._speed = 1.0

    def makers(self) -> Dict[str, Maker]:
        return {side: partial(self._make, side) for side in (BASELINE, f"{BASELINE} again")}

    async def _make(self, side: str, stack: AsyncExitStack) -> Contender:
        if not self._is_kept:
            return self._new(side)
        return self._kept.setdefault(side, self._new(side))

    def _new(self, side: str) -> Contender:
        place = math.exp(self._draw.gauss(0, self.PLACE))

        async def once() -> bytes:
            return b"abc"

        async def many(operations: int) -> Cost:
            self._speed *= math.exp(self._draw.gauss(0, self.DRIFT))
            took_s = 1e-3 * operations * place * self._speed * math.exp(self._draw.gauss(0, self.NOISE))
            return Cost(took_s, took_s / 2)

        return Contender(side, once, many)


def share_that_holds(is_kept: bool, cases: int, runs: int) -> float:
    """Return in which share of runs a self-check finds that its cases do not differ from themselves."""
    held = 0
    for seed in range(runs):
        draw = random.Random(seed)
        placed = [Placed(draw, is_kept) for _ in range(cases)]
        asked = {Case(f"GET {n}", "get", f"key{n}", 3): each.makers() for n, each in enumerate(placed)}
        measured = interleaved.compare(asked, Values(Quiet(), list(asked)), groups.ROUNDS, Progress(cases), draw)
        data = as_data("clients", {}, {}, asyncio.run(measured))
        held += not selfcheck.differences({"wire": data})
    return held / runs


class TestCoverage:
    """Clients of one kind lie in different places of memory, which makes them some per cent faster or slower."""

    @pytest.fixture(autouse=True)
    def without_what_takes_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gc, "collect", lambda *args: 0)
        monkeypatch.setattr(Progress, "_show", lambda *args: None)

    @pytest.mark.parametrize("cases", [1, 5])
    def test_clients_of_each_round_do_not_differ_from_themselves(self, cases: int) -> None:
        assert share_that_holds(is_kept=False, cases=cases, runs=100 // cases) >= 0.95

    def test_one_client_for_all_rounds_differs_from_another_of_its_kind(self) -> None:
        assert share_that_holds(is_kept=True, cases=1, runs=40) < 0.6


class TestSelfcheck:
    def test_equals_do_not_differ(self) -> None:
        found = [selfcheck.differences({"wire": clients(1.0, seed=seed)}) for seed in range(20)]
        assert sum(map(bool, found)) <= 1  # of all four comparisons together

    def test_what_differs_is_named(self) -> None:
        data = {"wire": clients(1.2, other=f"{BASELINE} again")}
        assert len(selfcheck.differences(data)) == 4, data
        said = selfcheck.as_text(data)
        assert said.startswith("selfcheck: FAILED")
        assert "redis-py again, GET 100 B: 1." in said

    def test_all_groups_of_a_run_hold_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        levels: List[float] = []

        def wide(values: List[float], level: float) -> Interval:
            levels.append(level)
            return Interval(0, 2)

        monkeypatch.setattr(selfcheck, "interval", wide)
        assert selfcheck.differences({"tracker": trackers(), "wire": clients(1.0), "async": clients(1.0)}) == []
        assert levels == [for_all(0.95, 2 + 4 + 4)] * 10

    def test_turns_are_compared_too(self) -> None:
        assert [said.split(":")[0] for said in selfcheck.differences({"tracker": trackers()})] == [
            "a turn, 17 in one session",
            "a turn, 1,000 in sessions of 60",
        ]

    @pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (2.0, 4)])
    def test_command_fails_if_it_finds_a_difference(
        self, factor: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked: List[bool] = []

        def measure(name: str, url: Any, pin: Any, extent: Any, again: bool, teller: Any) -> Dict[str, Any]:
            asked.append(again)
            return clients(factor, noise=0.0 if factor == 1 else 0.01)

        monkeypatch.setattr(groups, "measure", measure)
        assert command.main(["--wire", "--selfcheck"]) == code
        assert asked == [True]
        assert ("no difference in 4 comparisons" in capsys.readouterr().out) is (code == 0)

    @pytest.mark.parametrize("groups_named", [[], ["--wire"]])
    def test_rounds_are_enough_for_its_intervals(
        self, groups_named: List[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A median is beyond all of ``n`` samples once in ``2 ** (n - 1)`` times: few have no interval wide enough."""
        asked: List[int] = []

        def measure(name: str, url: Any, pin: Any, extent: groups.Extent, again: bool, teller: Any) -> Dict[str, Any]:
            asked.append(extent.rounds)
            return clients(1.0, noise=0.0)

        monkeypatch.setattr(groups, "measure", measure)
        monkeypatch.setattr(tracker, "measure", lambda *args: trackers())
        command.main([*groups_named, "--selfcheck"])
        comparisons = sum(len(groups.Extent(1, True).cases(name)) for name in ("wire", "async"))
        assert asked
        assert all(2 ** (1 - rounds) < 1 - for_all(0.95, comparisons) for rounds in asked)
