"""Conversations and the user index: key names, expiry and listing on a real server, and no I/O of their own.

Every steps generator is carried out by ``extras.steps.run`` on a stock redis-py client, and what it left in Redis is
looked at with another.
"""

import inspect
from typing import Any, Dict, List, Optional

import pytest
import redis

from extras.conversation import Conversations, UserIndex, load_many
from extras.steps import Steps, run

DOCUMENT = '{"events": [{"event": "action", "name": "action_listen"}], "name": "x"}'
OTHER = '{"events": [], "name": "x"}'

PREFIXES = ["", "tracker:", "my-bot:tracker:", "a*b[c]?\\d:tracker:", "^[a-z]*:", "ключ:tracker:"]
IDS = [
    "1",
    "default",
    "Grüße 👋",
    "with space",
    "a:b:c",
    "tracker:x",
    "user_trackers:x",
    "a*b[c]?\\d",
    "line\nbreak",
    "\udcff",
]


def conversations(prefix: str = "tracker:", scan_count: int = 100, read_unprefixed: bool = False) -> Conversations:
    return Conversations(prefix, scan_count, read_unprefixed)


def calls(raw: "redis.Redis") -> Dict[str, int]:
    stats: Any = raw.info("commandstats")
    return {name[len("cmdstat_") :]: int(values["calls"]) for name, values in stats.items()}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("sender_id", IDS)
def test_stored_under_prefix_and_id_and_understood_as_a_key(raw: "redis.Redis", prefix: str, sender_id: str) -> None:
    if prefix == "tracker:" and sender_id == "tracker:x":
        sender_id = "x"  # the key itself, which the test below is about
    store = conversations(prefix)
    run(raw, store.replace(sender_id, DOCUMENT, None))
    key = (prefix + sender_id).encode("utf-8", "surrogateescape")
    assert raw.keys() == [key]
    assert raw.get(key) == DOCUMENT.encode()

    assert store.key(sender_id) == key
    assert run(raw, store.load(sender_id)) == DOCUMENT.encode()
    assert run(raw, store.exists(sender_id)) is True
    assert run(raw, store.sender_ids()) == [sender_id]
    assert run(raw, load_many(store, [sender_id])) == [DOCUMENT.encode()]

    handed_back = prefix + sender_id
    assert store.bare(handed_back) == sender_id
    assert run(raw, store.load(handed_back)) == DOCUMENT.encode()
    run(raw, store.replace(handed_back, OTHER, None))
    assert raw.keys() == [key]
    run(raw, store.erase(handed_back))
    assert raw.keys() == []
    assert run(raw, store.exists(sender_id)) is False


def test_an_id_that_is_the_prefix_itself_is_listed_and_found_again(raw: "redis.Redis") -> None:
    store = conversations("bot:tracker:")
    for sender_id in ("bot:tracker:", "bot:tracker:bot:tracker:", "bot:tracker:x", "bot", "tracker:"):
        raw.flushall()
        run(raw, store.replace(sender_id, DOCUMENT, None))
        (listed,) = run(raw, store.sender_ids())
        assert raw.keys() == [store.key(sender_id)]
        if sender_id != "bot:tracker:bot:tracker:":
            assert run(raw, store.load(listed)) == DOCUMENT.encode()


def test_what_is_not_there(raw: "redis.Redis") -> None:
    for store in (conversations(), conversations(""), conversations(read_unprefixed=True)):
        assert run(raw, store.load("nobody")) is None
        assert run(raw, store.exists("nobody")) is False
        assert run(raw, store.sender_ids()) == []
        run(raw, store.erase("nobody"))
    assert raw.dbsize() == 0


def test_erase_deletes_one_conversation(raw: "redis.Redis") -> None:
    store = conversations()
    for sender_id in ("1", "11", "tracker"):
        run(raw, store.replace(sender_id, DOCUMENT, None))
    raw.set("1", DOCUMENT)
    run(raw, store.erase("1"))
    assert sorted(raw.keys()) == [b"1", b"tracker:11", b"tracker:tracker"]


@pytest.mark.parametrize("expires_after_s", [30, 30.0, 12.345, 86400 * 365, 0.7])
def test_replace_sets_the_expiry_to_the_millisecond(raw: "redis.Redis", expires_after_s: float) -> None:
    run(raw, conversations().replace("x", DOCUMENT, expires_after_s))
    left_ms = int(raw.pttl("tracker:x"))
    assert expires_after_s * 1000 - 500 < left_ms <= round(expires_after_s * 1000)


@pytest.mark.parametrize("never", [None, 0, 0.0])
def test_replace_without_expiry_clears_one(raw: "redis.Redis", never: Optional[float]) -> None:
    store = conversations()
    run(raw, store.replace("x", DOCUMENT, 30))
    assert raw.pttl("tracker:x") > 0
    run(raw, store.replace("x", OTHER, never))
    assert raw.pttl("tracker:x") == -1
    assert raw.get("tracker:x") == OTHER.encode()


def test_an_expiry_below_a_millisecond_is_one_millisecond() -> None:
    command = next(conversations().replace("x", DOCUMENT, 0.0001))
    assert command == ("SET", b"tracker:x", DOCUMENT.encode(), "PX", 1)


def test_an_expired_conversation_is_gone(raw: "redis.Redis") -> None:
    store = conversations()
    run(raw, store.replace("x", DOCUMENT, 0.001))
    while raw.exists("tracker:x"):
        pass
    assert run(raw, store.load("x")) is None
    assert run(raw, store.sender_ids()) == []


def test_thousands_are_listed_once_each_by_scan_alone(raw: "redis.Redis") -> None:
    wanted = [f"sender {number}" for number in range(5000)]
    raw.mset({f"tracker:{sender_id}": DOCUMENT for sender_id in wanted})
    raw.config_resetstat()
    listed = run(raw, conversations(scan_count=10).sender_ids())
    assert len(listed) == 5000
    assert sorted(listed) == sorted(wanted)
    used = calls(raw)
    assert used["scan"] >= 100
    assert set(used) <= {"scan", "info", "config", "config|resetstat"}


def test_one_that_scan_returns_twice_is_listed_once() -> None:
    steps = conversations().sender_ids()
    assert next(steps)[:2] == ("SCAN", 0)
    assert steps.send((7, [b"tracker:1", b"tracker:2"]))[:2] == ("SCAN", 7)
    with pytest.raises(StopIteration) as done:
        steps.send((0, [b"tracker:2", b"tracker:1", b"tracker:3"]))
    assert done.value.value == ["1", "2", "3"]


@pytest.mark.parametrize("prefix", [prefix for prefix in PREFIXES if prefix])
def test_only_keys_below_the_prefix_are_listed(raw: "redis.Redis", prefix: str) -> None:
    foreign = [
        "x",
        "Tracker:x",
        "xtracker:x",
        "my-bot:x",
        "my_bot:tracker:x",
        "axb[c]?\\d:tracker:x",
        "a*bc?\\d:tracker:x",
        "a*b[c]xd:tracker:x",
        "abc:x",
        "user_trackers:x",
    ]
    raw.mset({name: DOCUMENT for name in foreign if not name.startswith(prefix)})
    raw.mset({prefix + "1": DOCUMENT, prefix + "2": DOCUMENT})
    assert sorted(run(raw, conversations(prefix).sender_ids())) == ["1", "2"]


def put_foreign_keys(raw: "redis.Redis") -> None:
    raw.set("number", 5)
    raw.set("text", "some text")
    raw.set("other json", '{"event": []}')
    raw.set("empty", "")
    raw.lpush("list", '{"events": [')
    raw.hset("hash", "events", "[")
    raw.sadd("set", '{"events": [')
    raw.zadd("user_trackers:u", {'{"events": [': 1})
    raw.xadd("stream", {"events": "["})


def test_bare_ids_list_only_strings_that_hold_a_document(raw: "redis.Redis") -> None:
    put_foreign_keys(raw)
    store = conversations("", scan_count=2)
    run(raw, store.replace("a", DOCUMENT, None))
    run(raw, store.replace("tracker:b", OTHER, None))
    assert sorted(run(raw, store.sender_ids())) == ["a", "tracker:b"]


def test_unprefixed_conversations_are_found_and_replaced_below_the_prefix(raw: "redis.Redis") -> None:
    raw.set("old", DOCUMENT)
    assert run(raw, conversations().load("old")) is None
    assert run(raw, conversations().exists("old")) is False
    assert run(raw, conversations().sender_ids()) == []

    store = conversations(read_unprefixed=True)
    assert run(raw, store.load("old")) == DOCUMENT.encode()
    assert run(raw, store.load("tracker:old")) == DOCUMENT.encode()
    assert run(raw, store.exists("old")) is True
    assert run(raw, store.sender_ids()) == ["old"]
    run(raw, store.replace("old", OTHER, None))
    assert raw.get("tracker:old") == OTHER.encode()
    assert raw.get("old") == DOCUMENT.encode()


def test_the_prefixed_one_is_preferred_and_both_are_one_conversation(raw: "redis.Redis") -> None:
    raw.mset({"both": DOCUMENT, "tracker:both": OTHER, "old": DOCUMENT, "tracker:new": OTHER})
    store = conversations(scan_count=1, read_unprefixed=True)
    assert run(raw, store.load("both")) == OTHER.encode()
    assert sorted(run(raw, store.sender_ids())) == ["both", "new", "old"]
    run(raw, store.erase("both"))
    assert sorted(raw.keys()) == [b"old", b"tracker:new"]
    run(raw, store.erase("old"))
    assert sorted(raw.keys()) == [b"tracker:new"]


def test_foreign_keys_of_the_same_name_are_neither_read_nor_deleted(raw: "redis.Redis") -> None:
    put_foreign_keys(raw)
    before: List[Any] = sorted(raw.keys())
    store = conversations(read_unprefixed=True)
    for key in before:
        sender_id = key.decode()
        assert run(raw, store.load(sender_id)) is None
        assert run(raw, store.exists(sender_id)) is False
        run(raw, store.erase(sender_id))
    assert run(raw, store.sender_ids()) == []
    assert sorted(raw.keys()) == before


def test_without_a_prefix_the_bare_id_is_read_in_one_command(raw: "redis.Redis") -> None:
    raw.set("old", DOCUMENT)
    raw.config_resetstat()
    assert run(raw, conversations("", read_unprefixed=True).load("old")) == DOCUMENT.encode()
    assert run(raw, conversations("", read_unprefixed=True).load("nobody")) is None
    used = calls(raw)
    assert used["get"] == 2
    assert "type" not in used


def test_load_many_is_one_command_in_the_order_asked(raw: "redis.Redis") -> None:
    raw.mset({"tracker:a": "A", "tracker:b": "B"})
    raw.lpush("tracker:list", "no document")
    raw.config_resetstat()
    loaded = run(raw, load_many(conversations(), ["b", "nobody", "tracker:a", "b", "list"]))
    assert loaded == [b"B", None, b"A", b"B", None]
    assert calls(raw)["mget"] == 1


def test_load_many_of_nothing_asks_nothing() -> None:
    with pytest.raises(StopIteration) as done:
        next(load_many(conversations(), []))
    assert done.value.value == []


NOW_S = 1_700_000_000.25


def test_index_adds_renews_drops_the_expired_and_removes(raw: "redis.Redis") -> None:
    index = UserIndex("tracker:")
    run(raw, index.add("u", "forever", None, NOW_S))
    run(raw, index.add("u", "zero is forever", 0, NOW_S))
    run(raw, index.add("u", "soon", 0.5, NOW_S))
    run(raw, index.add("u", "later", 60, NOW_S))
    run(raw, index.add("someone else", "other", None, NOW_S))
    scores: Any = raw.zrange("user_trackers:u", 0, -1, withscores=True)
    assert dict(scores) == {
        b"forever": float("inf"),
        b"zero is forever": float("inf"),
        b"soon": NOW_S + 0.5,
        b"later": NOW_S + 60,
    }
    assert run(raw, index.sender_ids("u", NOW_S)) == ["soon", "later", "forever", "zero is forever"]
    assert run(raw, index.sender_ids("u", NOW_S + 0.5)) == ["later", "forever", "zero is forever"]
    assert raw.zscore("user_trackers:u", "soon") is None

    run(raw, index.add("u", "later", 3600, NOW_S + 59))
    assert run(raw, index.sender_ids("u", NOW_S + 61)) == ["later", "forever", "zero is forever"]
    run(raw, index.remove("u", ["later", "forever", "never added"]))
    assert run(raw, index.sender_ids("u", NOW_S)) == ["zero is forever"]
    assert run(raw, index.sender_ids("someone else", NOW_S)) == ["other"]


def test_index_of_nobody_and_removal_of_nothing(raw: "redis.Redis") -> None:
    index = UserIndex("tracker:")
    assert run(raw, index.sender_ids("nobody", NOW_S)) == []
    assert list(index.remove("nobody", [])) == []
    run(raw, index.remove("nobody", ["x"]))
    assert raw.dbsize() == 0


@pytest.mark.parametrize("sender_id", IDS)
def test_index_keeps_any_sender_id(raw: "redis.Redis", sender_id: str) -> None:
    index = UserIndex("tracker:")
    run(raw, index.add("u 👋:", sender_id, None, NOW_S))
    assert run(raw, index.sender_ids("u 👋:", NOW_S)) == [sender_id]
    run(raw, index.remove("u 👋:", [sender_id]))
    assert raw.dbsize() == 0


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("", b"user_trackers:u"),
        ("tracker:", b"user_trackers:u"),
        ("my-bot:tracker:", b"my-bot:user_trackers:u"),
        ("my:tracker:x:tracker:", b"my:user_trackers:u"),
        ("mytracker:tracker:", b"myuser_trackers:u"),
        ("tracker:tracker:", b"user_trackers:u"),
        ("ключ:tracker:", "ключ:user_trackers:u".encode()),
    ],
)
def test_index_key_is_the_one_that_pro_writes(prefix: str, key: bytes) -> None:
    assert UserIndex(prefix).key("u") == key


def test_steps_are_driven_by_hand_without_redis() -> None:
    steps = conversations(read_unprefixed=True).load("x")
    assert next(steps) == ("GET", b"tracker:x")
    assert steps.send(None) == ("TYPE", b"x")
    assert steps.send(b"string") == ("GETRANGE", b"x", 0, 11)
    assert steps.send(b'{"events": [') == ("GET", b"x")
    with pytest.raises(StopIteration) as done:
        steps.send(DOCUMENT.encode())
    assert done.value.value == DOCUMENT.encode()


def test_type_may_be_answered_in_text_too() -> None:
    steps = conversations(read_unprefixed=True).exists("x")
    assert next(steps) == ("EXISTS", b"tracker:x")
    assert steps.send(0) == ("TYPE", b"x")
    assert steps.send("string")[0] == "GETRANGE"
    with pytest.raises(StopIteration) as done:
        steps.send(b'{"events": [')
    assert done.value.value is True


def test_every_operation_is_a_generator_that_does_nothing_before_it_is_driven() -> None:
    store, index = conversations(), UserIndex("tracker:")
    operations: List[Steps[Any]] = [
        store.load("x"),
        store.exists("x"),
        store.replace("x", DOCUMENT, None),
        store.erase("x"),
        store.sender_ids(),
        index.add("u", "x", None, NOW_S),
        index.remove("u", ["x"]),
        index.sender_ids("u", NOW_S),
        load_many(store, ["x"]),
    ]
    for steps in operations:
        assert inspect.getgeneratorstate(steps) == inspect.GEN_CREATED
        command = next(steps)
        assert isinstance(command[0], str)
        steps.close()
