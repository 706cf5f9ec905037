"""``rasa-extras conversations`` through TLS, with a client certificate, a CA of one's own, and a login."""

import json
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
import redis
from tls_proxy import Certificates, TlsProxy

from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED
from extras.cli.main import main

PASSWORD = "hunter2-of-tls"


@pytest.fixture
def options(tmp_path: Path) -> Iterator[Dict[str, Any]]:
    """Return options that reach a server of its own, with one conversation, by TLS."""
    certificates = Certificates(tmp_path)
    context = certificates.context(certificates.server, client_needs_one=True)
    with RedisServer(tmp_path / "redis", ["--requirepass", PASSWORD]) as server, TlsProxy(
        context, server.port
    ) as proxy:
        client = redis.Redis(port=server.port, password=PASSWORD)
        client.set("tracker:alice", RECORDED)
        client.execute_command(
            "ACL SETUSER", "bot", "on", f">{PASSWORD}-bot", "~*", "+@all", "-@dangerous", "+info", "+keys"
        )
        client.connection_pool.disconnect()
        place = {"url": "127.0.0.1", "port": proxy.port, "use_ssl": True, "ssl_ca_certs": certificates.ca_file}
        own = {"ssl_certfile": certificates.client_cert_file, "ssl_keyfile": certificates.client_key_file}
        yield {**place, **own, "password": PASSWORD}


def conversations(folder: Path, options: Dict[str, Any], action: str, *arguments: str) -> int:
    path = folder / "endpoints.yml"
    path.write_text(json.dumps({"tracker_store": options}))
    return main(["conversations", action, str(path), *arguments])


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
