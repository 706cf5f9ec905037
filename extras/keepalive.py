"""How soon a dead Redis is noticed: TCP liveness by the option names of any operating system.

``socket_keepalive_options`` may be written with Linux, macOS or Windows names, or with this system's own
constants as integers; what comes out is a :class:`Keepalive`, in seconds and milliseconds, that means the
same everywhere. Nothing here opens or touches a socket.
"""

import socket
import sys
from dataclasses import dataclass, fields, replace
from typing import Any, Collection, Dict, List, Mapping, NamedTuple, Optional, Tuple

from extras.errors import OptionError, did_you_mean


@dataclass(frozen=True)
class Keepalive:
    """TCP liveness of one connection; ``None`` leaves a value to the kernel, or says that it cannot be read.

    ``idle_s``: seconds of silence before the first probe. ``interval_s``: seconds between probes. ``count``:
    unanswered probes before the connection is dropped. ``user_timeout_ms``: milliseconds that sent data may stay
    unacknowledged (RFC 5482); it also overrides ``count`` on Linux (tcp(7)).
    """

    enabled: bool = True
    idle_s: Optional[int] = None
    interval_s: Optional[int] = None
    count: Optional[int] = None
    user_timeout_ms: Optional[int] = None

    @property
    def dead_after_s(self) -> Optional[int]:
        """Longest silence, in seconds, before a read on an idle connection fails with ``ETIMEDOUT``."""
        if not self.enabled or self.idle_s is None or self.interval_s is None or self.count is None:
            return None
        return self.idle_s + self.interval_s * self.count

    def noticed_after(self, socket_timeout_s: Optional[float]) -> str:
        """Return in words how soon a dead peer is noticed; ``socket_timeout_s``: longest wait for a reply.

        Nothing but that ends the wait for a process that is frozen while its kernel acknowledges.
        """
        after = []
        other = []
        if self.dead_after_s is None:
            other.append("never while idle")
        else:
            after.append(f"{self.dead_after_s} s idle")
        if self.user_timeout_ms:
            after.append(f"{self.user_timeout_ms / 1000:g} s in flight")
        else:
            other.append("in flight when the kernel's own retries end")
        if socket_timeout_s is not None:
            after.append(f"{socket_timeout_s:g} s frozen")
        else:
            other.append("never when frozen (socket_timeout is null)")
        return "a dead peer is noticed " + ", ".join([*(["after " + ", ".join(after)] if after else []), *other])

    def with_defaults(self) -> "Keepalive":
        """Fill what was not given, so that a peer that is gone is noticed in well under a minute.

        The user timeout follows from the probes: larger, it would put off what ``count`` promises.
        """
        if not self.enabled:
            return self
        filled = replace(
            self,
            idle_s=DEFAULT_IDLE_S if self.idle_s is None else self.idle_s,
            interval_s=DEFAULT_INTERVAL_S if self.interval_s is None else self.interval_s,
            count=DEFAULT_COUNT if self.count is None else self.count,
        )
        if filled.user_timeout_ms is None and filled.dead_after_s is not None:
            limit_ms = _ranges()["user_timeout_ms"][1]
            filled = replace(filled, user_timeout_ms=min(filled.dead_after_s * 1000, limit_ms))
        return filled

    def only(self, meanings: Collection[str]) -> "Keepalive":
        """Drop what is not among ``meanings``: the field names that the running system has an option for."""
        dropped: Dict[str, Any] = {name: None for name in self.given() if name not in meanings}
        return replace(self, **dropped)

    def given(self) -> List[str]:
        """Names of the fields that hold a value, ``enabled`` apart."""
        return [f.name for f in fields(self) if f.name != "enabled" and getattr(self, f.name) is not None]

    def __str__(self) -> str:
        if not self.enabled:
            return "keepalive off"
        parts = [f"{LABELS[name]} {getattr(self, name)}{_UNITS[name]}" for name in self.given()]
        return ", ".join(["keepalive on", *parts])


DEFAULT_IDLE_S = 30
DEFAULT_INTERVAL_S = 5
DEFAULT_COUNT = 3

LABELS = {"idle_s": "idle", "interval_s": "interval", "count": "count", "user_timeout_ms": "user timeout"}
_UNITS = {"idle_s": " s", "interval_s": " s", "count": "", "user_timeout_ms": " ms"}


class _Name(NamedTuple):
    """What one system's option name means: value of the field = value given * ``numerator`` / ``denominator``."""

    field: str
    numerator: int = 1
    denominator: int = 1


NAMES: Dict[str, _Name] = {
    # Linux tcp(7); FreeBSD tcp(4) and Windows share the first three.
    "TCP_KEEPIDLE": _Name("idle_s"),
    "TCP_KEEPINTVL": _Name("interval_s"),
    "TCP_KEEPCNT": _Name("count"),
    "TCP_USER_TIMEOUT": _Name("user_timeout_ms"),
    # macOS tcp(4) and netinet/tcp.h.
    "TCP_KEEPALIVE": _Name("idle_s"),
    "TCP_RXT_CONNDROPTIME": _Name("user_timeout_ms", 1000),
    # Windows ws2ipdef.h: how long data is sent again before the connection is given up.
    "TCP_MAXRT": _Name("user_timeout_ms", 1000),
    "TCP_MAXRTMS": _Name("user_timeout_ms"),
    # illumos tcp(4P).
    "TCP_KEEPALIVE_THRESHOLD": _Name("idle_s", 1, 1000),
}

SIO_KEEPALIVE_VALS = "SIO_KEEPALIVE_VALS"
"""Windows mstcpip.h: ``[on, idle in ms, interval in ms]`` in one value."""

WITHOUT_MEANING = frozenset({"TCP_KEEPINIT", "TCP_CONNECTIONTIMEOUT", "TCP_KEEPALIVE_ABORT_THRESHOLD"})
"""Liveness options of other systems that say nothing this package could apply: they end in a warning."""

Range = Tuple[int, int]

# net/ipv4/tcp.c: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT; the user timeout is an unsigned int that
# setsockopt reads as a signed one. 0 would mean "the system's default", which leaving it out says better.
_LINUX_RANGES: Dict[str, Range] = {
    "idle_s": (1, 32767),
    "interval_s": (1, 32767),
    "count": (1, 127),
    "user_timeout_ms": (1, 2**31 - 1),
}
# Elsewhere kernels keep the times in int milliseconds (xnu tcp_ctloutput, winsock) and the count in a byte.
_OTHER_RANGES: Dict[str, Range] = {
    "idle_s": (1, (2**31 - 1) // 1000),
    "interval_s": (1, (2**31 - 1) // 1000),
    "count": (1, 255),
    "user_timeout_ms": (1, 2**31 - 1),
}


def _ranges() -> Dict[str, Range]:
    return _LINUX_RANGES if hasattr(socket, "TCP_USER_TIMEOUT") else _OTHER_RANGES


def _constants() -> Dict[str, int]:
    found = {name: int(getattr(socket, name)) for name in NAMES if hasattr(socket, name)}
    if sys.platform == "darwin":  # netinet/tcp.h; the socket module has the first since 3.10, the second never
        found.setdefault("TCP_KEEPALIVE", 0x10)
        found.setdefault("TCP_RXT_CONNDROPTIME", 0x80)
    return found


CONSTANTS = _constants()
"""This system's own liveness options: name to the integer that ``setsockopt`` takes."""

Given = Mapping[Any, Any]
"""``socket_keepalive_options`` as a user gives it: names or this system's integer constants, to numbers or text."""


class Parsed(NamedTuple):
    """Outcome of :func:`parse`.

    ``keepalive``: the values as given. ``names``: which name gave each field its value. ``ignored``: names given that
    say nothing on any system this package knows.
    """

    keepalive: Keepalive
    names: Mapping[str, str]
    ignored: Tuple[str, ...]


def parse(enabled: bool, options: Optional[Given]) -> Parsed:
    """Turn ``socket_keepalive`` and ``socket_keepalive_options`` into a :class:`Keepalive`.

    Raises :class:`~extras.errors.OptionError` for an unknown name, a value that is not a whole number or is out
    of the kernel's range, and two names that mean the same with different values.
    """
    values: Dict[str, int] = {}
    source: Dict[str, str] = {}
    ignored: List[str] = []
    for key, value in (options or {}).items():
        name = _name_of(key)
        if name in WITHOUT_MEANING:
            ignored.append(name)
            continue
        for field, number in _meaning_of(name, value):
            _check_range(name, value, field, number)
            if values.setdefault(field, number) != number:
                raise OptionError(
                    f"socket_keepalive_options: {source[field]} and {name} mean the same ({LABELS[field]}) but "
                    f"have different values; keep one of them"
                )
            source.setdefault(field, name)
    if not enabled:
        return Parsed(Keepalive(enabled=False), {}, tuple(ignored))
    return Parsed(Keepalive(enabled=True, **values), source, tuple(ignored))


def _name_of(key: Any) -> str:
    if isinstance(key, str):
        name = key.strip()
        if name in NAMES or name in WITHOUT_MEANING or name == SIO_KEEPALIVE_VALS:
            return name
        known = [*NAMES, SIO_KEEPALIVE_VALS]
        raise OptionError(
            f"socket_keepalive_options: unknown option {key!r}{did_you_mean(name, known)} "
            f"(known: {', '.join(sorted(known))})"
        )
    if isinstance(key, int) and not isinstance(key, bool):
        for name, constant in CONSTANTS.items():
            if constant == key:
                return name
    here = ", ".join(f"{constant} ({name})" for name, constant in CONSTANTS.items())
    raise OptionError(
        f"socket_keepalive_options: {key!r} is not a liveness option of this system; write its name, "
        f"such as TCP_KEEPIDLE, or one of {here}"
    )


def _meaning_of(name: str, value: Any) -> List[Tuple[str, int]]:
    if name == SIO_KEEPALIVE_VALS:
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            raise OptionError(f"socket_keepalive_options: {name} takes [on, idle in ms, interval in ms], not {value!r}")
        if value[0] is not True and not as_int(value[0]):
            raise OptionError(
                f"socket_keepalive_options: {name} must start with 1, not {value[0]!r}; to turn keepalive off, "
                f"set socket_keepalive: false"
            )
        return [
            ("idle_s", -(-_whole_number(name, value[1]) // 1000)),
            ("interval_s", -(-_whole_number(name, value[2]) // 1000)),
        ]
    meaning = NAMES[name]
    scaled = _whole_number(name, value) * meaning.numerator
    return [(meaning.field, -(-scaled // meaning.denominator))]


def as_int(value: Any) -> Optional[int]:
    """Return ``value`` as an int if it is one, or is spelt as one (``"5"``, ``5.0``); else ``None``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            return None
    return None


def _whole_number(name: str, value: Any) -> int:
    number = as_int(value)
    if number is None:
        raise OptionError(f"socket_keepalive_options: {name} must be a whole number, not {value!r}")
    return number


def _check_range(name: str, value: Any, field: str, number: int) -> None:
    low, high = _ranges()[field]
    if not low <= number <= high:
        converted = "" if as_int(value) == number else f" ({number}{_UNITS[field]})"
        raise OptionError(
            f"socket_keepalive_options: {name} is {value!r}{converted}, outside what this kernel takes: "
            f"{low} to {high}{_UNITS[field]}"
        )
