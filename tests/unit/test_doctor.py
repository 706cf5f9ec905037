"""``rasa-extras doctor``: its file, its two ways to print, its exit codes, its secrets; faults have their own file."""

import json
import re
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import redis

import extras.conversation
import extras.outbox
from extras.bench.server import RedisServer
from extras.cli.checks_acl import commands_of_index, commands_of_outbox, commands_of_store
from extras.cli.endpoints_file import EndpointsError, read
from extras.cli.findings import Finding, as_text, exit_code, guarded, secrets_in, without
from extras.cli.main import main

OURS = "extras.trackerstore.ExtraRedisTrackerStore"
SECRET = "hunter2-in-"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the checkout, whose own folder ``extras`` would be found to hide the package."""
    monkeypatch.chdir(tmp_path)


def written(folder: Path, text: str) -> Path:
    path = folder / "endpoints.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=["ruamel.yaml", "yaml"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the file be read by one library alone."""
    for name in {"ruamel.yaml", "yaml"} - {request.param}:
        monkeypatch.setitem(sys.modules, name, None)
    return str(request.param)


@pytest.mark.usefixtures("library")
class TestFile:
    def test_variables_are_replaced_as_rasa_does_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOST", "redis.internal")
        text = "tracker_store:\n  url: redis://${HOST}:1\n  a: $HOST\n  b: '${HOST}'\n"
        text += "  c:\n  - x\n  - d: ${HOST}\n  e: 5\n"
        found = read(written(tmp_path, text))
        assert found.sections == {
            "tracker_store": {
                "url": "redis://redis.internal:1",
                "a": "$HOST",
                "b": "${HOST}",
                "c": ["x", {"d": "redis.internal"}],
                "e": 5,
            }
        }
        assert found.quoted == {"tracker_store": ["b"]}
        assert found.unset == {"tracker_store": []}

    def test_unset_variables_are_named_by_section(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMPTY", "")
        text = "tracker_store:\n  a: ${NO_A}\n  b: x${NO_B}y${NO_A}\n  c: ${EMPTY}\nlock_store:\n  d: ${NO_D}\n"
        found = read(written(tmp_path, text))
        assert found.unset == {"tracker_store": ["NO_A", "NO_B"], "lock_store": ["NO_D"]}
        assert found.sections["tracker_store"]["c"] == ""

    def test_anchors_are_followed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOST", "h")
        found = read(written(tmp_path, "a: &x\n  url: ${HOST}\nb: *x\n"))
        assert found.sections == {"a": {"url": "h"}, "b": {"url": "h"}}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (f"tracker_store:\n  password: '{SECRET}file\n", "is no YAML that Rasa could read"),
            (f"tracker_store:\n\tpassword: {SECRET}file\n", "is no YAML that Rasa could read"),
            (f"- {SECRET}file\n", "must hold a mapping"),
            (f"{SECRET}file\n", "must hold a mapping"),
        ],
    )
    def test_what_cannot_be_used_ends_in_2(
        self, tmp_path: Path, capsys: "pytest.CaptureFixture[str]", text: str, said: str
    ) -> None:
        assert main(["doctor", str(written(tmp_path, text))]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
        assert SECRET not in err

    def test_a_missing_file_ends_in_2(self, tmp_path: Path, capsys: "pytest.CaptureFixture[str]") -> None:
        assert main(["doctor", str(tmp_path / "none.yml")]) == 2
        assert "none.yml: cannot be read: No such file" in capsys.readouterr().err

    def test_an_empty_file_has_no_tracker_store(self, tmp_path: Path, capsys: "pytest.CaptureFixture[str]") -> None:
        assert main(["doctor", str(written(tmp_path, ""))]) == 1
        assert "failed   tracker store" in capsys.readouterr().out

    def test_without_a_yaml_library_it_says_where_to_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("ruamel.yaml", "yaml"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(EndpointsError, match=r"pip install ruamel\.yaml"):
            read(written(tmp_path, "a: 1\n"))

    def test_the_command_line_ends_in_2(self, capsys: "pytest.CaptureFixture[str]") -> None:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--no-such-option"])
        assert ended.value.code == 2
        assert "--no-such-option" in capsys.readouterr().err

    def test_help_teaches(self, capsys: "pytest.CaptureFixture[str]") -> None:
        with pytest.raises(SystemExit):
            main(["doctor", "--help"])
        out = capsys.readouterr().out
        assert all(word in out for word in ("unseen", "exit code", "scratch conversation", "--json", "examples"))


SECRETS: Dict[str, Any] = {
    "tracker_store": {
        "type": OURS,
        "url": f"redis://:{SECRET}url@127.0.0.1:1/0?client_name=x",
        "username": "bot",
        "password": f"{SECRET}url",
    },
    "event_broker": {
        "type": "kafka",
        "url": f"kafka://user:{SECRET}broker@127.0.0.1:1",
        "sasl_password": f"{SECRET}sasl",
        "headers": {"Authorization": f"Bearer {SECRET}header"},
    },
    "lock_store": {"type": "redis", "url": "127.0.0.1", "port": 1, "password": f"{SECRET}lock"},
    "action_endpoint": {
        "url": f"http://u:{SECRET}action@127.0.0.1:1/?token={SECRET}query",
        "token": f"{SECRET}token",
        "basic_auth": {"username": "u", "password": f"{SECRET}basic"},
    },
}


class TestSecrets:
    def test_all_are_known(self) -> None:
        known = secrets_in(SECRETS)
        for end in ("url", "broker", "sasl", "lock", "action", "query", "token", "basic"):
            assert f"{SECRET}{end}" in known
        assert f"Bearer {SECRET}header" in known
        assert not known & {"bot", OURS, "redis", "127.0.0.1"}

    @pytest.mark.parametrize("arguments", [[], ["--json"]])
    def test_none_is_printed(self, tmp_path: Path, capsys: "pytest.CaptureFixture[str]", arguments: List[str]) -> None:
        assert main(["doctor", str(written(tmp_path, json.dumps(SECRETS))), *arguments]) == 1
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        assert "event broker" in out

    @pytest.mark.parametrize(
        "options",
        [
            {"url": f"redis://u:{SECRET}/x@127.0.0.1"},
            {"url": f"redis://u:{SECRET}#x@127.0.0.1"},
            {"url": f"redis:/u:{SECRET}@127.0.0.1"},
            {"url": f"u:{SECRET}@127.0.0.1"},
            {"url": [f"{SECRET}1"]},
            {"password": {"a": f"{SECRET}2"}},
            {"passwort": f"{SECRET}3"},
            {"username": f"redis://{SECRET}", "password": 12345678},
        ],
    )
    def test_none_is_printed_of_a_broken_option(
        self, tmp_path: Path, capsys: "pytest.CaptureFixture[str]", options: Dict[str, Any]
    ) -> None:
        given = {"url": "127.0.0.1", "port": 1, **options}
        assert main(["doctor", str(written(tmp_path, json.dumps({"tracker_store": {"type": OURS, **given}})))]) == 1
        out, err = capsys.readouterr()
        assert (SECRET if "username" not in options else "12345678") not in out + err

    def test_what_a_check_lets_through_is_taken_out(self) -> None:
        finding = Finding("failed", "x", "has abcd and abcdef", "use abcd")
        assert without(["abcd", "abcdef"], finding) == Finding("failed", "x", "has *** and ***", "use ***")

    def test_an_unexpected_error_shows_its_kind_alone(self) -> None:
        def check() -> Any:
            raise RuntimeError(f"{SECRET}error")
            yield

        assert [(found.level, found.found) for found in guarded("x", check())] == [
            ("failed", "the check could not be carried out (RuntimeError)")
        ]


def test_text_has_a_line_for_each_and_a_sum(
    tmp_path: Path, server: RedisServer, capsys: "pytest.CaptureFixture[str]"
) -> None:
    text = f"tracker_store:\n  type: {OURS}\n  url: 127.0.0.1\n  port: {server.port}\n"
    assert main(["doctor", str(written(tmp_path, text))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == ""
    assert re.fullmatch(r"\d+ ok, 1 warning, 0 failed, 1 unseen", lines[-1])
    assert all(re.match(r"(ok|warning|failed|unseen) +[a-zA-Z]|  +-> ", line) for line in lines[:-2])
    assert any(line.startswith("warning  persistence") for line in lines)


def test_way_out_stands_below() -> None:
    assert as_text(Finding("failed", "login", "no", "do")).splitlines()[1].strip() == "-> do"
    assert exit_code([Finding("warning", "x", "y"), Finding("unseen", "x", "y")]) == 0
    assert exit_code([Finding("ok", "x", "y"), Finding("failed", "x", "y")]) == 1


def test_rights_that_are_looked_at_are_those_that_the_store_needs(raw: "redis.Redis") -> None:
    modules = extras.conversation.__file__, extras.outbox.__file__
    source = "".join(Path(file).read_text(encoding="utf-8") for file in modules)
    used = set(re.findall(r"redis\.p?call\('([A-Z]+)'", source)) | set(re.findall(r'yield \(\s*"([A-Z]+)"', source))
    checked = [*commands_of_store("k", "*"), *commands_of_index("i"), *commands_of_outbox("o")]
    assert {command[0] for command in checked} == used | {"EVAL", "EVALSHA"}
    for command in checked:
        try:
            raw.execute_command(*command)
        except redis.exceptions.NoScriptError:
            assert command[0] == "EVALSHA"
    assert raw.keys("*") == []
