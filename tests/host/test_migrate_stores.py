"""``rasa-extras migrate`` through every store of Rasa: SQLite, PostgreSQL, ours, Redis, DynamoDB, MongoDB, memory.

``MIGRATE_CONVERSATIONS=10000 pytest -s -k every_store tests/host/test_migrate_stores.py`` is the long form, in which
every move between servers is killed in the middle, too.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from conversations import Script
from databases import Dynamo, put_mongomock_in_place
from postgresql import PostgreSQL

from extras import _rasa, _rasa_stores
from extras.bench.server import RedisServer
from extras.bench.shapes import Shape, conversation, recorded_events
from extras.cli.document_file import DocumentFile
from extras.cli.main import main
from extras.cli.migration import Side, digest
from extras.cli.unmovable import rounded

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))

from tls_proxy import Certificates, TlsProxy

CONVERSATIONS = 30
IS_LONG = "MIGRATE_CONVERSATIONS" in os.environ
IN_ALL_STORES = int(os.environ.get("MIGRATE_CONVERSATIONS", "10"))
WAY = ["sqlite", "postgresql", "ours", "stock", "dynamo", "mongo", "file"]


class Stores:
    """Stores by name: their ``endpoints.yml``, or the file; each used as the assistant and the command use it."""

    def __init__(self, folder: Path, domain: Any, options: Dict[str, Any]) -> None:
        self.folder = folder
        self._domain = domain
        self._options = options

    def path(self, name: str) -> str:
        path = self.folder / (f"{name}.jsonl" if name == "file" else f"{name}.yml")
        if name != "file":
            path.write_text(json.dumps({"tracker_store": self._options[name]}))
        return str(path)

    def put(self, name: str, conversations: Dict[str, List[Dict[str, Any]]]) -> None:
        side = self._side(name)
        for sender_id, events in conversations.items():
            tracker = side.store.init_tracker(sender_id)
            for event in _rasa.rebuild(events):
                tracker.update(event)
            side.wait(side.store.save(tracker))
        side.close()

    def read(self, name: str) -> Iterator[Tuple[str, List[Dict[str, Any]]]]:
        """Yield every conversation's sender id and events, as the host's own store reads them."""
        side = self._side(name)
        try:
            for sender_id in side.sender_ids():
                tracker: Any = side.read(sender_id)
                yield sender_id, [event.as_dict() for event in tracker.events]
        finally:
            side.close()

    def digests(self, name: str, as_dynamo: bool = False) -> Dict[str, str]:
        """Return each conversation's digest, that of its numbers as DynamoDB's store keeps them if ``as_dynamo``."""
        return {
            sender_id: digest([_rasa.canonical(rounded(event) if as_dynamo else event) for event in events])
            for sender_id, events in self.read(name)
        }

    def _side(self, name: str) -> Side:
        if name == "file":
            side = Side(_rasa_stores, None)
            with open(self.path(name), encoding="ascii") as lines:
                side.store.store = {line["sender_id"]: line["document"] for line in map(json.loads, lines)}
            return side
        side = Side(_rasa_stores, _rasa_stores.read_endpoint_config(self.path(name), "tracker_store"))
        side.store.domain = self._domain
        return side


@pytest.fixture
def stores(tmp_path: Path, server: RedisServer, raw: Any, domain: Any) -> Stores:
    """All stores that run without a server of their own."""
    place = {"url": "127.0.0.1", "port": server.port}
    options: Dict[str, Any] = {
        "sqlite": {"type": "SQL", "dialect": "sqlite", "db": str(tmp_path / "a.db")},
        "ours": {"type": "extras.trackerstore.ExtraRedisTrackerStore", **place, "db": 1},
        "stock": {"type": "redis", **place, "db": 2},
        "dynamo": {"type": "dynamo", "table_name": f"states{tmp_path.name.replace('_', '-')}"},
        "mongo": {"type": "mongod", "url": "mongodb://mongo.test:27017", "db": "rasa"},
    }
    return Stores(tmp_path, domain, options)


@pytest.fixture
def migrate(stores: Stores, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Move in this process, which mongomock needs; return the exit code, the report and what was remarked."""

    def run(source: str, target: str) -> Any:
        capsys.readouterr()
        code = main(arguments(stores, source, target, "--workers", "2"))
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return run


def arguments(stores: Stores, source: str, target: str, *more: str) -> List[str]:
    state = str(stores.folder / f"{source}-{target}.state")
    return ["migrate", "--from", stores.path(source), "--to", stores.path(target), "--state", state, "--json", *more]


def recorded(number: int) -> Dict[str, List[Dict[str, Any]]]:
    """Return conversations of the recorded shape: most of 17 events, some of several sessions."""
    shapes = [Shape(17), Shape(17), Shape(40, 13)]
    return {f"id-{at}": conversation(shapes[at % 3], recorded_events()) for at in range(number)}


@pytest.fixture
def all_stores(stores: Stores, postgresql: PostgreSQL, dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch) -> Stores:
    stores._options["postgresql"] = postgresql.options(f"rasa_{os.path.basename(stores.folder)[:40]}".lower())
    for name, value in dynamo.environment.items():
        monkeypatch.setenv(name, value)
    put_mongomock_in_place(monkeypatch)
    return stores


def kill_in_the_middle(stores: Stores, source: str, target: str, moved: int, *more: str) -> None:
    """Run the command until it has moved so many conversations, and kill it."""
    command = [sys.executable, "-W", "ignore", "-m", "extras", *arguments(stores, source, target, *more)]
    state = Path(command[command.index("--state") + 1])
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120 + moved
        while not state.exists() or state.read_bytes().count(b"\n") <= moved:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(30)


def test_through_every_store_conversations_stay_the_same(
    all_stores: Stores, migrate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    all_stores.put("sqlite", recorded(IN_ALL_STORES))
    before, after_dynamo = all_stores.digests("sqlite"), all_stores.digests("sqlite", True)
    assert len(before) == IN_ALL_STORES
    for source, target in zip(WAY, WAY[1:]):
        is_killed = IS_LONG and "mongo" not in (source, target)  # which is in this process
        if is_killed:
            kill_in_the_middle(all_stores, source, target, IN_ALL_STORES // 2)
        code, report, err = migrate(source, target)
        if IS_LONG:
            with capsys.disabled():
                print(f"{source} to {target}{', killed in the middle, the rest' if is_killed else ''}: {report}")
        moved = report["moved"]
        assert (code, moved + report["already_there"], err) == (0, IN_ALL_STORES, ""), (target, report)
        assert 0 < moved <= IN_ALL_STORES // 2 if is_killed else moved == IN_ALL_STORES
        assert ("9 digits" in report["compared"]) == ("dynamo" in (source, target))
        wanted = before if WAY.index(target) < WAY.index("dynamo") else after_dynamo
        assert all_stores.digests(target) == wanted, target
    assert os.stat(all_stores.path("file")).st_mode & 0o077 == 0
    for source, target in (WAY[:2], WAY[-2:]):
        code, report, err = migrate(source, target)
        assert (code, report["moved"], report["already_there"]) == (0, 0, IN_ALL_STORES), (target, report)


@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("ours", "file")])
def test_killed_in_the_middle_it_finishes(source: str, target: str, all_stores: Stores, migrate: Any) -> None:
    all_stores.put(source, recorded(CONVERSATIONS))
    kill_in_the_middle(all_stores, source, target, 5, "--rate", "30")
    if target == "file":
        with open(all_stores.path(target), "ab") as file:
            file.write(b'{"sender_id": "torn')
    else:
        assert 0 < len(all_stores.digests(target)) < CONVERSATIONS
    code, report, err = migrate(source, target)
    assert (code, report["failed"], report["different"], err) == (0, 0, 0, "")
    assert all_stores.digests(target) == all_stores.digests(source)


def test_what_was_said_since_is_added_to_a_file_and_a_file_can_be_moved_in(all_stores: Stores, migrate: Any) -> None:
    conversations = recorded(6)
    all_stores.put("sqlite", {sender_id: events[:9] for sender_id, events in conversations.items()})
    assert migrate("sqlite", "file")[0] == 0
    all_stores.put("sqlite", {"id-3": conversations["id-3"]})
    code, report, _ = migrate("sqlite", "file")
    assert (code, report["moved"], report["already_there"]) == (0, 1, 5)
    with open(all_stores.path("file"), encoding="ascii") as lines:
        assert len(lines.readlines()) == 6
    assert migrate("file", "ours")[0] == 0
    assert all_stores.digests("ours") == all_stores.digests("sqlite")


def test_a_file_that_is_none_of_conversations_is_refused(stores: Stores, migrate: Any) -> None:
    code, _, err = migrate("file", "sqlite")
    assert (code, "cannot be read" in err) == (2, True)
    Path(stores.path("file")).write_text('{"sender_id": "alice"}\n')
    for way in (("file", "sqlite"), ("sqlite", "file")):
        code, _, err = migrate(*way)
        assert (code, "line 1 is no whole line of an export" in err) == (2, True)


def test_over_tls_with_client_certificates_and_passwords(stores: Stores, migrate: Any) -> None:
    certificates = Certificates(stores.folder)
    context = certificates.context(certificates.server, client_needs_one=True)
    server = RedisServer(stores.folder / "redis", ["--requirepass", "hunter2-tls"])
    with server, TlsProxy(context, server.port) as proxy:
        tls = {"url": "127.0.0.1", "port": proxy.port, "password": "hunter2-tls", "use_ssl": True}
        tls["ssl_ca_certs"] = certificates.ca_file
        mine = {"ssl_certfile": certificates.client_cert_file, "ssl_keyfile": certificates.client_key_file}
        stores._options["ours"].update(tls, **mine)
        stores._options["stock"].update(tls, **mine)
        stores.put("sqlite", recorded(3))
        for way in (("sqlite", "ours"), ("ours", "stock"), ("stock", "file")):
            code, report, err = migrate(*way)
            assert (code, report["moved"], err) == (0, 3, ""), (way, report)
        assert stores.digests("file") == stores.digests("sqlite")
        for name in mine:
            del stores._options["ours"][name]
        code, report, err = migrate("sqlite", "ours")
        assert code != 0
        assert "hunter2" not in f"{report}{err}"


TOO_LARGE = {"text": "secret " * 70_000}
UNMOVABLE = [
    ("dynamo", "alice", TOO_LARGE, "larger than the 400 kB"),
    ("dynamo", "alice", {"metadata": {"n": float("inf")}}, "infinite"),
    ("dynamo", "alice", {"metadata": {"n": 10**40}}, "more digits than the 38"),
    ("dynamo", "alice", {"metadata": {"n": 1e25}}, "can round"),
    ("mongo", "alice", {"metadata": {"n": 2**70}}, "8 bytes"),
    ("mongo", "alice", {"text": "lone \ud83d secret"}, "lone surrogate"),
    ("mongo", "alice", {"metadata": {"a\0b": 1}}, "holds a NUL"),
    ("postgresql", "al\0ice", {"text": "hi"}, "holds a NUL"),
    ("postgresql", "alice" * 60, {"text": "hi"}, "longer than the store's column"),
]


@pytest.mark.parametrize(("target", "sender_id", "said", "why"), UNMOVABLE)
def test_what_a_store_cannot_keep_is_named(
    target: str, sender_id: str, said: Any, why: str, all_stores: Stores, migrate: Any
) -> None:
    turn = Script(1).turn()
    turn[0] = {**turn[0], "text": "hi", "parse_data": {"text": "hi", "intent": {}, "entities": []}, **said}
    turn[0]["parse_data"]["text"] = turn[0]["text"]
    all_stores.put("ours", {sender_id: turn[:1], **recorded(2)})
    code, report, err = migrate("ours", target)
    assert (code, report["moved"], report["failed"]) == (1, 2, 1), report
    assert why in report["reasons"][0]["why"]
    assert "secret" not in json.dumps(report) + err
    assert len(all_stores.digests(target)) == 2


def test_names_with_dots_and_dollars_come_through_mongo(all_stores: Stores, migrate: Any) -> None:
    turn = Script(1).turn()
    turn[0]["metadata"] = {"a.b": 1, "$c": {"d.e.$f": [None, 0.1, 1]}}
    turn[0]["text"] = turn[0]["parse_data"]["text"] = "hi"
    all_stores.put("ours", {"alice": turn[:1], "7": turn[:1]})
    for way in (("ours", "mongo"), ("mongo", "sqlite")):
        code, report, _ = migrate(*way)
        assert (code, report["moved"]) == (0, 2), report
    assert all_stores.digests("sqlite") == all_stores.digests("ours")


def test_numbers_are_rounded_as_the_host_rounds_them() -> None:
    utils = importlib.import_module("rasa.core.utils")
    values = [0.1234567885, 0.1234567895, 1.0000000005, 2.5e-10, 1e-12, -0.5, 1700000000.1234567, 0, 3, 2**60, True]
    for value in values:
        there = utils.replace_decimals_with_floats(utils.replace_floats_with_decimals({"v": value}))["v"]
        assert json.dumps(rounded(value)) == json.dumps(rounded(there)), value


def test_a_file_of_documents_keeps_the_last_of_each(tmp_path: Path) -> None:
    path = str(tmp_path / "a.jsonl")
    for text in ("one", "two", "three"):
        documents = DocumentFile(path, True)
        documents["alice"] = text
        documents["bob"] = "of bob"
        assert dict(documents) == {"alice": text, "bob": "of bob"}
        documents.close()
    assert [json.loads(line)["document"] for line in Path(path).read_text().splitlines()] == ["three", "of bob"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]
