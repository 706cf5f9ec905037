"""Rasa's event broker on a Redis Stream: ``type: extras.eventbroker.ExtraRedisEventBroker`` in ``endpoints.yml``.

For teams with Redis and no RabbitMQ or Kafka. ``publish()`` waits for nothing: a task of the event loop, or a thread
where there is none, adds the events in their order, and keeps those that Redis cannot take until it can.
"""

import asyncio
import json
import logging
import os
import random
import threading
from functools import partial
from typing import Any, Dict, List, Optional, Union

from extras.loading import RasaException, nothing_swallowed, refuse_misspelt


class EventBrokerError(RasaException):  # type: ignore[misc]
    """The event broker cannot start; the message says what to do."""


_nothing_swallowed = partial(nothing_swallowed, "ExtraRedisEventBroker", EventBrokerError)

with _nothing_swallowed("loading"):
    from extras import _rasa_brokers, _rasa_logs, _redis
    from extras.budget import FIRST_PAUSE_S, LONGEST_PAUSE_S
    from extras.configured import AsyncClient, SyncClient
    from extras.endpoint import NO_BROKER, OF_EVENTS, given_in, parse_without
    from extras.options import Options
    from extras.steps import Steps, arun, run
    from extras.stream import Entry, Line, Stream, told

logger = logging.getLogger(__name__)


class _Broker(_rasa_brokers.EventBroker):  # type: ignore[misc]
    """What both kinds of host share."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._stream = Stream(options.stream, options.maxlen)
        self._sync = SyncClient(options)
        self._async = AsyncClient(options) if _redis.HAS_ASYNCIO else None
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._line = Line()
        self._lock = threading.Lock()
        self._worker: Union[asyncio.Task[None], threading.Thread, None] = None
        self._closing = threading.Event()
        self._last_error: Optional[str] = None

    @classmethod
    def _made(cls, broker_config: Any) -> "_Broker":
        with _nothing_swallowed("the start of the event broker"):
            _rasa_logs.begin()
            return cls(parse_without(given_in(broker_config), NO_BROKER, OF_EVENTS))

    def publish(self, event: Dict[str, Any]) -> None:
        """Have an event added to the stream. Waits for nothing.

        Raises :class:`~extras.stream.FullError` while Redis is away and no more is kept in memory.
        """
        if self._process != os.getpid():  # what the parent has not sent yet, it sends itself
            self._begin()
        self._line.put(self._entry(event))
        self._start()

    def _entry(self, event: Dict[str, Any]) -> Entry:
        sender_id = str(event.get(_rasa_brokers.conversation_key_name(self), ""))
        return Entry(sender_id.encode("utf-8", "surrogateescape"), json.dumps(event).encode())

    def send_confirmed(self, events: List[Dict[str, Any]]) -> None:
        """Add events to the stream. Blocks until Redis has them. Raises redis-py's errors."""
        self._carry_out(self._stream.add(map(self._entry, events)))

    def is_ready(self) -> bool:
        """Return whether Redis took, or answered, what it was asked last."""
        return self._last_error is None

    def _is_idle(self) -> bool:
        worker = self._worker
        if isinstance(worker, asyncio.Task):
            return worker.done() or worker.get_loop().is_closed()
        return worker is None or not worker.is_alive()

    def _start(self) -> None:
        with self._lock:
            if not self._is_idle():
                return
            self._closing.clear()
            loop = _running_loop()
            if loop is not None and self._async is not None:
                self._worker = loop.create_task(self._work_on_loop())
            else:
                self._worker = threading.Thread(target=self._work, name="extras-events", daemon=True)
                self._worker.start()

    def _finish(self) -> None:
        """Let what waits be sent, whose event loop may be gone, and be given up at the first failure."""
        if self._line:
            self._start()
        self._closing.set()

    async def _work_on_loop(self) -> None:
        assert self._async is not None
        failures = 0
        while not self._is_done(failures):
            try:
                await arun(self._async.current(), self._line.send(self._stream), per_command=True)
                failures = self._succeeded()
            except Exception as error:
                failures = self._failed(error, failures)
                await asyncio.sleep(_pause_s(failures))

    def _work(self) -> None:
        failures = 0
        while not self._is_done(failures):
            try:
                self._carry_out(self._line.send(self._stream))
                failures = self._succeeded()
            except Exception as error:
                failures = self._failed(error, failures)
                self._closing.wait(_pause_s(failures))

    def _carry_out(self, steps: Steps[Any]) -> Any:
        return run(self._sync.current(), steps, per_command=True)

    def _is_done(self, failures: int) -> bool:
        """Return whether nothing waits any more, or is given up; then the next event finds nobody at work."""
        with self._lock:
            if self._closing.is_set() and failures:
                count = self._line.clear()
                if count:
                    logger.error("%d events did not get into the stream %r.", count, self.options.stream)
            if not self._line:
                self._worker = None
            return not self._line

    def _succeeded(self) -> int:
        if self._last_error is not None:
            logger.warning("Redis takes events for the stream %r again.", self.options.stream)
        self._last_error = None
        return 0

    def _failed(self, error: Exception, failures: int) -> int:
        if self._last_error is None:
            logger.warning(
                "Redis does not take events for the stream %r, they wait in memory: %s",
                self.options.stream,
                told(error),
            )
        self._last_error = told(error)
        return failures + 1


class _AsyncBroker(_Broker):
    """The broker on hosts that make and close it by coroutines (since Rasa 2.2)."""

    @classmethod
    async def from_endpoint_config(cls, broker_config: Any, event_loop: Optional[Any] = None) -> "_Broker":
        """Make the broker from a section of ``endpoints.yml``, and ask Redis whether it is there.

        Raises :class:`EventBrokerError`, which names the option and the way out.
        """
        broker = cls._made(broker_config)
        try:
            if broker._async is not None:
                await arun(broker._async.current(), _ping())
            else:
                await asyncio.get_running_loop().run_in_executor(None, broker._carry_out, _ping())
        except Exception as error:
            broker._failed(error, 0)
        return broker

    async def close(self) -> None:
        """Wait until Redis has all events, or does not take them, and close the connections that nobody else uses."""
        self._finish()
        worker = self._worker
        if isinstance(worker, asyncio.Task) and worker.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([worker])
        elif isinstance(worker, threading.Thread):
            await asyncio.get_running_loop().run_in_executor(None, worker.join)
        self._sync.close()
        if self._async is not None:
            await self._async.close()


class _SyncBroker(_Broker):
    """The broker on Rasa 2.0, which makes and closes it by plain functions."""

    @classmethod
    def from_endpoint_config(cls, broker_config: Any) -> "_Broker":
        """See :meth:`_AsyncBroker.from_endpoint_config`."""
        broker = cls._made(broker_config)
        try:
            broker._carry_out(_ping())
        except Exception as error:
            broker._failed(error, 0)
        return broker

    def close(self) -> None:
        """Wait until Redis has all events, or does not take them, and close the connections that nobody else uses."""
        self._finish()
        worker = self._worker
        if isinstance(worker, threading.Thread):
            worker.join()
        self._sync.close()


class ExtraRedisEventBroker(_AsyncBroker if _rasa_brokers.IS_ASYNC else _SyncBroker):  # type: ignore[misc]
    """Events in a Redis Stream, over connections that notice a dead server.

    Named in ``endpoints.yml``; the options are those of :class:`extras.options.Options` that are about the connection,
    ``stream`` and ``maxlen``.
    """


def _running_loop() -> Optional[asyncio.AbstractEventLoop]:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _pause_s(failures: int) -> float:
    return random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 10)))


def _ping() -> Steps[Any]:
    return (yield ("PING",))


def __getattr__(name: str) -> Any:
    """Refuse a misspelt class name: Rasa would go on without an event broker after the usual ``AttributeError``."""
    refuse_misspelt(__name__, name, "ExtraRedisEventBroker", EventBrokerError)
