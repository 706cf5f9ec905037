"""What the stores do, as OpenTelemetry metrics and spans, where a program has set up a provider for them.

Its API is never a dependency: without it, or without a provider when a store is made, :data:`hooks` stays ``None``, and
what is asked of this module is whether that is so. Names and units are those of OpenTelemetry's semantic conventions
for database clients where there is one. No key, sender id or value is in any of it.
"""

import sys
import time
from contextlib import contextmanager
from typing import Any, Dict, Generator, Iterator, Optional, Tuple
from weakref import WeakSet

_SCOPE = "rasa-extras"
_REDIS = {"db.system.name": "redis"}
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

OUTBOX = "rasa_extras.outbox.events"
JOURNAL = "rasa_extras.journal.turns"
_GAUGES = {
    OUTBOX: ("{event}", "Events that wait in Redis for the event broker, as far as this process knows"),
    JOURNAL: ("{turn}", "Turns that wait on the disk for Redis"),
}
_watched: Dict[str, "WeakSet[Any]"] = {name: WeakSet() for name in _GAUGES}


class Hooks:
    """The instruments, made once a provider is there."""

    def __init__(self, metrics: Any, trace: Any) -> None:
        meter = metrics.get_meter(_SCOPE)
        self._tracer = trace.get_tracer(_SCOPE)
        self._client_span = trace.SpanKind.CLIENT
        self._error = trace.StatusCode.ERROR
        advice = {"explicit_bucket_boundaries_advisory": _BUCKETS_S}
        self._calls = _histogram(meter, "rasa_extras.store.duration", "Calls of the tracker store", advice)
        self._commands = _histogram(
            meter, "db.client.operation.duration", "Commands, from sending to reply, repeats among it", advice
        )
        self._retries = meter.create_counter("rasa_extras.store.retries", "{retry}", "Commands that are repeated")
        self._opened = meter.create_counter("rasa_extras.connections.opened", "{connection}", "Connections opened")
        self._reopened = meter.create_counter(
            "rasa_extras.connections.reopened", "{connection}", "Of those, the ones that were lost or closed before"
        )
        for name, (unit, description) in _GAUGES.items():
            meter.create_observable_gauge(name, [_depth_of(metrics, name)], unit, description)

    @contextmanager
    def call(self, steps: Any) -> Iterator[Any]:
        """Measure one call of the store, and yield its steps as they are to be carried out instead."""
        operation = steps.__name__.strip("_").replace("_steps", "")
        attributes = {**_REDIS, "db.operation.name": operation}
        began_at = time.perf_counter()
        with self._tracer.start_as_current_span(
            operation, None, self._client_span, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield self._measured(steps)
            except BaseException as error:
                attributes["error.type"] = type(error).__name__
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._error)
                raise
            finally:
                self._calls.record(time.perf_counter() - began_at, attributes)

    def _measured(self, steps: Any) -> Generator[Tuple[Any, ...], Any, Any]:
        try:
            command = next(steps)
            while True:
                sent_at = time.perf_counter()
                attributes = {**_REDIS, "db.operation.name": _name_of(command)}
                try:
                    reply = yield command
                except BaseException as error:
                    attributes["error.type"] = type(error).__name__
                    self._commands.record(time.perf_counter() - sent_at, attributes)
                    command = steps.throw(error)
                else:
                    self._commands.record(time.perf_counter() - sent_at, attributes)
                    command = steps.send(reply)
        except StopIteration as done:
            return done.value
        finally:
            steps.close()

    def retried(self, command: str, error: Exception) -> None:
        """Count a command that is about to be repeated."""
        self._retries.add(1, {**_REDIS, "db.operation.name": str(command), "error.type": type(error).__name__})

    def connected(self) -> None:
        """Count a connection that was opened."""
        self._opened.add(1, _REDIS)

    def reconnected(self) -> None:
        """Count a connection that was opened in the place of one that is gone."""
        self._reopened.add(1, _REDIS)


hooks: Optional[Hooks] = None
"""What measures, ``None`` where nobody wants to know."""


def begin() -> None:
    """Measure from now on, if the program has set up OpenTelemetry; it is too late to do so after the first store."""
    global hooks
    if hooks is not None or "opentelemetry" not in sys.modules:  # whoever has set it up has imported it
        return
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        return
    for api, provider in ((metrics, metrics.get_meter_provider()), (trace, trace.get_tracer_provider())):
        if not type(provider).__module__.startswith(api.__name__):  # those of the API alone do nothing
            hooks = Hooks(metrics, trace)


def watch(name: str, owner: Any) -> None:
    """Show the sum of ``depth()`` of all owners that are still there as the gauge ``name``."""
    _watched[name].add(owner)


def _name_of(command: Any) -> str:
    """Return the name of a command, or that of the first of several that belong together; the rest is people's."""
    while isinstance(command, tuple):
        command = command[0]
    return str(command)


def _histogram(meter: Any, name: str, description: str, advice: Dict[str, Any]) -> Any:
    try:
        return meter.create_histogram(name, "s", description, **advice)
    except TypeError:  # before opentelemetry-api 1.30
        return meter.create_histogram(name, "s", description)


def _depth_of(metrics: Any, name: str) -> Any:
    def observe(options: Any) -> Any:
        return [metrics.Observation(sum(owner.depth() for owner in list(_watched[name])))]

    return observe
