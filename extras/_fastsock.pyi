"""What the native module and its Python twin ``_fastsock_py`` both provide."""

from typing import Any, Dict, Optional, Tuple

IMPL: str
"""``"native"`` or ``"python"``."""

SPELLING: Dict[str, Tuple[str, int]]
"""The options this system has: field of ``Keepalive`` to its name here and the integer ``setsockopt`` takes."""

def set_keepalive(
    fd: int,
    enabled: bool,
    idle_s: Optional[int],
    interval_s: Optional[int],
    count: Optional[int],
    user_timeout_ms: Optional[int],
) -> None:
    """Apply TCP liveness options to a socket's descriptor; ``None`` leaves an option as it is.

    Raises ``OSError`` with the kernel's ``errno`` and a message that names option and value (``ENOPROTOOPT`` for
    one that this system does not have), ``OverflowError`` for a value that is no C int. setsockopt(2), tcp(7).
    """

def get_keepalive(fd: int) -> Tuple[bool, Optional[int], Optional[int], Optional[int], Optional[int]]:
    """Read back what the kernel holds: enabled, idle_s, interval_s, count, user_timeout_ms.

    ``None`` stands for an option that this system does not have or cannot read. Raises ``OSError`` with ``errno``.
    """

def decode_json(data: bytes, start: int, in_array: bool = False) -> Tuple[Any, int]:
    """Decode the JSON value that begins at byte ``start``, natively in half of the time of ``json``.

    Returns the value and the offset of the byte after it. The value is what ``json.JSONDecoder().raw_decode`` makes of
    ``data[start:].decode("utf-8")``, equal in types, signs, order and rounding, and what that refuses is refused: white
    space before the value, bytes that are no UTF-8 anywhere after ``start``. ``in_array``: decode an array whose
    opening bracket would stand right before ``start``, to its end.

    Raises ``ValueError`` for what is no JSON, nests more deeply than ``json`` can, or begins outside of ``data``;
    ``TypeError`` for anything but ``bytes``. RFC 8259; Modules/_json.c of CPython.
    """
