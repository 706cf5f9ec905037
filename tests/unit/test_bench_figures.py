"""What the benchmark says of its samples: intervals that hold, changes outside the noise, pictures, tables."""

import json
import random
import re
import shutil
import statistics
from pathlib import Path
from typing import Any, Dict, List

import pytest

from extras import fastsock
from extras.bench import __main__ as command
from extras.bench import chart, groups, headline, instructions, markdown, plot, regression, results, selfcheck, tracker
from extras.bench.comparison import as_data
from extras.bench.counters import Used
from extras.bench.interleaved import Compared, Cost, Samples
from extras.bench.missing import Missing
from extras.bench.peers import BASELINE
from extras.bench.progress import Progress
from extras.bench.results import Measured
from extras.bench.rounds import CASES
from extras.bench.rounds import Samples as TurnSamples
from extras.bench.shapes import Shape
from extras.bench.uncertainty import Interval, for_all, interval, outliers


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
    return {"format": regression.FORMAT, "tracker": trackers(), "wire": clients()}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(run()))
    return path


class TestIntervals:
    def test_they_hold_the_true_median_as_often_as_they_say(self) -> None:
        draw = random.Random(7)
        within = [interval([draw.lognormvariate(0, 0.1) for _ in range(15)]).holds(1.0) for _ in range(200)]
        assert 0.88 <= statistics.mean(within) <= 0.99

    def test_same_samples_have_the_same_interval(self) -> None:
        values = [random.Random(3).random() for _ in range(9)]
        assert interval(values) == interval(values)

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


class TestSelfcheck:
    def test_equals_do_not_differ(self) -> None:
        found = [selfcheck.differences({"wire": clients(1.0, seed=seed)}) for seed in range(20)]
        assert sum(map(bool, found)) <= 8  # of intervals of 95 % each, four at a time

    def test_what_differs_is_named(self) -> None:
        data = {"wire": clients(1.2, other=f"{BASELINE} again")}
        assert len(selfcheck.differences(data)) == 4, data
        said = selfcheck.as_text(data)
        assert said.startswith("selfcheck: FAILED")
        assert "redis-py again, GET 100 B: 1." in said

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


class TestRegression:
    def test_noise_is_no_change(self) -> None:
        before, after = ({"wire": clients(2.0, seed=seed)} for seed in (1, 2))
        found = regression.compare(before, after)
        assert found.compared == 4
        assert found.regressions == []

    def test_slower_and_faster_are_told_apart(self) -> None:
        before = {"wire": clients(2.0), "tracker": trackers()}
        found = regression.compare(before, {"wire": clients(1.5)})
        assert [change.is_regression for change in found.changes] == [True] * 4
        assert len(found.missing) == 6
        assert regression.compare({"wire": clients(1.5)}, before).regressions == []
        said = regression.as_text(found)
        assert "4 ratios, 4 slower, 0 faster" in said
        assert "slower: wire, GET 100 B, FastRedis: " in said
        assert "in one run only: tracker, 1,000 in sessions of 60, retrieve" in said

    @pytest.mark.parametrize(("factor", "code"), [(2.0, 0), (1.0, 3), (4.0, 0)])
    def test_command_says_so_by_its_exit_code(
        self, factor: float, code: int, tmp_path: Path, measured: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = tmp_path / "now.json"
        now.write_text(json.dumps({**run(), "wire": clients(factor, seed=9)}))
        assert command.main(["--from", str(now), "--compare", str(measured)]) == code
        assert "compared with the older run: 10 ratios" in capsys.readouterr().out

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 0}'])
    def test_another_file_is_refused(self, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "other.json"
        path.write_text(text)
        assert command.main(["--from", str(path)]) == 2
        assert repr(str(path)) in capsys.readouterr().err


class TestShown:
    def test_all_of_a_run(self, measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["--from", str(measured), "--chart"]) == 0
        said = capsys.readouterr().out
        for part in ("Rasa: 3.6", "skipped: coredis: not there", "GET 100 B", "CPU time of the server", "####"):
            assert part in said

    def test_headline_has_one_header_and_both_cpu_times(self) -> None:
        said = headline.as_text(run(), {"async": "not here"})
        assert said.count("Python: 3") == 1
        assert "skipped: async: not here" in said
        assert "skipped: coredis: not there" in said
        row = next(line for line in said.splitlines() if line.startswith("1,000 in sessions"))
        assert row.split()[5:9] == ["208", "0.52", "400x", "(400-400)"]
        assert row.split()[9:] == ["100", "200"] * 2
        assert "server CPU" in said

    def test_bars_are_as_long_as_what_they_show(self) -> None:
        lines = chart.as_text({"wire": clients(2.0, noise=0.0)}).splitlines()
        assert lines[0] == "blocking clients: GET 100 B"
        assert [line.count("#") for line in lines[1:3]] == [50, 25]
        turns = chart.as_text({"tracker": trackers()}).splitlines()[1:]
        lengths = [line.count("#") for line in turns]
        assert max(lengths) == lengths[2] == 50
        assert min(lengths) == lengths[1] == lengths[3]

    def test_tables_of_the_pages(self) -> None:
        tables = markdown.tables(run())
        assert list(tables) == ["tracker", "wire"]
        assert tables["tracker"].splitlines()[3] == (
            "| 1,000 in sessions of 60 | 208 (216) | 0.52 (0.54) | 400x (400-400) | 208 + 208 | 0.52 + 0.52 "
            "| 100 + 200 | 100 + 200 | 1 kB, 2 | 1 kB, 2 |"
        )
        assert tables["tracker"].splitlines()[4].startswith("| 100,000 in sessions of 60 | - | 0.62 (0.65) | - | - |")
        lines = tables["wire"].splitlines()
        assert lines[0] == "| Blocking | redis-py | `FastRedis` |"
        assert re.match(r"\| GET 100 B \| (100|99\.\d) \| (2\.0|1\.9)\dx \|$", lines[2])


class TestPlot:
    def test_picture_has_a_panel_for_what_is_there(self, measured: Path, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        out = tmp_path / "out.svg"
        assert command.main(["--from", str(measured), "--plot", str(out)]) == 0
        picture = out.read_text()
        for text in ("a turn against the length of its history", "turns at 1,000 in sessions of 60", "stock", "ours"):
            assert text in picture
        plot.draw(run(), tmp_path / "again.svg")
        assert (tmp_path / "again.svg").read_text() == picture
        plot.draw(run(), tmp_path / "out.png")
        assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")

    def test_faults_are_a_panel_with_a_line_for_each(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        ended = {"after_s": 2.1, "longest_s": 2.1, "pause_s": 0.01}
        contenders = {"stock": {"after_s": None, "longest_s": 20.0, "pause_s": 20.0}, "redis-py": {"failed": "x"}}
        rows = [{"fault": name, "contenders": {**contenders, "ours": ended}} for name in ("RST", "link down")]
        out = tmp_path / "out.svg"
        plot.draw({"faults": {"rows": rows}}, out)
        picture = out.read_text()
        for text in ("a call under each fault", "RST", "link down", "stock", "redis-py", "ours"):
            assert f">{text}<" in picture

    def test_nothing_to_draw_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(Missing, match="nothing of this can be drawn"):
            plot.draw({"wire": clients()}, tmp_path / "out.svg")

    def test_without_matplotlib_it_says_how_to_get_it(
        self, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
        assert command.main(["--from", str(measured), "--plot", str(tmp_path / "out.svg")]) == 2
        assert "pip install 'rasa-extras[bench]'" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["out.gif", "out", "no/such/folder/out.svg"])
    def test_wrong_file_is_refused(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            command.main(["--plot", name])
        assert "--plot" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "a", "--endpoints", "b"],
        ["--from", "a", "--all"],
        ["--from", "a", "--wire"],
        ["--endpoints", "a", "--tracker"],
        ["--instructions", "--tracker"],
        ["--instructions", "--selfcheck"],
        ["--instructions", "--pin", "none"],
    ],
)
def test_what_does_not_go_together_is_refused(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert "error: --" in capsys.readouterr().err


class TestInstructions:
    def test_an_operation_takes_so_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if shutil.which("valgrind") is None:
            pytest.skip("no valgrind here")
        monkeypatch.setattr(instructions, "CASES", ("GET 100 B",))
        openers = groups.GROUPS["wire"].openers
        both = {name: openers[name] for name in (BASELINE, "FastRedis")}
        monkeypatch.setitem(groups.GROUPS, "wire", groups.GROUPS["wire"]._replace(openers=both))
        counted = instructions.measure(["wire"], Progress(1))
        of_redis_py, count = (counted["wire"]["GET 100 B"][name] for name in both)
        if fastsock.IMPL == "native":
            assert 2_000 < count < of_redis_py / 4 < 200_000
        else:  # redis-py does the work, and is asked by way of ours
            assert of_redis_py < count < of_redis_py * 1.5
        said = instructions.as_text(counted)
        assert "blocking clients: instructions of an operation" in said
        assert f"{count:,.0f}" in said

    def test_without_valgrind_it_says_so(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda name: None)
        assert command.main(["--instructions"]) == 2
        assert "--instructions needs valgrind" in capsys.readouterr().err


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(2)
    progress.begin("first")
    progress.within("first", 0.5)
    progress.begin("second")
    progress.end()
    shown = [line.count("#") for line in capsys.readouterr().err.split("\r")[1:]]
    assert shown == [0, 6, 12, 0]
