"""Every ``endpoints.yml`` of ``docs/stores.md`` builds what it says; stores keep a conversation."""

import asyncio
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List

import pytest
from databases import Dynamo, put_mongomock_in_place
from postgresql import PostgreSQL
from rasa.core.brokers.broker import EventBroker
from rasa.core.brokers.kafka import KafkaEventBroker
from rasa.core.brokers.pika import PikaEventBroker
from rasa.core.lock_store import InMemoryLockStore, LockStore
from rasa.core.tracker_store import InMemoryTrackerStore, SQLTrackerStore, TrackerStore

from extras import _rasa, _rasa_stores
from extras.bench.server import RedisServer
from extras.bench.shapes import recorded_events
from extras.cli.migration import Side

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "stores.md").read_text(encoding="utf-8")
EXAMPLES: Dict[str, str] = dict(re.findall(r"```yaml\n# ([a-z_]+: [a-z ]+)\n(.*?)```", TEXT, re.DOTALL))
PASSWORDS = {"REDIS_PASSWORD": "hunter2-redis", "DB_PASSWORD": PostgreSQL.PASSWORD, "BROKER_PASSWORD": "hunter2-broker"}

STORES = {
    "in memory": "InMemoryTrackerStore",
    "ours": "ExtraRedisTrackerStore",
    "redis": "RedisTrackerStore",
    "sqlite": "SQLTrackerStore",
    "postgresql": "SQLTrackerStore",
    "mongod": "MongoTrackerStore",
    "dynamo": "DynamoTrackerStore",
    "custom": "MyTrackerStore",
}


class MyTrackerStore(InMemoryTrackerStore):  # type: ignore[misc]
    """A store of a user's own."""

    def __init__(self, domain: Any, host: str, colour: str, event_broker: Any = None) -> None:
        super().__init__(domain, event_broker)
        assert (host, colour) == ("store.internal", "blue")


class MyLockStore(InMemoryLockStore):  # type: ignore[misc]
    """A lock store of a user's own."""

    def __init__(self, endpoint_config: Any) -> None:
        super().__init__()


class MyEventBroker(EventBroker):  # type: ignore[misc]
    """A broker of a user's own."""

    @classmethod
    async def from_endpoint_config(cls, broker_config: Any, event_loop: Any = None) -> "MyEventBroker":
        assert broker_config.url == "events.internal"
        return cls()


@pytest.fixture
def config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Any]]:
    """Return what Rasa reads of an example, of which only places are other ones: those of a test's own servers."""
    module = ModuleType("my_assistant.stores")
    for found in (MyTrackerStore, MyLockStore, MyEventBroker):
        setattr(module, found.__name__, found)
    monkeypatch.setitem(sys.modules, "my_assistant", ModuleType("my_assistant"))
    monkeypatch.setitem(sys.modules, "my_assistant.stores", module)
    for name, value in PASSWORDS.items():
        monkeypatch.setenv(name, value)
    redis_server = RedisServer(tmp_path / "redis", ["--requirepass", PASSWORDS["REDIS_PASSWORD"]])

    def read(name: str) -> Any:
        places = {"redis.internal": "127.0.0.1", "6379": str(redis_server.port), "/var/lib/rasa": str(tmp_path)}
        if name == "tracker_store: postgresql":
            server = request.getfixturevalue("postgresql")
            places.update({"db.internal": "127.0.0.1", "5432": str(server.port)})
        text = EXAMPLES[name]
        for documented, here in places.items():
            text = text.replace(documented, here)
        path = tmp_path / f"{name.split()[-1]}.yml"
        path.write_text(text, encoding="utf-8")
        return _rasa_stores.read_endpoint_config(str(path), name.split(":")[0])

    with redis_server:
        yield read


def test_all_examples_are_built() -> None:
    wanted = {f"tracker_store: {name}" for name in (*STORES, "oracle")}
    wanted |= {f"lock_store: {name}" for name in ("in memory", "ours", "redis", "custom")}
    wanted |= {f"event_broker: {name}" for name in ("pika", "kafka", "sql", "file", "custom")}
    assert set(EXAMPLES) == wanted
    assert TEXT.count("```yaml") == len(wanted)


@pytest.mark.parametrize("name", STORES)
def test_tracker_store_keeps_a_conversation(
    name: str, config: Any, domain: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name == "dynamo":
        dynamo: Dynamo = request.getfixturevalue("dynamo")
        for variable, value in dynamo.environment.items():
            monkeypatch.setenv(variable, value)
    if name == "mongod":
        put_mongomock_in_place(monkeypatch)
    side = Side(_rasa_stores, config(f"tracker_store: {name}"))
    try:
        assert type(side.store).__name__ == STORES[name]
        assert isinstance(side.store, TrackerStore)
        side.store.domain = domain
        tracker = side.store.init_tracker("alice")
        for event in _rasa.rebuild(recorded_events()[:9]):
            tracker.update(event)
        side.wait(side.store.save(tracker))
        read: Any = side.read("alice")
        assert [event.type_name for event in read.events] == [e["event"] for e in recorded_events()[:9]]
        assert side.sender_ids() == ["alice"]
    finally:
        side.close()


def test_oracle_is_asked_for_by_dialect_and_url(config: Any) -> None:
    found = config("tracker_store: oracle")
    url = SQLTrackerStore.get_db_url(host=found.url, **found.kwargs)
    assert (url.drivername, url.host, url.port) == ("oracle+cx_oracle", "db.internal", 1521)
    assert (url.username, url.query["service_name"]) == ("rasa", "rasa_service")
    dialect = importlib.import_module("sqlalchemy.dialects.oracle.cx_oracle").dialect()
    assert dialect.name == "oracle"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("in memory", "InMemoryLockStore"),
        ("ours", "ExtraRedisLockStore"),
        ("redis", "RedisLockStore"),
        ("custom", "MyLockStore"),
    ],
)
def test_lock_store_gives_a_lock(name: str, kind: str, config: Any, call: Any) -> None:
    store = LockStore.create(config(f"lock_store: {name}"))
    assert type(store).__name__ == kind

    async def lock() -> None:
        async with store.lock("alice"):
            pass

    call(lock())
    if hasattr(store, "red") and kind == "RedisLockStore":
        store.red.connection_pool.disconnect()
    close = getattr(store, "close", None)
    if close is not None:
        call(close())


@pytest.mark.parametrize("name", ["sql", "file", "custom"])
def test_event_broker_is_built(name: str, config: Any, call: Any, tmp_path: Path) -> None:
    broker = call(EventBroker.create(config(f"event_broker: {name}")))
    if name == "custom":
        assert type(broker) is MyEventBroker
        return
    broker.publish({"event": "user", "sender_id": "alice", "text": "hi"})
    assert list(tmp_path.glob("events.*"))
    if name == "sql":
        broker.engine.dispose()
        return
    handlers: List[Any] = broker.event_logger.handlers
    for handler in handlers[:]:
        broker.event_logger.removeHandler(handler)
        handler.close()


def test_brokers_in_other_processes_are_given_their_options(config: Any) -> None:
    pika_config, kafka_config = config("event_broker: pika"), config("event_broker: kafka")

    async def made() -> List[Any]:
        loop = asyncio.get_running_loop()
        pika = PikaEventBroker(pika_config.url, **pika_config.kwargs, event_loop=loop)
        return [pika, KafkaEventBroker(kafka_config.url, **kafka_config.kwargs)]

    pika, kafka = asyncio.run(made())
    assert (pika.host, pika.port, pika.username, pika.queues) == ("rabbitmq.internal", 5672, "rasa", ["rasa-events"])
    assert pika.password == kafka.sasl_password == PASSWORDS["BROKER_PASSWORD"]
    assert (kafka.url, kafka.topic, kafka.partition_by_sender) == ("kafka.internal:9092", "rasa_core_events", True)
    assert (kafka.security_protocol, kafka.sasl_mechanism, kafka.sasl_username) == ("SASL_SSL", "PLAIN", "rasa")
