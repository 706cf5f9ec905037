"""What the store does while Redis is away: turns go to a journal on the disk, and to Redis when it is back.

A conversation with turns in the journal is read and saved there until Redis has them, so that its order holds; all
others go to Redis as soon as it answers. A replayed turn is saved as any other, from the state that its process knew,
so that it meets what others have written, and adds nothing if it is repeated after a crash.
"""

import json
import logging
import os
import random
import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional

from extras import _rasa, failures, telemetry
from extras.backlog import Backlog, State
from extras.configured import sync_client
from extras.document import START, canonical
from extras.journal import JournalError
from extras.lastknown import Image, Offline, RememberingConversations, Waiting, at_once, not_known
from extras.options import Options
from extras.steps import Steps, run
from extras.turns import Stored, Tracker, Turns

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Longest wait for a replay that is under way when the store is closed."""

PROBE_S = (0.1, 1.0)
"""Shortest and longest wait between two attempts to reach Redis."""


class _Down(NamedTuple):
    """Since when Redis is away, and whether it answers no reads, either."""

    since_s: float
    stops_reads: bool


class Taking(NamedTuple):
    """A turn that the journal takes: its new events, and what is done when they are on the disk."""

    events: List[Any]
    stored: "Optional[Future[None]]"


class Outage:
    """The journal of one store in one process, what it knows of the conversations in it, and who replays it.

    ``turns``: how the store saves to Redis, which it reads and writes through ``conversations``. A host that makes its
    store again goes on with the same, which :func:`shared` returns. Raises ``OptionError`` where the journal cannot be
    opened.
    """

    def __init__(self, store: Any, options: Options, conversations: RememberingConversations, turns: Turns) -> None:
        self.options = options
        self.conversations = conversations
        self.serve(store, turns)
        self._lock = threading.RLock()
        self._open()
        _all.add(self)
        telemetry.watch(telemetry.JOURNAL, self)

    def serve(self, store: Any, turns: Turns) -> None:
        """Read and replay as the newest of the stores does, so that those before it can go, with their connections."""
        self._store = store
        self._turns = turns

    def _open(self) -> None:
        assert self.options.journal_path is not None
        self._down: Optional[_Down] = None
        self._last_error: Optional[str] = None
        self._replayed = 0
        self._replayer: Optional[threading.Thread] = None
        self._stopping = threading.Event()
        self._backlog = Backlog(Path(self.options.journal_path).absolute(), self.options.journal_max_bytes)
        self._is_open = True
        state = self._backlog.state(None)
        if state.records:
            logger.warning(
                "The journal %s holds %d turns of %d conversations that Redis does not have yet; they are replayed.",
                *(state.path, state.records, state.conversations),
            )
            self._start()

    def _opened(self) -> Backlog:
        """Return the backlog, which is opened anew after the store was closed, and in a forked process."""
        if not self._is_open:
            with self._lock:
                if not self._is_open:
                    self._open()
        return self._backlog

    def state(self) -> State:
        """Return what the journal holds that Redis does not have yet."""
        return self._opened().state(self._last_error)

    def depth(self) -> int:
        """Return how many turns wait in the open journal."""
        return self._backlog.state(None).records if self._is_open else 0

    def is_waiting(self, sender_id: str) -> bool:
        """Return whether the journal holds turns of a conversation that Redis does not have yet."""
        return self.conversations.bare(sender_id) in self._opened()

    def takes(self, sender_id: str) -> bool:
        """Return whether a save goes to the journal without asking Redis."""
        return self.is_waiting(sender_id) or self._down is not None

    def serves(self, sender_id: str, whole: bool) -> bool:
        """Return whether a read is served from here without asking Redis."""
        if self.is_waiting(sender_id):
            return True
        down = self._down
        return down is not None and down.stops_reads and self.knows(sender_id, whole)

    def knows(self, sender_id: str, whole: bool) -> bool:
        """Return whether a read can be served from what is known here."""
        known = self._image(self.conversations.bare(sender_id)).whole
        return known is True or (known is False and not whole)

    def _image(self, sender_id: str) -> Image:
        return self._opened().image(sender_id) or self.conversations.last_known(sender_id)

    def failed(self, error: Exception) -> bool:
        """Note that Redis did not do what it was asked to; return whether the journal is for that."""
        if not failures.is_outage(error):
            return False
        with self._lock:
            self._last_error = f"{type(error).__name__}: {error}"
            begins, stops_reads = self._down is None, failures.stops_reads(error)
            if self._down is None or (stops_reads and not self._down.stops_reads):
                self._down = _Down(time.time(), stops_reads)
        if begins:
            logger.warning(
                "Redis is away (%s). Turns go to the journal %s until it is back.", self._last_error, self._backlog.path
            )
        self._start()
        return True

    def retrieve(self, sender_id: str, whole: bool) -> Optional[Tracker]:
        """Return a conversation as it was last known, with what is in the journal. Raises :class:`JournalError`."""
        sender_id = self.conversations.bare(sender_id)
        image = self._image(sender_id)
        if whole and image.whole is not True:
            raise not_known(sender_id)
        return at_once(self._turns_in(self._offline(sender_id, image, True)).retrieve(sender_id, whole))

    def _offline(self, sender_id: str, image: Image, whole: bool) -> Offline:
        try:
            return Offline(self.conversations.prefix, image, whole)
        except ValueError as error:
            raise self._store.refuse(sender_id, error) from error

    def _turns_in(self, offline: Offline) -> Turns:
        return Turns(self._store, offline, self.conversations, None)

    @contextmanager
    def taking(self, tracker: Tracker, expires_after_s: Optional[float]) -> Iterator[Taking]:
        """Give what is new of a tracker to the journal; within, wait until it is on the disk before it counts.

        Raises :class:`JournalError` if the journal cannot take it.
        """
        sender_id = self.conversations.bare(tracker.sender_id)
        before = getattr(tracker, "_extras_stored", None)
        made_here = getattr(tracker, "_extras_maker", None) is self.conversations
        if self._turns.new_since_stored(tracker) is None and _rasa.replaces(tracker, made_here):
            raise JournalError(f"{sender_id!r} is to be replaced as a whole, which waits until Redis is back")
        image = self._image(sender_id)
        offline = self._offline(sender_id, image, False)
        try:
            events = at_once(self._turns_in(offline).save(tracker, expires_after_s))
            stored = None
            if offline.taken is not None:
                stored = self._opened().put(sender_id, image, offline.taken, expires_after_s)
                stored.add_done_callback(lambda _: self._start())
            yield Taking(events, stored)
        except BaseException:
            tracker._extras_stored = before  # what was not journaled is new again
            raise

    def _start(self) -> None:
        """Have somebody look for Redis, and replay what waits for it."""
        with self._lock:
            if self._replayer is None and self._is_open:
                arguments = (self._backlog, self._stopping)
                self._replayer = threading.Thread(
                    target=self._replay, args=arguments, name="extras-replay", daemon=True
                )
                self._replayer.start()

    def _replay(self, backlog: Backlog, stopping: threading.Event) -> None:
        client = sync_client(self.options)
        longest_s = PROBE_S[0]
        try:
            while not stopping.wait(random.uniform(PROBE_S[0], longest_s)):
                with self._lock:
                    waiting = backlog.in_order()
                    if not waiting and self._down is None:
                        self._replayer = None
                        return
                has_failed = self._go_over(client, backlog, waiting, stopping)
                longest_s = min(PROBE_S[1], longest_s * 2) if has_failed else PROBE_S[0]
        finally:
            client.connection_pool.disconnect()

    def _go_over(self, client: Any, backlog: Backlog, waiting: List[str], stopping: threading.Event) -> bool:
        """Save to Redis what waits for it, or ask it whether it is there; return whether something was in the way."""
        has_failed = False
        try:
            if not waiting:
                run(client, _ping())
                self._is_back()
            for sender_id in waiting:
                if stopping.is_set():
                    return True
                has_failed |= not self._replay_one(client, backlog, sender_id)
        except Exception as error:
            if not self.failed(error):
                backlog.complain("replay", "Redis refuses to be asked: %s: %s", type(error).__name__, error)
            return True
        self._have_all(backlog)
        return has_failed

    def _replay_one(self, client: Any, backlog: Backlog, sender_id: str) -> bool:
        """Save a conversation's turns to Redis; return whether that is done with. Raises an outage's error."""
        waiting = backlog.copy(sender_id)
        if waiting is None:
            return True
        try:
            tracker = self._restored(sender_id, waiting)
            if self.conversations.last_known(sender_id).whole is None:
                self.conversations.remember(sender_id, waiting.base)
            run(client, self._turns.save(tracker, waiting.expires_after_s))
        except Exception as error:
            if failures.is_outage(error):
                raise
            shown = f"{type(error).__name__}: {error}" if _says_no_content(error) else type(error).__name__
            self._last_error = shown
            backlog.complain(sender_id, "The journaled turns of %r cannot be stored: %s", sender_id, shown)
            return not failures.is_of_redis(error) and backlog.set_aside(sender_id, waiting)
        self._replayed += len(waiting.turns)
        self._is_back()  # for all other conversations too, before this one goes to Redis itself
        backlog.done(sender_id, waiting)
        return True

    def _restored(self, sender_id: str, waiting: Waiting) -> Tracker:
        """Return the tracker whose save stores the turns that wait, stamped with what was stored before them."""
        parsed = waiting.base.parsed()
        new = {canonical(event): event for event in json.loads(b"[" + waiting.new_events + b"]")}
        old_events = [] if parsed is None else _rasa.rebuild(parsed.events)
        members = json.loads(START.encode() + waiting.closing)
        events = old_events + _rasa.rebuild(list(new.values()))
        tracker = _rasa.restored_tracker(self._store, sender_id, events, members)
        known = waiting.base.known
        if parsed is not None and known is not None and (old_events or known.empty):
            last = old_events[-1] if old_events else None
            tracker._extras_stored = Stored(self.conversations, known, parsed.members, last)
        return tracker

    def _is_back(self) -> None:
        with self._lock:
            down, self._down = self._down, None
        if down is not None:
            logger.warning("Redis is back after %.1f s.", time.time() - down.since_s)

    def _have_all(self, backlog: Backlog) -> None:
        if backlog.in_order():
            return
        count, self._replayed = self._replayed, 0
        if count:
            logger.warning("All %d turns of the journal %s are in Redis now.", count, backlog.path)

    def close(self) -> None:
        """Close the journal; what it holds stays there. Blocks while the disk or Redis is at work on it."""
        with self._lock:
            self._stopping.set()
            self._is_open = False
            self._backlog.close()
            replayer = self._replayer
        if replayer is not None:
            replayer.join(PATIENCE_S)

    def after_fork(self) -> None:
        """Leave the parent's journal to the parent; this process opens its own when it needs one."""
        self._is_open = False
        self._lock = threading.RLock()
        self.conversations.forget_locks()
        self._backlog.leave()


def _says_no_content(error: Exception) -> bool:
    return failures.is_of_redis(error) or isinstance(error, _rasa.DocumentErrorBase)


def _ping() -> Steps[Any]:
    return (yield ("PING",))


_all: "weakref.WeakSet[Outage]" = weakref.WeakSet()


def shared(options: Options) -> Optional[Outage]:
    """Return what another store with equal options uses in this process, ``None`` if there is none."""
    return next((outage for outage in list(_all) if outage.options == options), None)


def _after_fork() -> None:
    for outage in list(_all):
        outage.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
