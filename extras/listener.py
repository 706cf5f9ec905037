"""Calls tasks that wait for their name on one Redis channel: one connection for all of them, while there are any.

It is read by a thread of its own, because redis-py has no asyncio before 4.2, and because one thread does for the loops
of all threads. A lost connection is made anew, and then everybody is called, because a name may have been missed.
"""

import asyncio
import logging
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import Any, Callable, Dict, Iterator, Optional

import redis

logger = logging.getLogger(__name__)

_STEP_S = 0.1
"""How long the thread waits before it looks whether it is still needed."""

_LINGER_S = 5.0
"""How long it stays after the last one who waited has gone."""

_PAUSE_S = 0.5
"""How long it waits before it connects again."""


class Waiter:
    """One who waits to be called, in the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._called: asyncio.Future[None] = self._loop.create_future()

    async def wait(self, timeout_s: float) -> None:
        """Return when called, also if that was since the last time, or after so many seconds."""
        await asyncio.wait([self._called], timeout=timeout_s)
        if self._called.done():
            self._called = self._loop.create_future()

    def call(self) -> None:
        """Let :meth:`wait` return; of any thread."""
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if not self._called.done():
            self._called.set_result(None)


class Listener:
    """Calls waiters by the names that are published on ``channel``.

    ``make_client``: makes a blocking client, which the thread has to itself. A user without a right to the channel is
    told so in the log, once, and nobody is called then.
    """

    def __init__(self, channel: str, make_client: Callable[[], "redis.Redis"]) -> None:
        self._channel = channel
        self._make_client = make_client
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._waiters: Dict[str, Waiter] = {}
        self._thread: Optional[threading.Thread] = None
        self._needed_at = 0.0
        self._refused = False

    @contextmanager
    def waiting(self, name: str) -> Iterator[Waiter]:
        """Wait for ``name`` to be called; whoever enters looks once more whether it was called before."""
        if self._process != os.getpid():
            self._begin()  # the parent's thread is not here, and may have had the lock
        waiter = Waiter()
        with self._lock:
            self._waiters[name] = waiter
            if self._thread is None and not self._refused:
                self._thread = threading.Thread(target=self._listen, name="extras-listener", daemon=True)
                self._thread.start()
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters.pop(name, None)
                self._needed_at = time.monotonic()

    def close(self) -> None:
        """End the thread and its connection, and return when both are gone; who waits still is called no more."""
        thread = self._thread
        with self._lock:
            self._thread = None
        if thread is not None and self._process == os.getpid():
            thread.join()

    def _is_over(self) -> bool:
        with self._lock:
            if self._thread is not threading.current_thread():
                return True
            if self._waiters or time.monotonic() - self._needed_at < _LINGER_S:
                return False
            self._thread = None
            return True

    def _listen(self) -> None:
        while not self._is_over():
            client = self._make_client()
            try:
                self._listen_to(client.pubsub())
            except redis.exceptions.NoPermissionError as error:
                logger.warning(
                    "The Redis user may not subscribe to the channel %r (%s): whoever waits for a lock looks for its "
                    "turn from time to time instead of being called.",
                    self._channel,
                    error,
                )
                with self._lock:
                    self._refused, self._thread = True, None
            except (redis.RedisError, OSError) as error:
                logger.debug("Listening to the channel %r: %s", self._channel, error)
                self._call_all()
                time.sleep(_PAUSE_S)
            finally:
                client.connection_pool.disconnect()

    def _listen_to(self, subscription: Any) -> None:
        try:
            subscription.subscribe(self._channel)
            while not self._is_over():
                message = subscription.get_message(timeout=_STEP_S)
                if message is None:
                    continue
                if message["type"] == "subscribe":  # also after redis-py has connected again by itself
                    self._call_all()
                elif message["type"] == "message":
                    with self._lock:
                        waiter = self._waiters.get(message["data"].decode("utf-8", "replace"))
                    if waiter is not None:
                        waiter.call()
        finally:
            subscription.close()

    def _call_all(self) -> None:
        with self._lock:
            waiters = list(self._waiters.values())
        for waiter in waiters:
            waiter.call()
