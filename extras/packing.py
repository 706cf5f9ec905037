"""Commands as bytes for Redis (RESP), in which a large argument is the caller's own object, not a copy of it."""

from functools import lru_cache
from typing import Any, FrozenSet, List, Optional, Sequence

import hiredis

CUTOFF_BYTES = 6000
"""An argument above it is sent from where it is. redis-py's packer has the same."""

_NUMBERS = frozenset({int, float})
_TEXT = frozenset({bytes, str})


def pack_command(args: Sequence[Any], buffers: FrozenSet[type]) -> Optional[List[Any]]:
    """Return the pieces to send for one command, ``None`` for one that redis-py is to pack or to refuse.

    Text goes as UTF-8. ``buffers``: which of ``bytearray`` and ``memoryview`` are taken as arguments.
    """
    name = args[0]
    if type(name) is str:
        if not _is_one_word(name):
            return None
    elif type(name) is not bytes or b" " in name:
        return None
    small = True
    for arg in args:
        kind = type(arg)
        if kind in _TEXT:
            if len(arg) > CUTOFF_BYTES:
                small = False
        elif kind in buffers:
            small = False
        elif kind not in _NUMBERS:
            return None
    try:
        return [hiredis.pack_command(tuple(args))] if small else _pieces(args)
    except (TypeError, ValueError):  # lone surrogates, more digits than Python writes
        return None


@lru_cache(maxsize=1024)
def _is_one_word(name: str) -> bool:
    """redis-py splits "CONFIG GET" into two arguments."""
    return name.encode("utf-8", "replace").split() == [name.encode("utf-8", "replace")]


def _pieces(args: Sequence[Any]) -> Optional[List[Any]]:
    pieces: List[Any] = []
    head = [b"*%d\r\n" % len(args)]
    for arg in args:
        data: Any = arg
        if type(arg) is str:
            data = arg.encode()
        elif type(arg) in _NUMBERS:
            data = repr(arg).encode()
        elif type(arg) is memoryview and not (arg.format == "B" and arg.ndim == 1 and arg.c_contiguous):
            return None
        head.append(b"$%d\r\n" % len(data))
        if len(data) > CUTOFF_BYTES:
            pieces += (b"".join(head), data)
            head = [b"\r\n"]
        else:
            head += (data, b"\r\n")
    pieces.append(b"".join(head))
    return pieces
