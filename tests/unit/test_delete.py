"""``rasa-extras conversations delete`` beyond documents: journals of outages, outboxes, locks of every lock store."""

import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import redis

from extras.backlog import Backlog
from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED
from extras.cli.main import main
from extras.journal import set_aside
from extras.lastknown import ABSENT, Taken
from extras.outbox import Outbox, outbox_key
from extras.steps import run

OURS = "extras.trackerstore.ExtraRedisTrackerStore"
SECRET = "what alice has said"
PATIENCE_S = 20


class Command:
    """The command on a file with a tracker store and a lock store."""

    def __init__(self, folder: Path, port: int, capsys: "pytest.CaptureFixture[str]") -> None:
        self._path = folder / "endpoints.yml"
        self._place = {"url": "127.0.0.1", "port": port}
        self._capsys = capsys
        self.store: Dict[str, Any] = {"type": OURS, **self._place}
        self.locks: Dict[str, Any] = {"type": "redis", **self._place, "db": 1}

    def __call__(self, *arguments: str) -> Tuple[int, Any]:
        """Delete alice; return the exit code and the receipt."""
        self._path.write_text(json.dumps({"tracker_store": self.store, "lock_store": self.locks}))
        self._capsys.readouterr()
        code = main(["conversations", "delete", str(self._path), "alice", "--yes", *arguments])
        printed = self._capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        return code, json.loads(printed.out)


@pytest.fixture
def delete(server: RedisServer, raw: "redis.Redis", tmp_path: Path, capsys: "pytest.CaptureFixture[str]") -> Command:
    return Command(tmp_path, server.port, capsys)


def journaled(folder: Path) -> Backlog:
    """Return a journal with turns of alice and bob."""
    kept = Backlog(folder / "journal", 2**20)
    for sender_id, text in (("alice", SECRET), ("bob", "what bob has said"), ("alice", f"{SECRET} then")):
        taken = Taken(json.dumps([{"event": "user", "text": text}])[1:-1].encode(), b'], "name": "x"}')
        kept.put(sender_id, ABSENT, taken, None).result(PATIENCE_S)
    return kept


def shown(receipt: Any) -> List[Tuple[str, str]]:
    return [(Path(key["key"]).name, key["what"]) for key in receipt["keys"]]


@pytest.mark.skipif(sys.platform == "win32", reason="a locked byte stands in the way of reading there")
def test_turns_in_the_journal_are_erased_once_no_rasa_has_it(
    raw: "redis.Redis", delete: Command, tmp_path: Path
) -> None:
    raw.set("tracker:alice", RECORDED)
    folder = tmp_path / "journals"
    folder.mkdir()
    delete.store.update(on_outage="journal", journal_path=str(folder / "journal"))
    kept = journaled(folder)
    code, receipt = delete()
    assert (code, shown(receipt)) == (1, [("tracker:alice", "document")])
    assert "2 turns in " in receipt["not_erased"][0]
    assert "a Rasa that runs has this file" in receipt["not_erased"][0]
    kept.close()

    copied = (folder / "journal").read_bytes()
    set_aside(folder / "journal.refused", [b"damaged", copied])
    before = {path: path.read_bytes() for path in folder.iterdir()}
    turns = [("journal", "turns in the journal"), ("journal.refused", "turns in the journal")]
    code, dry = delete("--dry-run")
    assert (code, shown(dry)) == (0, turns)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    code, receipt = delete()
    assert (code, shown(receipt), receipt["not_erased"]) == (0, turns, [])
    assert receipt["keys"] == dry["keys"]
    for path in folder.iterdir():
        assert SECRET.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    assert b"damaged" in (folder / "journal.refused").read_bytes()
    assert b"what bob has said" in (folder / "journal.refused").read_bytes()
    again = Backlog(folder / "journal", 2**20)
    assert again.in_order() == ["bob"]
    again.close()
    assert delete()[1]["keys"] == []


def test_a_journal_that_is_not_there_is_no_fault(raw: "redis.Redis", delete: Command, tmp_path: Path) -> None:
    raw.set("tracker:alice", RECORDED)
    delete.store.update(on_outage="journal", journal_path=str(tmp_path / "none" / "journal"))
    assert delete()[0] == 0


def test_an_outbox_goes_with_its_lease_whatever_publish_says(raw: "redis.Redis", delete: Command) -> None:
    raw.set("tracker:alice", RECORDED)
    raw.rpush(outbox_key(b"tracker:alice"), json.dumps({"text": SECRET}))
    run(raw, Outbox(b"tracker:", 100).claim(b"tracker:alice", "relay"))
    assert raw.dbsize() == 3
    code, receipt = delete()
    assert (code, receipt["not_erased"]) == (0, [])
    assert [key["what"] for key in receipt["keys"]] == ["document", "unpublished events", "outbox lease"]
    assert raw.dbsize() == 0


@pytest.mark.parametrize("publish", ["host", "outbox"])
def test_who_may_not_look_for_an_outbox_is_told_if_there_may_be_one(
    publish: str, raw: "redis.Redis", delete: Command
) -> None:
    raw.set("tracker:alice", RECORDED)
    raw.execute_command("ACL SETUSER", "bot", "reset", "on", ">pass", "~tracker:*", "+@all")
    try:
        delete.store.update(username="bot", password="pass", publish=publish)
        code, receipt = delete()
    finally:
        raw.execute_command("ACL DELUSER", "bot")
    assert code == int(publish == "outbox")
    assert [text.partition(":")[0] for text in receipt["not_erased"]] == (
        ["events that are not published yet"] if publish == "outbox" else []
    )


@pytest.mark.parametrize(
    ("kind", "options", "keys"),
    [
        ("redis", {}, ["lock:alice"]),
        ("redis", {"key_prefix": "bot"}, ["bot:lock:alice"]),
        ("redis", {"key_prefix": "my-bot"}, ["lock:alice"]),
        ("extras.lockstore.ExtraRedisLockStore", {"key_prefix": "my-bot"}, ["my-bot:lock:alice"]),
        (
            "concurrent_redis",
            {"key_prefix": "bot"},
            ["bot:concurrent_lock:alice:1", "bot:concurrent_lock:alice:last_issued_ticket_number"],
        ),
    ],
)
def test_locks_of_every_lock_store(
    kind: str, options: Dict[str, Any], keys: List[str], server: RedisServer, raw: "redis.Redis", delete: Command
) -> None:
    raw.set("tracker:alice", RECORDED)
    others = [key.replace("alice", other) for key in keys for other in ("alicea", "al*ce", "ali")]
    host = {"host": delete.locks["url"]}  # as Rasa Pro has it
    delete.locks = {"type": kind, "port": delete.locks["port"], **host, **options}
    locks = redis.Redis(port=server.port, db=1)
    for key in [*keys, *others]:
        locks.set(key, "{}")
    code, receipt = delete()
    left = sorted(str(key, "ascii") for key in locks.scan_iter())
    locks.connection_pool.disconnect()
    assert (code, receipt["not_erased"]) == (0, [])
    assert sorted(key["key"] for key in receipt["keys"] if key["what"] == "lock") == keys
    assert left == sorted(others)
