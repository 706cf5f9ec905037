"""Reading the last session and appending in place, on a real server: what is stored, what is answered, what it costs.

Steps are carried out by ``extras.steps.run`` on a stock redis-py client; what the server ran is taken from MONITOR
and from its own counters.
"""

import json
import socket
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from extras import conversation
from extras.conversation import Changed, Conversations
from extras.document import SEPARATOR, START, Known, Parsed, SessionStart, parse
from extras.steps import run

KEY = "tracker:x"
SESSION = SessionStart.of_action("action_session_start")
CONVERSATIONS = Conversations("tracker:", 100, False)
REMEMBERING = Conversations("tracker:", 100, False)
"""Reads one document after another, and so looks each up where the one before it had its session."""
PRO_MEMBERS = {"user_id": "u", "conversation_started_timestamp": 1.5, "current_session_id": "e4c1"}


def document(events: List[Any], **members: Any) -> bytes:
    """Return what a stock store writes."""
    return json.dumps({"events": events, "name": "x", **members}).encode()


def start(number: int = 0) -> Dict[str, Any]:
    """Return an event that begins a session."""
    return {"event": "action", "timestamp": number, "name": "action_session_start", "policy": None, "confidence": 1.0}


def user(text: str) -> Dict[str, Any]:
    """Return a user event."""
    return {"event": "user", "timestamp": 2.5, "text": text, "metadata": {}}


def known_of(stored: bytes) -> Known:
    """Return what is known of a document that was read whole."""
    known = parse(stored).known
    assert known is not None
    return known


def got(raw: "redis.Redis") -> bytes:
    """Return what is stored."""
    stored: Any = raw.get(KEY)
    assert isinstance(stored, bytes)
    return stored


def pieces(known: Known, *events: Any, **members: Any) -> Tuple[bytes, bytes]:
    """Return the events to append and the new closing bytes."""
    addition = SEPARATOR.join(map(json.dumps, events)).encode()
    if addition and not known.empty:
        addition = SEPARATOR.encode() + addition
    return addition, document([], **members)[len(START) :]


def append(raw: "redis.Redis", known: Known, addition: bytes, closing: bytes, expires_s: Optional[float] = None) -> Any:
    """Carry out an append."""
    return run(raw, CONVERSATIONS.append("x", known, addition, closing, expires_s))


def calls(raw: "redis.Redis") -> Dict[str, int]:
    """Return how often the server ran each command."""
    stats: Any = raw.info("commandstats")
    return {name[len("cmdstat_") :]: int(values["calls"]) for name, values in stats.items()}


def warm(raw: "redis.Redis") -> None:
    """Make the server know all scripts, then forget what it counted."""
    known = known_of(document([user("a")]))
    run(raw, CONVERSATIONS.load_session("nobody", SESSION))
    run(raw, CONVERSATIONS.append("nobody", known, b"", known.closing, None))
    run(raw, CONVERSATIONS.replace_if("nobody", b"", b"", None))
    assert raw.dbsize() == 0
    raw.config_resetstat()


class Monitor:
    """What the server runs, as it tells it by MONITOR: a line for each command, those of scripts marked ``lua``."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline() == b"+OK\r\n"

    def seen(self, raw: "redis.Redis") -> List[str]:
        """Return the commands since the last call."""
        raw.echo("that was all")
        lines: List[str] = []
        while True:
            line = self._lines.readline().decode()
            if '"that was all"' in line:
                return lines
            lines.append(line.strip())

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


@pytest.fixture
def monitor(raw: "redis.Redis") -> Iterator[Monitor]:
    """A MONITOR connection to the server."""
    watching = Monitor(raw.connection_pool.connection_kwargs["port"])
    yield watching
    watching.close()


class Recording:
    """A client that keeps what it was asked and answered."""

    def __init__(self, raw: "redis.Redis") -> None:
        self._raw = raw
        self.replies: List[Any] = []
        self.commands: List[Any] = []

    def execute_command(self, *command: Any) -> Any:
        """Do what redis-py does, and keep it."""
        self.commands.append(command)
        self.replies.append(self._raw.execute_command(*command))
        return self.replies[-1]


def fresh() -> Conversations:
    """Return conversations none of which was read before."""
    return Conversations("tracker:", 100, False)


def last_session(parsed: Parsed) -> List[Any]:
    """Return the events from the last session start on, of what may be more than that."""
    return parsed.events[SESSION.last_in(parsed.events) or 0 :]


def load_session(raw: "redis.Redis") -> Tuple[Optional[Parsed], int]:
    """Read the last session; return it and how many bytes of the document were read for it."""
    recording: Any = Recording(raw)
    parsed = run(recording, fresh().load_session("x", SESSION))
    read = [reply[1] if isinstance(reply, list) else reply for reply in recording.replies]
    return parsed, sum(len(part or b"") for part in read)


# Appending in place.

DOCUMENTS = [
    document([]),
    document([user("a")]),
    document([start(), user("b" * 500)]),
    document([user("a")], **PRO_MEMBERS),
    json.dumps({"events": [user("ünï ☃ \U0001f600")], "name": "ünï"}, ensure_ascii=False).encode(),
    document([user("nul \0 byte \\ quote \" '"), user("\ud83d")]),
]


@pytest.mark.parametrize("stored", DOCUMENTS, ids=lambda stored: repr(stored[:60]))
@pytest.mark.parametrize("events", [[], [user("c")], [start(), user("d" * 400), user("\0\r\n☃")]])
@pytest.mark.parametrize("members", [{}, PRO_MEMBERS])
def test_an_append_leaves_what_a_fresh_parse_knows(
    raw: "redis.Redis", stored: bytes, events: List[Any], members: Dict[str, Any]
) -> None:
    raw.set(KEY, stored)
    known = known_of(stored)
    addition, closing = pieces(known, *events, **members)
    found = append(raw, known, addition, closing)
    after = got(raw)
    assert after == stored[: known.end_of_events] + addition + closing
    assert found == parse(after).known
    assert parse(after).events == parse(stored).events + events
    assert parse(after).members == {"name": "x", **members}
    addition, closing = pieces(found, user("again"))
    found = append(raw, found, addition, closing)
    assert found == known_of(got(raw))
    assert len(raw.keys()) == 1


def test_raw_utf8_in_the_addition_counts_in_bytes(raw: "redis.Redis") -> None:
    stored = json.dumps({"events": [user("☃")], "name": "x"}, ensure_ascii=False).encode()
    raw.set(KEY, stored)
    known = known_of(stored)
    addition = ", " + json.dumps(user("ünï \U0001f600"), ensure_ascii=False)
    found = append(raw, known, addition.encode(), '], "name": "ünï"}'.encode())
    assert found == known_of(got(raw))


STORED = document([start(), user("a")], **PRO_MEMBERS)


@pytest.mark.parametrize(
    "now",
    [
        document([start(), user("a"), user("b")], **PRO_MEMBERS),
        document([start()], **PRO_MEMBERS),
        document([start(), user("a")]),
        document([start(), user("a")], **{**PRO_MEMBERS, "current_session_id": "f5d2"}),
        document([], **PRO_MEMBERS),
        document([user("somebody else's" * 99)], **PRO_MEMBERS),
        STORED + b" ",
        STORED[:-1],
        STORED[:5],
        b"x" * len(STORED),
        b"no document",
        b"",
    ],
    ids=lambda now: f"{len(now)} bytes",
)
@pytest.mark.parametrize("expires_s", [None, 30.0])
def test_a_document_that_differs_is_left_as_it_is_and_shown(
    raw: "redis.Redis", now: bytes, expires_s: Optional[float]
) -> None:
    known = known_of(STORED)
    for ttl in (None, 1000):
        raw.delete(KEY)
        raw.set(KEY, now, ex=ttl)
        found = append(raw, known, *pieces(known, user("mine"), **PRO_MEMBERS), expires_s=expires_s)
        assert found == Changed(len(now), now[known.end_of_events - len(known.anchor) :])
        assert raw.get(KEY) == now
        assert raw.ttl(KEY) == (-1 if ttl is None else 1000)


def test_a_document_that_is_gone_is_not_made(raw: "redis.Redis") -> None:
    known = known_of(STORED)
    assert append(raw, known, *pieces(known, user("mine"))) == Changed(0, b"")
    assert append(raw, known, *pieces(known, user("mine")), expires_s=9) == Changed(0, b"")
    assert raw.dbsize() == 0


def test_an_append_that_is_repeated_adds_nothing_and_shows_itself(raw: "redis.Redis") -> None:
    raw.set(KEY, STORED)
    known = known_of(STORED)
    addition, closing = pieces(known, user("mine"), **PRO_MEMBERS)
    assert isinstance(append(raw, known, addition, closing), Known)
    after = got(raw)
    for _ in range(2):
        found = append(raw, known, addition, closing)
        assert found == Changed(len(after), known.anchor + addition + closing)
        assert raw.get(KEY) == after


def test_a_key_of_another_type_is_an_error_and_left_as_it_is(raw: "redis.Redis") -> None:
    raw.lpush(KEY, "a")
    known = known_of(STORED)
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        append(raw, known, *pieces(known, user("mine")))
    assert raw.lrange(KEY, 0, -1) == [b"a"]


@pytest.mark.parametrize("events", [[], [user("c")]])
@pytest.mark.parametrize("members", [{}, {"user_id": None}, PRO_MEMBERS, {**PRO_MEMBERS, "more": "y" * 500}])
@pytest.mark.parametrize(
    "stored", [STORED, document([]), document([], **PRO_MEMBERS), document([start()], a="z" * 999)]
)
def test_the_closing_may_become_shorter_or_longer(
    raw: "redis.Redis", stored: bytes, members: Dict[str, Any], events: List[Any]
) -> None:
    for expires_s in (None, 30):
        raw.set(KEY, stored, ex=999)
        known = known_of(stored)
        addition, closing = pieces(known, *events, **members)
        found = append(raw, known, addition, closing, expires_s=expires_s)
        after = got(raw)
        assert after == stored[: known.end_of_events] + addition + closing
        assert found == parse(after).known
        assert raw.ttl(KEY) == (-1 if expires_s is None else 30)


def test_a_closing_that_is_the_whole_document_may_become_shorter(raw: "redis.Redis") -> None:
    raw.set(KEY, "whole")
    found = append(raw, Known(5, b"whole", b"", False), b"", b"new")
    assert raw.get(KEY) == b"new"
    assert found == Known(3, b"new", b"", False)


@pytest.mark.parametrize("shorter", [False, True])
@pytest.mark.parametrize(
    ("before_s", "expires_s", "low_ms", "high_ms"),
    [
        (None, None, -1, -1),
        (None, 0, -1, -1),
        (None, 30, 29_000, 30_000),
        (5, 30.5, 29_500, 30_500),
        (5000, 30, 29_000, 30_000),
        (30, None, -1, -1),
        (30, 0.0, -1, -1),
        (None, 86400 * 3650, 86400 * 3650_000 - 1000, 86400 * 3650_000),
    ],
)
def test_an_append_sets_refreshes_and_clears_the_expiry(
    raw: "redis.Redis", before_s: Optional[int], expires_s: Optional[float], low_ms: int, high_ms: int, shorter: bool
) -> None:
    raw.set(KEY, STORED, ex=before_s)
    known = known_of(STORED)
    members = {} if shorter else PRO_MEMBERS
    append(raw, known, *pieces(known, *([] if shorter else [user("b")]), **members), expires_s=expires_s)
    assert low_ms <= int(raw.pttl(KEY)) <= high_ms


def test_an_append_of_an_expired_document_makes_none(raw: "redis.Redis") -> None:
    raw.set(KEY, STORED, px=1)
    known = known_of(STORED)
    while raw.exists(KEY):
        pass
    assert append(raw, known, *pieces(known, user("b"))) == Changed(0, b"")


def test_only_the_new_bytes_are_written(raw: "redis.Redis", monitor: Monitor) -> None:
    stored = document([start(), *(user("history " * 20) for _ in range(500))])
    warm(raw)
    raw.set(KEY, stored)
    known = known_of(stored)
    addition, closing = pieces(known, user("new"))
    monitor.seen(raw)
    found = append(raw, known, addition, closing)
    lines = monitor.seen(raw)
    scripted = [line.split("] ", 1)[1] for line in lines if " lua] " in line]
    escaped = (addition + closing).decode().replace('"', '\\"')
    assert [line for line in scripted if line.split('"')[1].upper() in ("SET", "SETRANGE")] == [
        f'"SETRANGE" "{KEY}" "{known.end_of_events}" "{escaped}"'
    ]
    assert all("history" not in line for line in scripted)
    assert isinstance(found, Known)
    assert append(raw, known, addition, closing) == Changed(found.size_bytes, known.anchor + addition + closing)
    again = [line.split("] ", 1)[1].split('"')[1].upper() for line in monitor.seen(raw) if " lua] " in line]
    assert set(again) == {"STRLEN", "GETRANGE"}


def test_one_command_for_each_step_as_the_server_counts(raw: "redis.Redis") -> None:
    warm(raw)
    stored = document([start(), user("a"), start(), user("b")])
    assert run(raw, CONVERSATIONS.replace_if("x", None, stored, None)) is True
    parsed = run(raw, fresh().load_session("x", SESSION))
    assert parsed is not None
    known = parsed.known
    assert known is not None
    for number in range(5):
        found = append(raw, known, *pieces(known, user(str(number))))
        assert isinstance(found, Known)
        assert isinstance(append(raw, known, *pieces(known, user(str(number)))), Changed)
        known = found
    assert run(raw, CONVERSATIONS.replace_if("x", stored, stored, None)) is False
    used = calls(raw)
    assert used["evalsha"] == 1 + 1 + 10 + 1
    assert used.get("eval", 0) == 0
    assert used["setrange"] == 5


def test_a_server_that_forgot_the_scripts_is_told_them_again(raw: "redis.Redis") -> None:
    raw.script_flush()
    raw.config_resetstat()
    for number in range(3):
        stored = document([start(), user("a" * number)])
        raw.delete(KEY)
        assert run(raw, CONVERSATIONS.replace_if("x", None, stored, None)) is True
        raw.script_flush()
        parsed = run(raw, fresh().load_session("x", SESSION))
        assert parsed is not None
        assert parsed.known is not None
        raw.script_flush()
        found = append(raw, parsed.known, *pieces(parsed.known, user("b")))
        assert found == known_of(got(raw))
        raw.script_flush()
        assert isinstance(append(raw, parsed.known, *pieces(parsed.known, user("b"))), Changed)
        raw.script_flush()
    used = calls(raw)
    assert used["eval"] == 12
    assert used["evalsha"] == 12


# Replacing the whole, if it is still the same.

BARE = Conversations("tracker:", 100, True)


def test_replace_if_nothing_is_stored(raw: "redis.Redis") -> None:
    for store in (CONVERSATIONS, BARE):
        raw.delete(KEY)
        assert run(raw, store.replace_if("x", None, STORED, None)) is True
        assert raw.get(KEY) == STORED
        assert run(raw, store.replace_if("x", None, b"other", None)) is False
        assert raw.get(KEY) == STORED


def test_replace_if_the_same_is_stored(raw: "redis.Redis") -> None:
    for store in (CONVERSATIONS, BARE):
        for stored in (STORED, b"", b"\xff\0", b"x" * 300_000):
            raw.set(KEY, stored)
            assert run(raw, store.replace_if("x", stored, b"new", None)) is True
            assert raw.get(KEY) == b"new"


def test_replace_if_something_else_is_stored(raw: "redis.Redis") -> None:
    for store in (CONVERSATIONS, BARE):
        for ttl in (None, 1000):
            raw.set(KEY, STORED, ex=ttl)
            for believed in (STORED[:-1], STORED + b" ", b"", None, STORED.replace(b'"a"', b'"b"')):
                assert run(raw, store.replace_if("x", believed, b"new", 30)) is False
                assert raw.get(KEY) == STORED
                assert raw.ttl(KEY) == (-1 if ttl is None else 1000)


def test_replace_if_what_was_read_is_gone(raw: "redis.Redis") -> None:
    assert run(raw, CONVERSATIONS.replace_if("x", STORED, b"new", None)) is False
    assert raw.dbsize() == 0


def test_what_was_read_under_a_bare_id_is_moved_below_the_prefix(raw: "redis.Redis") -> None:
    raw.set("x", STORED)
    stored = run(raw, BARE.load("x"))
    assert stored == STORED
    assert run(raw, BARE.replace_if("x", stored, b"new", None)) is True
    assert (raw.get("x"), raw.get(KEY)) == (STORED, b"new")
    assert run(raw, BARE.replace_if("x", stored, b"newer", None)) is False
    assert raw.get(KEY) == b"new"


@pytest.mark.parametrize(("expires_s", "low_ms", "high_ms"), [(None, -1, -1), (0, -1, -1), (12.345, 11_900, 12_345)])
def test_replace_if_sets_the_expiry_or_clears_it(
    raw: "redis.Redis", expires_s: Optional[float], low_ms: int, high_ms: int
) -> None:
    raw.set(KEY, STORED, ex=999)
    assert run(raw, CONVERSATIONS.replace_if("x", STORED, b"new", expires_s)) is True
    assert low_ms <= int(raw.pttl(KEY)) <= high_ms


# Reading the last session.


def test_a_session_that_is_not_there(raw: "redis.Redis") -> None:
    assert load_session(raw) == (None, 0)
    assert run(raw, BARE.load_session("x", SESSION)) is None


def test_without_a_session_start_the_whole_document_is_read_at_once(raw: "redis.Redis") -> None:
    warm(raw)
    for count in (0, 1, 2000):
        stored = document([user("y" * 100)] * count)
        raw.set(KEY, stored)
        assert load_session(raw) == (parse(stored), len(stored))
    assert calls(raw)["evalsha"] == 3


def test_what_is_found_under_a_bare_id_is_read_whole_and_not_appended_to(raw: "redis.Redis") -> None:
    stored = document([start(), *([user("b" * 100)] * 500), start(), user("a")])
    raw.set("x", stored)
    assert run(raw, BARE.load_session("x", SESSION)) == parse(stored)._replace(known=None)
    assert run(raw, fresh().load_session("x", SESSION)) is None
    raw.set(KEY, stored)
    parsed = run(raw, BARE.load_session("x", SESSION))
    assert parsed is not None
    assert parsed.whole is False


def test_what_is_no_document_is_refused(raw: "redis.Redis") -> None:
    for stored in (b"{", b"null", b"x" * 100_000, SESSION.marker, (SESSION.opening + SESSION.marker) * 9999):
        raw.set(KEY, stored)
        with pytest.raises(ValueError):  # noqa: PT011 - the message is json's
            run(raw, fresh().load_session("x", SESSION))


def check_session(raw: "redis.Redis", stored: bytes) -> Tuple[Parsed, int]:
    """Store and read a document; the session is the true one, or the whole was read."""
    raw.set(KEY, stored)
    parsed, read = load_session(raw)
    assert parsed is not None
    events = json.loads(stored)["events"]
    if not parsed.whole:
        starts = [
            n for n, event in enumerate(events) if (event["event"], event.get("name")) == ("action", SESSION.action)
        ]
        first = starts[-1]
        events = events[first:]
    assert parsed.events == events
    whole = known_of(stored)
    assert parsed.known is not None
    assert parsed.known.size_bytes == whole.size_bytes
    assert parsed.known.closing == whole.closing
    assert parsed.known.anchor
    assert whole.anchor.endswith(parsed.known.anchor)
    for _ in range(2):  # where another document's session was, then where this one's is
        remembered = run(raw, REMEMBERING.load_session("x", SESSION))
        assert remembered is not None
        assert last_session(remembered) == last_session(parsed)
        assert remembered.members == parsed.members
        assert remembered.known is not None
        assert remembered.known.size_bytes == parsed.known.size_bytes
        assert remembered.known.closing == parsed.known.closing
    found = append(raw, parsed.known, *pieces(parsed.known, user("next")))
    assert isinstance(found, Known)
    after = got(raw)
    assert parse(after).events == [*parse(stored).events, user("next")]
    return parsed, read


HISTORY = [start(), *[user("h" * 40_000)] * 30]
"""More than 1 MB."""


@pytest.mark.parametrize("window", [16_384, 65_536, 262_144])
def test_sessions_about_as_long_as_the_read_window(raw: "redis.Redis", window: int) -> None:
    before = document(HISTORY)[:-1].rsplit(b"]", 1)[0]
    opening = json.dumps(start(7)).encode()
    marker_at = opening.index(SESSION.marker)
    deltas = {0, 1, -1, marker_at, len(opening), *range(-1030, -1018), -marker_at, len(SESSION.marker)}
    for delta in sorted(deltas | {-delta for delta in deltas}):
        closing = b'], "name": "x"}'
        fixed = len(opening) - marker_at + len(b", ") + len(json.dumps(user("")).encode()) + len(closing)
        session = opening + b", " + json.dumps(user("y" * (window + delta - fixed))).encode()
        stored = before + b", " + session + closing
        assert len(stored) - stored.rindex(SESSION.marker) == window + delta
        parsed, read = check_session(raw, stored)
        assert parsed.whole is False
        assert read == window + delta + 1024


@pytest.mark.parametrize("size", [1023, 1024, 1025, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 262_144, 262_145])
def test_documents_about_as_long_as_the_read_window(raw: "redis.Redis", size: int) -> None:
    for events in ([start(), user("")], [user(""), start()], [user("")], [user("a" * 800), start(), user("")]):
        padding = size - len(document(events))
        if padding < 0:
            continue
        padded = [user("y" * padding) if event == user("") else event for event in events]
        stored = document(padded)
        assert len(stored) == size
        _, read = check_session(raw, stored)
        assert read <= size


def test_a_long_history_is_not_read_for_a_short_session(raw: "redis.Redis") -> None:
    warm(raw)
    stored = document([*HISTORY, start(1), user("a"), start(2), user("b"), user("c")])
    raw.set(KEY, stored)
    sent_before = int(raw.info("stats")["total_net_output_bytes"])
    parsed, read = load_session(raw)
    sent = int(raw.info("stats")["total_net_output_bytes"]) - sent_before
    assert parsed is not None
    assert parsed.events == [start(2), user("b"), user("c")]
    assert read < 1024 + 400
    assert sent < 1024 + 16_000  # the reply of INFO is most of it
    assert calls(raw)["evalsha"] == 1
    assert "get" not in calls(raw)


def test_a_look_alike_nearer_to_the_end_only_makes_it_read_more(raw: "redis.Redis") -> None:
    look_alike = {"event": "user", "metadata": [{"event": "action", "name": "action_session_start"}] * 3}
    for between in (0, 300, 2000, 20_000, 300_000):
        for after in (0, 300, 2000, 20_000):
            stored = document([user("a"), start(), user("b" * between), look_alike, user("c" * after)])
            parsed, read = check_session(raw, stored)
            assert parsed.whole or read < len(stored)


def test_the_marker_at_the_very_beginning_or_end_of_a_window(raw: "redis.Redis") -> None:
    """A long document in which every window's first bytes are a marker that stands inside of an event."""
    for count in (1, 7, 8, 9, 400):
        inner = [{"event": "action", "name": "action_session_start"}] * count
        stored = document([start(), {"event": "user", "metadata": inner, "text": "z" * 40_000}, *inner[:1], user("e")])
        parsed, _ = check_session(raw, stored)
        assert parsed.events[-1] == user("e")


# Reading it again.


def read_again(raw: "redis.Redis", conversations: Conversations) -> Tuple[List[Any], List[str], int]:
    """Read the last session; return its events, the commands sent, and how many bytes of the document were read."""
    recording: Any = Recording(raw)
    parsed = run(recording, conversations.load_session("x", SESSION))
    assert parsed is not None
    read = [reply[1] if isinstance(reply, list) else reply for reply in recording.replies]
    return last_session(parsed), [command[0] for command in recording.commands], sum(map(len, read))


def test_a_session_that_was_read_before_is_read_from_where_it_began(raw: "redis.Redis") -> None:
    warm(raw)
    for before in ([], [start(0), user("a" * 50_000)]):
        conversations, session = fresh(), [start(1), user("b" * 20_000)]
        for turn in range(3):
            stored = document([*before, *session])
            raw.set(KEY, stored)
            events, commands, read = read_again(raw, conversations)
            assert events == session
            assert commands == (["GETRANGE"] if turn else ["EVALSHA"])
            if turn:
                assert read == len(stored) - (stored.index(json.dumps(start(1)).encode()) if before else 0)
            session.append(user(f"turn {turn}"))


def test_a_session_that_others_have_begun_is_found_and_remembered(raw: "redis.Redis") -> None:
    warm(raw)
    conversations, events = fresh(), [start(0), user("a" * 30_000)]
    for number in range(1, 4):
        raw.set(KEY, document(events))
        read_again(raw, conversations)
        events += [start(number), user("b" * 30_000), user("c")]
        raw.set(KEY, document(events))
        assert read_again(raw, conversations)[:2] == (events[-3:], ["GETRANGE", "EVALSHA"])
        assert read_again(raw, conversations)[:2] == (events[-3:], ["GETRANGE"])


def test_what_others_have_added_is_read_within_bounds(raw: "redis.Redis") -> None:
    warm(raw)
    conversations, session = fresh(), [start(0), user("a")]
    raw.set(KEY, document(session))
    read_again(raw, conversations)
    for added, commands in ((100_000, ["GETRANGE"]), (1_000_000, ["GETRANGE", "EVALSHA"])):
        session.append(user("d" * added))
        raw.set(KEY, document(session))
        events, sent, read = read_again(raw, conversations)
        assert (events, sent) == (session, commands)
        assert read <= len(document(session)) + 400_000


def test_a_conversation_that_is_gone_or_no_document_any_more(raw: "redis.Redis") -> None:
    conversations = fresh()
    for stored in (None, b"{", b"x" * 100_000):
        raw.set(KEY, document([start(0), user("a" * 2000), start(1), user("b" * 500)]))
        read_again(raw, conversations)
        raw.delete(KEY)
        if stored is None:
            assert run(raw, conversations.load_session("x", SESSION)) is None
        else:
            raw.set(KEY, stored)
            with pytest.raises(ValueError):  # noqa: PT011 - the message is json's
                run(raw, conversations.load_session("x", SESSION))


def test_only_so_many_places_are_remembered(raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "_MOST_PLACES", 3)
    warm(raw)
    conversations = fresh()
    for name in "abcde":
        raw.set(f"tracker:{name}", document([start(0), user(name)]))
    raw.config_resetstat()
    for name in "abcdeaecde":
        run(raw, conversations.load_session(name, SESSION))
    assert calls(raw)["evalsha"] == 5 + len("a") + len("c") + len("d")


MEMBERS = st.sampled_from([{}, PRO_MEMBERS])
EVENTS = st.lists(
    st.one_of(
        st.integers(0, 9).map(start),
        st.sampled_from(["", "a", "ü" * 40, "b" * 300, '], "name": "x"}', json.dumps(start())]).map(user),
        st.just({"event": "user", "metadata": [start(), {"deep": [start()]}]}),
        st.just({**user("z"), "name": "action_session_start"}),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=200)
@given(documents=st.lists(st.tuples(EVENTS, MEMBERS), min_size=2, max_size=6))
def test_a_document_in_the_place_of_another_is_read_as_it_is(
    raw: "redis.Redis", documents: List[Tuple[List[Any], Dict[str, Any]]]
) -> None:
    conversations = fresh()
    for events, members in documents:
        stored = document(events, **members)
        raw.set(KEY, stored)
        for parsed in (run(raw, who.load_session("x", SESSION)) for who in (conversations, fresh(), conversations)):
            assert parsed is not None
            assert last_session(parsed) == last_session(parse(stored))
            assert parsed.members == parse(stored).members
            assert parsed.known is not None
            assert parsed.known.size_bytes == len(stored)
            assert stored.endswith(parsed.known.anchor + parsed.known.closing)
