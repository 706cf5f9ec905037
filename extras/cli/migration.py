"""Moves conversations from one of Rasa's tracker stores to another, through the host's own classes.

A conversation is moved when what is read back from the target has the digest of what was read from the source. A
target that has a part of it gets the rest; one that has something else is left as it is.
"""

import asyncio
import hashlib
import inspect
import json
import os
import queue
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from extras.cli.document_file import SUFFIX, DocumentFile
from extras.cli.output import NOT_ALL, Unusable
from extras.cli.unmovable import reason, rounded

MOVED, THERE, AHEAD, DIFFERENT, FAILED = "moved", "already there", "longer in the target", "different", "failed"


class Outcome(NamedTuple):
    """What became of a conversation. ``digest``: of its source; ``why``: of what was not moved."""

    sender_id: str
    status: str
    digest: str = ""
    why: str = ""


class Side:
    """A store of the host, asynchronous or not, used by one thread."""

    def __init__(self, host: Any, config: Any) -> None:
        """Make the store, without an event broker, so that nothing is published again; a file is one of memory."""
        self._host = host
        self.is_file = isinstance(config, DocumentFile)
        self.store = host.bare_store(host.TrackerStore.create(None if self.is_file else config, None, None))
        if self.is_file:
            self.store.store = config
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    @property
    def is_in_memory(self) -> bool:
        """Whether the host stores in the memory of this process, also for want of the store that it was asked for."""
        return not self.is_file and isinstance(self.store, self._host.InMemoryTrackerStore)

    @property
    def rounds_floats(self) -> bool:
        """Whether the store keeps 9 digits behind the point of a number, and reads all as floats: DynamoDB's."""
        return type(self.store).__name__ == "DynamoTrackerStore"

    def wait(self, value: Any) -> Any:
        """Return what a method of the store returned, once it is there."""
        if not inspect.isawaitable(value):
            return value
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(value)

    def sender_ids(self) -> List[str]:
        """Return the sender ids of all conversations; the host's Redis store returns its keys."""
        prefix = ""
        if isinstance(self.store, self._host.StockRedisTrackerStore):
            prefix = getattr(self.store, "key_prefix", "")
        found: Dict[str, None] = {}
        for key in self.wait(self.store.keys()):
            name = key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)
            found[name[len(prefix) :] if prefix and name.startswith(prefix) else name] = None
        return list(found)

    def read(self, sender_id: str) -> Optional[Any]:
        """Return the tracker of all sessions."""
        return self.wait(self._host.read_all_sessions(self.store)(sender_id))

    def close(self) -> None:
        """Close the store's connections, as far as it has a way to."""
        close = getattr(self.store, "close", None)
        if close is not None:
            self.wait(close())
        engine, client = getattr(self.store, "engine", None), getattr(self.store, "red", None)
        if engine is not None:
            engine.dispose()
        if client is not None:
            (client.connection_pool.disconnect if hasattr(client, "connection_pool") else client.close)()
        close = getattr(getattr(self.store, "client", None), "close", None)  # of MongoDB and DynamoDB
        if close is not None:
            close()
        if self._loop is not None:
            self._loop.close()


def digest(events: List[str]) -> str:
    """Return the digest of a conversation's events in their canonical form."""
    return hashlib.sha256("\n".join(events).encode("utf-8", "surrogatepass")).hexdigest()


class Mover:
    """Moves conversations one by one, in one thread."""

    def __init__(self, host: Any, source: Any, target: Any, dry_run: bool) -> None:
        self.source, self.target = Side(host, source), Side(host, target)
        self._host = host
        self._dry_run = dry_run
        self.rounds_floats = self.source.rounds_floats or self.target.rounds_floats

    def close(self) -> None:
        """Close both stores."""
        self.source.close()
        self.target.close()

    def move(self, sender_id: str, done_digest: Optional[str] = None) -> Outcome:
        """Move a conversation, unless the digest of its source is still ``done_digest``."""
        stage = "it could not be read from the source"
        try:
            tracker = self.source.read(sender_id)
            if tracker is None:
                return Outcome(sender_id, FAILED, why="the source names it, but has nothing readable of it")
            wanted = self._forms(tracker.events)
            source_digest = digest(wanted)
            if source_digest == done_digest:
                return Outcome(sender_id, THERE, source_digest)
            stage = "it could not be read from the target"
            there = self.target.read(sender_id)
            status, rest = self._compared(tracker, wanted, there)
            if rest is None or self._dry_run:
                return Outcome(sender_id, status, source_digest if status != DIFFERENT else "", _WHY.get(status, ""))
            stage = "it could not be written"
            planted = self._to_save(tracker, there, rest)
            if planted is None:
                return Outcome(sender_id, FAILED, why="the target would not add what is missing behind what it has")
            self.target.wait(self.target.store.save(planted))
            stage = "it was written, but could not be read back"
            read_back = self.target.read(sender_id)
            if self._forms([] if read_back is None else read_back.events) != wanted:  # SQL has none without events
                return Outcome(sender_id, FAILED, why="what was read back from the target is not what was written")
            return Outcome(sender_id, status, source_digest)
        except (
            SystemExit
        ) as error:  # the host's SQL store takes any ValueError for a PostgreSQL schema that is not there
            return Outcome(sender_id, FAILED, why=f"{stage}: {reason(error.__context__ or error)}")
        except Exception as error:  # of any store; its text may hold what people said
            return Outcome(sender_id, FAILED, why=f"{stage}: {reason(error)}")

    def _forms(self, events: Any) -> List[str]:
        """Return events in their canonical form, as both stores can keep them."""
        dicts = [event.as_dict() for event in events]
        return [json.dumps(rounded(found) if self.rounds_floats else found, sort_keys=True) for found in dicts]

    def _compared(self, tracker: Any, wanted: List[str], there: Optional[Any]) -> Any:
        """Return what the target's part makes of the move, and the events to add, ``None`` if there are none to."""
        if there is None or not there.events:
            return MOVED, list(tracker.events)
        stored = list(there.events)
        forms = self._forms(stored)
        if forms == wanted:
            return THERE, None
        rest = list(tracker.events)[len(stored) :]
        if len(stored) > len(wanted):
            whole = self._host.replanted(self.source.store, tracker, [*tracker.events, *stored[len(wanted) :]])
            return (AHEAD if self._forms(whole.events) == forms else DIFFERENT), None
        # Replayed, because an event may add to one before it: what the target has was read before that one came.
        copies = self._host.rebuild([event.as_dict() for event in [*stored, *rest]])
        whole = self._host.replanted(self.target.store, tracker, copies)
        return (MOVED, rest) if self._forms(whole.events) == wanted else (DIFFERENT, None)

    def _to_save(self, tracker: Any, there: Optional[Any], rest: List[Any]) -> Optional[Any]:
        """Return a tracker whose save adds the rest and nothing else, or ``None`` if the store would do otherwise."""
        if there is None:
            whole = self._host.replanted(self.target.store, tracker, rest)
        else:
            whole = self._host.continued(there, rest)
        if self._adds(whole, rest):
            return whole
        session = self.target.wait(self.target.store.retrieve(tracker.sender_id))
        if session is None:
            return None
        part = self._host.continued(session, rest)
        return part if self._adds(part, rest) else None

    def _adds(self, tracker: Any, rest: List[Any]) -> bool:
        """Return whether a save of ``tracker`` to the target adds just the rest."""
        added = self.target.wait(self._host.would_add(self.target.store, tracker))
        if added is None:
            return True
        return len(added) == len(rest) and all(one is other for one, other in zip(added, rest))


_WHY = {DIFFERENT: "the target has other events of it, which are left as they are"}


class Workers:
    """Threads, each with stores of its own, that move conversations; the rate is that of all together."""

    GIVE_UP_AFTER = 20
    """Failures with none moved in between: then a store is away, and to go on would only be slow."""

    def __init__(self, movers: List[Mover], rate: Optional[float], stopped: threading.Event) -> None:
        self._movers = movers
        self._interval_s = 1 / rate if rate else 0.0
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._stopped = stopped
        self._failures_in_a_row = 0
        self.gave_up = False

    def run(
        self, sender_ids: List[str], done: Dict[str, str], clock: Callable[[], float], take: Callable[[Outcome], None]
    ) -> None:
        """Move conversations, and hand what became of each to ``take``, one at a time."""
        pending = iter(sender_ids)
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()

        def work(mover: Mover) -> None:
            try:
                self._work(mover, pending, done, clock, take)
            finally:
                ended.put(None)

        threads = [threading.Thread(target=work, args=(mover,), daemon=True) for mover in self._movers]
        for thread in threads:
            thread.start()
        waiting = len(threads)
        while waiting:
            try:
                ended.get()  # not join(): CPython 3.11 holds a thread for ended where a signal ends the waiting for it
                waiting -= 1
            except KeyboardInterrupt:
                if self._stopped.is_set():
                    os._exit(NOT_ALL)  # whoever asks twice waits for no store; what is done is remembered
                self._stopped.set()
        if self._stopped.is_set():
            raise KeyboardInterrupt

    def _work(
        self,
        mover: Mover,
        pending: Any,
        done: Dict[str, str],
        clock: Callable[[], float],
        take: Callable[[Outcome], None],
    ) -> None:
        while not self._stopped.is_set() and not self.gave_up:
            with self._lock:
                sender_id = next(pending, None)
                now_s = clock()
                self._next_s = max(self._next_s, now_s) + self._interval_s
                wait_s = self._next_s - self._interval_s - now_s
            if sender_id is None:
                return
            if wait_s > 0 and self._stopped.wait(wait_s):
                return
            outcome = mover.move(sender_id, done.get(sender_id))
            with self._lock:
                self._failures_in_a_row = self._failures_in_a_row + 1 if outcome.status == FAILED else 0
                self.gave_up = self.gave_up or self._failures_in_a_row >= self.GIVE_UP_AFTER
                take(outcome)


def refuse_memory(name: str, side: Side) -> None:
    """Raise :class:`~extras.cli.output.Unusable` for a store in memory, which is empty now and gone at the end."""
    if side.is_in_memory:
        raise Unusable(
            f"{name}: the host stores in memory by this tracker_store (or does not find the one it names); there is "
            f"nothing to move from or to; a file whose name ends in {SUFFIX} can take conversations, and give them"
        )
