"""A file of conversations in the place of a host's memory: what its ``InMemoryTrackerStore`` keeps, as JSON lines.

Its lines are those of ``rasa-extras conversations export``: a sender id, and the document as text.
"""

import json
import os
import tempfile
import threading
from typing import IO, Dict, Iterator, List, MutableMapping, Tuple

from extras.cli.jsonlines import Writer, value_of
from extras.cli.output import Unusable

SUFFIX = ".jsonl"


class DocumentFile(MutableMapping[str, str]):
    """Documents by sender id, on the disk; of several lines of a sender id the last one counts.

    Each document is handed to the operating system as it is set, so that a killed process loses none.
    """

    def __init__(self, path: str, writes: bool) -> None:
        """Open a file, or make it if it is written to. Raises :class:`~extras.cli.output.Unusable`."""
        self.path = os.path.abspath(path)
        self._lock = threading.Lock()
        self._places: Dict[str, Tuple[int, int]] = {}
        self._superseded = False
        self._writes = writes
        if writes:
            Writer(path, True).close()  # makes it for its owner only, and drops a last line that was cut
        try:
            self._file: IO[bytes] = open(path, "r+b" if writes else "rb")  # noqa: SIM115 -- closed by close()
        except OSError as error:
            raise Unusable(f"{path!r} cannot be read: {error.strerror}") from None
        try:
            self._read()
        except Unusable:
            self._file.close()
            raise

    def _read(self) -> None:
        at = 0
        for number, text in enumerate(self._file, 1):
            value = value_of(text) or {}
            sender_id, document = value.get("sender_id"), value.get("document")
            if not isinstance(sender_id, str) or not isinstance(document, str):
                raise Unusable(f"{self.path!r}: line {number} is no whole line of an export")
            self._superseded = self._superseded or sender_id in self._places
            self._places[sender_id] = (at, len(text))
            at += len(text)

    def __getitem__(self, sender_id: str) -> str:
        with self._lock:
            at, length = self._places[sender_id]
            self._file.seek(at)
            document: str = json.loads(self._file.read(length))["document"]
        return document

    def __setitem__(self, sender_id: str, document: str) -> None:
        text = json.dumps({"sender_id": sender_id, "document": document, "ttl_ms": None}).encode("ascii") + b"\n"
        with self._lock:
            at = self._file.seek(0, os.SEEK_END)
            self._file.write(text)
            self._file.flush()
            self._superseded = self._superseded or sender_id in self._places
            self._places[sender_id] = (at, len(text))

    def __delitem__(self, sender_id: str) -> None:
        raise TypeError("a conversation is not taken out of a file")

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._places))

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Put what was written on the disk, each conversation once, and close."""
        if self._file.closed:
            return
        with self._file:
            if not self._writes:
                return
            os.fsync(self._file.fileno())
            if self._superseded:
                self._rewrite(sorted(self._places.values()))

    def _rewrite(self, places: List[Tuple[int, int]]) -> None:
        handle, path = tempfile.mkstemp(dir=os.path.dirname(self.path), prefix=os.path.basename(self.path))
        try:
            with os.fdopen(handle, "wb") as file:
                for at, length in places:
                    self._file.seek(at)
                    file.write(self._file.read(length))
                file.flush()
                os.fsync(file.fileno())
            os.replace(path, self.path)
        except BaseException:
            os.unlink(path)
            raise
