"""``rasa-extras conversations`` through TLS, with a client certificate, a CA of one's own, and a login."""

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import redis
from tls_proxy import Certificates, TlsProxy
from tools import Tools

from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED
from extras.cli.main import main

PASSWORD = "hunter2-of-tls"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A good server of its own."""
    with RedisServer(tmp_path / "redis", ["--requirepass", PASSWORD, "--appendonly", "yes"]) as running:
        yield running


@pytest.fixture
def options(tmp_path: Path, server: RedisServer) -> Iterator[Dict[str, Any]]:
    """Return options that reach the server by TLS."""
    certificates = Certificates(tmp_path)
    context = certificates.context(certificates.server, client_needs_one=True)
    with TlsProxy(context, server.port) as proxy:
        place = {"url": "127.0.0.1", "port": proxy.port, "use_ssl": True, "ssl_ca_certs": certificates.ca_file}
        own = {"ssl_certfile": certificates.client_cert_file, "ssl_keyfile": certificates.client_key_file}
        yield {**place, **own, "password": PASSWORD}


@pytest.fixture
def of_alice(server: RedisServer) -> None:
    """One conversation, and a user that may do what it takes."""
    client = redis.Redis(port=server.port, password=PASSWORD)
    client.set("tracker:alice", RECORDED)
    client.execute_command(
        "ACL SETUSER", "bot", "on", f">{PASSWORD}-bot", "~*", "+@all", "-@dangerous", "+info", "+keys"
    )
    client.connection_pool.disconnect()


def test_every_command_to_the_end(
    server: RedisServer,
    options: Dict[str, Any],
    tmp_path: Path,
    capsys: "pytest.CaptureFixture[str]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keys() -> List[bytes]:
        found: List[bytes] = []
        for database in range(2):
            client = redis.Redis(port=server.port, db=database, password=PASSWORD)
            found += client.scan_iter()
            client.connection_pool.disconnect()
        return found

    ours = {"type": "extras.trackerstore.ExtraRedisTrackerStore", **options}
    tools = Tools(
        tmp_path, {"tracker_store": ours, "lock_store": {"type": "redis", **options}}, keys, capsys, ["hunter2"]
    )
    tools.conversations()
    monkeypatch.chdir(tmp_path)  # the sources' extras/ would hide what is installed
    findings = tools.doctor()
    assert [finding for finding in findings if finding["level"] in ("warning", "failed")] == []
    assert {"certificate", "TLS"} <= {finding["title"] for finding in findings}


def conversations(folder: Path, options: Dict[str, Any], action: str, *arguments: str) -> int:
    path = folder / "endpoints.yml"
    path.write_text(json.dumps({"tracker_store": options}))
    return main(["conversations", action, str(path), *arguments])


@pytest.mark.usefixtures("of_alice")
@pytest.mark.parametrize("kind", ["extras.trackerstore.ExtraRedisTrackerStore", "redis"])
@pytest.mark.parametrize("login", [{}, {"username": "bot", "password": f"{PASSWORD}-bot"}])
def test_every_action_works(
    kind: str, login: Dict[str, str], options: Dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = {"type": kind, **options, **login}
    file = str(tmp_path / "all.jsonl")
    for action, *arguments in (
        ("list",),
        ("show", "alice"),
        ("stats",),
        ("export", file),
        ("delete", "alice", "--yes"),
        ("import", file),
        ("show", "alice", "--events"),
    ):
        assert conversations(tmp_path, store, action, *arguments) == 0, capsys.readouterr()
        printed = capsys.readouterr()
        assert printed.err == ""
        assert "hunter2" not in printed.out
    assert [json.loads(line) for line in printed.out.splitlines()] == json.loads(RECORDED)["events"]


@pytest.mark.parametrize("missing", ["ssl_certfile", "ssl_ca_certs", "password"])
def test_what_is_missing_is_an_error_without_secrets(
    missing: str, options: Dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del options[missing]
    if missing == "ssl_certfile":
        del options["ssl_keyfile"]
    store = {"type": "extras.trackerstore.ExtraRedisTrackerStore", **options, "retries": 0}
    assert conversations(tmp_path, store, "list") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "hunter2" not in printed.err
