"""Our store does what the stock store of this host does, and what the stock store promises but does not keep."""

import asyncio
import copy
import json
import time
from typing import Any, Callable, Dict, List, Set

import pytest
import redis
from conversations import RECORDED, Script, add, contents, known_here
from the_host import IS_PRO, IS_RASA_2, RecordingBroker

from extras import _rasa
from extras.bench.server import RedisServer
from extras.steps import run
from extras.trackerstore import DocumentError, TrackerStoreError

Call = Callable[[Any], Any]
Make = Callable[..., Any]


def stored(raw: "redis.Redis", db: int) -> Dict[bytes, bytes]:
    """Return every string in a database."""
    client: Any = redis.Redis(port=raw.connection_pool.connection_kwargs["port"], db=db)
    try:
        return {key: client.get(key) for key in client.keys("*") if client.type(key) == b"string"}
    finally:
        client.connection_pool.disconnect()


@pytest.mark.parametrize("seed", range(60))
def test_same_trackers_bytes_and_published_events_as_the_stock_store(
    seed: int, stock: Make, ours: Make, call: Call, raw: "redis.Redis", same_session_ids: Callable[[int], None]
) -> None:
    script = Script(seed)
    brokers = [RecordingBroker(), RecordingBroker()]
    stores = [stock(event_broker=brokers[0]), ours(event_broker=brokers[1])]
    stale: Dict[str, List[Any]] = {}
    said: Dict[str, List[float]] = {}
    overwritten: Set[str] = set()
    for round_ in range(script.random.randrange(4, 14)):
        sender = script.random.choice(["alice", "bob:2", "ünïcode id"])
        choice = script.random.random()
        full = script.random.random() < 0.15
        events = script.turn() if choice > 0.12 else script.session_start()
        again, keep, use_stale = (script.random.random() < chance for chance in (0.1, 0.15, 0.1))
        seen, saved = [], []
        from_memory = use_stale and sender in stale
        if from_memory and IS_RASA_2:
            overwritten.add(sender)  # by the stock store; ours keeps what was stored since
        said.setdefault(sender, []).extend(event["timestamp"] for event in events)
        before = [len(broker.published) for broker in brokers]
        for index, store in enumerate(stores):
            same_session_ids(round_)
            read = store.retrieve_full_tracker if full and hasattr(store, "retrieve_full_tracker") else store.retrieve
            tracker = call(read(sender))
            seen.append(contents(tracker))
            if from_memory:
                tracker = stale[sender][index]
            if tracker is None:
                tracker = store.init_tracker(sender)
            add(tracker, events)
            call(store.save(tracker))
            if again:
                call(store.save(tracker))
            saved.append(tracker)
        assert seen[0] == seen[1] or sender in overwritten
        theirs, mine = stored(raw, 0), stored(raw, 1)
        for name, timestamps in said.items():
            key = f"{_rasa.STOCK_PREFIX}{name}".encode()
            assert [event["timestamp"] for event in json.loads(mine[key])["events"]] == timestamps
            if name in overwritten:
                del theirs[key], mine[key]
        assert theirs == mine
        published = [broker.published[already:] for broker, already in zip(brokers, before)]
        assert [body["timestamp"] for body in published[1]] == [event["timestamp"] for event in events]
        if not (from_memory or full or again or sender in overwritten):  # the stock store, which counts events, repeats
            assert published[0] == published[1]
        if keep:
            stale[sender] = saved
    assert stored(raw, 0)
    crossed = [ours(db=0), stock(db=1)]
    for sender in said:
        found = [contents(call(store.retrieve(sender))) for store in (*stores, *crossed)]
        assert found[0] == found[2]
        assert found[1] == found[3]
        assert found[0] == found[1] or sender in overwritten


def test_the_recorded_conversation_is_written_and_read_as_the_stock_store_does(
    stock: Make, ours: Make, call: Call, raw: "redis.Redis", same_session_ids: Callable[[int], None]
) -> None:
    events = known_here(json.loads(RECORDED)["events"])
    store = ours()
    same_session_ids(0)
    for event in events:
        tracker = call(store.retrieve("alice")) or store.init_tracker("alice")
        add(tracker, [event])
        call(store.save(tracker))
    theirs = stock()
    same_session_ids(0)
    tracker = theirs.init_tracker("alice")
    add(tracker, events)
    call(theirs.save(tracker))
    assert stored(raw, 0) == stored(raw, 1)
    assert contents(call(stock(db=1).retrieve("alice"))) == contents(call(ours(db=0).retrieve("alice")))
    if not IS_RASA_2 and getattr(tracker, "user_id", "") == "":
        assert stored(raw, 1)[b"tracker:alice"].decode() == RECORDED


def times(raw: "redis.Redis", sender: str = "alice") -> List[float]:
    """Return the timestamps of the events that our store holds, in their order."""
    return [
        event["timestamp"] for event in json.loads(stored(raw, 1)[f"{_rasa.STOCK_PREFIX}{sender}".encode()])["events"]
    ]


def said(tracker: Any, *turns: List[Dict[str, Any]]) -> List[float]:
    """Put turns on a tracker; return the timestamps of their events."""
    added = []
    for events in turns:
        events = known_here(events)
        add(tracker, events)
        added += [event["timestamp"] for event in events]
    return added


def test_max_event_history_limits_what_is_handed_out_not_what_is_stored(
    stock: Make, ours: Make, call: Call, raw: "redis.Redis"
) -> None:
    script = Script(5)
    expected: List[float] = []
    limit = 20  # more than a turn makes: what slips out of a tracker before it is saved, nobody can store
    for number in range(12):
        store = ours()
        store.max_event_history = limit
        tracker = call(store.retrieve("alice"))
        if tracker is None:
            tracker = store.init_tracker("alice")
        else:
            theirs = stock(db=1)
            theirs.max_event_history = limit
            assert contents(tracker) == contents(call(theirs.retrieve("alice")))
            assert len(tracker.events) <= limit
        turns = [script.turn()] if number % 3 else [script.session_start(), script.turn()]
        expected += said(tracker, *turns)
        call(store.save(tracker))
        assert times(raw) == expected
    stale = call(store.retrieve("alice"))
    for one in (call(store.retrieve("alice")), stale):  # the second one's compare fails
        expected += said(one, script.turn(), script.turn())
        call(store.save(one))
        assert times(raw) == expected
    assert len(expected) > 40
    assert [event.timestamp for event in call(ours().retrieve("alice")).events][-20:] == expected[-20:]
    rebuilt = store.init_tracker("alice")  # of unknown origin
    expected += said(rebuilt, script.turn())
    call(store.save(rebuilt))
    assert times(raw) == expected


@pytest.mark.parametrize("together_from_the_start", [True, False])
def test_two_stores_that_save_one_conversation_in_turns_lose_nothing_and_keep_each_others_order(
    together_from_the_start: bool, ours: Make, call: Call, raw: "redis.Redis"
) -> None:
    script = Script(6)
    stores = [ours(), ours()]
    common: List[float] = []
    if not together_from_the_start:
        tracker = stores[0].init_tracker("alice")
        common = said(tracker, script.session_start(), script.turn())
        call(stores[0].save(tracker))
    trackers = [call(store.retrieve("alice")) or store.init_tracker("alice") for store in stores]
    expected = list(common)
    for number in range(20):
        which = script.random.randrange(2)
        turns = [script.session_start()] if number == 9 else [script.turn() for _ in range(script.random.randrange(3))]
        expected += said(trackers[which], *turns)
        call(stores[which].save(trackers[which]))
        if number % 7 == 6:  # one of them reads the conversation anew
            trackers[which] = call(stores[which].retrieve("alice"))
        assert times(raw) == expected
    assert len(expected) == len(set(expected)) > 40


def lose_the_next_reply(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the next script's reply be lost after the server has run it; return what tells how many were."""
    lost: List[Any] = []

    def lose(command: Any) -> None:
        if command[0] in ("EVALSHA", "EVAL") and not lost:
            lost.append(command)
            raise redis.exceptions.TimeoutError("the reply was lost")

    if IS_RASA_2:
        plain: Any = redis.Redis.execute_command

        def execute(self: Any, *command: Any, **options: Any) -> Any:
            reply = plain(self, *command, **options)
            lose(command)
            return reply

        monkeypatch.setattr(redis.Redis, "execute_command", execute)
    else:
        from extras.async_store import AsyncStoreRedis

        awaited: Any = AsyncStoreRedis.execute_command

        async def execute_async(self: Any, *command: Any) -> Any:
            reply = await awaited(self, *command)
            lose(command)
            return reply

        monkeypatch.setattr(AsyncStoreRedis, "execute_command", execute_async)
        monkeypatch.setattr(AsyncStoreRedis, "ask", lambda self, command: None)
    return lambda: len(lost)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("others", [True, False])
def test_a_save_that_is_repeated_after_a_lost_reply_adds_nothing(
    exists: bool, others: bool, ours: Make, call: Call, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(7)
    broker = RecordingBroker()
    store, other = ours(event_broker=broker), ours()
    expected: List[float] = []
    for name in ("alice", "warm"):  # the second makes the server know the script
        tracker = store.init_tracker(name)
        if exists or name == "warm":
            added = said(tracker, script.session_start(), script.turn())
            expected += added if name == "alice" else []
            call(store.save(tracker))
            call(store.save(tracker))
    tracker = call(store.retrieve("alice")) or store.init_tracker("alice")
    mine = said(tracker, script.turn(), script.turn())
    published = len(broker.published)
    with monkeypatch.context() as losing:
        lost = lose_the_next_reply(losing)
        with pytest.raises(redis.exceptions.TimeoutError, match="the reply was lost"):
            call(store.save(tracker))
        assert lost() == 1
    expected += mine
    assert times(raw) == expected
    assert len(broker.published) == published
    if others:
        theirs = call(other.retrieve("alice"))
        expected += said(theirs, script.turn())
        call(other.save(theirs))
    for _ in range(3):
        call(store.save(tracker))
        assert times(raw) == expected
    expected += said(tracker, script.turn())
    call(store.save(tracker))
    assert times(raw) == expected


def test_an_event_that_is_equal_to_a_stored_one_is_not_stored_again(ours: Make, call: Call, raw: "redis.Redis") -> None:
    script = Script(8)
    store = ours()
    tracker = store.init_tracker("alice")
    turn = script.turn()
    expected = said(tracker, script.session_start(), turn)
    call(store.save(tracker))
    add(tracker, known_here(turn))  # as a client that posts events twice does
    assert tracker.events[-1] is not tracker.events[-1 - len(known_here(turn))]
    call(store.save(tracker))
    assert times(raw) == expected
    fresh = call(store.retrieve("alice"))
    add(fresh, known_here(turn[:1]))
    expected += said(fresh, script.turn())
    call(store.save(fresh))
    assert times(raw) == expected


def test_events_put_over_rest_replace_on_rasa_2_and_are_merged_since_as_the_stock_store_does(
    stock: Make, ours: Make, call: Call, raw: "redis.Redis", same_session_ids: Callable[[int], None]
) -> None:
    script = Script(9)
    old = known_here([*script.session_start(), *script.turn(), *script.turn()])
    put = known_here([*old[:4], *script.turn()])
    more = known_here(script.turn())
    for store in (stock(), ours()):
        same_session_ids(1)
        tracker = store.init_tracker("alice")
        add(tracker, old)
        call(store.save(tracker))
        same_session_ids(2)
        call(store.save(_rasa.DialogueStateTracker.from_dict("alice", copy.deepcopy(put), store.domain.slots)))
        after = call(store.retrieve("alice"))
        same_session_ids(3)
        add(after, more)
        call(store.save(after))
    assert stored(raw, 0) == stored(raw, 1)
    if not IS_PRO:  # where an event that was put has no session id, and so is not equal to the stored one
        events = put if IS_RASA_2 else [*old, *put[4:]]
        assert times(raw) == [event["timestamp"] for event in [*events, *more]]


def test_a_save_that_comes_second_reads_only_what_the_first_has_added(
    ours: Make, call: Call, raw: "redis.Redis"
) -> None:
    script = Script(10)
    store, other = ours(), ours()
    tracker = store.init_tracker("alice")
    expected = said(tracker, script.session_start(), *(script.turn() for _ in range(300)))
    call(store.save(tracker))
    size = len(stored(raw, 1)[f"{_rasa.STOCK_PREFIX}alice".encode()])
    assert size > 200_000
    mine, theirs = call(store.retrieve("alice")), call(other.retrieve("alice"))
    expected += said(theirs, [script.action("utter_greet")])
    call(other.save(theirs))
    added = len(stored(raw, 1)[f"{_rasa.STOCK_PREFIX}alice".encode()]) - size

    def sent() -> int:
        info: Any = raw.info("stats")
        return int(info["total_net_output_bytes"])

    between = sent()
    between = sent() - between  # what asking for it costs
    expected += said(mine, [script.action("utter_greet")])
    before = sent()
    call(store.save(mine))
    answered = sent() - before - between
    assert times(raw) == expected
    assert added < answered < added + 256 + 500


def test_ids_come_back_bare_and_a_prefixed_one_is_understood(ours: Make, call: Call, raw: "redis.Redis") -> None:
    store = ours(key_prefix="my-bot")
    tracker = store.init_tracker("alice")
    add(tracker, Script(1).turn())
    call(store.save(tracker))
    assert list(stored(raw, 1)) == [b"my-bot:tracker:alice"]
    assert call(store.keys()) == ["alice"]
    for name in ("alice", "my-bot:tracker:alice"):
        assert call(store.exists(name)) is True
        assert contents(call(store.retrieve(name)))["events"] == contents(tracker)["events"]
        assert call(store.retrieve(name)).sender_id == "alice"
    assert call(store.exists("bob")) is False
    assert call(store.retrieve("bob")) is None


def test_key_names_are_the_hosts(ours: Make, call: Call, raw: "redis.Redis") -> None:
    store = ours()
    tracker = store.init_tracker("alice")
    add(tracker, Script(1).turn())
    call(store.save(tracker))
    assert list(stored(raw, 1)) == [f"{_rasa.STOCK_PREFIX}alice".encode()]
    assert call(store.keys()) == ["alice"]


@pytest.mark.parametrize(("record_exp", "low_ms", "high_ms"), [(100, 99_000, 100_000), ("2.5", 1_500, 2_500)])
def test_conversations_expire_after_their_last_turn(
    record_exp: Any, low_ms: int, high_ms: int, ours: Make, call: Call, raw: "redis.Redis", server: RedisServer
) -> None:
    client: Any = redis.Redis(port=server.port, db=1)
    key = f"{_rasa.STOCK_PREFIX}alice"
    store = ours(record_exp=record_exp)
    tracker = store.init_tracker("alice")
    add(tracker, Script(1).turn())
    call(store.save(tracker))
    assert low_ms < client.pttl(key) <= high_ms
    call(store.save(tracker, timeout=5000))
    assert 4_900_000 < client.pttl(key) <= 5_000_000
    call(ours(record_exp=0).save(tracker))
    assert client.pttl(key) == -1
    client.connection_pool.disconnect()


def test_conversations_of_a_rasa_2_0_store_are_found_when_asked_for(
    ours: Make, call: Call, raw: "redis.Redis", server: RedisServer
) -> None:
    client: Any = redis.Redis(port=server.port, db=1)
    events = known_here(json.loads(RECORDED)["events"])
    document = json.dumps({"events": events, "name": "alice"})
    client.set("alice", document)
    client.set("alice:cache", "not a conversation")
    client.hset("bob", "a", "b")
    store = ours(key_prefix="new", read_unprefixed_keys="yes")
    assert call(store.keys()) == ["alice"]
    assert call(store.exists("alice")) is True
    assert call(store.exists("bob")) is False
    assert call(store.retrieve("bob")) is None
    tracker = call(store.retrieve("alice"))
    assert len(tracker.events) == len(events) > 80
    add(tracker, Script(1).turn())
    call(store.save(tracker))
    assert client.get("alice").decode() == document
    assert len(json.loads(client.get("new:tracker:alice"))["events"]) == len(tracker.events)
    assert call(store.keys()) == ["alice"]
    assert call(ours(key_prefix="other").retrieve("alice")) is None
    client.connection_pool.disconnect()


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        "null",
        '{"events": []',
        '{"events": [{"event": "user"}, 7], "name": "alice"}',
        b"\xff\xfe\x00",
    ],
)
def test_a_document_that_cannot_be_read_is_named_and_never_overwritten(
    document: Any, ours: Make, call: Call, raw: "redis.Redis", server: RedisServer
) -> None:
    client: Any = redis.Redis(port=server.port, db=1)
    key = f"{_rasa.STOCK_PREFIX}alice"
    client.set(key, document)
    before = client.get(key)
    store = ours(event_broker=RecordingBroker())
    tracker = store.init_tracker("alice")
    add(tracker, Script(1).turn())
    for operation, argument in (("retrieve", "alice"), ("save", tracker)):
        with pytest.raises(DocumentError, match=f"'{key}' cannot be read and is left as it is"):
            call(getattr(store, operation)(argument))
    assert client.get(key) == before
    assert store.event_broker.published == []
    client.connection_pool.disconnect()


def test_an_unknown_event_is_read_or_refused_as_the_stock_store_does(
    stock: Make, ours: Make, call: Call, raw: "redis.Redis"
) -> None:
    document = '{"events": [{"event": "no such event", "timestamp": 1.0}], "name": "alice"}'
    raw.set(f"{_rasa.STOCK_PREFIX}alice", document)
    theirs: Any = None
    try:
        theirs = contents(call(stock().retrieve("alice")))
    except ValueError:
        with pytest.raises(DocumentError, match="no such event"):
            call(ours(db=0).retrieve("alice"))
    else:
        assert contents(call(ours(db=0).retrieve("alice"))) == theirs


def test_each_new_event_is_published_once_and_only_after_the_document_holds_it(
    ours: Make, call: Call, server: RedisServer, raw: "redis.Redis"
) -> None:
    class Checking(RecordingBroker):
        def publish(self, event: Dict[str, Any]) -> None:
            document = json.loads(stored(raw, 1)[f"{_rasa.STOCK_PREFIX}alice".encode()])
            assert event["timestamp"] in [known["timestamp"] for known in document["events"]]
            super().publish(event)

    broker = Checking()
    store = ours(event_broker=broker)
    script = Script(3)
    expected = 0
    for _ in range(5):
        tracker = call(store.retrieve("alice")) or store.init_tracker("alice")
        events = script.turn()
        add(tracker, events)
        call(store.save(tracker))
        expected += len(events)
        assert len(broker.published) == expected
    assert {body["sender_id"] for body in broker.published} == {"alice"}


def test_a_broker_that_fails_does_not_lose_the_turn(
    ours: Make, call: Call, raw: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    broker = RecordingBroker()
    broker.failing = True
    store = ours(event_broker=broker)
    tracker = store.init_tracker("alice")
    add(tracker, Script(1).turn())
    call(store.save(tracker))
    assert len(json.loads(next(iter(stored(raw, 1).values())))["events"]) == len(tracker.events)
    assert "The turn of 'alice' is stored, but the event broker did not take" in caplog.text
    assert "the broker is away" in caplog.text


def test_nothing_is_published_when_redis_did_not_take_the_turn(ours: Make, call: Call, own_server: RedisServer) -> None:
    broker = RecordingBroker()
    store = ours(port=own_server.port, event_broker=broker)
    own_server.stop()
    tracker = store.init_tracker("alice")
    add(tracker, Script(1).turn())
    with pytest.raises(redis.exceptions.ConnectionError):
        call(store.save(tracker))
    assert broker.published == []


def test_a_frozen_redis_is_noticed_and_freezes_nobody(ours: Make, call: Call, own_server: RedisServer) -> None:
    store = ours(port=own_server.port, socket_timeout=1)
    assert call(store.retrieve("alice")) is None
    own_server.freeze()

    async def with_ticks() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.02)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        with pytest.raises(redis.exceptions.TimeoutError):
            await store.retrieve("alice")
        ticking.cancel()
        return ticks

    start = time.monotonic()
    if IS_RASA_2:
        with pytest.raises(redis.exceptions.TimeoutError):
            store.retrieve("alice")
    else:
        assert call(with_ticks()) >= 20
    assert 0.9 < time.monotonic() - start < 5
    own_server.thaw()
    assert call(store.retrieve("alice")) is None


def test_a_restarted_redis_is_found_again(ours: Make, call: Call, own_server: RedisServer) -> None:
    store = ours(port=own_server.port)
    assert call(store.retrieve("alice")) is None
    own_server.stop()
    own_server.start()
    assert call(store.retrieve("alice")) is None


def test_no_blocking_or_heavy_command_is_used(ours: Make, call: Call, server: RedisServer, raw: "redis.Redis") -> None:
    raw.config_resetstat()
    store = ours()
    for name in ("alice", "bob"):
        tracker = store.init_tracker(name)
        add(tracker, Script(1).turn())
        call(store.save(tracker))
    assert sorted(call(store.keys())) == ["alice", "bob"]
    used = {name.split("_", 1)[1] for name in raw.info("commandstats")}
    assert "keys" not in used
    assert {"scan", "get", "set"} <= used


if not IS_RASA_2:

    def test_each_event_loop_gets_connections_of_its_own(ours: Make) -> None:
        store = ours()

        async def once() -> Any:
            found = await store.retrieve("alice")
            await store.close()
            return found

        for _ in range(3):
            assert asyncio.run(once()) is None


def test_errors_name_the_store_and_are_the_hosts_kind(ours: Make) -> None:
    from rasa.shared.exceptions import RasaException

    with pytest.raises(TrackerStoreError, match="unknown option 'prot'; did you mean 'port'") as caught:
        ours(prot=1)
    assert isinstance(caught.value, RasaException)


@pytest.mark.parametrize("made_by", ["retrieve", "the host"])
def test_an_event_added_while_a_save_waits_for_redis_is_stored_by_the_next_one(
    made_by: str, ours: Make, call: Call, server: RedisServer
) -> None:
    client: Any = redis.Redis(port=server.port, db=1)
    store = ours()
    script = Script(8)
    tracker = store.init_tracker("alice")
    add(tracker, script.session_start())
    call(store.save(tracker))
    tracker = call(store.retrieve("alice"))
    if made_by == "the host":
        del tracker._extras_stored
    late = script.turn()

    class Waiting:
        """A client during whose commands the conversation goes on."""

        def execute_command(self, *command: Any) -> Any:
            reply = client.execute_command(*command)
            if command[0] == "EVALSHA" and late and not added:
                add(tracker, late)
                added.append(True)
            return reply

    added: List[bool] = []
    add(tracker, script.turn())
    run(Waiting(), store._save_steps(tracker, None))  # type: ignore[arg-type]
    assert added
    call(store.save(tracker))
    document = json.loads(client.get(f"{_rasa.STOCK_PREFIX}alice"))
    assert [event["timestamp"] for event in document["events"]] == [event.timestamp for event in tracker.events]
    client.connection_pool.disconnect()
