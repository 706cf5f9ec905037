"""Tells whoever waits how far the benchmark is, and ends it in order when asked to."""

import sys
import time
from typing import Any, NoReturn


class Progress:
    """One line on stderr that changes, or, where that is no terminal, a line for each history."""

    def __init__(self) -> None:
        self._changes = sys.stderr.isatty()
        self._start = time.monotonic()
        self._exit_code = 0

    def stop(self, signal_number: int, _frame: Any) -> NoReturn:
        """Handle a signal: leave, so that the server is stopped or the keys are deleted on the way out."""
        self._exit_code = 128 + signal_number
        raise SystemExit(self._exit_code)

    def say(self, what: str, important: bool = True) -> None:
        """Show what is being done."""
        if self._exit_code:  # redis-py can swallow the cancellation that asyncio makes of the signal
            raise SystemExit(self._exit_code)
        line = f"{time.monotonic() - self._start:4.0f} s  {what}"
        if self._changes:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif important:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave an empty line to the results."""
        if self._changes:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
