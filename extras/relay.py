"""Publishes what the outboxes in Redis hold: at least once, and in the order of each conversation.

One thread in each process, so that no event broker, however slow, holds up a turn. It knows which outboxes its process
has filled, and looks now and then for those of processes that are gone; one process at a time publishes from an outbox.
"""

import asyncio
import json
import logging
import os
import random
import threading
import time
import uuid
import weakref
from contextlib import suppress
from typing import Any, Dict, Optional

from extras import telemetry
from extras._rasa_brokers import Delivery, NotTakenError
from extras.budget import OUTAGES
from extras.configured import sync_client
from extras.options import Options
from extras.outbox import LEASE_S, Outbox
from extras.steps import run
from extras.stream import told

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Longest wait for what is under way when the store is closed."""

TIMEOUT_S = LEASE_S / 3
"""Longest wait for a broker to confirm the events of one lease."""

PAUSE_S = (0.1, 2.0)
"""Shortest and longest wait after a failure; drawn at random between the first and a number that doubles."""

LOOK_EVERY_S = 60.0
"""How often, at most, outboxes are looked for that a process has left behind; looking takes 1 % of the time at most."""


class Relay:
    """Who publishes from the outboxes of one store. Raises ``OptionError`` where there can be no client."""

    def __init__(self, options: Options, prefix: str, broker: Any) -> None:
        self.options = options
        self.prefix = prefix
        self.broker = broker
        self._outbox = Outbox(prefix.encode("utf-8", "surrogateescape"), options.scan_count)
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self.begin()
        self.start()
        _all.add(self)
        telemetry.watch(telemetry.OUTBOX, self)

    def begin(self) -> None:
        """Know of nothing that waits, as at first and after a fork, whose parent publishes what waits there."""
        self._waiting: Dict[bytes, int] = {}
        self._in_hand = 0
        self._lock = threading.Lock()
        self._signals = _Signals()
        self._thread: Optional[threading.Thread] = None
        self._delivery: Optional[Delivery] = None
        self._is_failing = False
        self._cursor: Optional[int] = None
        self._look_began_at = self._looks_at = 0.0

    def start(self) -> None:
        """Go to work, if nobody does: at first, after a ``close()``, and in a forked process."""
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        with self._lock:
            if self._thread is None or not self._thread.is_alive() or self._signals.stop.is_set():
                self._signals = _Signals()
                self._looks_at = 0.0
                arguments = (weakref.ref(self, self._signals.end), self._signals, sync_client(self.options))
                self._thread = threading.Thread(target=_work, args=arguments, name="extras-relay", daemon=True)
                self._thread.start()

    def filled(self, key: bytes) -> None:
        """Publish what is in the outbox of a document."""
        self.start()
        with self._lock:
            self._waiting[key] = self._waiting.get(key, 0) + 1
        self._signals.wake.set()

    def depth(self) -> int:
        """Return how many events wait, as far as this process knows: an outbox is counted when it is looked into."""
        with self._lock:
            return sum(self._waiting.values()) + self._in_hand

    def close(self) -> None:
        """End the thread; what the outboxes hold stays there. Blocks while an event is being published."""
        with self._lock:
            thread, delivery = self._thread, self._delivery
            self._signals.end()
        if delivery is not None:
            delivery.stop()
        if thread is not None and thread is not threading.current_thread():
            thread.join(PATIENCE_S)

    def round(self, client: Any, stop: threading.Event) -> Optional[float]:
        """Publish from all outboxes that are known; return how long to wait for another, at most.

        ``None`` where that failed, most likely because the broker or Redis is away.
        """
        try:
            self._look(client)
            with self._lock:
                keys = list(self._waiting)
            are_all_done = True
            for key in keys:
                if stop.is_set():
                    return 0.0
                are_all_done &= self._publish(client, key)
        except Exception as error:
            self._complain(error)
            return None
        self._has_gone_well(bool(keys))
        if not are_all_done:
            return random.uniform(0, PAUSE_S[0])
        return 0.0 if self._cursor is not None else max(0.0, self._looks_at - time.monotonic())

    def _look(self, client: Any) -> None:
        """Make one step in the search for outboxes that others have left behind, if it is time for that."""
        now = time.monotonic()
        if self._cursor is None:
            if now < self._looks_at:
                return
            self._cursor, self._look_began_at = 0, now
        cursor, keys = run(client, self._outbox.some(self._cursor))
        self._cursor = cursor or None
        if self._cursor is None:
            now = time.monotonic()
            self._looks_at = now + max(LOOK_EVERY_S, (now - self._look_began_at) * 100) * random.uniform(1, 1.5)
        with self._lock:
            for key in keys:
                self._waiting.setdefault(key, 1)

    def _publish(self, client: Any, key: bytes) -> bool:
        """Publish the first events of an outbox; return whether none are left, as far as it is ours."""
        owner = uuid.uuid4().hex
        with self._lock:
            left = self._in_hand = self._waiting.pop(key, 1)
        try:
            claim = run(client, self._outbox.claim(key, owner))
            if claim is None:
                return False
            left = self._in_hand = claim.size
            if claim.bodies:
                self._delivery = delivery = Delivery(self.broker, self._loop)
                try:
                    delivery.run([json.loads(body) for body in claim.bodies], TIMEOUT_S)
                finally:
                    self._delivery = None
                    left = run(client, self._outbox.release(key, owner, delivery.published))
            return left == 0
        finally:
            with self._lock:
                self._in_hand = 0
                if left:  # behind all others, so that none waits for one that cannot be published
                    self._waiting[key] = max(left, self._waiting.pop(key, 0))

    def _complain(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            logger.warning("New events wait in Redis and are published later: %s", _told(error))

    def _has_gone_well(self, has_published: bool) -> None:
        if self._is_failing and has_published:
            self._is_failing = False
            logger.warning("Events that waited in Redis are being published.")


class _Signals:
    """What a thread is told: that there is something to do, and that there is nothing any more."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.stop = threading.Event()

    def end(self, _: object = None) -> None:
        """Let the thread end, wherever it waits."""
        self.stop.set()
        self.wake.set()


def _work(relay: "weakref.ref[Relay]", signals: _Signals, client: Any) -> None:
    """Publish until the relay is closed or gone, to which this thread does not hold on while it waits."""
    longest_s = PAUSE_S[0]
    try:
        while not signals.stop.is_set():
            signals.wake.clear()
            at_work = relay()
            if at_work is None:
                return
            pause_s = at_work.round(client, signals.stop)
            del at_work
            if pause_s is None:
                signals.stop.wait(random.uniform(PAUSE_S[0] / 2, longest_s))
                longest_s = min(PAUSE_S[1], longest_s * 2)
            else:
                longest_s = PAUSE_S[0]
                signals.wake.wait(pause_s)
    finally:
        client.connection_pool.disconnect()


def _told(error: Exception) -> str:
    """Return what an error says, if that is nothing of an event."""
    return told(error) if isinstance(error, (NotTakenError, OSError, *OUTAGES)) else type(error).__name__


_all: "weakref.WeakSet[Relay]" = weakref.WeakSet()


def _after_fork() -> None:
    for relay in list(_all):
        relay.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def shared(options: Options, prefix: str, broker: Any) -> Relay:
    """Return the relay of this process for stores with equal options, which publishes to ``broker`` from now on.

    Hosts make their store again, and the broker of one that is gone may be closed.
    """
    for relay in list(_all):
        if relay.options == options and relay.prefix == prefix:
            relay.broker = broker
            relay.start()
            return relay
    return Relay(options, prefix, broker)
