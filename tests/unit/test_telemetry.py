"""What OpenTelemetry is told of a store: durations, repeats, connections, what waits; and nothing of what is in it."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import redis

from extras import _redis, telemetry
from extras.acknowledged import Acks, acknowledged
from extras.bench.server import RedisServer, free_port
from extras.configured import AsyncClient, sync_client
from extras.conversation import Conversations
from extras.options import parse
from extras.steps import Steps, arun, run

pytest.importorskip("opentelemetry.sdk.metrics", reason="opentelemetry-sdk is not installed")

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

Points = Dict[str, List[Any]]


@pytest.fixture(scope="module")
def exporters() -> Iterator[Any]:
    """Set up OpenTelemetry, which a process can do once."""
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    meters, tracers = MeterProvider(metric_readers=[reader]), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    metrics.set_meter_provider(meters)
    trace.set_tracer_provider(tracers)
    yield reader, spans
    meters.shutdown()
    tracers.shutdown()


@pytest.fixture
def hooks(exporters: Any, monkeypatch: pytest.MonkeyPatch) -> telemetry.Hooks:
    """Begin as a store does when it is made."""
    monkeypatch.setattr(telemetry, "hooks", None)
    exporters[1].clear()
    telemetry.begin()
    assert telemetry.hooks is not None
    return telemetry.hooks


@pytest.fixture
def collected(exporters: Any) -> Callable[[], Points]:
    """Return all points of each metric."""

    def collect() -> Points:
        data = exporters[0].get_metrics_data()
        found: Points = {}
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found

    return collect


def test_a_call_and_its_commands_are_measured(
    hooks: telemetry.Hooks, exporters: Any, collected: Callable[[], Points], raw: "redis.Redis"
) -> None:
    conversations = Conversations("tracker:", 100, False)
    with hooks.call(conversations.exists("a secret name")) as measured:
        assert run(raw, measured) is False
    points = collected()
    (call,) = points["rasa_extras.store.duration"]
    assert dict(call.attributes) == {"db.system.name": "redis", "db.operation.name": "exists"}
    (command,) = points["db.client.operation.duration"]
    assert dict(command.attributes) == {"db.system.name": "redis", "db.operation.name": "EXISTS"}
    assert 0 < command.sum <= call.sum < 30
    (span,) = exporters[1].get_finished_spans()
    assert (span.name, dict(span.attributes)) == ("exists", dict(call.attributes))
    assert "secret" not in str([point.attributes for several in points.values() for point in several])


def test_commands_that_belong_together_are_measured_as_the_first_of_them(
    hooks: telemetry.Hooks, collected: Callable[[], Points], own_server: RedisServer
) -> None:
    def save() -> Steps[Any]:
        return (yield ("SET", "a secret key", "a secret value"))

    client = sync_client(parse({"url": "127.0.0.1", "port": own_server.port}))
    before = {str(dict(point.attributes)) for point in collected().get("db.client.operation.duration", [])}
    with hooks.call(acknowledged(save(), Acks(0, 1000))) as measured:
        run(client, measured)
    client.connection_pool.disconnect()
    points = collected()
    found = {str(dict(point.attributes)) for point in points["db.client.operation.duration"]} - before
    assert found == {str({"db.system.name": "redis", "db.operation.name": "SET"})}
    assert "secret" not in str([point.attributes for several in points.values() for point in several])


def test_errors_have_their_type_and_nothing_else(
    hooks: telemetry.Hooks, exporters: Any, collected: Callable[[], Points], raw: "redis.Redis"
) -> None:
    def wrong() -> Steps[Any]:
        yield ("SET", "list", "1")
        return (yield ("LPUSH", "list", "secret"))

    with pytest.raises(redis.ResponseError), hooks.call(wrong()) as measured:
        run(raw, measured)
    points = collected()
    kinds = [point.attributes.get("error.type") for point in points["db.client.operation.duration"]]
    assert kinds.count("ResponseError") == 1
    (span,) = exporters[1].get_finished_spans()
    assert span.attributes["error.type"] == "ResponseError"
    assert not span.status.is_ok
    assert "secret" not in span.to_json()


def test_repeats_and_connections_are_counted(
    hooks: telemetry.Hooks, collected: Callable[[], Points], own_server: RedisServer
) -> None:
    def ping() -> Steps[Any]:
        return (yield ("PING",))

    client = sync_client(parse({"url": "127.0.0.1", "port": own_server.port, "retries": 2, "call_timeout": 30}))
    run(client, ping())
    before = collected()["rasa_extras.connections.opened"][0].value
    own_server.stop()
    with pytest.raises(redis.ConnectionError):
        run(client, ping())
    own_server.start()
    run(client, ping())
    client.connection_pool.disconnect()
    points = collected()
    assert sum(point.value for point in points["rasa_extras.store.retries"]) == 2
    assert points["rasa_extras.connections.opened"][0].value == before + 1
    assert points["rasa_extras.connections.reopened"][0].value == 1


@pytest.mark.skipif(not _redis.HAS_ASYNCIO, reason="redis-py before 4.2 has no asyncio")
def test_a_shared_connection_that_is_open_again_is_counted(
    hooks: telemetry.Hooks, collected: Callable[[], Points], own_server: RedisServer
) -> None:
    def ping() -> Steps[Any]:
        return (yield ("PING",))

    def counted(name: str) -> int:
        return sum(point.value for point in collected().get(f"rasa_extras.connections.{name}", []))

    async def closed_and_opened() -> None:
        clients = AsyncClient(parse({"url": "127.0.0.1", "port": own_server.port, "call_timeout": 30}))
        await arun(clients.current(), ping())
        own_server.stop()
        own_server.start()
        await arun(clients.current(), ping())
        await clients.close()

    opened, reopened = counted("opened"), counted("reopened")
    asyncio.run(closed_and_opened())
    assert (counted("opened") - opened, counted("reopened") - reopened) == (2, 1)


def test_what_waits_is_a_gauge(hooks: telemetry.Hooks, collected: Callable[[], Points]) -> None:
    class Owner:
        def __init__(self, depth: int) -> None:
            self._depth = depth

        def depth(self) -> int:
            return self._depth

    owners = [Owner(3), Owner(4)]
    for owner in owners:
        telemetry.watch(telemetry.OUTBOX, owner)
    points = collected()
    assert [point.value for point in points["rasa_extras.outbox.events"]] == [7]
    assert [point.value for point in points["rasa_extras.journal.turns"]] == [0]
    del owner, owners
    assert [point.value for point in collected()["rasa_extras.outbox.events"]] == [0]


def test_prometheus_shows_all_that_the_page_asks_it_for(own_server: RedisServer) -> None:
    """The page's own block, in a process of its own, and then what a store tells."""
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="its exporter is not installed")
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    (questions,) = re.findall(r"```text\n(.*?)```", page, re.S)
    named = re.findall(r"^\| `([a-z_.]+)` \|", page, re.M)
    port = free_port()
    assert example.count("9464") == 1
    program = f"""
{example.replace("9464", str(port))}
from urllib.request import urlopen
from extras import telemetry
from extras.configured import sync_client
from extras.options import parse
from extras.steps import run
telemetry.begin()
def _save_steps():
    yield ("SET", "key", "value")
client = sync_client(parse({{"url": "127.0.0.1", "port": {own_server.port}}}))
with telemetry.hooks.call(_save_steps()) as measured:
    run(client, measured)
client.connection_pool.disconnect()
client.ping()
telemetry.hooks.retried("GET", ConnectionError())
print(urlopen("http://127.0.0.1:{port}/metrics", timeout=10).read().decode())
client.connection_pool.disconnect()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    names = {re.split("[ {]", line)[0] for line in done.stdout.splitlines() if not line.startswith("#")}
    asked = set(re.findall(r"rasa_extras_\w+", questions))
    assert len(asked) == 4
    assert asked <= names
    for name in named:
        assert any(one.startswith(name.replace(".", "_")) for one in names), name
    for label, value in re.findall(r'(\w+)="(\w+)"', questions):
        assert f'{label}="{value}"' in done.stdout


@pytest.mark.parametrize("imported", ["", "import opentelemetry.metrics; "])
def test_nothing_is_measured_where_nobody_has_set_it_up(imported: str) -> None:
    code = f"{imported}from extras import telemetry; telemetry.begin(); print(telemetry.hooks)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "None\n"
