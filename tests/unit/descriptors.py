"""Count this process's open descriptors, to show that nothing is left open."""

import asyncio
import gc
import os
import time

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
