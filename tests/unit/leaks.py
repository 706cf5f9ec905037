"""Count this process's memory blocks and open descriptors, to show that nothing is left behind."""

import asyncio
import gc
import os
import sys
import time
from typing import Any, Callable, List

# Python keeps the names of attributes that were looked up lately, also those that were made for one look-up, at places
# that depend on their addresses: for thousands of rounds some more of them, and never the same number twice.
_forget_names: Callable[[], None] = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache

PATIENCE_S = 10.0
"""A proxy in this process closes its own ends on threads of its own, on a busy machine seconds later."""


def open_descriptors() -> int:
    """Return how many descriptors this process holds, after what only the collector would close is closed."""
    gc.collect()
    return len(os.listdir("/dev/fd"))


def none_left(before: int) -> bool:
    """Whether no more than ``before`` are open, at the latest when a proxy has had time for its own ends."""
    deadline = time.monotonic() + PATIENCE_S
    while open_descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    return open_descriptors() <= before


async def none_left_async(before: int) -> bool:
    """Whether the same holds while the loop goes on closing its transports."""
    deadline = time.monotonic() + PATIENCE_S
    while open_descriptors() > before and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return open_descriptors() <= before


def growth(call: Callable[[], Any], rounds: int) -> int:
    """Return how many memory blocks ``rounds`` calls leave behind, after as many to warm up.

    A leak grows in every run; a cache that fills, or another thread, does not. So the smallest growth of a few runs
    has no noise in it and may be held to zero.
    """
    return growths(call, rounds, sys.getallocatedblocks)[0]


def growths(call: Callable[[], Any], rounds: int, *measures: Callable[[], int]) -> List[int]:
    """Return what ``growth`` does, by measures of the caller's.

    Readings are stored over readings, to take no blocks themselves.
    """
    readings = [[measure() for measure in measures] for _ in range(6)]
    is_frozen = gc.get_freeze_count() > 0
    if not is_frozen:
        gc.collect()
        gc.freeze()  # all that was there before, which the collector would go through six times
    try:
        for reading in readings:
            for _ in range(rounds):
                call()
            gc.collect()
            _forget_names()
            for place, measure in enumerate(measures):
                reading[place] = measure()
    finally:
        if not is_frozen:
            gc.unfreeze()
    return [
        min(after[place] - before[place] for before, after in zip(readings[1:], readings[2:]))
        for place in range(len(measures))
    ]
