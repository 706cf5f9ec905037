"""Events that wait in Redis: stored with their turn or not at all, in its slot, for one relay at a time."""

from typing import Any, Callable

import pytest
import redis

from extras.bench.server import RedisServer
from extras.conversation import Conversations
from extras.document import Known, parse
from extras.outbox import MOST_EVENTS, Outbox, document_key, erase_outbox, outbox_key
from extras.steps import run

CONVERSATIONS = Conversations("tracker:", 100, False)
KEY = b"tracker:alice"
STORED = b'{"events": [{"event": "a"}], "name": "alice"}'


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(b"tracker:", 100)


def slot(key: bytes) -> int:
    redis_crc = pytest.importorskip("redis.crc", reason="redis-py before 4.1 knows no slots")
    return int(redis_crc.key_slot(key))


@pytest.mark.parametrize(
    "key",
    [b"tracker:alice", b"{bot}:tracker:a}b", b"tracker:{x}{y}", b"tracker:a}b", b"tracker:{}x", b"tracker:{x", b"\xff"],
)
def test_an_outbox_is_in_the_slot_of_its_document(key: bytes) -> None:
    assert document_key(outbox_key(key)) == key
    assert slot(outbox_key(key)) == slot(outbox_key(key) + b":lease") == slot(key)


def test_what_is_no_outbox_is_not_taken_for_one() -> None:
    for key in (b"tracker:alice", b"{x}:outbox:tracker:alice", b"{tracker:alice}:outbox:tracker:alice:lease"):
        assert document_key(key) is None


def test_events_are_stored_with_their_turn_or_not_at_all(raw: "redis.Redis") -> None:
    known = parse(STORED).known
    assert known is not None
    arguments: Any = ("alice", known, b', {"event": "b"}', known.closing, None, [b"1", b"2"])
    assert run(raw, CONVERSATIONS.replace_if("alice", None, STORED, None, [b"0"])) is True
    assert run(raw, CONVERSATIONS.replace_if("alice", None, STORED, None, [b"0"])) is False
    run(raw, CONVERSATIONS.append(*arguments))
    run(raw, CONVERSATIONS.append(*arguments))  # as after a lost reply
    assert raw.lrange(outbox_key(KEY), 0, -1) == [b"0", b"1", b"2"]


def test_a_turn_is_not_stored_without_its_events(raw: "redis.Redis") -> None:
    raw.set(outbox_key(KEY), "no list")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        run(raw, CONVERSATIONS.replace_if("alice", None, STORED, None, [b"0"]))
    assert raw.get(KEY) is None


def test_what_a_document_has_no_room_for_is_not_left_in_the_outbox(own_server: RedisServer) -> None:
    """The server's own error, at the smallest bound that it takes."""
    raw = redis.Redis(port=own_server.port)
    raw.config_set("proto-max-bulk-len", 2**20)
    whole = b'{"events": [{"event": "%s"}], "name": "alice"}' % (b"x" * (2**20 - 100))
    raw.set(KEY, whole)
    raw.rpush(outbox_key(KEY), "before")
    known = parse(whole).known
    assert known is not None
    for bodies in ([b"1", b"2"], []):
        with pytest.raises(redis.ResponseError, match="exceeds maximum allowed size"):
            run(raw, CONVERSATIONS.append("alice", known, b", " + b"1" * 200, known.closing, None, bodies))
        assert raw.lrange(outbox_key(KEY), 0, -1) == [b"before"]
        assert raw.get(KEY) == whole
    raw.connection_pool.disconnect()


def append_more(user: "redis.Redis", known: Known) -> None:
    run(user, CONVERSATIONS.append("alice", known, b', {"event": "b"}', known.closing, None, [b"1", b"2"]))


def append_a_shorter_end(user: "redis.Redis", known: Known) -> None:
    run(user, CONVERSATIONS.append("alice", known, b"", b"]}", None, [b"1", b"2"]))


def replace(user: "redis.Redis", known: Known) -> None:
    run(user, CONVERSATIONS.replace_if("alice", STORED, b'{"events": []}', 60, [b"1", b"2"]))


@pytest.mark.parametrize(
    ("refused", "save"), [("setrange", append_more), ("set", append_a_shorter_end), ("set", replace)]
)
def test_what_a_user_may_not_write_is_not_left_in_the_outbox(
    refused: str, save: Callable[["redis.Redis", Known], None], own_server: RedisServer
) -> None:
    raw = redis.Redis(port=own_server.port)
    raw.set(KEY, STORED)
    raw.execute_command("ACL SETUSER", "bot", "on", ">pass", "~*", "+@all", f"-{refused}")
    user = redis.Redis(port=own_server.port, username="bot", password="pass")
    known = parse(STORED).known
    assert known is not None
    with pytest.raises(redis.ResponseError, match=r"(?i)permission|can't run this command"):
        save(user, known)
    assert raw.get(KEY) == STORED
    assert raw.exists(outbox_key(KEY)) == 0
    user.connection_pool.disconnect()
    raw.connection_pool.disconnect()


def test_one_relay_at_a_time_has_an_outbox(raw: "redis.Redis", outbox: Outbox) -> None:
    raw.rpush(outbox_key(KEY), *map(str, range(MOST_EVENTS + 5)))
    claim = run(raw, outbox.claim(KEY, "one"))
    assert claim == run(raw, outbox.claim(KEY, "one"))  # as after a lost reply
    assert claim is not None
    assert claim.size == MOST_EVENTS + 5
    assert claim.bodies == [b"%d" % number for number in range(MOST_EVENTS)]
    assert 0 < raw.pttl(outbox_key(KEY) + b":lease") <= 30_000
    assert run(raw, outbox.claim(KEY, "two")) is None
    assert run(raw, outbox.release(KEY, "two", 1)) == MOST_EVENTS + 5
    assert run(raw, outbox.release(KEY, "one", MOST_EVENTS)) == 5
    assert run(raw, outbox.release(KEY, "one", MOST_EVENTS)) == 5
    claim = run(raw, outbox.claim(KEY, "two"))
    assert claim is not None
    assert claim.bodies[0] == b"100"
    assert run(raw, outbox.release(KEY, "two", 5)) == 0
    assert run(raw, outbox.claim(KEY, "one")) == (0, [])
    assert raw.keys("*") == []


def test_who_publishes_while_an_outbox_is_erased_takes_nothing_of_the_next_one(
    raw: "redis.Redis", outbox: Outbox
) -> None:
    raw.rpush(outbox_key(KEY), "old", "old")
    assert run(raw, outbox.claim(KEY, "one")) == (2, [b"old", b"old"])
    run(raw, erase_outbox(KEY))
    assert raw.keys("*") == []
    raw.rpush(outbox_key(KEY), "new")
    assert run(raw, outbox.release(KEY, "one", 2)) == 1


def test_outboxes_are_found_and_erased(raw: "redis.Redis", outbox: Outbox) -> None:
    mine = [KEY, b"tracker:{b}c", b"tracker:d}"]
    for key in [*mine, b"bot:tracker:alice"]:
        raw.rpush(outbox_key(key), "event")
    assert sorted(run(raw, outbox.some(0))[1]) == sorted(mine)
    assert run(raw, CONVERSATIONS.sender_ids()) == []
    assert run(raw, Conversations("", 100, True).sender_ids()) == []
    run(raw, erase_outbox(KEY))
    assert KEY not in run(raw, outbox.some(0))[1]
