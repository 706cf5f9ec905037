"""One thread that writes what many hand in, all that waits in one go, so that they share what a write costs."""

import threading
from concurrent.futures import Future
from typing import Callable, Generic, List, Optional, Sequence, Tuple, TypeVar

Item = TypeVar("Item")
LINGER_S = 1.0
"""How long the thread waits for more before it ends; to start one takes longer than to wake it."""


class GroupCommit(Generic[Item]):
    """Hands items to ``commit`` in the order in which they came, on a thread that lives while there are some.

    ``commit``: writes items, and returns for each ``None`` or the error that its owner gets.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Optional[BaseException]]]) -> None:
        self._commit = commit
        self._something = threading.Condition()
        self._waiting: List[Tuple[Item, Future[None]]] = []
        self._is_writing = False

    def submit(self, item: Item) -> "Future[None]":
        """Have an item written; what is returned is done when it is, or has the error of ``commit``."""
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # whoever waits may give up, but the item is written all the same
        with self._something:
            self._waiting.append((item, done))
            starts, self._is_writing = not self._is_writing, True
            self._something.notify()
        if starts:
            threading.Thread(target=self._write, name="extras-journal", daemon=True).start()
        return done

    def _write(self) -> None:
        while True:
            with self._something:
                if not self._waiting:
                    self._something.wait(LINGER_S)
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._is_writing = False
                    return
            try:
                errors = self._commit([item for item, _ in batch])
            except BaseException as error:
                errors = [error] * len(batch)
            for (_, done), failed in zip(batch, errors):
                if failed is None:
                    done.set_result(None)
                else:
                    done.set_exception(failed)
