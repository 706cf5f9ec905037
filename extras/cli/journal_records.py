"""What the journals of ``on_outage: journal`` on this machine hold of a conversation, and its erasure."""

import json
import os
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

from extras.errors import OptionError
from extras.journal import JournalFile, adopt, beside, open_first, record, refused_path, scan

_IN_USE = "a Rasa that runs has this file, and brings them to Redis; run this again when it has, or has ended"


class Records(NamedTuple):
    """The records of a conversation in a file. ``why``: why they are still there, empty where they are not."""

    path: Path
    payloads: List[bytes]
    why: str = ""


def turns_without_owner(path: Path) -> int:
    """Return how many turns there are at and beside ``path`` that no running Rasa looks after."""
    count = 0
    for file in adopt(path):
        try:
            entries = [json.loads(payload) for payload in scan(file.read()).payloads]
            done = {entry["sender"]: at for at, entry in enumerate(entries) if entry.get("is_replayed")}
            count += sum(at > done.get(entry["sender"], -1) for at, entry in enumerate(entries))
        finally:
            file.close()
    return count


def erase_records(path: Path, sender_id: str, dry_run: bool) -> Iterator[Records]:
    """Erase a conversation from the journals at and beside ``path``, and yield what there was in each."""
    path = path.absolute()
    mine: Dict[Path, JournalFile] = {}
    try:
        if path.parent.is_dir():
            mine = {file.path: file for file in adopt(path)}
            for candidate in [*beside(path), *filter(Path.exists, [refused_path(path)])]:
                yield from _in_file(path, candidate, mine, sender_id, dry_run)
    finally:
        for file in mine.values():
            file.close()


def _in_file(
    path: Path, candidate: Path, mine: Dict[Path, JournalFile], sender_id: str, dry_run: bool
) -> Iterator[Records]:
    file = mine.get(candidate)
    try:
        data = candidate.read_bytes() if file is None else file.read()
    except OSError as error:
        yield Records(candidate, [], f"it cannot be read: {error.strerror}")
        return
    payloads = [payload for payload in scan(data).payloads if json.loads(payload).get("sender") == sender_id]
    if not payloads:
        return
    is_refused = candidate == refused_path(path)
    if file is None and not is_refused:
        yield Records(candidate, payloads, _IN_USE)
        return
    for payload in payloads:
        data = data.replace(record(payload), b"")
    try:
        if not dry_run and file is not None:
            _leave(path, file, data)
        elif not dry_run:
            _rewrite(candidate, data)
    except (OSError, OptionError) as error:
        yield Records(candidate, payloads, str(error))
        return
    yield Records(candidate, payloads)


def _leave(path: Path, file: JournalFile, kept: bytes) -> None:
    """Put what is kept of a journal into another one beside it, which the next Rasa takes over, and empty this one.

    A crash in between leaves both, and a turn that is in both is brought to Redis once.
    """
    if kept:
        other = open_first(path)
        try:
            other.append([kept])
        finally:
            other.close()
    file.cut(0)


def _rewrite(path: Path, kept: bytes) -> None:
    handle, written = tempfile.mkstemp(dir=str(path.parent), prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(written, str(path))
    except BaseException:
        os.unlink(written)
        raise
