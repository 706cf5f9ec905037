"""An append-only file that keeps records through a crash of its process or its machine, with a lock of its own.

A record is a magic number with the version, the payload's length and a CRC-32 of length and payload, then the payload,
as in LevelDB's log format. What was cut off or damaged is found by it, and reading goes on at the next whole record: a
payload of ASCII text cannot contain the magic number. Nothing here knows Redis or Rasa.
"""

import errno
import os
import re
import stat
import struct
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, List, NamedTuple, Sequence, Tuple

from extras.errors import OptionError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

MAGIC = b"\xf5RX\x01"
_HEAD = struct.Struct(">4sII")
_MOST_FILES = 1000
_LOCKED_BYTE = 1 << 40
"""What Windows locks, far behind any record: a locked byte cannot be read by others there."""


class JournalError(OSError):
    """The journal cannot take or give something; the message says what and what to do."""


class Scanned(NamedTuple):
    """Whole records of a file, what is damaged between them as (offset, size), and where a torn end begins."""

    payloads: List[bytes]
    damaged: List[Tuple[int, int]]
    end: int


def record(payload: bytes) -> bytes:
    """Return the record of a payload, which must be ASCII."""
    size = len(payload)
    return _HEAD.pack(MAGIC, size, _checksum(size, payload)) + payload


def _checksum(size: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(size.to_bytes(4, "big")))


def scan(data: bytes) -> Scanned:
    """Return the records in a file's bytes; whatever is no whole record is passed over."""
    payloads: List[bytes] = []
    damaged: List[Tuple[int, int]] = []
    at = end = 0
    while True:
        at = data.find(MAGIC, at)
        if at < 0 or at + _HEAD.size > len(data):
            return Scanned(payloads, damaged, end)
        _, size, checksum = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(payload) < size or checksum != _checksum(size, payload):
            at += 1
            continue
        if at > end:
            damaged.append((end, at - end))
        payloads.append(payload)
        at = end = at + _HEAD.size + size


class JournalFile:
    """A locked file of records. The lock holds until :meth:`close`, or until the process ends, however it does."""

    def __init__(self, path: Path, create: bool) -> None:
        """Open and lock it. Raises ``BlockingIOError`` if another has it, ``OSError`` if it cannot be opened."""
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        fd = os.open(str(path), flags | (os.O_CREAT if create else 0), 0o600)
        self._file: BinaryIO = os.fdopen(fd, "rb+", buffering=0)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", str(path))
            _lock(fd)
            if sys.platform != "win32" and os.fstat(fd).st_mode & 0o077:
                os.fchmod(fd, 0o600)  # it holds conversations
            self.size_bytes = os.fstat(fd).st_size
            if create and self.size_bytes == 0:
                _sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    def read(self) -> bytes:
        """Return all its bytes."""
        self._file.seek(0)
        pieces: List[bytes] = []
        while True:
            piece = self._file.read(1 << 20)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def append(self, records: Sequence[bytes], is_synced: bool = True) -> None:
        """Add records; when this returns, they are on the disk, or on their way if not ``is_synced``.

        Raises ``OSError``; then none of them is there.
        """
        before = self.size_bytes
        data = memoryview(b"".join(records))
        try:
            while data:
                written = self._file.write(data)
                self.size_bytes += written
                data = data[written:]
            if is_synced:
                os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self.cut(before)
            raise

    def cut(self, size_bytes: int) -> None:
        """Take away what is behind ``size_bytes``, on the disk too."""
        self._file.truncate(size_bytes)
        self.size_bytes = size_bytes
        os.fsync(self._file.fileno())

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._file.closed

    def close(self) -> None:
        """Close it and give up the lock; records that it holds can be adopted by others then."""
        self._file.close()


def open_first(path: Path) -> JournalFile:
    """Open and lock ``path``, or ``path.1``, ``path.2``, ... where other processes have those before it.

    Raises ``OptionError`` where that is not possible.
    """
    for number in range(_MOST_FILES):
        try:
            return JournalFile(_numbered(path, number), create=True)
        except BlockingIOError:
            continue
        except OSError as error:
            raise OptionError(
                f"journal_path: {str(path)!r} cannot be opened ({error.strerror or error}); name a file in a folder "
                f"that exists and may be written to"
            ) from error
    raise OptionError(f"journal_path: {_MOST_FILES} processes have a journal at {str(path)!r}; name another file")


def beside(path: Path) -> List[Path]:
    """Return the journals of all processes that name ``path``, that one included, as far as there are any."""
    numbered = re.compile(re.escape(path.name) + r"(\.[0-9]+)?")
    return [candidate for candidate in sorted(path.parent.iterdir()) if numbered.fullmatch(candidate.name)]


def refused_path(path: Path) -> Path:
    """Return the file for what of the journals at ``path`` cannot be brought to Redis."""
    return path.with_name(f"{path.name}.refused")


def adopt(path: Path) -> List[JournalFile]:
    """Open and lock every journal beside ``path`` that has content and that nobody has locked, ``path`` included."""
    adopted: List[JournalFile] = []
    for candidate in beside(path):
        try:
            found = JournalFile(candidate, create=False)
        except OSError:
            continue  # somebody has it, or had it until a moment ago
        if found.size_bytes:
            adopted.append(found)
        else:
            found.close()
    return adopted


def is_foreign(data: bytes) -> bool:
    """Return whether a file's bytes are something else than a journal, torn or not."""
    start = data[: len(MAGIC)].rstrip(b"\0")  # zeros are what some file systems leave of a torn write
    return not MAGIC.startswith(start) and not scan(data).payloads


def set_aside(path: Path, records: Sequence[bytes]) -> None:
    """Append to a file that is opened for this only; when this returns, it is on the disk. Raises ``OSError``."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(str(path), flags, 0o600), "ab", buffering=0) as file:
        data = memoryview(b"".join(records))
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _sync_folder(folder: Path) -> None:
    """Bring a new file's name to the disk (fsync(2), NOTES); Windows has nothing like it."""
    if sys.platform != "win32":
        fd = os.open(str(folder), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _lock(fd: int) -> None:
    """Lock a file for this process and no other. Raises ``BlockingIOError``."""
    if sys.platform == "win32":
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(errno.EAGAIN, "another process has it") from error
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
