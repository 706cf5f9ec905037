"""``publish: outbox``: events wait in Redis with their turn, and reach the broker in order, in the end."""

import asyncio
import json
import logging
import time
from typing import Any, Callable, Dict, List

import pytest
from conversations import Script, add, known_here
from the_host import IS_PRO, RecordingBroker

from extras import _rasa
from extras import relay as relays
from extras.outbox import document_key, outbox_key
from extras.trackerstore import ExtraRedisTrackerStore

Call = Callable[[Any], Any]


class Broker(RecordingBroker):
    """A broker as hosts have them."""

    def is_ready(self) -> bool:
        """Answer as a broker does that cannot tell."""
        return True


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait for long."""
    monkeypatch.setattr(relays, "PAUSE_S", (0.02, 0.1))


def waited(call: Call, is_done: Callable[[], bool]) -> None:
    """Let the event loop run until something is so."""
    deadline = time.monotonic() + 30
    while not is_done():
        assert time.monotonic() < deadline
        call(asyncio.sleep(0.01))


def talk(call: Call, store: Any, sender_id: str, turns: int, seed: int = 1) -> None:
    """Save a conversation turn by turn."""
    script = Script(seed)
    for turn in range(turns):
        tracker = call(store.retrieve(sender_id)) or store.init_tracker(sender_id)
        add(tracker, known_here(([] if turn else script.session_start()) + script.turn()))
        call(store.save(tracker))


def times(published: List[Dict[str, Any]], sender_id: str) -> List[float]:
    """Return when the events of a conversation were, in the order in which they were published."""
    return [event["timestamp"] for event in published if event["sender_id"] == sender_id]


def stored_times(raw: Any, sender_id: str) -> List[float]:
    """Return when the events of a conversation were, as they are stored."""
    prefix = relays_prefix()
    return [event["timestamp"] for event in json.loads(raw.get(f"{prefix}{sender_id}"))["events"]]


def relays_prefix() -> str:
    """Return what stands before a sender id."""
    return str(_rasa.STOCK_PREFIX)


@pytest.fixture
def outbox_store(ours: Callable[..., Any], broker: Broker) -> Callable[..., Any]:
    """Make a store with an outbox on the database that ``raw`` looks at."""

    def make(**options: Any) -> Any:
        return ours(db=0, publish="outbox", event_broker=broker, **options)

    return make


def test_events_are_published_as_the_host_would(
    outbox_store: Callable[..., Any], ours: Callable[..., Any], broker: Broker, call: Call, raw: Any
) -> None:
    directly = Broker()
    talk(call, ours(event_broker=directly), "alice", 3)
    store = outbox_store()
    talk(call, store, "alice", 3)
    waited(call, lambda: len(broker.published) >= len(directly.published))
    if not IS_PRO:  # which gives each session an id of its own
        assert broker.published == directly.published
    assert times(broker.published, "alice") == times(directly.published, "alice")
    waited(call, lambda: store.unpublished_events() == 0)
    assert [key for key in raw.keys("*") if b"outbox" in key] == []


def test_what_the_broker_cannot_take_waits_and_is_published_in_order(
    outbox_store: Callable[..., Any], broker: Broker, call: Call, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "extras")
    broker.failing = True
    store = outbox_store()
    for number in range(3):
        talk(call, store, f"person{number}", 3, number)
    waited(call, lambda: "wait in Redis" in caplog.text)
    assert broker.published == []
    assert store.unpublished_events() > 9
    broker.failing = False
    waited(call, lambda: store.unpublished_events() == 0)
    for number in range(3):
        assert times(broker.published, f"person{number}") == stored_times(raw, f"person{number}")
    waited(call, lambda: "are being published" in caplog.text)
    assert caplog.text.count("wait in Redis") == 1
    assert "hello" not in caplog.text


def test_what_another_process_left_behind_is_published(
    outbox_store: Callable[..., Any], broker: Broker, call: Call, raw: Any
) -> None:
    key = f"{relays_prefix()}alice".encode()
    raw.rpush(outbox_key(key), json.dumps({"sender_id": "alice", "timestamp": 1.0}))

    async def made() -> None:
        outbox_store()  # in an event loop, as hosts do it

    call(made())
    waited(call, lambda: not raw.exists(outbox_key(key)))
    assert times(broker.published, "alice") == [1.0]


def test_two_relays_keep_the_order_of_a_conversation(
    outbox_store: Callable[..., Any], broker: Broker, call: Call, raw: Any
) -> None:
    stores = [outbox_store(client_name=name) for name in ("one", "two")]
    script = Script(7)
    tracker = stores[0].init_tracker("alice")
    add(tracker, known_here(script.session_start()))
    call(stores[0].save(tracker))
    for turn in range(40):
        store = stores[turn % 2]
        tracker = call(store.retrieve("alice"))
        add(tracker, known_here(script.turn()))
        call(store.save(tracker))
    waited(call, lambda: not any(document_key(key) for key in raw.keys("*")))
    assert times(broker.published, "alice") == stored_times(raw, "alice")


def test_a_remade_store_goes_on_with_its_relay(outbox_store: Callable[..., Any], call: Call, server: Any) -> None:
    first, second = outbox_store(), outbox_store()
    assert first._relay is second._relay
    call(first.close())
    talk(call, second, "alice", 1)
    waited(call, lambda: second.unpublished_events() == 0)


@pytest.mark.skipif(not hasattr(ExtraRedisTrackerStore, "delete"), reason="only hosts with coroutines have delete()")
def test_a_deleted_conversation_takes_its_events_with_it(
    outbox_store: Callable[..., Any], broker: Broker, call: Call, raw: Any
) -> None:
    broker.failing = True
    store = outbox_store()
    talk(call, store, "alice", 1)
    waited(call, lambda: bool(raw.exists(outbox_key(f"{relays_prefix()}alice".encode()))))
    call(store.delete("alice"))
    waited(call, lambda: store.unpublished_events() == 0)
    assert not raw.exists(outbox_key(f"{relays_prefix()}alice".encode()))


def test_without_it_nothing_is_kept(ours: Callable[..., Any], broker: Broker, call: Call, raw: Any) -> None:
    broker.failing = True
    store = ours(db=0, event_broker=broker)
    talk(call, store, "alice", 1)
    assert store.unpublished_events() is None
    assert not any(document_key(key) for key in raw.keys("*"))


def test_turns_of_an_outage_are_published_when_redis_has_them(
    ours: Callable[..., Any], broker: Broker, call: Call, own_server: Any, tmp_path: Any
) -> None:
    store = ours(
        db=0,
        port=own_server.port,
        publish="outbox",
        event_broker=broker,
        on_outage="journal",
        journal_path=str(tmp_path / "journal"),
        retries=0,
    )
    talk(call, store, "alice", 1)
    waited(call, lambda: store.unpublished_events() == 0)
    before = len(broker.published)
    own_server.stop()
    script = Script(9)
    tracker = call(store.retrieve("alice"))
    add(tracker, known_here(script.turn()))
    call(store.save(tracker))
    assert len(broker.published) == before
    own_server.start()
    waited(call, lambda: store.unpublished_events() == 0 and len(broker.published) > before)
