"""Count this process's memory blocks and open descriptors, to show that nothing is left behind."""

import asyncio
import gc
import os
import sys
import time
from typing import Any, Callable

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
    has no noise in it and may be held to zero. Readings are stored over readings, to take no blocks themselves.
    """
    readings = [sys.getallocatedblocks() for _ in range(6)]
    for index in range(len(readings)):
        for _ in range(rounds):
            call()
        gc.collect()
        readings[index] = sys.getallocatedblocks()
    return min(after - before for before, after in zip(readings[1:], readings[2:]))
