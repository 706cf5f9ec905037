"""Pure-Python twin of the native ``extras._fastsock``: its fallback where it is not built, and its oracle.

Both modules have the same names and behaviour; ``_fastsock.pyi`` describes them.
"""

import errno
import json
import operator
import os
import socket
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Tuple

from extras.keepalive import CONSTANTS

IMPL = "python"


def _spelling() -> Dict[str, Tuple[str, int]]:
    meanings = {
        "idle_s": ("TCP_KEEPIDLE", "TCP_KEEPALIVE"),
        "interval_s": ("TCP_KEEPINTVL",),
        "count": ("TCP_KEEPCNT",),
        "user_timeout_ms": ("TCP_USER_TIMEOUT", "TCP_RXT_CONNDROPTIME"),
    }
    found = {"enabled": ("SO_KEEPALIVE", int(socket.SO_KEEPALIVE))}
    for meaning, names in meanings.items():
        for name in names:
            if name in CONSTANTS:
                found[meaning] = (name, CONSTANTS[name])
                break
        else:
            if meaning in ("idle_s", "interval_s") and hasattr(socket, "SIO_KEEPALIVE_VALS"):
                found[meaning] = ("SIO_KEEPALIVE_VALS", 0)
    return found


SPELLING = _spelling()


def _c_int(name: str, value: int) -> int:
    value = operator.index(value)
    if not -(2**31) <= value < 2**31:
        raise OverflowError(f"{name}={value} does not fit the C int that setsockopt takes")
    return value


@contextmanager
def _borrowed(fd: int, enabled: Optional[int]) -> Iterator[socket.socket]:
    # socket.socket() makes a new socket of None, cuts what is no C int, and turns a socket non-blocking where
    # socket.setdefaulttimeout() was called; none of that may happen to a borrowed descriptor.
    fd = _c_int("fd", fd)
    blocking: Optional[bool] = None
    try:
        if socket.getdefaulttimeout() is not None and hasattr(os, "get_blocking"):
            blocking = os.get_blocking(fd)
        sock = socket.socket(fileno=fd)
    except ValueError:  # a negative descriptor
        raise _failed(errno.EBADF, "SO_KEEPALIVE", enabled) from None
    except OSError as error:
        raise _failed(error.errno, "SO_KEEPALIVE", enabled) from None
    try:
        if blocking:
            sock.setblocking(True)
        yield sock
    finally:
        sock.detach()


def _unit(name: str) -> int:
    return 1000 if name == "TCP_RXT_CONNDROPTIME" else 1


def _level(name: str) -> int:
    return socket.SOL_SOCKET if name == "SO_KEEPALIVE" else socket.IPPROTO_TCP


def set_keepalive(
    fd: int,
    enabled: bool,
    idle_s: Optional[int],
    interval_s: Optional[int],
    count: Optional[int],
    user_timeout_ms: Optional[int],
) -> None:
    """See ``_fastsock.pyi``."""
    asked = {
        "enabled": int(bool(enabled)),
        "idle_s": idle_s,
        "interval_s": interval_s,
        "count": count,
        "user_timeout_ms": user_timeout_ms,
    }
    for meaning, value in asked.items():  # before anything is applied
        if value is not None:
            asked[meaning] = _c_int(SPELLING.get(meaning, (meaning, 0))[0], value)
    with _borrowed(fd, asked["enabled"]) as sock:
        for meaning, value in asked.items():
            if value is None:
                continue
            name, constant = SPELLING.get(meaning, (meaning, -1))
            if name == "SIO_KEEPALIVE_VALS":
                if meaning == "interval_s" and idle_s is not None:
                    _windows_values(sock, idle_s, value)
                continue
            if constant == -1:
                raise _failed(errno.ENOPROTOOPT, meaning, value)
            try:
                sock.setsockopt(_level(name), constant, -(-value // _unit(name)))
            except OSError as error:
                raise _failed(error.errno, name, value) from None


def _windows_values(sock: socket.socket, idle_s: int, interval_s: int) -> None:
    ioctl = getattr(sock, "ioctl")  # noqa: B009 - only Windows builds have it, and type checkers know
    ioctl(getattr(socket, "SIO_KEEPALIVE_VALS"), (1, idle_s * 1000, interval_s * 1000))  # noqa: B009


def get_keepalive(fd: int) -> Tuple[bool, Optional[int], Optional[int], Optional[int], Optional[int]]:
    """See ``_fastsock.pyi``."""
    with _borrowed(fd, None) as sock:

        def read(meaning: str) -> Optional[int]:
            name, constant = SPELLING.get(meaning, ("", 0))
            if name in ("", "SIO_KEEPALIVE_VALS"):
                return None
            try:
                return sock.getsockopt(_level(name), constant) * _unit(name)
            except OSError as error:
                raise _failed(error.errno, name, None) from None

        return bool(read("enabled")), read("idle_s"), read("interval_s"), read("count"), read("user_timeout_ms")


def _failed(code: Optional[int], name: str, value: Optional[int]) -> OSError:
    call = f"getsockopt({name})" if value is None else f"setsockopt({name}={value})"
    return OSError(code or 0, f"{call}: {os.strerror(code or 0)}")


_raw_decode = json.JSONDecoder().raw_decode


def decode_json(data: bytes, start: int, in_array: bool = False) -> Tuple[Any, int]:
    """See ``_fastsock.pyi``."""
    if type(data) is not bytes:
        raise TypeError(f"{type(data).__name__} is given, but bytes are decoded")
    start = operator.index(start)
    if not 0 <= start <= len(data):
        raise ValueError(f"{start} is no offset in {len(data)} bytes")
    text = ("[" if in_array else "") + data[start:].decode("utf-8")
    try:
        value, end = _raw_decode(text)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    return value, len(data) - len(text[end:].encode("utf-8"))
