"""The journal of outages: what is written is read back, whatever becomes of the process, the disk or the bytes."""

import errno
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Iterator, List, Sequence

import pytest

from extras import backlog as backlog_module
from extras import journal
from extras.backlog import Backlog
from extras.conversation import Changed
from extras.document import NOTHING, START, canonical, parse
from extras.errors import OptionError
from extras.group_commit import GroupCommit
from extras.journal import JournalFile, adopt, is_foreign, open_first, record, scan
from extras.lastknown import ABSENT, UNKNOWN, Image, Offline, Taken, Waiting, at_once

PAYLOADS = [b"{}", json.dumps({"text": "\U0001f600" * 40}).encode(), b"x" * 3000, b""]
PATIENCE_S = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def opened() -> Iterator[List[Any]]:
    """What is closed at the end."""
    everything: List[Any] = []
    yield everything
    for one in everything:
        one.close()


def event(number: int) -> "dict[str, Any]":
    return {"event": "user", "timestamp": float(number), "text": f"said {number}"}


def taken(*numbers: int) -> Taken:
    return Taken(json.dumps([event(number) for number in numbers])[1:-1].encode(), b'], "name": "alice"}')


def put(kept: Backlog, sender_id: str, *numbers: int, image: Image = ABSENT) -> None:
    kept.put(sender_id, image, taken(*numbers), None).result(PATIENCE_S)


def said(kept: Backlog, sender_id: str) -> List[str]:
    copied = kept.copy(sender_id)
    return [] if copied is None else [event["text"] for event in json.loads(b"[" + copied.new_events + b"]")]


def test_records_are_read_back() -> None:
    data = b"".join(map(record, PAYLOADS))
    assert scan(data) == (PAYLOADS, [], len(data))
    assert scan(b"") == ([], [], 0)


def test_a_torn_last_record_is_found_at_every_offset() -> None:
    whole = record(PAYLOADS[1]) + record(PAYLOADS[0])
    data = whole + record(PAYLOADS[1])
    for size in range(len(whole), len(data)):
        assert scan(data[:size]) == ([PAYLOADS[1], PAYLOADS[0]], [], len(whole))
        zeros = data[:size] + bytes(len(data) - size)
        assert scan(zeros) == ([PAYLOADS[1], PAYLOADS[0]], [], len(whole))


def test_any_flipped_bit_costs_that_record_and_no_other() -> None:
    first, second, third = (record(payload) for payload in (b'{"a": 1}', b'{"b": 2}', b'{"c": 3}'))
    for at in range(len(second)):
        for bit in range(8):
            flipped = bytearray(second)
            flipped[at] ^= 1 << bit
            found = scan(first + bytes(flipped) + third)
            assert found.payloads == [b'{"a": 1}', b'{"c": 3}']
            assert found.damaged == [(len(first), len(second))]


def test_a_file_is_private_and_locked_until_it_is_closed(path: Path, opened: List[Any]) -> None:
    old_mask = os.umask(0)
    try:
        opened += [open_first(path), open_first(path)]
    finally:
        os.umask(old_mask)
    assert [file.path.name for file in opened] == ["journal", "journal.1"]
    assert [os.stat(str(file.path)).st_mode & 0o777 for file in opened] == [0o600] * 2
    with pytest.raises(BlockingIOError):
        JournalFile(path, create=False)
    opened[0].close()
    path.chmod(0o644)
    opened.append(open_first(path))
    assert opened[-1].path == path
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_appended_is_on_the_disk_before_append_returns(
    path: Path, opened: List[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: List[Any] = []
    original = os.fsync

    def fsync(fd: int) -> None:
        status = os.fstat(fd)
        synced.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    file = open_first(path)
    opened.append(file)
    assert synced == ["folder"]
    file.append([record(b"one"), record(b"two")])
    assert synced[1:] == [file.size_bytes]
    file.append([record(b"three")], is_synced=False)
    assert len(synced) == 2
    file.cut(0)
    assert synced[2:] == [0]


def test_a_failed_write_leaves_what_was_there(path: Path, opened: List[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """``RLIMIT_FSIZE`` ends a write in its midst, as a full disk does."""
    file = open_first(path)
    opened.append(file)
    file.append([record(b"kept")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            file.append([record(b"x" * 5000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert scan(file.read()) == ([b"kept"], [], file.size_bytes)
    file.append([record(b"more")])
    assert scan(file.read()).payloads == [b"kept", b"more"]


@pytest.mark.parametrize("content", [b"Dear Redis", b"\x00\x01", b"\xf5RX\x02" + bytes(20)])
def test_other_files_are_told_from_journals(content: bytes, path: Path) -> None:
    assert is_foreign(content)
    path.write_bytes(content)
    with pytest.raises(OptionError, match="something else"):
        Backlog(path, 10**6)
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", range(4 + 12 + 2))
def test_a_first_record_of_any_size_is_no_other_file(size: int) -> None:
    assert not is_foreign(record(b"abc")[:size])
    assert not is_foreign(bytes(size))


@pytest.mark.parametrize("name", ["missing/journal", ".", "fifo"])
def test_a_path_that_cannot_be_used_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(str(tmp_path / "fifo"))
    with pytest.raises(OptionError, match="journal_path"):
        Backlog(tmp_path / name, 10**6)


def test_turns_are_kept_through_a_restart_until_they_are_done(path: Path, opened: List[Any]) -> None:
    kept = Backlog(path, 10**6)
    put(kept, "alice", 1, 2)
    put(kept, "bob", 3)
    put(kept, "alice", 4)
    state = kept.state("why")
    assert (state.path, state.records, state.conversations, state.last_error) == (str(path), 3, 2, "why")
    assert state.bytes == path.stat().st_size
    assert kept.in_order() == ["alice", "bob"]
    kept.close()
    kept = Backlog(path, 10**6)
    assert said(kept, "alice") == ["said 1", "said 2", "said 4"]
    copied = kept.copy("alice")
    assert copied is not None
    put(kept, "alice", 5)
    kept.done("alice", copied)  # another turn has come since
    assert said(kept, "alice")[-1] == "said 5"
    copied = kept.copy("alice")
    assert copied is not None
    kept.done("alice", copied)
    kept.close()
    kept = Backlog(path, 10**6)
    opened.append(kept)
    assert kept.in_order() == ["bob"]
    copied = kept.copy("bob")
    assert copied is not None
    kept.done("bob", copied)
    assert path.stat().st_size == 0
    assert kept.state(None)[1:5] == (0, 0, 0, None)


def test_a_torn_end_is_dropped_and_damage_is_kept_aside(
    path: Path, opened: List[Any], caplog: pytest.LogCaptureFixture
) -> None:
    kept = Backlog(path, 10**6)
    for number in range(3):
        put(kept, f"sender{number}", number)
    kept.close()
    data = bytearray(path.read_bytes())
    second = data.find(journal.MAGIC, 1)
    data[second + 40] ^= 1
    path.write_bytes(bytes(data[:-5]))
    kept = Backlog(path, 10**6)
    opened.append(kept)
    assert kept.in_order() == ["sender0"]  # the second is damaged, the third torn: one torn end
    assert "no whole record" in caplog.text
    put(kept, "sender4", 4)
    kept.close()
    path.write_bytes(bytes(data))
    kept = Backlog(path, 10**6)
    opened.append(kept)
    assert kept.in_order() == ["sender0", "sender2"]
    assert "damaged" in caplog.text
    assert "said" not in caplog.text
    third = data.find(journal.MAGIC, second + 1)
    assert (path.parent / "journal.refused").read_bytes() == bytes(data[second:third])


def test_journals_of_processes_that_are_gone_are_taken_over_in_order_of_time(path: Path, opened: List[Any]) -> None:
    first, second = Backlog(path, 10**6), Backlog(path, 10**6)
    put(first, "alice", 1)
    put(second, "alice", 2)
    put(second, "bob", 3)
    put(first, "alice", 4)
    running = Backlog(path, 10**6)
    opened.append(running)
    assert running.path.name == "journal.2"
    assert running.in_order() == []  # those who wrote the others live
    first.close()
    second.close()
    after = Backlog(path, 10**6)
    opened.append(after)
    assert after.path == path
    assert said(after, "alice") == ["said 1", "said 2", "said 4"]
    for sender_id in after.in_order():
        copied = after.copy(sender_id)
        assert copied is not None
        after.done(sender_id, copied)
    assert [found.path for found in adopt(path)] == []
    assert not [file for file in path.parent.iterdir() if file.stat().st_size]


def test_the_bound_holds_and_the_turns_before_it_stay(path: Path, opened: List[Any]) -> None:
    kept = Backlog(path, 2000)
    opened.append(kept)
    stored = 0
    while kept.state(None).bytes < 1700:
        put(kept, "alice", stored)
        stored += 1
    with pytest.raises(OSError, match="journal_max_bytes is 2000"):
        put(kept, "alice", *range(20))
    assert path.stat().st_size <= 2000
    assert len(said(kept, "alice")) == stored > 3
    copied = kept.copy("alice")
    assert copied is not None
    kept.done("alice", copied)
    put(kept, "alice", 9)
    assert said(kept, "alice") == ["said 9"]


def test_a_forked_process_leaves_the_parents_journal_alone(path: Path, opened: List[Any]) -> None:
    kept = Backlog(path, 10**6)
    opened.append(kept)
    put(kept, "alice", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of the writer's thread
        child = os.fork()
    if child == 0:
        try:
            kept.leave()
            own = Backlog(path, 10**6)
            put(own, "bob", 2)
            good = own.path.name == "journal.1" and own.in_order() == ["bob"]
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(BlockingIOError):
        JournalFile(path, create=False)
    put(kept, "alice", 3)
    assert said(kept, "alice") == ["said 1", "said 3"]
    assert [file.path.name for file in _closed(adopt(path))] == ["journal.1"]


def _closed(files: List[JournalFile]) -> List[JournalFile]:
    for file in files:
        file.close()
    return files


KILLED = """
import sys
from pathlib import Path
from extras.backlog import Backlog
from extras.conversation import Changed
from extras.lastknown import ABSENT, Taken
kept = Backlog(Path(sys.argv[1]), 10**8)
for number in range(10**6):
    events = b'{"event": "user", "timestamp": %d, "text": "said %d"}' % (number, number)
    kept.put("alice", ABSENT, Taken(events, b'], "name": "alice"}'), None).result()
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_leaves_all_that_it_was_told_is_kept(seed: int, path: Path, opened: List[Any]) -> None:
    lines = random.Random(seed).randrange(1, 60)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        lines += len(process.stdout.read().splitlines())
    kept = Backlog(path, 10**8)
    opened.append(kept)
    found = said(kept, "alice")
    assert found == [f"said {number}" for number in range(len(found))]
    assert lines <= len(found) <= lines + 1


def test_many_turns_share_one_write_on_a_thread_of_its_own(
    path: Path, opened: List[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Backlog(path, 10**6)
    opened.append(kept)
    let_go, begun = threading.Event(), threading.Event()
    threads: List[str] = []
    original = os.fsync

    def fsync(fd: int) -> None:
        threads.append(threading.current_thread().name)
        begun.set()
        let_go.wait(PATIENCE_S)
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    written: List[Future[None]] = [kept.put("alice", ABSENT, taken(0), None)]
    assert begun.wait(PATIENCE_S)
    written += [kept.put("alice", ABSENT, taken(number), None) for number in range(1, 50)]
    assert not any(done.done() for done in written)
    assert said(kept, "alice") == []
    let_go.set()
    for done in written:
        done.result(PATIENCE_S)
    assert threads == ["extras-journal"] * 2
    assert said(kept, "alice") == [f"said {number}" for number in range(50)]


def test_an_error_of_the_writer_reaches_those_whose_items_it_had() -> None:
    def commit(items: Sequence[int]) -> Sequence[Any]:
        if 3 in items:
            raise OSError(errno.EIO, "broken")
        return [ValueError(item) if item == 2 else None for item in items]

    group: GroupCommit[int] = GroupCommit(commit)
    assert group.submit(1).result(PATIENCE_S) is None
    with pytest.raises(ValueError, match="2"):
        group.submit(2).result(PATIENCE_S)
    with pytest.raises(OSError, match="broken"):
        group.submit(3).result(PATIENCE_S)
    given_up = group.submit(4)
    assert not given_up.cancel()
    assert given_up.result(PATIENCE_S) is None


def test_after_close_nothing_is_taken(path: Path) -> None:
    kept = Backlog(path, 10**6)
    kept.close()
    with pytest.raises(OSError, match="closed"):
        put(kept, "alice", 1)


def test_turns_that_cannot_be_stored_are_set_aside_in_a_journal_of_their_own(path: Path, opened: List[Any]) -> None:
    kept = Backlog(path, 10**6)
    put(kept, "alice", 1)
    put(kept, "alice", 2)
    put(kept, "bob", 3)
    copied = kept.copy("alice")
    assert copied is not None
    assert kept.set_aside("alice", copied)
    assert kept.in_order() == ["bob"]
    kept.close()
    (path.parent / "journal.refused").rename(path.parent / "journal.7")
    kept = Backlog(path, 10**6)
    opened.append(kept)
    assert said(kept, "alice") == ["said 1", "said 2"]
    assert said(kept, "bob") == ["said 3"]


DOCUMENT = b'{"events": [' + json.dumps([event(1), event(2)])[1:-1].encode() + b'], "name": "alice"}'
IMAGES = {
    "whole": Image(DOCUMENT, len(DOCUMENT), True),
    "session": Image(DOCUMENT, len(DOCUMENT) + 1000, False),
    "other spelling": Image(json.dumps(json.loads(DOCUMENT), indent=1).encode(), None, True),
    "absent": ABSENT,
    "unknown": UNKNOWN,
    "empty": Image(b'{"events": [], "name": "alice"}', 31, True),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_with_turns_is_the_document_that_redis_would_have(name: str) -> None:
    base = IMAGES[name]
    waiting = Waiting(base, 0.0)
    waiting.add(taken(3), None)
    waiting.add(Taken(b"", b'], "name": "alice", "more": 1}'), 5.0)
    waiting.add(taken(4, 5), 7.0)
    image = waiting.image()
    parsed, before = image.parsed(), base.parsed()
    assert parsed is not None
    assert parsed.known is not None
    old = [] if before is None else before.events
    assert parsed.events == [*old, event(3), event(4), event(5)]
    assert image.text.startswith(START.encode())
    assert waiting.expires_after_s == 7.0
    assert image.whole is base.whole
    if name in ("whole", "session"):
        known = base.known
        assert known is not None
        assert known.size_bytes == base.size_bytes
        added = b", " + taken(3, 4, 5).events
        assert image.known == parsed.known
        assert parsed.known.size_bytes == known.after_append(added, taken().closing).size_bytes


@pytest.mark.parametrize("name", ["whole", "session"])
def test_offline_takes_an_append_to_what_is_known_and_shows_what_else_is_there(name: str) -> None:
    base = IMAGES[name]
    known = base.known
    assert known is not None
    offline = Offline("tracker:", base, False)
    assert at_once(offline.append("alice", known, b", " + taken(3).events, taken().closing, None)) == (
        known.after_append(b", " + taken(3).events, taken().closing)
    )
    assert offline.taken == taken(3)
    waiting = Waiting(base, 0.0)
    waiting.add(taken(3), None)
    offline = Offline("tracker:", waiting.image(), False)
    found = at_once(offline.append("alice", known, b", " + taken(4).events, taken().closing, None))
    assert isinstance(found, Changed)
    assert found == (waiting.image().size_bytes, found.text)
    assert found.text.startswith(known.anchor + b", " + taken(3).events)
    assert offline.taken is None
    assert isinstance(at_once(offline.append("alice", NOTHING, taken(4).events, taken().closing, None)), Changed)


def test_offline_takes_what_is_new_in_a_document() -> None:
    offline = Offline("tracker:", IMAGES["other spelling"], False)
    document = parse(DOCUMENT)._replace(events=[event(1), event(2), event(3)])
    text = b'{"events": ' + json.dumps(document.events).encode() + b', "name": "alice"}'
    assert at_once(offline.replace_if("alice", None, text, None))
    assert offline.taken == taken(3)
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})


def test_offline_has_no_older_events_than_it_knows() -> None:
    with pytest.raises(OSError, match="last session"):
        at_once(Offline("tracker:", IMAGES["session"], True).load("alice"))
    assert at_once(Offline("tracker:", IMAGES["session"], False).load("alice")) == DOCUMENT
    assert at_once(Offline("tracker:", ABSENT, True).load("alice")) is None


def test_what_is_not_known_offline_is_not_asked_for() -> None:
    with pytest.raises(RuntimeError, match="EXISTS"):
        at_once(Offline("tracker:", ABSENT, True).exists("alice"))


def test_state_tells_no_content(path: Path, opened: List[Any]) -> None:
    kept = Backlog(path, 10**6)
    opened.append(kept)
    put(kept, "alice", 1)
    assert "said" not in repr(kept.state("down"))
    assert backlog_module.State._fields[:3] == ("path", "records", "bytes")
