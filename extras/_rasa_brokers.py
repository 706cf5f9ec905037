"""The one place that knows how the event brokers of Rasa's versions, 2.0 to Pro 3.21, differ."""

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from copy import copy
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Callable, Coroutine, Dict, List, Optional

from rasa.core.brokers import broker as _stock

from extras import _rasa

EventBroker: Any = _stock.EventBroker

IS_ASYNC: bool = iscoroutinefunction(EventBroker.from_endpoint_config)


def conversation_key_name(broker: Any) -> str:
    """Return the name of an event's field that holds the id of its conversation."""
    name: Any = getattr(broker, "conversation_key_name", None)
    return "sender_id" if name is None else str(name())


class NotTakenError(RuntimeError):
    """The event broker does not have an event yet, or does not say so in time."""


class Delivery:
    """Hands events to a host's event broker one after the other, each only when the broker has the one before it.

    The hosts' own ``publish()`` for RabbitMQ and Kafka returns before anybody has the event, so that what they would
    send is given to their connections here, and their servers' confirmation waited for. Other brokers have what their
    ``publish()`` has returned from, while they are ready. ``loop``: where the host's own calls would be made.
    """

    def __init__(self, broker: Any, loop: Optional[asyncio.AbstractEventLoop]) -> None:
        self._broker = broker
        self._loop = loop
        self._future: Optional[Future[None]] = None
        self._stopped = False
        self.published = 0
        """How many events the broker has."""

    def run(self, events: List[Dict[str, Any]], timeout_s: float) -> None:
        """Deliver events. Blocks, not the event loop. Raises what the broker raises, or :class:`NotTakenError`."""
        deadline = time.monotonic() + timeout_s
        broker = self._broker
        publish = getattr(type(broker), "publish", None)
        if hasattr(broker, "send_confirmed"):  # ours
            self._each(events, deadline, lambda event: broker.send_confirmed([event]))
        elif publish is not None and publish is _its_own(type(broker), "PikaEventBroker") and IS_ASYNC:
            self._on_loop(broker._loop, self._to_pika(events), timeout_s)
        elif publish is not None and publish is _its_own(type(broker), "KafkaEventBroker") and IS_ASYNC:
            self._each(events, deadline, lambda event: self._to_kafka(event, deadline))
        elif self._loop is not None:
            self._on_loop(self._loop, self._to_other(events), timeout_s)
        elif _rasa.IS_ASYNC:
            raise NotTakenError("there is no event loop yet")
        else:
            self._each(events, deadline, self._publish)

    def stop(self) -> None:
        """Let :meth:`run` come to an end, from another thread."""
        self._stopped = True
        future = self._future
        if future is not None:
            future.cancel()

    def _each(self, events: List[Dict[str, Any]], deadline: float, deliver: Callable[[Dict[str, Any]], None]) -> None:
        for event in events:
            if self._stopped or time.monotonic() >= deadline:
                raise NotTakenError("the time is over")
            deliver(event)
            self.published += 1

    def _on_loop(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], timeout_s: float) -> None:
        try:
            self._future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError as error:  # the loop is closed
            work.close()
            raise NotTakenError("there is no event loop any more") from error
        if self._stopped:
            self._future.cancel()
        try:
            self._future.result(timeout_s)
        except (CancelledError, asyncio.CancelledError, TimeoutError, FutureTimeoutError) as error:
            raise NotTakenError(f"the event broker has not confirmed an event within {timeout_s:g} s") from error
        finally:
            self._future.cancel()
            self._future = None

    async def _to_pika(self, events: List[Dict[str, Any]]) -> None:
        broker = self._broker
        for event in events:
            if broker._exchange is None:
                raise NotTakenError("the event broker is not connected")
            await broker._exchange.publish(broker._message(event, None), "")  # returns when the server has confirmed it
            self.published += 1

    def _to_kafka(self, event: Dict[str, Any], deadline: float) -> None:
        broker = self._broker
        if broker.producer is None:
            broker.producer = broker._create_producer()
        confirming = copy(broker)
        confirming.producer = _Confirming(broker.producer)
        confirming._publish(event)
        confirming.producer.wait(deadline)

    async def _to_other(self, events: List[Dict[str, Any]]) -> None:
        for event in events:
            taken = self._publish(event)
            if isawaitable(taken):
                await taken
            self.published += 1
            await asyncio.sleep(0)

    def _publish(self, event: Dict[str, Any]) -> Any:
        if not self._broker.is_ready():
            raise NotTakenError("the event broker is not ready")
        return self._broker.publish(event)


class _Confirming:
    """A producer of librdkafka to which a host's broker gives one event, and which can tell what became of it."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self._done = threading.Event()
        self._error: Any = None

    def produce(self, *args: Any, **kwargs: Any) -> None:
        """Like the producer's own, but for whom the outcome is reported to."""
        self._producer.produce(*args, **{**kwargs, "on_delivery": self._report})

    def _report(self, error: Any, message: Any) -> None:
        self._error = error
        self._done.set()

    def wait(self, deadline: float) -> None:
        """Return when the event is with Kafka. Otherwise it is taken back, not to be sent when nobody expects it."""
        try:
            self._producer.flush(max(0.0, deadline - time.monotonic()))
            self._done.wait(0.5)  # a thread of the host's may be about to report it
        finally:
            if not self._done.is_set():
                self._producer.purge()
                self._producer.poll(0)  # which reports it, and lets go of what waits for the report
        if not self._done.is_set() or self._error is not None:
            raise NotTakenError(f"Kafka has not confirmed an event: {self._error or 'the time is over'}")


def _its_own(kind: type, name: str) -> Any:
    """Return the ``publish`` of the host's broker class of a name, if ``kind`` is of that class, else ``None``."""
    host = next((base for base in kind.__mro__ if base.__name__ == name), None)
    return vars(host).get("publish") if host is not None and host.__module__.startswith("rasa.") else None
