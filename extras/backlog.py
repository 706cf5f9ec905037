"""The turns that Redis does not have yet: in a journal on the disk, and in memory to be read and replayed.

Nothing here knows Rasa, or asks Redis for anything.
"""

import json
import logging
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set

from extras.errors import OptionError
from extras.group_commit import GroupCommit
from extras.journal import (
    JournalError,
    JournalFile,
    adopt,
    is_foreign,
    open_first,
    record,
    refused_path,
    scan,
    set_aside,
)
from extras.lastknown import UNKNOWN, Image, Taken, Waiting

logger = logging.getLogger(__name__)


class State(NamedTuple):
    """What a journal holds that Redis does not have yet.

    ``since``: seconds since the epoch at which the oldest of it was journaled. ``last_error``: why Redis did not take
    it when last asked.
    """

    path: str
    records: int
    bytes: int
    conversations: int
    since: Optional[float]
    last_error: Optional[str]


class _Entry(NamedTuple):
    """One turn on its way to the disk; ``image``: what was known before it."""

    sender_id: str
    image: Image
    taken: Taken
    expires_after_s: Optional[float]
    at_s: float


class Backlog:
    """Turns of conversations, kept from when they are on the disk until Redis has them.

    Opens ``path``, or a name beside it where other processes have it, and takes over what processes that are gone have
    left there. Raises ``OptionError``.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._disk = threading.Lock()  # taken before the other one, held while the disk works
        self._lock = threading.Lock()
        self._writer: GroupCommit[_Entry] = GroupCommit(self._commit)
        self._waiting: Dict[str, Waiting] = {}
        self._complaints: Set[str] = set()
        self._file = open_first(path)
        self._files = [self._file]
        try:
            self._files += adopt(path)
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        entries: List[Dict[str, Any]] = []
        for file in list(self._files):
            data = file.read()
            if not is_foreign(data):
                entries += self._entries_in(file, data)
            elif file is self._file:
                raise OptionError(f"journal_path: {str(file.path)!r} holds something else; name another file")
            else:
                logger.error("%s holds something else than a journal and is left as it is.", file.path)
                self._files.remove(file)
                file.close()
        for entry in sorted(entries, key=lambda entry: float(entry["at"])):
            base = entry.get("base")  # without one the record that had it is damaged
            image = Image(base["text"].encode(), base["size_bytes"], base["whole"]) if base else UNKNOWN
            taken = Taken(entry["events"].encode(), entry["closing"].encode())
            self._add(_Entry(entry["sender"], image, taken, entry["expires_after_s"], float(entry["at"])))

    def _entries_in(self, file: JournalFile, data: bytes) -> List[Dict[str, Any]]:
        found = scan(data)
        if found.damaged:
            set_aside(refused_path(self._path), [data[at : at + size] for at, size in found.damaged])
            logger.error(
                "%d bytes in the midst of the journal %s are damaged; they are kept in %s.",
                *(sum(size for _, size in found.damaged), file.path, refused_path(self._path)),
            )
        if found.end < len(data):
            logger.warning(
                "The last %d bytes of the journal %s are no whole record, as after a power failure; they are dropped.",
                *(len(data) - found.end, file.path),
            )
            file.cut(found.end)
        entries: List[Dict[str, Any]] = []
        latest = 0.0
        for payload in found.payloads:
            entry = json.loads(payload)
            if entry.get("is_replayed"):
                entries = [other for other in entries if other["sender"] != entry["sender"]]
            else:
                entry["at"] = latest = max(latest, entry["at"])  # a clock that was put back changes no order
                entries.append(entry)
        return entries

    @property
    def path(self) -> Path:
        """The file of this process."""
        return self._file.path

    def state(self, last_error: Optional[str]) -> State:
        """Return what is here."""
        with self._lock:
            waiting = list(self._waiting.values())
            since = min((one.since_s for one in waiting), default=None)
            size_bytes = sum(file.size_bytes for file in self._files)
            records = sum(len(one.turns) for one in waiting)
            return State(str(self.path), records, size_bytes, len(waiting), since, last_error)

    def __contains__(self, sender_id: str) -> bool:
        return sender_id in self._waiting

    def image(self, sender_id: str) -> Optional[Image]:
        """Return a conversation with its turns here, ``None`` if there are none."""
        with self._lock:
            waiting = self._waiting.get(sender_id)
            return None if waiting is None else waiting.image()

    def in_order(self) -> List[str]:
        """Return the conversations that have turns here, that which waits for longest first."""
        with self._lock:
            return sorted(self._waiting, key=lambda sender_id: self._waiting[sender_id].since_s)

    def copy(self, sender_id: str) -> Optional[Waiting]:
        """Return a conversation's turns as they are now, to be replayed."""
        with self._lock:
            waiting = self._waiting.get(sender_id)
            return None if waiting is None else waiting.copy()

    def put(self, sender_id: str, image: Image, taken: Taken, expires_after_s: Optional[float]) -> "Future[None]":
        """Add a turn; what is returned is done when it is on the disk, or has the ``OSError`` why it is not."""
        return self._writer.submit(_Entry(sender_id, image, taken, expires_after_s, time.time()))

    def _commit(self, entries: Sequence[_Entry]) -> Sequence[Optional[BaseException]]:
        """Bring turns to the disk, on the writer's thread."""
        with self._disk:
            if self._file.closed:
                return [JournalError("the store is closed")] * len(entries)
            accepted: Dict[str, List[_Entry]] = {}
            records: List[bytes] = []
            errors: List[Optional[BaseException]] = []
            size_bytes = self._file.size_bytes
            for entry in entries:
                is_first = entry.sender_id not in self._waiting and entry.sender_id not in accepted
                try:
                    written = _record_of(entry, is_first)
                except ValueError as error:  # text that is no UTF-8
                    errors.append(error)
                    continue
                if size_bytes + len(written) > self._most_bytes:
                    errors.append(self._full())
                    continue
                size_bytes += len(written)
                accepted.setdefault(entry.sender_id, []).append(entry)
                records.append(written)
                errors.append(None)
            try:
                if records:
                    self._file.append(records)
            except OSError as error:
                self.complain("disk", "The journal %s cannot be written: %s", self.path, error.strerror)
                return [other or error for other in errors]
            with self._lock:
                for of_one in accepted.values():
                    for entry in of_one:
                        self._add(entry)
        return errors

    def _full(self) -> JournalError:
        text = f"the journal {self.path} is full: journal_max_bytes is {self._most_bytes}"
        self.complain("full", "Turns cannot be kept until Redis is back: %s", text)
        return JournalError(text)

    def complain(self, about: str, message: str, *arguments: Any) -> None:
        """Log an error, once until there is nothing to complain of any more."""
        if about not in self._complaints:
            self._complaints.add(about)
            logger.error(message, *arguments)

    def _add(self, entry: _Entry) -> None:
        waiting = self._waiting.get(entry.sender_id)
        if waiting is None:
            waiting = self._waiting[entry.sender_id] = Waiting(entry.image, entry.at_s)
        waiting.add(entry.taken, entry.expires_after_s)

    def set_aside(self, sender_id: str, copied: Waiting) -> bool:
        """Bring a conversation's turns to another file, where they hold up nobody; return whether that was possible."""
        taken = Taken(copied.new_events, copied.closing)
        entry = _Entry(sender_id, copied.base, taken, copied.expires_after_s, copied.since_s)
        try:
            set_aside(refused_path(self._path), [_record_of(entry, True)])
        except OSError as error:
            self.complain("aside", "%s cannot be written: %s", refused_path(self._path), error.strerror)
            return False
        logger.error("%d turns of %r are kept in %s.", len(copied.turns), sender_id, refused_path(self._path))
        self.done(sender_id, copied)
        return True

    def done(self, sender_id: str, copied: Waiting) -> None:
        """Forget turns that Redis has, unless others have come to them since: they stay in their order then."""
        with self._disk:
            with self._lock:
                waiting = self._waiting.get(sender_id)
                if self._file.closed or waiting is None or len(waiting.turns) != len(copied.turns):
                    return
                del self._waiting[sender_id]
                if not self._waiting:
                    self._complaints.clear()
            with suppress(OSError):  # it will be replayed once more, and add nothing
                if self._waiting:
                    done = record(json.dumps({"sender": sender_id, "is_replayed": True}).encode())
                    for file in self._files:
                        file.append([done], is_synced=False)
                else:
                    self._empty()

    def _empty(self) -> None:
        for file in self._files:
            file.cut(0)
        for file in self._files[1:]:
            file.close()
        del self._files[1:]

    def close(self) -> None:
        """Close the files; what they hold stays there, and is taken over by the next who opens them."""
        with self._disk:
            self.leave()

    def leave(self) -> None:
        """Close the files as they are, in a child process whose parent goes on with them."""
        for file in self._files:
            file.close()


def _record_of(entry: _Entry, with_base: bool) -> bytes:
    image = entry.image
    fields: Dict[str, Any] = {
        "sender": entry.sender_id,
        "at": entry.at_s,
        "expires_after_s": entry.expires_after_s,
        "events": entry.taken.events.decode(),
        "closing": entry.taken.closing.decode(),
    }
    if with_base:
        image = image.spelt()[0]
        fields["base"] = {"text": image.text.decode(), "size_bytes": image.size_bytes, "whole": image.whole}
    return record(json.dumps(fields).encode())
