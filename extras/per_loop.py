"""One of a thing for each event loop that asks, because a connection belongs to the loop that made it."""

import asyncio
import os
from typing import Any, Callable, Generic, List, Optional, Tuple, TypeVar
from weakref import WeakKeyDictionary

Kept = TypeVar("Kept")

_forks = 0
_inherited: List[Any] = []
"""What a child process was born with: held for ever, because closing it could end the parent's connection."""


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class PerLoop(Generic[Kept]):
    """Makes and keeps one of a thing for each event loop, and in a child process others than its parent's.

    ``abandon``: what to do with that of a loop that is closed.
    """

    def __init__(self, abandon: Callable[[Kept], None]) -> None:
        self._abandon = abandon
        self._kept: WeakKeyDictionary[asyncio.AbstractEventLoop, Kept] = WeakKeyDictionary()
        self._last: Optional[Tuple[asyncio.AbstractEventLoop, int, Kept]] = None
        self._born = _forks

    def current(self, make: Callable[[], Kept]) -> Kept:
        """Return the running loop's; where there is none yet, ``make`` makes it."""
        loop = asyncio.get_running_loop()
        last = self._last  # read once: another thread may replace it
        if last is not None and last[0] is loop and last[1] == _forks:
            return last[2]
        if self._born != _forks:
            self._born = _forks
            _inherited.append((self._kept, list(self._kept.items()), last))
            self._kept = WeakKeyDictionary()
        kept = self._kept.get(loop)
        if kept is None:
            # An open connection holds on to its loop, so that the weak keys alone would keep both for ever.
            for known in list(self._kept):
                if known.is_closed():
                    closed = self._kept.pop(known, None)
                    if closed is not None:
                        self._abandon(closed)
            kept = self._kept[loop] = make()
        self._last = (loop, _forks, kept)
        return kept

    def pop(self) -> Optional[Kept]:
        """Forget the running loop's and return it, ``None`` where there is none."""
        self._last = None
        return self._kept.pop(asyncio.get_running_loop(), None) if self._born == _forks else None
