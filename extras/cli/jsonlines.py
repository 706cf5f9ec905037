"""Files of JSON, one object a line, that go on where they were cut."""

import json
import os
from typing import IO, Any, Dict, Iterator, NamedTuple, Optional

from extras.cli.output import Unusable

_FLUSH_EVERY = 100


class Line(NamedTuple):
    """A line of a file: ``value`` is ``None`` where it is no JSON object, or was cut."""

    number: int
    value: Optional[Dict[str, Any]]


def read_lines(path: str) -> Iterator[Line]:
    """Yield the lines of a file, one at a time. Raises :class:`~extras.cli.output.Unusable`."""
    try:
        with open(path, "rb") as file:
            for number, text in enumerate(file, 1):
                yield Line(number, value_of(text))
    except OSError as error:
        raise Unusable(f"{path!r} cannot be read: {error.strerror}") from None


def value_of(text: bytes) -> Optional[Dict[str, Any]]:
    """Return the object of a line, ``None`` where it is no JSON object, or was cut."""
    if not text.endswith(b"\n"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Writer:
    """Appends lines to a file that only its owner may read, because conversations are private."""

    def __init__(self, path: str, resume: bool) -> None:
        """Make the file; ``resume``: or go on with it, without a last line that was cut.

        Raises :class:`~extras.cli.output.Unusable`, also where there is a file and ``resume`` is off.
        """
        self._path = path
        self._unwritten = 0
        flags = os.O_RDWR | os.O_CREAT | (0 if resume else os.O_EXCL) | getattr(os, "O_BINARY", 0)
        try:
            self._file: IO[bytes] = os.fdopen(os.open(path, flags, 0o600), "r+b")
        except FileExistsError:
            raise Unusable(f"{path!r} is there already; --resume goes on with it") from None
        except OSError as error:
            raise Unusable(f"{path!r} cannot be written: {error.strerror}") from None
        self._file.seek(_end_of_last_line(self._file))
        self._file.truncate()

    def write(self, value: Dict[str, Any]) -> None:
        """Append a line."""
        self._file.write(json.dumps(value).encode("ascii") + b"\n")
        self._unwritten += 1
        if self._unwritten >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Give what was written to the operating system."""
        self._file.flush()
        self._unwritten = 0

    def close(self) -> None:
        """Put what was written on the disk, and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


def _end_of_last_line(file: "IO[bytes]") -> int:
    """Return the offset behind the last line end, 0 if there is none."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
