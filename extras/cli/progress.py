"""How far a long command is: a bar on a terminal, nothing anywhere else."""

import math
import sys
import time
from typing import Dict

from extras.cli.output import counted

_BAR = 24
_EVERY_S = 0.1


class Progress:
    """A bar on stderr. ``total``: how many there will be."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = max(1, total)
        self._start_s = time.monotonic()
        self._shown_s = -math.inf
        self._is_shown = sys.stderr.isatty()

    def show(self, done: int, counts: Dict[str, int]) -> None:
        """Show that so many are done, and what became of them."""
        now_s = time.monotonic()
        if not self._is_shown or (now_s - self._shown_s < _EVERY_S and done < self._total):
            return
        self._shown_s = now_s
        full = round(_BAR * min(1.0, done / self._total))
        rate = done / max(now_s - self._start_s, 1e-3)
        bar = "#" * full + "." * (_BAR - full)
        text = f"{self._what} [{bar}] {done:,} of {self._total:,}, {rate:,.0f}/s: {counted(counts)}"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave an empty line to what follows."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
