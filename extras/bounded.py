"""Ends a call on an event loop at its deadline without a task of its own, and never mistakes a cancellation for that.

``asyncio.timeout`` cancels the task it runs in, and before Python 3.11, which counts cancellations, nobody can tell
whether somebody else has done so, too, before the task has run again. Here the task is not cancelled: it waits for a
future of ours in place of each that the coroutine waits for, and a deadline wakes it.
"""

import asyncio
from functools import partial
from typing import Any, Awaitable, Callable, Coroutine, Generator, Generic, Optional, TypeVar

from extras.budget import Budget, Limits

Result = TypeVar("Result")
_GRACE_S = 0.1
"""For what a cancelled coroutine does before it ends."""


class Bounded(Generic[Result]):
    """Awaited, carries out ``work`` for at most ``timeout_s`` seconds; then raises what ``failure`` makes.

    A result that is there already is returned also past the time. ``work`` sees a ``CancelledError`` at the deadline.
    """

    __slots__ = ("_expired", "_failure", "_loop", "_ours", "_own", "_timeout_s", "_timer", "_work")

    def __init__(
        self, work: Coroutine[Any, Any, Result], timeout_s: float, failure: Callable[[], BaseException]
    ) -> None:
        self._work = work
        self._timeout_s = timeout_s
        self._failure = failure
        self._expired = False
        self._own: Optional[asyncio.Future[None]] = None
        self._ours: Optional[asyncio.CancelledError] = None

    def __await__(self) -> Generator[Any, None, Result]:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._timeout_s, self._expire)
        work = self._work
        thrown: Optional[BaseException] = None
        try:
            while True:
                try:
                    waited = work.send(None) if thrown is None else work.throw(thrown)
                except StopIteration as done:
                    result: Result = done.value
                    return result
                thrown = yield from self._wait(waited)
        except asyncio.CancelledError as error:
            if error is not self._ours:
                raise
            failure = self._failure()
            raise failure from failure.__cause__
        except Exception:
            if self._ours is None:
                raise
            failure = self._failure()
            raise failure from failure.__cause__
        finally:
            self._timer.cancel()
            work.close()

    def _wait(self, waited: Any) -> Generator[Any, None, Optional[BaseException]]:
        """Wait as a task would; return what is to be raised in the coroutine, if anything."""
        if waited is None:  # asyncio.sleep(0)
            try:
                yield
            except asyncio.CancelledError as error:
                return error
            return None
        waited._asyncio_future_blocking = False
        if not self._expired or self._ours is not None:
            self._own = own = self._loop.create_future()
            wake = partial(_wake, own)
            waited.add_done_callback(wake)
            try:
                yield from own
            except asyncio.CancelledError as error:
                waited.remove_done_callback(wake)
                waited.cancel()
                return error
            if waited.done():
                return None
            waited.remove_done_callback(wake)
        waited.cancel()
        self._ours = asyncio.CancelledError()
        return self._ours

    def _expire(self) -> None:
        self._expired = True
        if self._own is not None:
            _wake(self._own)
        self._timer = self._loop.call_later(_GRACE_S, self._expire)


class AsyncBudget(Budget):
    """The budget of a call on an event loop. ``answer``: the reply that it waits for, which the deadline ends.

    To fail the future itself, rather than to cancel it, keeps its task's cancellation what it is: asyncio raises that
    in place of the failure if both happen in one turn of the loop.
    """

    __slots__ = ("_has_expired", "_loop", "_timer", "answer")

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limits)
        self._loop = loop
        self._has_expired = False
        self._timer: Optional[asyncio.TimerHandle] = None
        self.answer: Optional[asyncio.Future[Any]] = None
        if limits.call_timeout_s is not None:
            self._timer = loop.call_later(limits.call_timeout_s, self._expire)

    def begin(self, command: Any) -> None:
        """Note which command is carried out now. Raises ``CallTimeoutError`` where no time is left for it."""
        super().begin(command)
        if self._has_expired:
            raise self.exceeded()

    def renew(self) -> None:
        """Begin anew, with as much time as at first."""
        super().renew()
        if self._timer is not None and self._limits.call_timeout_s is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._limits.call_timeout_s, self._expire)

    def bounded(self, work: Coroutine[Any, Any, Result]) -> Awaitable[Result]:
        """Return what carries out ``work`` within the time that is left, whatever it waits for."""
        self.answer = None
        if self._timer is None:
            return work
        return Bounded(work, max(0.0, self._timer.when() - self._loop.time()), self.exceeded)

    def end(self) -> None:
        """Let the deadline pass unnoticed."""
        if self._timer is not None:
            self._timer.cancel()
        self.answer = None

    def _expire(self) -> None:
        self._has_expired = True
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(self.exceeded())
            self.answer.exception()  # so that it counts as retrieved if the task is cancelled before it runs again


def _wake(own: "asyncio.Future[None]", _: Any = None) -> None:
    if not own.done():
        own.set_result(None)
