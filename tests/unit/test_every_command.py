"""What holds for every command of ``rasa-extras``: help that teaches, JSON, exit codes, and no secret."""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import redis

from extras._version import VERSION
from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED
from extras.cli.main import main, make_parser

SECRET = "hunter2-of-every-command"
OURS = "extras.trackerstore.ExtraRedisTrackerStore"
NEEDS_RASA = "migrate"
FOLLOWS = "conversations tail"


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[Tuple[str, argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield name, parser
    for action in below:
        for word, sub in action.choices.items():
            yield from leaves(sub, f"{name} {word}".strip())


COMMANDS: Dict[str, argparse.ArgumentParser] = dict(leaves(make_parser()))


def test_these_are_all() -> None:
    of_conversations = [
        f"conversations {name}" for name in ("list", "show", "tail", "export", "import", "delete", "stats")
    ]
    assert sorted(COMMANDS) == sorted(["doctor", "migrate", *of_conversations])


@pytest.mark.parametrize("name", COMMANDS)
def test_its_help_teaches(name: str, capsys: "pytest.CaptureFixture[str]") -> None:
    with pytest.raises(SystemExit) as leaving:
        main([*name.split(), "--help"])
    assert leaving.value.code == 0
    printed = capsys.readouterr().out
    parser = COMMANDS[name]
    assert len((parser.description or "").split()) > 5
    assert "exit code:\n  0  " in printed
    assert all(action.help for action in parser._actions)
    assert any("--json" in action.option_strings for action in parser._actions)
    examples = printed.partition("examples:\n")[2].splitlines()
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(example.partition("|")[0].partition(">")[0])
        assert words[:1] == ["rasa-extras"]
        assert example.split()[1 : 1 + len(name.split())] == name.split()
        make_parser().parse_args(words[1:])


def line_of(name: str, folder: Path, endpoints: str) -> List[str]:
    """Return a command line for a file."""
    more = {
        "conversations show": ["alice"],
        "conversations tail": ["alice"],
        "conversations export": [str(folder / "all.jsonl")],
        "conversations import": [str(folder / "some.jsonl")],
        "conversations delete": ["alice", "--yes"],
    }
    if name == NEEDS_RASA:
        return ["migrate", "--from", endpoints, "--to", str(folder / "all.jsonl"), "--state", str(folder / "state")]
    return [*name.split(), endpoints, *more.get(name, [])]


@pytest.fixture
def endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.jsonl").write_text(json.dumps({"sender_id": "bob", "document": RECORDED, "ttl_ms": None}) + "\n")

    def write(**options: Any) -> str:
        path = tmp_path / "endpoints.yml"
        path.write_text(json.dumps({"tracker_store": {"type": OURS, **options}}))
        return str(path)

    return write


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in (NEEDS_RASA, FOLLOWS)])
def test_it_prints_json(
    name: str,
    endpoints: Any,
    server: RedisServer,
    raw: "redis.Redis",
    tmp_path: Path,
    capsys: "pytest.CaptureFixture[str]",
) -> None:
    raw.set("tracker:alice", RECORDED)
    raw.config_set("requirepass", SECRET)
    try:
        path = endpoints(url=f"redis://:{SECRET}@127.0.0.1:{server.port}/0", call_timeout=20)
        code = main([*line_of(name, tmp_path, path), "--json"])
    finally:
        raw.config_set("requirepass", "")
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    values = [json.loads(printed.out)] if name == "doctor" else [json.loads(line) for line in printed.out.splitlines()]
    assert values
    assert all(isinstance(value, dict) for value in values)
    assert SECRET not in printed.out


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 1},
        {"password": f"{SECRET}-2"},
        {"url": f"redis://:{SECRET}@127.0.0.1:x/0"},
        {"pasword": SECRET},
        {"password": [SECRET]},
    ],
    ids=["nobody there", "wrong password", "wrong url", "misspelt", "a list"],
)
def test_what_cannot_be_used_ends_it_without_a_secret(
    name: str,
    wrong: Dict[str, Any],
    endpoints: Any,
    server: RedisServer,
    raw: "redis.Redis",
    tmp_path: Path,
    capsys: "pytest.CaptureFixture[str]",
) -> None:
    raw.config_set("requirepass", SECRET)
    try:
        path = endpoints(**{"url": "127.0.0.1", "port": server.port, "password": SECRET, "retries": 0, **wrong})
        code = main(line_of(name, tmp_path, path))
    finally:
        raw.config_set("requirepass", "")
    printed = capsys.readouterr()
    assert code == (1 if name == "doctor" else 2)
    if name != "doctor":  # whose findings say it
        assert len(printed.err.splitlines()) == 1
        assert printed.err.startswith("rasa-extras: ")
    assert "hunter2" not in printed.out + printed.err
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_is_not_there_and_a_wrong_command_line(
    name: str, endpoints: Any, tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    assert main(line_of(name, tmp_path, str(tmp_path / "none.yml"))) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(SystemExit) as leaving:
        main([*line_of(name, tmp_path, endpoints()), "--no-such-option"])
    assert leaving.value.code == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_its_version(capsys: "pytest.CaptureFixture[str]") -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert (leaving.value.code, capsys.readouterr().out) == (0, f"{VERSION}\n")


@pytest.mark.parametrize("program", [["-m", "extras"], [str(Path(sys.executable).with_name("rasa-extras"))]])
def test_it_is_there_by_both_names(program: List[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *program, "doctor", "none.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.yml: cannot be read" in done.stderr
