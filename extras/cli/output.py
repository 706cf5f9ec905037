"""What the commands print: text that is safe on a terminal, JSON, and errors without secrets or what people said."""

import argparse
import json
import sys
from datetime import datetime, timezone
from typing import Any, Dict, Optional

from extras._redis import RedisError, ResponseError

DONE, NOT_ALL, UNUSABLE = 0, 1, 2
"""Exit codes: all is done; not all could be done; the command line, a file or Redis cannot be used."""

EXIT_CODES = """\
exit code:
  0  all is done
  1  not all could be done, and stderr says what
  2  the command line, a file or Redis cannot be used
"""


def lesson(*examples: str) -> str:
    """Return what the help of a command ends with: its exit codes, and how it is used."""
    return "\n".join([EXIT_CODES, "examples:", *(f"  {example}" for example in examples)])


class Unusable(Exception):
    """What a command needs cannot be used; the message says what, and the way out."""


def printable(text: str) -> str:
    """Return text in which what a terminal would obey is escaped."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def say(text: str) -> None:
    """Print a line to stdout, at once."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def say_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    say(as_json(value))


def as_json(value: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(value, sort_keys=False)


def remark(text: str) -> None:
    """Print a line to stderr: what is no result."""
    encoding = sys.stderr.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr, flush=True)


def moment(timestamp_s: Optional[float]) -> str:
    """Return a time in UTC, to the second, or ``-``."""
    try:
        return datetime.fromtimestamp(float(timestamp_s or "-"), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "-"


def size(size_bytes: float) -> str:
    """Return a number of bytes for people: ``512 B``, ``8.3 kB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def told(error: BaseException) -> str:
    """Return what an error of Redis may say to people: a server that knows no command repeats its arguments."""
    if isinstance(error, ResponseError):
        return f"Redis says: {str(error).split(', with args')[0].split(' args=')[0]}"
    if isinstance(error, RedisError):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


def counted(counts: Dict[str, int]) -> str:
    """Return ``3 written, 1 failed`` of what was counted, without what was none but for the first."""
    parts = [f"{count:,} {what}" for number, (what, count) in enumerate(counts.items()) if count or not number]
    return ", ".join(parts)


def whole(text: str) -> int:
    """Read an argument that is a number of things: 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def positive(text: str) -> float:
    """Read an argument that is a number more than 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number more than 0")
    return number
