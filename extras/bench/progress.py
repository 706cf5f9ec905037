"""Tells whoever waits how far the benchmark is, and ends it in order when asked to."""

import sys
import time
from typing import Any, NoReturn, Protocol

_BAR = 24


class Teller(Protocol):
    """Is told what is being done. A step is one history of a tracker store, one case of clients, one fault."""

    def say(self, what: str) -> None:
        """Take note of what is being done between steps."""

    def begin(self, what: str) -> None:
        """Take note that the next step begins."""

    def within(self, what: str, part: float) -> None:
        """Take note that this part of the step, from 0 to 1, is done."""


class Progress:
    """A bar on stderr, or, where that is no terminal, a line for each step. ``steps``: how many there will be."""

    def __init__(self, steps: int) -> None:
        self._changes = sys.stderr.isatty()
        self._start = time.monotonic()
        self._exit_code = 0
        self._steps = max(1, steps)
        self._begun = 0

    def stop(self, signal_number: int, _frame: Any) -> NoReturn:
        """Handle a signal: leave, so that the server is stopped or the keys are deleted on the way out."""
        self._exit_code = 128 + signal_number
        raise SystemExit(self._exit_code)

    def unraisable(self, what: "sys.UnraisableHookArgs") -> None:
        """Tell of an exception that Python drops, as a ``sys.unraisablehook``, but not of :meth:`stop`'s.

        Which a signal in the midst of a destructor or a weak reference's callback raises; the next step raises another.
        """
        if not (self._exit_code and what.exc_type is SystemExit):
            sys.__unraisablehook__(what)

    def say(self, what: str) -> None:
        """Show what is being done between steps."""
        self._show(what, self._begun, True)

    def begin(self, what: str) -> None:
        """Show that the next step begins."""
        self._begun += 1
        self._show(what, self._begun - 1, True)

    def within(self, what: str, part: float) -> None:
        """Show that this part of the step, from 0 to 1, is done."""
        self._show(what, self._begun - 1 + part, False)

    def _show(self, what: str, done: float, important: bool) -> None:
        if self._exit_code:  # dropped by Python, or as the cancellation that asyncio makes of it by redis-py
            raise SystemExit(self._exit_code)
        passed = f"{time.monotonic() - self._start:4.0f} s"
        if self._changes:
            full = round(_BAR * min(1.0, max(0.0, done) / self._steps))
            bar = "#" * full + "." * (_BAR - full)
            print(f"\r\x1b[K{passed} [{bar}] {what}", end="", file=sys.stderr, flush=True)
        elif important:
            print(f"{passed}  {what}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave an empty line to the results."""
        if self._changes:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
