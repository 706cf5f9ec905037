"""Events in a Redis Stream, as steps without I/O, and the line in which they wait for it."""

import threading
from collections import deque
from typing import Any, Deque, Iterable, NamedTuple, Optional

from extras.steps import Steps

MOST_BYTES = 64 * 1024 * 1024
"""Of all events together that wait in the memory of a process while Redis is away."""


class Entry(NamedTuple):
    """An event: its conversation's id, and its JSON as a host's broker would send it to Kafka or RabbitMQ."""

    sender_id: bytes
    body: bytes


class Stream:
    """A Redis Stream to which events are added: one entry each, with the fields ``sender_id`` and ``event``.

    ``maxlen``: about so many entries are kept, which costs Redis less than the exact number; ``None`` for all. Source:
    "Capped streams" in https://redis.io/commands/xadd.
    """

    def __init__(self, name: str, maxlen: Optional[int]) -> None:
        self._command = ("XADD", name.encode(), *(() if maxlen is None else ("MAXLEN", "~", maxlen)), "*")

    def add(self, entries: Iterable[Entry]) -> Steps[None]:
        """Add entries in their order. What is repeated after a lost reply may be in the stream twice."""
        for entry in entries:
            yield (*self._command, "sender_id", entry.sender_id, "event", entry.body)


class FullError(RuntimeError):
    """More events wait for Redis than are kept in memory."""


class Line:
    """Entries in the order in which they came; each leaves it only when it is in the stream."""

    def __init__(self) -> None:
        self._entries: Deque[Entry] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry) -> None:
        """Add an entry at the end. Raises :class:`FullError` beyond :data:`MOST_BYTES`."""
        with self._lock:
            if self._bytes + len(entry.body) > MOST_BYTES:
                raise FullError(f"{len(self._entries)} events wait for Redis already; no more are kept in memory")
            self._entries.append(entry)
            self._bytes += len(entry.body)

    def sent(self) -> int:
        """Take the first entry out; return how many are left."""
        with self._lock:
            self._bytes -= len(self._entries.popleft().body)
            return len(self._entries)

    def send(self, stream: Stream) -> Steps[None]:
        """Add all that waits, and what comes meanwhile, to a stream."""
        while self._entries:
            yield from stream.add([self._entries[0]])
            self.sent()

    def clear(self) -> int:
        """Forget all entries; return how many there were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._bytes = 0
            return count


def told(error: Any) -> str:
    """Return what an error says, without what a server repeats of a command's arguments."""
    return f"{type(error).__name__}: {str(error).partition(', with args')[0]}"
