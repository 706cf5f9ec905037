"""A document taken apart as text, whole and from its end, is the same as one that was parsed whole, or is not read.

The oracle is ``json.loads`` of the whole document. A cut may always say "read more"; it must never show anything but
the true last session.
"""

import copy
import json
import random
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from extras.bench import shapes
from extras.document import (
    NOTHING,
    SEPARATOR,
    START,
    Known,
    Parsed,
    SessionStart,
    known_end,
    last_event,
    parse,
    parse_addition,
    parse_tail,
)

RECORDED = shapes.RECORDED.encode()
SESSION = SessionStart.of_action("action_session_start")
ANCHOR_BYTES = 256

Event = Dict[str, Any]

LOOK_ALIKE = {"event": "action", "name": "action_session_start"}
DOCUMENT_IN_TEXT = '{"events": [{"event": "action", "name": "action_session_start"}], "name": "mallory"}'
TEXTS = [
    "",
    "hello",
    '"name": "action_session_start"',
    '{"event": "action", "name": "action_session_start"}',
    DOCUMENT_IN_TEXT,
    json.dumps(DOCUMENT_IN_TEXT),
    '"}], "name": "mallory"}',
    '], "name": "x"}',
    "]}",
    '\\"name\\": \\"action_session_start\\"',
    "\\",
    '"',
    "tab\t newline\n null\0 bell\a",
    "héllo wörld \u2603 \U0001f600 \u2028",
    "lone \ud83d surrogate",
    "null",
]
VALUES: List[Any] = [
    None,
    True,
    0,
    -0.0,
    10**30,
    1e300,
    float("nan"),
    float("inf"),
    float("-inf"),
    [],
    {},
    [[], [[]], {}],
    LOOK_ALIKE,
    [LOOK_ALIKE],
    [[LOOK_ALIKE, {"event": "session_started"}]],
    {"events": [LOOK_ALIKE], "name": "x"},
    {"events": [LOOK_ALIKE, LOOK_ALIKE], "name": "x", "user_id": None},
    {"event": "action", "timestamp": 1.0, "metadata": {"a": [LOOK_ALIKE]}, "name": "action_session_start"},
    {"parse_data": {"metadata": {"events": [{"event": "action", "x": [], "name": "action_session_start"}]}}},
]
PRO_MEMBERS = {"user_id": "u", "conversation_started_timestamp": 1.5, "current_session_id": "e4c1"}


def document(events: List[Any], ensure_ascii: bool = True, **members: Any) -> bytes:
    """Return what a stock store writes."""
    return json.dumps({"events": events, "name": "x", **members}, ensure_ascii=ensure_ascii).encode()


def action(name: str, number: int = 0, **fields: Any) -> Event:
    """Return an action event; fields stand before its name, as metadata does."""
    return {"event": "action", "timestamp": 1.5 + number, **fields, "name": name, "policy": None, "confidence": 1.0}


def user(text: str, **fields: Any) -> Event:
    """Return a user event."""
    return {"event": "user", "timestamp": 2.5, **fields, "text": text, "parse_data": {"text": text, "entities": []}}


def start(number: int = 0, **fields: Any) -> Event:
    """Return an event that begins a session."""
    return action("action_session_start", number, **fields)


def text_of(value: Any) -> str:
    """Return JSON, in which NaN is equal to NaN and 1 is not 1.0 or true."""
    return json.dumps(value)


def last_session(stored: bytes) -> Optional[List[Any]]:
    """Return the events from the last session start on, of the whole document; ``None`` without one."""
    events = json.loads(stored)["events"]
    starts = [number for number, event in enumerate(events) if SESSION.last_in([event]) == 0]
    return events[starts[-1] :] if starts else None


def check_known(known: Optional[Known], stored: bytes, seen_bytes: int) -> None:
    """Check that what is known is true of the document, and all that can be known of that many of its last bytes."""
    assert known is not None
    assert known.size_bytes == len(stored)
    assert stored.endswith(known.closing)
    assert known.closing.startswith(b"]")
    assert json.loads(b"[" + known.closing[:1]) == []
    before = stored[: known.end_of_events]
    assert known.anchor == before[-min(ANCHOR_BYTES, seen_bytes - len(known.closing)) :]
    assert known.empty == before.endswith(b"[")
    assert text_of(json.loads(before + b"]}")["events"]) == text_of(json.loads(stored)["events"])


def check_tail(stored: bytes, size: int) -> Optional[Parsed]:
    """Read that many last bytes: nothing, or the true last session."""
    parsed = parse_tail(stored[-size:], len(stored), SESSION)
    if parsed is not None:
        whole = json.loads(stored)
        assert text_of(parsed.events) == text_of(last_session(stored))
        assert text_of(parsed.members) == text_of({name: value for name, value in whole.items() if name != "events"})
        assert parsed.whole is False
        check_known(parsed.known, stored, size)
    return parsed


def check_every_tail(stored: bytes) -> int:
    """Read every number of last bytes; return how many of them showed the session."""
    return sum(check_tail(stored, size) is not None for size in range(1, len(stored) + 1))


def check_whole(stored: bytes) -> Parsed:
    """Parse a document whole, as stock stores write it."""
    parsed = parse(stored)
    whole = json.loads(stored)
    assert text_of(parsed.events) == text_of(whole.pop("events"))
    assert text_of(parsed.members) == text_of(whole)
    assert parsed.whole is True
    check_known(parsed.known, stored, len(stored))
    return parsed


def test_the_recorded_conversation() -> None:
    parsed = check_whole(RECORDED)
    assert len(parsed.events) == 111
    assert parsed.members == {"name": json.loads(RECORDED)["name"]}
    found = last_session(RECORDED)
    assert found is not None
    assert len(found) == 111
    shown = 0
    for size in [*range(1, 2000), *range(2000, len(RECORDED), 499), *range(len(RECORDED) - 500, len(RECORDED) + 1)]:
        shown += check_tail(RECORDED, size) is not None
    assert shown >= len(START)


@pytest.mark.parametrize("members", [{}, PRO_MEMBERS, {"list": [LOOK_ALIKE]}, {"object": {"events": [start()]}}])
def test_the_last_of_several_sessions(members: Dict[str, Any]) -> None:
    events = []
    for number in range(4):
        events += [start(number), action("action_listen", number), user(TEXTS[number])]
    stored = document(events, **members)
    parsed = check_whole(stored)
    assert parsed.known is not None
    assert len(parsed.events) == 12
    shown = check_every_tail(stored)
    needed = len(json.dumps(events[-3:])) - len("[") + len(stored[parsed.known.end_of_events :]) - len("]")
    assert shown == len(stored) - needed + 1


@pytest.mark.parametrize("value", VALUES, ids=text_of)
def test_hostile_values_at_every_cut(value: Any) -> None:
    stored = document(
        [start(0), user("a", metadata=value), start(1, metadata=value), user("b", input_channel=value), value]
    )
    check_whole(stored)
    shown = check_every_tail(stored)
    assert shown > 0 or stored[stored.rindex(b'"timestamp": 2.5') :].count(SESSION.marker) > 2


@pytest.mark.parametrize("raw_utf8", [True, False])
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_hostile_texts_at_every_cut(text: str, raw_utf8: bool) -> None:
    if raw_utf8:
        text = text.replace("\ud83d", "")
    events = [start(0), user(text), start(1), user(text, metadata={text: text, "list": [text]}), text]
    stored = document(events, ensure_ascii=not raw_utf8, user_id=text)
    check_whole(stored)
    assert check_every_tail(stored) > 0


@pytest.mark.parametrize("value", VALUES, ids=text_of)
def test_a_document_without_a_session_shows_none_at_any_cut(value: Any) -> None:
    stored = document([user("a", metadata=value), action("action_listen", metadata=value), user("b", parse_data=value)])
    check_whole(stored)
    assert check_every_tail(stored) == 0


def test_look_alikes_are_passed_over_a_few_times_then_more_is_asked_for() -> None:
    for count in range(12):
        stored = document([start(), user("a", metadata=[LOOK_ALIKE] * count)])
        assert (check_tail(stored, len(stored)) is not None) == (count < 8)


def test_a_start_spelt_otherwise_is_not_taken_for_an_earlier_one() -> None:
    late = '{"event": "action", "timestamp": 9, "name": "action\\u005fsession_start"}'
    later = '{"timestamp": 9, "name" : "action_session_start", "event": "action"}'
    first = json.dumps(start())
    for events in ([first, late], [first, later], [late, first], [later, first], [first, late, later, json.dumps([])]):
        stored = f'{{"events": [{", ".join(events)}], "name": "x"}}'.encode()
        check_every_tail(stored)
        check_whole(stored)


def test_a_start_whose_beginning_is_not_in_the_tail_is_not_shown() -> None:
    stored = document([user("a"), start(metadata={"long": "y" * 2000}), user("b")])
    needed = len(stored) - stored.index(SESSION.opening)
    assert check_tail(stored, needed - 1) is None
    assert check_tail(stored, needed) is not None


OTHER_WRITERS = [
    '{"events":[{"event":"action","name":"action_session_start"}],"name":"x"}',
    '{"name": "x", "events": [{"event": "action", "name": "action_session_start"}]}',
    '{"user_id": "u", "events": [{"event": "action", "name": "action_session_start"}], "name": "x"}',
    ' {"events": [{"event": "action", "name": "action_session_start"}], "name": "x"}',
    '{"events": [{"event": "action", "name": "action_session_start"}], "name": "x"} ',
    '{"events": [{"event": "action", "name": "action_session_start"}], "name": "x"}\n\n',
    '{\n "events": [\n  {"event": "action", "name": "action_session_start"}\n ],\n "name": "x"\n}',
    '{"events": [ {"event": "action", "name": "action_session_start"} ] , "name": "x" }',
    '{"events": [{"event": "action", "name": "action_session_start"}]}',
    '{"events": [], "name": "x"}',
    '{"events": []}',
    '{"events": [ ], "name": "x"}',
    '{"name": "x"}',
    "{}",
    '{"events": [{"event": "action", "name": "action_session_start"}], "name": "x", "events": []}',
    '{"events": [7], "name": "x", "events": [{"event": "action", "name": "action_session_start"}]}',
    '{"events": [{"event": "action", "name": "action_session_start"}], "events": [8], "name": "x"}',
    '{"events": [8], "events": [{"event": "action", "name": "action_session_start"}], "name": "x"}',
    '{"events": [{"event": "action", "event": "user", "name": "action_session_start"}], "name": "x", "name": "y"}',
    '{"events": [{"event": "user", "event": "action", "name": "action_session_start", "name": "a"}], "name": "x"}',
    '{"events": [7], "name": "x", "archived": [{"event": "action", "name": "action_session_start"}]}',
    '{"events": [7], "name": "x", "archived": {"a": [{"event": "action", "name": "action_session_start"}]}}',
    '{"events": [7], "name": "x", "archived": [{"event": "action", "name": "action_session_start"}], "z": 1}',
]


@pytest.mark.parametrize("text", OTHER_WRITERS)
def test_other_writers_spellings_are_read_as_json_is_and_appended_to_only_where_that_is_safe(text: str) -> None:
    stored = text.encode()
    whole = json.loads(stored)
    parsed = parse(stored)
    assert text_of(parsed.events) == text_of(whole.pop("events", []))
    assert text_of(parsed.members) == text_of(whole)
    if parsed.known is not None:
        appended = stored[: parsed.known.end_of_events] + (b"" if parsed.known.empty else b", ") + b'77], "name": "x"}'
        assert json.loads(appended) == {"events": [*parsed.events, 77], "name": "x"}
    for size in range(1, len(stored) + 1):
        tail = parse_tail(stored[-size:], len(stored), SESSION)
        if tail is not None:
            assert text_of(tail.events) == text_of(last_session(stored))
            if text.startswith(START):  # members before the events are not in a tail
                assert text_of(tail.members) == text_of(whole)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"true",
        b"7",
        b"NaN",
        b'"text"',
        b"[]",
        b'[{"event": "action", "name": "action_session_start"}]',
        b'{"events": null, "name": "x"}',
        b'{"events": {}, "name": "x"}',
        b'{"events": "[]", "name": "x"}',
        b'{"events": [], "name": "x", "events": null}',
        b'{"events": [], "name": "x"}}',
        b'{"events": [], "name": "x"} x',
        b'{"events": [], "name": "x"}\0',
        b'{"events": []], "name": "x"}',
        b'{"events": [,], "name": "x"}',
        b'{"events": [1,], "name": "x"}',
        b'{"events": [], "name": "x",}',
        b'{"events": [] "name": "x"}',
        b'{"events": [] : 1}',
        b'{"events": [], }',
        b'{"events": [\xff], "name": "x"}',
        b'{"events": ["\xed\xa0\xbd"], "name": "x"}',
        b'{"events": ["\x01"], "name": "x"}',
        b"\xef\xbb\xbf" + b'{"events": [], "name": "x"}',
        '{"events": [], "name": "x"}'.encode("utf-16"),
        b'{"events": [' + b"[" * 200_000,
        b'{"events": [' + b"[" * 200_000 + b"]" * 200_000 + b'], "name": "x"}',
        b'{"a":' * 200_000,
        b"not JSON",
    ],
    ids=lambda stored: repr(stored[:40]),
)
def test_what_is_no_document_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is json's or ours
        parse(stored)
    assert parse_tail(stored, len(stored), SESSION) is None
    assert parse_addition(Known(10, b"]}", b"x", False), b"x" + stored, 10 + len(stored)) is None


def test_nesting_too_deep_for_the_parser_is_never_cut() -> None:
    deep = b'{"event": "action", "name": "action_session_start", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    stored = b'{"events": [' + deep + b'], "name": "x"}'
    with pytest.raises(ValueError):  # noqa: PT011
        parse(stored)
    assert parse_tail(stored, len(stored), SESSION) is None


def test_a_truncated_document_is_refused_at_every_byte() -> None:
    hostile = document([start(), user(TEXTS[4], metadata=VALUES[-3]), user(TEXTS[6])], True, **PRO_MEMBERS)
    for stored in (hostile, document([]), document(VALUES, user_id=VALUES)):
        for size in range(len(stored)):
            with pytest.raises(ValueError):  # noqa: PT011
                parse(stored[:size])
    for size in range(0, len(RECORDED), 501):
        with pytest.raises(ValueError):  # noqa: PT011
            parse(RECORDED[:size])
        assert parse_tail(RECORDED[:size], size, SESSION) is None


def appended(stored: bytes, known: Known, *events: Any, **members: Any) -> Tuple[bytes, bytes, bytes]:
    """Return a document with events appended in place, and the two pieces that were put at its end."""
    addition = SEPARATOR.join(map(json.dumps, events)).encode()
    if addition and not known.empty:
        addition = SEPARATOR.encode() + addition
    closing = document([], **members)[len(START) :]
    return stored[: known.end_of_events] + addition + closing, addition, closing


@pytest.mark.parametrize("events", [[], [user("a")], [start(), user("ünï ☃"), user("y" * 400)]])
@pytest.mark.parametrize("added", [[], [user("b")], [start(1), *VALUES, *TEXTS]])
@pytest.mark.parametrize("members", [{}, PRO_MEMBERS])
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_after_an_append_the_same_is_known_as_of_a_fresh_parse(
    events: List[Any], added: List[Any], members: Dict[str, Any], ensure_ascii: bool
) -> None:
    stored = document(events, ensure_ascii)
    known = parse(stored).known
    assert known is not None
    after, addition, closing = appended(stored, known, *added, **members)
    fresh = check_whole(after)
    assert text_of(fresh.events) == text_of(events + added)
    assert known.after_append(addition, closing) == fresh.known
    again, addition, closing = appended(after, known.after_append(addition, closing), *added)
    assert known.after_append(*appended(stored, known, *added)[1:]) == parse(appended(stored, known, *added)[0]).known
    assert text_of(check_whole(again).events) == text_of(events + added + added)


def test_after_an_append_to_a_tail_the_anchor_grows_to_its_full_length() -> None:
    stored = document([user("a"), start()])
    parsed = parse_tail(stored[-150:], len(stored), SESSION)
    assert parsed is not None
    known = parsed.known
    assert known is not None
    assert 0 < len(known.anchor) < ANCHOR_BYTES
    for number in range(8):
        stored, addition, closing = appended(stored, known, user(str(number)))
        known = known.after_append(addition, closing)
        check_whole(stored)
        assert stored[: known.end_of_events].endswith(known.anchor)
    assert known == parse(stored).known


def test_nothing_known_is_a_document_that_is_not_there() -> None:
    addition, closing = b'{"events": [7', b'], "name": "x"}'
    known = NOTHING.after_append(addition, closing)
    assert known == parse(addition + closing).known


def addition_seen(known: Known, now: bytes) -> Optional[Parsed]:
    """Parse what a failed compare answers: the bytes from the known anchor on."""
    return parse_addition(known, now[known.end_of_events - len(known.anchor) :], len(now))


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("members", [{}, PRO_MEMBERS])
@pytest.mark.parametrize("added", [[], [user("b")], [start(1), *VALUES, *TEXTS]])
def test_what_other_writers_appended_is_read_from_there_on(
    added: List[Any], members: Dict[str, Any], ensure_ascii: bool
) -> None:
    stored = document([start(), user("ünï ☃ \U0001f600 " * 30)], ensure_ascii)
    whole, short = parse(stored), parse_tail(stored[-600:], len(stored), SESSION) or parse(stored)
    for known in (whole.known, short.known):
        assert known is not None
        now = appended(stored, known, *added, **members)[0]
        seen = addition_seen(known, now)
        assert seen is not None
        assert text_of(seen.events) == text_of(added)
        assert text_of(seen.members) == text_of({"name": "x", **members})
        assert seen.whole is False
        assert seen.known == parse(now).known
        for size in range(0, len(now), 3):
            assert addition_seen(known, now[:size]) is None


def test_byte_offsets_hold_where_the_anchor_cuts_a_character() -> None:
    for shift in range(8):
        stored = document([start(), user("a" * shift + "\U0001f600☃ü" * 60)], ensure_ascii=False)
        known = parse(stored).known
        assert known is not None
        now, *_ = appended(stored, known, user("\U0001f600"))
        seen = addition_seen(known, now)
        assert seen is not None
        assert seen.events == [user("\U0001f600")]
        assert seen.known == parse(now).known


def test_a_prefix_that_was_rewritten_is_noticed_by_its_length_or_by_what_stood_before_the_closing() -> None:
    events = [start(), user("first"), user("z" * 300), user("the last one")]
    stored = document(events)
    known = parse(stored).known
    assert known is not None
    for number in range(len(events)):
        for text in ("longer than it was before", "s"):
            others = copy.deepcopy(events)
            others[number]["text"] = text
            now = document([*others, user("added")])
            if len(others[number]["text"]) != len(events[number].get("text", "")):
                assert addition_seen(known, now) is None
    # Of the same length: seen if it is among the last 256 bytes; a change before those leaves what follows as it was.
    now = document([*events[:3], user("THE LAST ONE"), user("added")])
    assert addition_seen(known, now) is None
    now = document([events[0], user("FIRST"), *events[2:], user("added")])
    seen = addition_seen(known, now)
    assert seen is not None
    assert seen.events == [user("added")]


def test_a_shorter_an_empty_or_another_document_is_not_read_as_an_addition() -> None:
    stored = document([start(), user("a"), user("b")])
    known = parse(stored).known
    assert known is not None
    for now in (b"", document([]), document([start(), user("a")]), document([user("c" * 900)]), RECORDED, b"{" * 9999):
        assert addition_seen(known, now) is None
    empty = parse(document([])).known
    assert empty is not None
    assert addition_seen(empty, document([user("a")])) is None


def test_an_addition_in_another_spelling_is_read_and_one_inside_an_event_is_not() -> None:
    stored = document([start(), user("a")])
    known = parse(stored).known
    assert known is not None
    before = stored[: known.end_of_events]
    seen = addition_seen(known, before + b' , 7 ,\n[8] ] , "name" : "y" }')
    assert seen is not None
    assert (seen.events, seen.members) == ([7, [8]], {"name": "y"})
    for rest in (
        b", 7]",
        b"7]}",
        b"]]}",
        b"}]}",
        b", ]}",
        b',"a": 1}]}',
        b"], 7}",
        b'], "a"}',
        b"]} ",
        b', 7], "events": [8]}',
    ):
        assert addition_seen(known, before + rest) is None


SCALARS = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(VALUES),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.sampled_from(["event", "action", "name", "action_session_start", "events"]),
)
KEYS = st.one_of(st.sampled_from(["event", "events", "name", "metadata", '"', "a", ""]), st.text(max_size=3))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
EVENTS = st.one_of(
    st.builds(start, st.integers(0, 9), metadata=JSON),
    st.builds(start),
    st.builds(user, st.sampled_from(TEXTS), metadata=JSON, more=JSON),
    st.builds(action, st.sampled_from(["action_listen", *TEXTS]), metadata=JSON),
    JSON,
)
MEMBERS = st.dictionaries(
    st.one_of(st.sampled_from(["user_id", "current_session_id", "archived"]), st.text(min_size=1, max_size=3)).filter(
        lambda name: name not in ("events", "name", "ensure_ascii")
    ),
    JSON,
    max_size=2,
)
SETTINGS = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@SETTINGS
@example([], {})
@given(st.lists(EVENTS, max_size=6), MEMBERS)
def test_any_cut_of_any_document_shows_the_true_last_session_or_nothing(
    events: List[Any], members: Dict[str, Any]
) -> None:
    stored = document(events, **members)
    check_whole(stored)
    step = max(1, len(stored) // 150)
    for size in [*range(1, len(stored), step), len(stored)]:
        check_tail(stored, size)


@SETTINGS
@example([], {})
@given(st.lists(EVENTS, max_size=4), MEMBERS)
def test_any_cut_of_any_document_shows_its_true_end_or_nothing(events: List[Any], members: Dict[str, Any]) -> None:
    stored = document(events, **members)
    shown = 0
    for size in [*range(1, len(stored), max(1, len(stored) // 100)), len(stored)]:
        tail = stored[-size:]
        last, known = last_event(tail), known_end(tail, len(stored))
        if last is not None:
            assert text_of(last) == text_of(json.loads(stored)["events"][-1])
        if known is not None:
            check_known(known, stored, size)
            shown += 1
    assert shown > 0


def test_the_end_of_the_recorded_conversation_is_known_by_little() -> None:
    events = json.loads(RECORDED)["events"]
    for size in range(1, 3000):
        tail = RECORDED[-size:]
        assert last_event(tail) in (None, events[-1])
        known = known_end(tail, len(RECORDED))
        assert (known is not None) or size < 60
    assert last_event(RECORDED[-3000:]) == events[-1]


@SETTINGS
@given(st.lists(EVENTS, max_size=4), st.lists(EVENTS, max_size=3), MEMBERS, MEMBERS)
def test_any_addition_is_read_and_any_append_is_known(
    events: List[Any], added: List[Any], members: Dict[str, Any], others: Dict[str, Any]
) -> None:
    stored = document(events, **members)
    known = check_whole(stored).known
    assert known is not None
    now, addition, closing = appended(stored, known, *added, **others)
    assert check_whole(now).known == known.after_append(addition, closing)
    seen = addition_seen(known, now)
    if known.empty:
        assert seen is None
    else:
        assert seen is not None
        assert text_of(seen.events) == text_of(added)
        assert seen.known == parse(now).known


@SETTINGS
@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_as_json_is_or_refused(stored: bytes) -> None:
    for candidate in (stored, START.encode() + stored, START.encode() + b'], "name": ' + stored + b"}"):
        try:
            whole = json.loads(candidate.decode())
        except ValueError:
            whole = None
        if isinstance(whole, dict) and isinstance(whole.get("events", []), list):
            assert text_of(parse(candidate).events) == text_of(whole.get("events", []))
        else:
            with pytest.raises(ValueError):  # noqa: PT011
                parse(candidate)


def random_document(seed: int) -> bytes:
    """Return a document of many events in several sessions, with hostile content here and there."""
    draw = random.Random(seed)

    def fields() -> Dict[str, Any]:
        if draw.random() < 0.5:
            return {}
        return {"metadata": {"a": [draw.choice(VALUES), {draw.choice(TEXTS): draw.choice(VALUES)}]}}

    events: List[Any] = []
    for _ in range(draw.randrange(25)):
        kind = draw.random()
        if kind < 0.15:
            events.append(start(draw.randrange(9), **fields()))
        elif kind < 0.5:
            events.append(action(draw.choice(["action_listen", *TEXTS]), **fields()))
        elif kind < 0.95:
            events.append(user(draw.choice(TEXTS) * draw.randrange(4), **fields()))
        else:
            events.append(draw.choice(VALUES))
    members = draw.choice([{}, {}, PRO_MEMBERS, {"user_id": draw.choice(VALUES)}])
    return document(events, **members)


@pytest.mark.parametrize("block", range(8))
def test_tails_of_random_documents(block: int) -> None:
    shown = 0
    for seed in range(block * 50, block * 50 + 50):
        stored = random_document(seed)
        check_whole(stored)
        draw = random.Random(-seed)
        sizes = {len(stored), *(draw.randrange(1, len(stored) + 1) for _ in range(25))}
        shown += sum(check_tail(stored, size) is not None for size in sizes)
    assert shown > 100
