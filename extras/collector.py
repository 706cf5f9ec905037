"""Replays a long conversation without Python's garbage collector walking through it again and again."""

import gc
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def paused() -> Iterator[None]:
    """Keep the cyclic garbage collector from running in a block that makes many objects and no cycles.

    A thousand events are some twenty thousand containers, and each few hundred of them start a collection; in a process
    as large as a Rasa server with TensorFlow those take most of the time of a replay. References are counted all the
    same. The block must not wait for anything: the switch is the whole process's.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
