"""Runs in files: added to each other, read, and compared with others."""

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest
from bench_runs import clients, run, trackers

from extras.bench import __main__ as command
from extras.bench import groups, markdown, recorded, regression, tracker


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    path = tmp_path / "measured.json"
    recorded.write(path, [run()])
    return path


def unwanted(*arguments: Any) -> Dict[str, Any]:
    raise AssertionError("nothing is to be measured")


class TestFiles:
    """What ``--json`` and ``--append`` write, and who reads it."""

    def test_runs_are_added_and_read_as_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(groups, "measure", lambda *args: clients())
        monkeypatch.setattr(tracker, "measure", lambda *args: trackers())
        path = tmp_path / "all.json"
        assert command.main(["--tracker", "--append", str(path)]) == 0
        assert command.main(["--wire", "--append", str(path)]) == 0
        assert recorded.read(path) == json.loads(json.dumps([{"tracker": trackers()}, {"wire": clients()}]))
        assert list(tmp_path.iterdir()) == [path]
        capsys.readouterr()
        assert command.main(["--from", str(path), "--compare", str(path), "--markdown"]) == 0
        shown = capsys.readouterr().out
        assert "compared with the older run: 10 ratios, 0 slower, 0 faster" in shown
        for table in markdown.tables(run()).values():
            assert table in shown

    def test_files_are_joined(self, measured: Path, tmp_path: Path) -> None:
        path = tmp_path / "all.json"
        recorded.write(path, [{"async": clients()}])
        assert command.main(["--from", str(measured), "--append", str(path)]) == 0
        assert [list(one) for one in recorded.read(path)] == [["async"], ["tracker", "wire"]]
        assert recorded.read(path)[1] == recorded.read(measured)[0]

    def test_nothing_is_replaced_and_this_is_said_before_anything_is_measured(
        self, measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(groups, "measure", unwanted)
        before = measured.read_bytes()
        assert command.main(["--wire", "--async", "--append", str(measured)]) == 2
        said = capsys.readouterr().err
        assert f"--append: {str(measured)!r} has wire already, and nothing in it is replaced" in said
        assert command.main(["--from", str(measured), "--append", str(measured)]) == 2
        assert "has tracker, wire already" in capsys.readouterr().err
        assert measured.read_bytes() == before

    def test_groups_of_a_file_are_chosen(
        self, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "some.json"
        assert command.main(["--from", str(measured), "--wire", "--json", str(path)]) == 0
        assert recorded.read(path) == [{"wire": recorded.read(measured)[0]["wire"]}]
        assert "blocking clients" in capsys.readouterr().out
        assert command.main(["--from", str(path), "--wire", "--tracker"]) == 2
        assert f"{str(path)!r} has no figures of --tracker; it has those of wire" in capsys.readouterr().err

    def test_json_begins_a_file_anew(self, measured: Path) -> None:
        other = measured.with_name("other.json")
        recorded.write(other, [{"async": clients()}, {"wire": clients()}])
        assert command.main(["--from", str(measured), "--json", str(other)]) == 0
        assert recorded.read(other) == recorded.read(measured)

    def test_one_run_by_itself_as_written_before_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "old.json"
        path.write_text(json.dumps({"format": 1, **run()}))
        assert recorded.read(path) == json.loads(json.dumps([run()]))

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 0}', '{"format": 3, "runs": []}'])
    @pytest.mark.parametrize("option", ["--from", "--compare", "--append"])
    def test_another_file_is_refused(
        self,
        option: str,
        text: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(groups, "measure", unwanted)
        path = tmp_path / "other.json"
        path.write_text(text)
        assert command.main([*([] if option == "--from" else ["--wire"]), option, str(path)]) == 2
        assert repr(str(path)) in capsys.readouterr().err
        assert path.read_text() == text

    @pytest.mark.parametrize(
        "arguments", [["--json", "a.json", "--append", "b.json"], ["--append", "no/such/folder/file"]]
    )
    def test_wrong_argument_is_refused(self, arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            command.main(arguments)
        assert "--append" in capsys.readouterr().err


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
        recorded.write(now, [{**run(), "wire": clients(factor, seed=9)}])
        assert command.main(["--from", str(now), "--compare", str(measured)]) == code
        assert "compared with the older run: 10 ratios" in capsys.readouterr().out
