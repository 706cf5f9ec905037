"""What the benchmark says of its samples: intervals that hold, changes outside the noise, pictures, tables."""

import re
import shutil
from pathlib import Path
from typing import List

import pytest
from bench_runs import clients, run, trackers

from extras import fastsock
from extras.bench import __main__ as command
from extras.bench import (
    chart,
    groups,
    headline,
    instructions,
    markdown,
    plot,
    recorded,
)
from extras.bench.missing import Missing
from extras.bench.peers import BASELINE
from extras.bench.progress import Progress


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    path = tmp_path / "measured.json"
    recorded.write(path, [run()])
    return path


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
