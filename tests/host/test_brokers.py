"""The host's own brokers behind our store, on a real RabbitMQ and on librdkafka's mock of Kafka.

``RABBITMQ_TURNS=1000 RABBITMQ_DOWN_S=20 pytest -s tests/host/test_brokers.py`` is the long form.
"""

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from conversations import Script, add, known_here
from rabbitmq import RabbitMQ, missing
from rasa.core.brokers.broker import EventBroker
from rasa.core.brokers.kafka import KafkaEventBroker
from rasa.utils.endpoints import EndpointConfig

from extras import relay as relays

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))

from tls_proxy import Certificates

Call = Callable[[Any], Any]
TURNS = int(os.environ.get("RABBITMQ_TURNS", "200"))
DOWN_S = float(os.environ.get("RABBITMQ_DOWN_S", "3"))
TALKERS = 10
QUEUE = "events"


@pytest.fixture(scope="module")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[RabbitMQ, threading.Thread, List[Any]]]:
    """A RabbitMQ that starts while other tests run; it takes seconds."""
    if missing():
        pytest.skip(f"there is no RabbitMQ here: apt-get install {missing()}")
    server, errors = RabbitMQ(tmp_path_factory.mktemp("rabbitmq") / "base"), []

    def start() -> None:
        try:
            server.start()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    yield server, thread, errors
    thread.join()
    server.stop()


@pytest.fixture
def rabbitmq(starting: Any) -> RabbitMQ:
    """A RabbitMQ that runs."""
    server: RabbitMQ
    server, thread, errors = starting
    thread.join()
    assert not errors, errors
    return server


def created(call: Call, **options: Any) -> Any:
    """Make a broker as the host does it of ``endpoints.yml``."""

    async def create() -> Any:
        return await EventBroker.create(EndpointConfig(**options), asyncio.get_running_loop())

    return call(create())


class Talk:
    """Conversations that go on turn by turn, one of each talker at a time."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._scripts = {f"person{number}": Script(number) for number in range(TALKERS)}
        self.slowest_s = 0.0

    async def turns(self, count: int, pause_s: float = 0.0) -> None:
        """Save so many turns in all."""
        await asyncio.gather(
            *(self._one(sender_id, script, count // TALKERS, pause_s) for sender_id, script in self._scripts.items())
        )

    async def _one(self, sender_id: str, script: Script, count: int, pause_s: float) -> None:
        for _ in range(count):
            began_at = time.monotonic()
            tracker = await self._store.retrieve(sender_id) or self._store.init_tracker(sender_id)
            add(tracker, known_here([event for event in script.turn() if event["event"] not in ("undo", "rewind")]))
            await self._store.save(tracker)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)
            await asyncio.sleep(pause_s)

    async def stored(self) -> Dict[str, List[float]]:
        """Return when the events of each conversation were."""
        found = {}
        for sender_id in self._scripts:
            tracker = await self._store.retrieve_full_tracker(sender_id)
            found[sender_id] = [event.timestamp for event in tracker.events]
        return found


def by_conversation(published: List[Dict[str, Any]]) -> Dict[str, List[float]]:
    """Return when the published events of each conversation were, in the order in which they were published."""
    found: Dict[str, List[float]] = {}
    for event in published:
        found.setdefault(event["sender_id"], []).append(event["timestamp"])
    return found


def without_repeats(times: Dict[str, List[float]]) -> Dict[str, List[float]]:
    """Return each event where it came first."""
    return {sender_id: list(dict.fromkeys(several)) for sender_id, several in times.items()}


class Kafka:
    """librdkafka's mock cluster, and a consumer of its topic."""

    def __init__(self) -> None:
        import confluent_kafka

        self._cluster = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
        metadata = self._cluster.list_topics(timeout=30)
        self.url = ",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())
        self._consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.url, "group.id": "test", "auto.offset.reset": "earliest"}
        )
        self._consumer.subscribe(["events"])

    def read(self, count: int) -> List[Dict[str, Any]]:
        """Return so many events, and what comes right behind them."""
        found: List[Dict[str, Any]] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.2)
            if message is None and len(found) >= count:
                break
            if message is not None and message.error() is None:
                found.append(json.loads(message.value()))
        return found

    def close(self) -> None:
        """End the consumer."""
        self._consumer.close()


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    """A mock cluster with one topic's consumer."""
    cluster = Kafka()
    yield cluster
    cluster.close()


@pytest.mark.usefixtures("starting")
@pytest.mark.parametrize("publish", ["host", "outbox"])
def test_kafka_gets_every_event_once_and_in_order(
    ours: Callable[..., Any], call: Call, kafka: Kafka, publish: str
) -> None:
    broker = created(
        call, type="kafka", url=kafka.url, topic="events", security_protocol="PLAINTEXT", partition_by_sender=True
    )
    store = ours(db=0, event_broker=broker, publish=publish)
    talk = Talk(store)
    try:
        call(talk.turns(40))
        expected = call(talk.stored())
        if publish == "outbox":
            call(until(lambda: store.unpublished_events() == 0))
    finally:
        call(store.close())
        call(broker.close())
    assert by_conversation(kafka.read(sum(map(len, expected.values())))) == expected


async def until(is_so: Callable[[], bool], limit_s: float = 120) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_kafka_that_is_away_holds_up_no_turn_of_an_outbox(
    ours: Callable[..., Any], call: Call, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "TIMEOUT_S", 0.5)
    broker = created(call, type="kafka", url="127.0.0.1:1", topic="events", security_protocol="PLAINTEXT")
    store = ours(db=0, event_broker=broker, publish="outbox")
    talk = Talk(store)
    try:
        call(talk.turns(20))
        assert talk.slowest_s < 5
        assert all(call(talk.stored()).values())
        assert store.unpublished_events() > 0
    finally:
        call(store.close())
        broker.producer.purge()
        call(broker.close())


@pytest.mark.parametrize(
    ("given", "handed_over"),
    [
        (
            {"security_protocol": "SASL_SSL", "ssl_check_hostname": True, "sasl_mechanism": "SCRAM-SHA-512"},
            {
                **{"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "bot"},
                **{"sasl.password": "s3cret", "ssl.endpoint.identification.algorithm": "https"},
                **{"ssl.ca.location": "CA", "ssl.certificate.location": "CERT", "ssl.key.location": "KEY"},
            },
        ),
        (
            {"security_protocol": "SSL"},
            {
                **{"security.protocol": "SSL", "ssl.ca.location": "CA"},
                **{"ssl.certificate.location": "CERT", "ssl.key.location": "KEY"},
            },
        ),
        (
            {"security_protocol": "SASL_PLAINTEXT"},
            {
                **{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"},
                **{"sasl.username": "bot", "sasl.password": "s3cret"},
            },
        ),
    ],
)
def test_options_of_kafka_are_handed_over_to_librdkafka(
    call: Call,
    ours: Callable[..., Any],
    raw: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: Dict[str, Any],
    handed_over: Dict[str, Any],
) -> None:
    """Which takes them: it reads the files and knows the mechanism when a producer is made."""
    import confluent_kafka

    made: List[Dict[str, Any]] = []
    producer = confluent_kafka.Producer

    def recorded(config: Dict[str, Any]) -> Any:
        made.append(config)
        return producer(config)

    monkeypatch.setattr(confluent_kafka, "Producer", recorded)
    monkeypatch.setattr(relays, "TIMEOUT_S", 0.5)
    certificates = Certificates(tmp_path)
    files = {"CA": certificates.ca_file, "CERT": certificates.client_cert_file, "KEY": certificates.client_key_file}
    ssl = {"ssl_cafile": files["CA"], "ssl_certfile": files["CERT"], "ssl_keyfile": files["KEY"]}
    sasl = {"sasl_username": "bot", "sasl_password": "s3cret"}
    broker = created(call, type="kafka", url="127.0.0.1:1", topic="events", **{**ssl, **sasl, **given})
    store = ours(db=0, event_broker=broker, publish="outbox")
    assert store.event_broker is broker
    assert type(broker) is KafkaEventBroker
    try:
        call(Talk(store).turns(TALKERS))
        call(until(lambda: bool(made)))
    finally:
        call(store.close())
        if broker.producer is not None:
            broker.producer.purge()
        call(broker.close())
    expected = {name: files.get(value, value) for name, value in handed_over.items()}
    security = {name: value for name, value in made[0].items() if name.startswith(("sasl.", "ssl.", "security."))}
    assert security == expected
    assert made[0]["bootstrap.servers"] == "127.0.0.1:1"


class Queue:
    """A consumer of RabbitMQ's queue, which keeps what it reads."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def read(self, count: int) -> List[Dict[str, Any]]:
        """Return so many events, and what comes right behind them."""
        import aio_pika

        connection = await aio_pika.connect(host="127.0.0.1", port=self._port, login="guest", password="guest")
        found: List[Dict[str, Any]] = []
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(QUEUE, durable=True)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                message = await queue.get(no_ack=True, fail=False)
                if message is not None:
                    found.append(json.loads(message.body))
                elif len(found) >= count:
                    break
                else:
                    await asyncio.sleep(0.1)
        return found


def pika(call: Call, server: RabbitMQ) -> Any:
    """Make the host's broker for RabbitMQ."""
    return created(
        call,
        **{"type": "pika", "url": "127.0.0.1", "port": server.port, "username": "guest", "password": "guest"},
        queues=[QUEUE],
        exchange_name="rasa",
    )


@pytest.mark.parametrize("publish", ["host", "outbox"])
def test_rabbitmq_gets_every_event_once_and_in_order(
    ours: Callable[..., Any], call: Call, rabbitmq: RabbitMQ, publish: str
) -> None:
    broker = pika(call, rabbitmq)
    store = ours(db=0, event_broker=broker, publish=publish)
    talk = Talk(store)
    try:
        call(talk.turns(40))
        expected = call(talk.stored())
        if publish == "outbox":
            call(until(lambda: store.unpublished_events() == 0))
        found = call(Queue(rabbitmq.port).read(sum(map(len, expected.values()))))
    finally:
        call(store.close())
        call(broker.close())
    assert by_conversation(found) == expected


def test_a_rabbitmq_that_is_stopped_in_the_middle_gets_every_event_in_order(
    ours: Callable[..., Any], call: Call, rabbitmq: RabbitMQ, raw: Any
) -> None:
    broker = pika(call, rabbitmq)
    store = ours(db=0, event_broker=broker, publish="outbox")
    talk = Talk(store)

    async def stopped_and_started() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.5)
        await loop.run_in_executor(None, rabbitmq.stop)
        began_at = time.monotonic()
        await asyncio.sleep(DOWN_S)
        await loop.run_in_executor(None, rabbitmq.start)
        return time.monotonic() - began_at

    async def all_of_it() -> Tuple[float, float]:
        outage = asyncio.ensure_future(stopped_and_started())
        await talk.turns(TURNS, (DOWN_S + 1) * TALKERS / TURNS)
        waiting = store.unpublished_events()
        assert waiting > 0
        down_s = await outage
        began_at = time.monotonic()
        await until(lambda: store.unpublished_events() == 0)
        print(f"{TURNS} turns, the slowest {talk.slowest_s * 1000:.0f} ms; RabbitMQ away for {down_s:.1f} s", end="; ")
        return waiting, time.monotonic() - began_at

    try:
        waited, caught_up_s = call(all_of_it())
        expected = call(talk.stored())
        count = sum(map(len, expected.values()))
        found = call(Queue(rabbitmq.port).read(count))
    finally:
        call(store.close())
        call(broker.close())
    print(f"{waited} events waited, published within {caught_up_s:.1f} s; {len(found) - count} of {count} came twice")
    assert without_repeats(by_conversation(found)) == expected
    assert talk.slowest_s < 5
    assert raw.keys("*outbox*") == []
