"""Pure-Python twin of the native ``extras._fastsock``: its fallback where it is not built, and its oracle.

Both modules have the same names and behaviour; ``_fastsock.pyi`` describes them.
"""

import errno
import json
import operator
import os
import select
import socket
from contextlib import contextmanager
from math import ceil
from time import monotonic
from typing import AbstractSet, Any, Dict, Iterator, List, Optional, Sequence, Tuple, final

import hiredis

from extras import _version
from extras.keepalive import CONSTANTS

IMPL = "python"
VERSION = _version.VERSION
BULK_MAX_BYTES = 512 * 1024 * 1024
CUTOFF_BYTES = 6000
LARGE_BYTES = 64 * 1024
PUSH: Any = getattr(hiredis, "PushNotification", None)  # since hiredis 3
_WAIT_MS = 500  # at once: see transfer.pxi


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


_NUMBERS = frozenset({int, float})
_TEXT = frozenset({bytes, str})


def pack_commands(commands: Sequence[Sequence[Any]], buffers: AbstractSet[type]) -> Optional[List[Any]]:
    """See ``_fastsock.pyi``."""
    pieces: List[Any] = []
    head: List[Any] = []
    try:
        for command in commands:
            args = tuple(command)
            if not _is_one_word(args):
                return None
            if all(map(_is_short, args)):
                head.append(hiredis.pack_command(args))
                continue
            head.append(b"*%d\r\n" % len(args))
            for arg in args:
                data = _as_bytes(arg, buffers)
                head.append(b"$%d\r\n" % len(data))
                if len(data) > CUTOFF_BYTES:
                    pieces += (b"".join(head), data)
                    head = [b"\r\n"]
                else:
                    head += (data, b"\r\n")
    except (TypeError, ValueError):  # lone surrogates, more digits than Python writes, what is no argument
        return None
    return [*pieces, b"".join(head)] if head else pieces


def _is_short(arg: Any) -> bool:
    """Whether hiredis packs it: of an ``int`` with more digits than Python writes it dies."""
    if type(arg) is int:
        return arg.bit_length() < 64
    return type(arg) is float or (type(arg) in _TEXT and len(arg) <= CUTOFF_BYTES // 4)


def _is_one_word(args: Sequence[Any]) -> bool:
    """Whether redis-py leaves the name of a command as it is: it splits text at white space, bytes at spaces."""
    name = args[0] if args else None
    if type(name) is str:
        return name.encode().split() == [name.encode()]
    return type(name) is bytes and b" " not in name


def _as_bytes(arg: Any, buffers: AbstractSet[type]) -> Any:
    if type(arg) is bytes:
        return arg
    if type(arg) is str:
        return arg.encode()
    if type(arg) in _NUMBERS:
        return repr(arg).encode()
    if type(arg) not in buffers:
        raise TypeError(f"{type(arg).__name__} is no argument that is packed here")
    if type(arg) is memoryview and not (arg.format == "B" and arg.ndim == 1 and arg.c_contiguous):
        raise TypeError("an element of memory is more than a byte, or not beside the next")
    return arg


def _deadline(timeout_s: Optional[float]) -> Optional[float]:
    if timeout_s is None:
        return None
    if not timeout_s >= 0:
        raise ValueError("Timeout value out of range")
    return monotonic() + timeout_s


def _descriptor(sock: socket.socket) -> int:
    fd = sock.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return fd


def _ready(sock: socket.socket, event: int, deadline: Optional[float]) -> bool:
    while True:
        poller = select.poll()
        poller.register(_descriptor(sock), event)
        left_ms = _WAIT_MS if deadline is None else max(0, min(_WAIT_MS, ceil((deadline - monotonic()) * 1000)))
        if poller.poll(left_ms):
            return True
        if deadline is not None and monotonic() >= deadline:
            return False


def _wait(sock: socket.socket, event: int, deadline: Optional[float], timeout_s: Optional[float]) -> None:
    if not _ready(sock, event, deadline):
        if timeout_s == 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        raise socket.timeout("timed out")


def wait_readable(sock: socket.socket, timeout_s: Optional[float]) -> Optional[bool]:
    """See ``_fastsock.pyi``."""
    if not _ready(sock, select.POLLIN, _deadline(timeout_s)):
        return None
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True


def send_all(sock: socket.socket, pieces: Sequence[Any], timeout_s: Optional[float]) -> None:
    """See ``_fastsock.pyi``."""
    deadline = _deadline(timeout_s)
    rest: List[memoryview] = [memoryview(piece).cast("B") for piece in pieces]
    rest = [view for view in reversed(rest) if view.nbytes]
    while rest:
        if timeout_s is not None:
            _wait(sock, select.POLLOUT, deadline, timeout_s)
        _descriptor(sock)
        sent = sock.sendmsg(rest[:-17:-1], [], 0 if timeout_s is None else socket.MSG_DONTWAIT)
        while rest and sent >= rest[-1].nbytes:
            sent -= rest.pop().nbytes
            deadline = _deadline(timeout_s)
        if sent:
            rest[-1] = rest[-1][sent:]


def send_some(sock: socket.socket, data: bytes) -> int:
    """See ``_fastsock.pyi``."""
    _descriptor(sock)
    try:
        return sock.send(data, socket.MSG_DONTWAIT)
    except OSError:
        return 0


def send_command(
    sock: socket.socket, args: Sequence[Any], buffers: AbstractSet[type], timeout_s: Optional[float]
) -> bool:
    """See ``_fastsock.pyi``."""
    _deadline(timeout_s)
    packed = pack_commands((args,), buffers)
    if packed is None:
        return False
    send_all(sock, packed, timeout_s)
    return True


@final
class Reader:
    """See ``_fastsock.pyi``."""

    def __init__(
        self, reader: Any, not_enough: Any, buffer_bytes: int, encoding: Optional[str], errors: Optional[str]
    ) -> None:
        self._reader = reader
        self._not_enough = not_enough
        self._encoding = encoding
        self._errors = errors or "strict"
        self._buffer = bytearray(max(buffer_bytes, 1))
        self._under_way = self._busy = self.was_sent = False
        self._large: Optional[bytearray] = None
        self._missing = self._trailer = 0

    def has_data(self) -> bool:
        """See ``_fastsock.pyi``."""
        return self._large is not None or self._under_way or bool(self._reader.has_data())

    def gets(self, decode: bool = True) -> Any:
        """See ``_fastsock.pyi``."""
        if self._large is not None:
            return self._take_large(decode)
        if not self._under_way and not self._reader.has_data():
            return self._not_enough
        self._under_way = True
        try:
            reply = self._reader.gets() if decode else self._reader.gets(False)
        except UnicodeDecodeError:  # hiredis has passed over what it could not decode
            self._under_way = False
            raise
        self._under_way = reply is self._not_enough
        return reply

    def _take_large(self, decode: bool) -> Any:
        if self._large is None or self._missing or self._trailer:
            return self._not_enough
        data, self._large = bytes(self._large), None
        return data.decode(self._encoding, self._errors) if decode and self._encoding is not None else data

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._begin()
        try:
            yield
        finally:
            self._busy = False

    def _begin(self) -> None:
        if self._busy:
            raise RuntimeError("this connection is being read already, by another thread or below a signal handler")
        self._busy = True

    def receive(self, sock: socket.socket, timeout_s: Optional[float]) -> bool:
        """See ``_fastsock.pyi``."""
        with self._reading():
            return self._receive(sock, timeout_s)

    def reply(self, sock: socket.socket, timeout_s: Optional[float]) -> Any:
        """See ``_fastsock.pyi``."""
        _deadline(timeout_s)
        with self._reading():
            return self._reply(sock, timeout_s)

    def replies(self, sock: socket.socket, count: int, timeout_s: Optional[float]) -> List[Any]:
        """See ``_fastsock.pyi``."""
        found: List[Any] = []
        _deadline(timeout_s)
        with self._reading():
            while len(found) < count:
                found.append(self._reply(sock, timeout_s))
                if PUSH is not None and type(found[-1]) is PUSH:
                    break
        return found

    def _reply(self, sock: socket.socket, timeout_s: Optional[float]) -> Any:
        while True:
            reply = self.gets()
            if reply is not self._not_enough:
                return reply
            if not self._receive(sock, timeout_s):
                raise ConnectionAbortedError()

    def is_quiet(self, sock: socket.socket) -> bool:
        """See ``_fastsock.pyi``."""
        return not self._busy and self._is_quiet(sock)

    def _is_quiet(self, sock: socket.socket) -> bool:
        return not self.has_data() and not _ready(sock, select.POLLIN, monotonic())

    def ask(self, sock: socket.socket, args: Sequence[Any], buffers: AbstractSet[type]) -> Any:
        """See ``_fastsock.pyi``."""
        if self._busy:
            return NotImplemented
        with self._reading():
            self.was_sent = False
            if not self._is_quiet(sock):
                return NotImplemented
            timeout_s = sock.gettimeout()
            if not send_command(sock, args, buffers, timeout_s):
                return NotImplemented
            self.was_sent = True
            return self._reply(sock, timeout_s)

    def _receive(self, sock: socket.socket, timeout_s: Optional[float]) -> bool:
        deadline = _deadline(timeout_s)
        _descriptor(sock)
        if timeout_s is not None or sock.gettimeout() is not None:
            _wait(sock, select.POLLIN, deadline, timeout_s)
        if self._large is not None and self._missing:
            with memoryview(self._large)[-self._missing :] as rest:
                got = sock.recv_into(rest)
            self._missing -= got
        else:
            got = sock.recv_into(self._buffer)
            with memoryview(self._buffer)[:got] as received:
                self._handle(received)
        return got > 0

    def room(self, size_hint: int = -1) -> memoryview:
        """See ``_fastsock.pyi``."""
        self._begin()
        self._busy = False
        return memoryview(self._buffer)

    def received(self, size: int) -> None:
        """See ``_fastsock.pyi``."""
        self._begin()
        try:
            if not 0 <= size <= len(self._buffer):
                raise ValueError(f"{size} bytes are not what room() has")
            with memoryview(self._buffer)[:size] as received:
                self._handle(received)
        finally:
            self._busy = False

    def _handle(self, received: memoryview) -> None:
        at = 0
        if self._large is None and not self._under_way and not self._reader.has_data():
            at = self._begin_large(bytes(received[:16]))
        if self._large is not None:
            body = received[at : at + self._missing]
            self._large[len(self._large) - self._missing : len(self._large) - self._missing + len(body)] = body
            self._missing -= len(body)
            at += len(body)
            end = min(len(received) - at, self._trailer)
            self._trailer -= end
            at += end
        if at < len(received):
            self._reader.feed(self._buffer, at, len(received) - at)

    def _begin_large(self, start: bytes) -> int:
        digits, line_end, _ = start[1:].partition(b"\r\n")
        if start[:1] != b"$" or not line_end or not digits.isdigit() or digits.startswith(b"0"):
            return 0
        length = int(digits)
        if not LARGE_BYTES < length <= BULK_MAX_BYTES:
            return 0
        try:
            self._large = bytearray(length)
        except MemoryError:
            return 0
        self._missing, self._trailer = length, 2
        return 1 + len(digits) + 2
