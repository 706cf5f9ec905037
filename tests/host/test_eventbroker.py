"""Events in a Redis Stream: made by the host, in order, never in the way of the event loop, and read by the example."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from inspect import isawaitable, iscoroutinefunction
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import redis
from conversations import Script, add, known_here
from rasa.core.brokers.broker import EventBroker
from rasa.utils.endpoints import EndpointConfig

from extras import _redis, stream
from extras.bench.server import RedisServer
from extras.eventbroker import EventBrokerError, ExtraRedisEventBroker
from extras.stream import FullError

Call = Callable[[Any], Any]
TYPE = "extras.eventbroker.ExtraRedisEventBroker"
CONSUMER = Path(__file__).parents[2] / "examples" / "consume_events.py"


@pytest.fixture
def make(server: RedisServer, raw: Any, call: Call) -> Iterator[Callable[..., Any]]:
    """Make a broker as the host does it of ``endpoints.yml``."""
    made: List[Any] = []

    def create(**options: Any) -> Any:
        config = EndpointConfig(**{"type": TYPE, "url": "127.0.0.1", "port": server.port, **options})
        made.append(call(EventBroker.create(config)))
        return made[-1]

    yield create
    for broker in made:
        call(broker.close())


def events_of(raw: Any, name: str = "rasa_core_events") -> List[Dict[str, Any]]:
    """Return what is in a stream, and see to it that each entry names its conversation."""
    found = []
    for _, fields in raw.xrange(name):
        event = json.loads(fields[b"event"])
        assert fields == {b"sender_id": event["sender_id"].encode(), b"event": json.dumps(event).encode()}
        found.append(event)
    return found


def closed(call: Call, broker: Any) -> None:
    """Close a broker, which sends what waits."""
    call(broker.close())


def test_the_host_makes_it_and_a_store_publishes_in_order(make: Any, ours: Any, call: Call, raw: Any) -> None:
    broker = make()
    assert type(broker) is ExtraRedisEventBroker
    assert broker.is_ready()
    store = ours(db=0, event_broker=broker)
    script = Script(3)
    for turn in range(20):
        sender_id = f"héllo{turn % 2}"
        tracker = call(store.retrieve(sender_id)) or store.init_tracker(sender_id)
        add(tracker, known_here(script.turn()))
        call(store.save(tracker))
    closed(call, broker)
    published = events_of(raw)
    for sender_id in ("héllo0", "héllo1"):
        tracker = call(store.retrieve(sender_id))
        mine = [event["timestamp"] for event in published if event["sender_id"] == sender_id]
        assert mine == [event.timestamp for event in tracker.events]


def test_an_outbox_waits_until_the_stream_has_the_events(make: Any, ours: Any, call: Call, raw: Any) -> None:
    broker = make()
    store = ours(db=0, event_broker=broker, publish="outbox")
    script = Script(4)
    raw.set("rasa_core_events", "in the way")
    for _ in range(5):
        tracker = call(store.retrieve("alice")) or store.init_tracker("alice")
        add(tracker, known_here(script.turn()))
        call(store.save(tracker))
    assert store.unpublished_events() > 0
    raw.delete("rasa_core_events")
    deadline = time.monotonic() + 30
    while store.unpublished_events():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [event["timestamp"] for event in events_of(raw)] == [
        event.timestamp for event in call(store.retrieve("alice")).events
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_publishes_by_itself(make: Any, ours: Any, call: Call, raw: Any) -> None:
    broker = make()
    store = ours(db=0, event_broker=broker, publish="outbox")
    child = os.fork()
    if child == 0:
        try:
            broker.publish({"sender_id": "child", "number": 1})
            store._relay.filled(b"tracker:nobody")
            deadline = time.monotonic() + 30
            while broker._line or store.unpublished_events():
                time.sleep(0.01)
                if time.monotonic() > deadline:
                    os._exit(1)
        finally:
            os._exit(0 if not broker._line else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [event["sender_id"] for event in events_of(raw)] == ["child"]


def test_the_stream_is_capped(make: Any, call: Call, raw: Any) -> None:
    broker = make(stream="short", maxlen="100")
    for number in range(1000):
        broker.publish({"sender_id": "alice", "number": number})
    closed(call, broker)
    assert 100 <= raw.xlen("short") < 400  # about
    broker = make(stream="long", maxlen=None)
    for number in range(300):
        broker.publish({"sender_id": "alice", "number": number})
    closed(call, broker)
    assert [event["number"] for event in events_of(raw, "long")] == list(range(300))


def test_it_can_be_used_after_its_close(make: Any, call: Call, raw: Any) -> None:
    broker = make()
    for number in range(3):
        broker.publish({"sender_id": "alice", "number": number})
        closed(call, broker)
    assert [event["number"] for event in events_of(raw)] == [0, 1, 2]


def test_a_frozen_redis_holds_up_nobody(make: Any, call: Call, own_server: RedisServer) -> None:
    broker = make(port=own_server.port, socket_timeout=1, call_timeout=1.5, retries=0)

    async def publish() -> float:
        longest_s = 0.0
        for number in range(100):
            began_at = time.monotonic()
            broker.publish({"sender_id": "alice", "number": number})
            await asyncio.sleep(0.005)
            longest_s = max(longest_s, time.monotonic() - began_at)
        return longest_s

    async def ready(value: bool) -> None:
        deadline = time.monotonic() + 30
        while broker.is_ready() is not value:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    broker.publish({"sender_id": "alice", "number": -1})
    own_server.freeze()
    try:
        assert call(publish()) < 0.9
        call(ready(False))
    finally:
        own_server.thaw()
    call(ready(True))
    closed(call, broker)
    client = redis.Redis(port=own_server.port)
    numbers = [event["number"] for event in events_of(client)]
    client.connection_pool.disconnect()
    assert list(dict.fromkeys(numbers)) == list(range(-1, 100))  # in order, one perhaps more than once


def test_what_cannot_be_sent_is_given_up_when_it_is_closed(
    make: Any, call: Call, own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "extras")
    own_server.stop()
    broker = make(port=own_server.port, retries=0, call_timeout=1)
    assert not broker.is_ready()
    broker.publish({"sender_id": "alice", "text": "secret words"})
    began_at = time.monotonic()
    closed(call, broker)
    assert time.monotonic() - began_at < 20
    assert "1 events did not get into the stream" in caplog.text
    assert "secret words" not in caplog.text


def test_memory_is_not_filled_without_end(make: Any, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_BYTES", 1000)
    own_server.stop()
    broker = make(port=own_server.port, retries=0)
    broker.publish({"sender_id": "alice", "text": "x" * 500})
    with pytest.raises(FullError):
        broker.publish({"sender_id": "alice", "text": "x" * 500})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"maxlen": 0}, "maxlen must be 1 or more"),
        ({"strem": "x"}, "did you mean 'stream'"),
        ({"record_exp": 60}, "record_exp is about conversations, not about their events; remove it here"),
        ({"publish": "outbox"}, "publish is about conversations"),
        ({"port": 0}, "port must be from 1"),
    ],
)
def test_a_wrong_option_is_named(make: Any, options: Dict[str, Any], said: str) -> None:
    with pytest.raises(EventBrokerError, match=said):
        make(**options)


def test_a_misspelt_class_is_refused(make: Any) -> None:
    with pytest.raises(EventBrokerError, match="did you mean ExtraRedisEventBroker"):
        make(type="extras.eventbroker.ExtraRedisEventbroker")


def test_it_shares_the_connection_of_the_store(make: Any, ours: Any, call: Call, raw: Any) -> None:
    if not _redis.HAS_ASYNCIO:
        pytest.skip("a thread publishes here, beside the blocking store")
    broker = make(client_name="both")
    store = ours(db=0, client_name="both", event_broker=broker)
    tracker = store.init_tracker("alice")
    add(tracker, known_here(Script(1).turn()))
    before = len(raw.client_list())

    async def both() -> None:
        saved = store.save(tracker)
        if isawaitable(saved):
            await saved
        while broker._line:
            await asyncio.sleep(0.01)

    call(both())
    mine = [client for client in raw.client_list() if client["name"] == "both"]
    assert len(mine) == 1
    assert before <= len(raw.client_list())


def test_rasa_export_publishes_every_conversation(make: Any, ours: Any, call: Call, raw: Any) -> None:
    """``rasa export`` is this exporter, with what it makes of ``endpoints.yml``."""
    exporter = pytest.importorskip("rasa.core.exporter", reason="this host's pinned list has no tqdm, which it imports")
    if not iscoroutinefunction(exporter.Exporter._get_conversation_ids_in_tracker):
        pytest.skip("on Rasa 2 the exporter waits for nothing")
    store = ours(db=0)
    script = Script(5)
    for number in range(12):
        tracker = store.init_tracker(f"person{number}")
        add(tracker, known_here(script.session_start() + script.turn() + script.session_start() + script.turn()))
        call(store.save(tracker))
    broker = make()
    published = call(exporter.Exporter(store, broker, "endpoints.yml").publish_events())
    events = events_of(raw)
    assert published == len(events) > 12 * 8
    for number in range(12):
        tracker = call(store.retrieve_full_tracker(f"person{number}"))
        mine = [event["timestamp"] for event in events if event["sender_id"] == f"person{number}"]
        assert mine == [event.timestamp for event in tracker.events]


class Consumer:
    """The example as a process, that prints what it has read."""

    def __init__(self, port: int, name: str, idle_ms: int) -> None:
        command = [sys.executable, str(CONSUMER), "--url", f"redis://127.0.0.1:{port}", "--consumer", name]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [*command, "--idle-ms", str(idle_ms), "--block-ms", "50"],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def read(self) -> Dict[str, Any]:
        """Return the next event."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line
        event: Dict[str, Any] = json.loads(line)
        return event

    def kill(self) -> List[Dict[str, Any]]:
        """End it as ``kill -9`` does; return the events that it has printed, and nobody has read yet."""
        self._process.kill()
        with self._process:
            assert self._process.stdout is not None
            return [json.loads(line) for line in self._process.stdout if line.endswith("\n")]


def test_the_example_reads_every_event_once_and_takes_over_from_who_died(
    make: Any, call: Call, raw: Any, server: RedisServer
) -> None:
    broker = make()
    for number in range(150):
        broker.publish({"sender_id": f"person{number % 3}", "number": number})
    closed(call, broker)
    raw.xgroup_create("rasa_core_events", "analytics", id="0")
    taken = raw.xreadgroup("analytics", "killed", {"rasa_core_events": ">"}, count=20)  # and never acknowledges
    assert taken
    consumer = Consumer(server.port, "survivor", 300)
    try:
        events = [consumer.read() for _ in range(150)]
    finally:
        consumer.kill()
    numbers = [event["number"] for event in events]
    assert sorted(numbers) == list(range(150))
    late = [number for number in numbers if number < 20]
    assert late == list(range(20))
    assert [number for number in numbers if number >= 20] == list(range(20, 150))


def test_a_killed_consumer_leaves_its_events_to_another(make: Any, call: Call, raw: Any, server: RedisServer) -> None:
    broker = make()
    for number in range(300):
        broker.publish({"sender_id": "alice", "number": number})
    closed(call, broker)
    first = Consumer(server.port, "first", 60_000)
    try:
        handled = [first.read()["number"]]
    finally:
        handled += [event["number"] for event in first.kill()]
    assert handled == list(range(len(handled)))
    second = Consumer(server.port, "second", 100)
    numbers: List[int] = []
    try:
        while len({*handled, *numbers}) < 300:
            numbers.append(second.read()["number"])
    finally:
        numbers += [event["number"] for event in second.kill()]
    assert sorted({*handled, *numbers}) == list(range(300))
    assert len(handled) + len(numbers) <= 301  # one that was printed, and not acknowledged any more
