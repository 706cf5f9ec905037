"""A conversation's document as text: where its events end, where its last session begins, what follows what is known.

The stock format is ``{"events": [e1, e2, ...], "name": ...}``, as ``json.dumps`` writes it; Rasa Pro has more members
after ``events``. Nothing here knows Redis or Rasa.

A cut into the middle of a document is proved by parsing: from the first byte of an event to the end, a document nests
exactly one array and one object deeper than nothing. From inside an event it nests deeper, so that the array cannot
end where the document's remaining members begin, and parsing fails; no content can look otherwise, because inside a
JSON string every quote is escaped. A list of events in a member beside them would nest as deep; every host writes
``"name"`` right after the events, so that only a list between the two, which no host writes, could be taken for them.
"""

import json
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from extras.fastsock import decode_json

START = '{"events": ['
SEPARATOR = ", "
_START = START.encode()
_ANCHOR_BYTES = 256
_MAX_LOOK_ALIKES = 8
_STOCK_CLOSING = b'], "name": '
_EVENT = b'{"event": "'

Event = Dict[str, Any]


@dataclass(frozen=True)
class Known:
    """What is known of a stored document, enough to append to it and to notice that somebody else did.

    ``size_bytes``: of the whole document. ``closing``: its last bytes, from the bracket that ends the events.
    ``anchor``: up to 256 bytes before those. ``empty``: whether there is no event yet.
    """

    size_bytes: int
    closing: bytes
    anchor: bytes
    empty: bool

    @property
    def end_of_events(self) -> int:
        """Offset of the bracket that ends the events, in bytes."""
        return self.size_bytes - len(self.closing)

    def after_append(self, addition: bytes, closing: bytes) -> "Known":
        """Return what is known once ``addition`` stands before the new ``closing``."""
        return Known(
            size_bytes=self.end_of_events + len(addition) + len(closing),
            closing=closing,
            anchor=(self.anchor + addition)[-_ANCHOR_BYTES:],
            empty=self.empty and not addition,
        )


class SessionStart(NamedTuple):
    """The event that begins a session: an action of this name, as ``json.dumps`` spells it."""

    action: str
    marker: bytes
    """Bytes that such an event contains."""
    opening: bytes
    """Bytes that such an event begins with."""

    @classmethod
    def of_action(cls, action: str) -> "SessionStart":
        """Make the description of an action event of that name."""
        return cls(action, f'"name": {json.dumps(action)}'.encode(), b'{"event": "action", ')

    def last_in(self, events: List[Any]) -> Optional[int]:
        """Return the position of the last of some parsed events that begins a session, or ``None``."""
        action = self.action
        for at in range(len(events) - 1, -1, -1):
            event = events[at]
            if isinstance(event, dict) and event.get("name") == action and event.get("event") == "action":
                return at
        return None


NOTHING = Known(0, b"", b"", True)
"""Known of a document that does not exist."""


class Parsed(NamedTuple):
    """Events of a document or of its end, the members after them, and what is known for the next append.

    ``known`` is ``None`` where another writer's spelling makes appending in place unsafe. ``whole``: whether these are
    all events of the document. ``starts_at``: offset, in bytes, from which on the document has these events and no
    others; 0 if they are all, ``None`` if that is not known. ``text``: the document's bytes from the first of these
    events on, or all of them; empty where that is not known.
    """

    events: List[Event]
    members: Dict[str, Any]
    known: Optional[Known]
    whole: bool
    starts_at: Optional[int]
    text: bytes = b""


def canonical(event: Any) -> str:
    """Return text that is the same for equal events, given as dicts."""
    return json.dumps(event, sort_keys=True)


def parse(document: bytes) -> Parsed:
    """Parse a whole document. Raises ``ValueError`` if it is not one object with a list of events."""
    if document.startswith(_START):
        try:
            events, members, closing = _split(document, len(_START))
            return Parsed(events, members, _known(document, len(document), closing, not events), True, 0, document)
        except ValueError:
            pass  # spelt differently further on, or not JSON at all: the next lines tell
    try:
        found = json.loads(document.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    if not isinstance(found, dict) or not isinstance(found.get("events", []), list):
        raise ValueError("it is not a JSON object with a list of events")
    return Parsed(found.pop("events", []), found, None, True, 0, document)


def parse_tail(tail: bytes, size_bytes: int, session: SessionStart) -> Optional[Parsed]:
    """Parse the last session from the end of a document, or return ``None`` if it does not begin in ``tail``.

    ``tail``: the document's last bytes; ``size_bytes``: of the whole document. A look-alike is tried and passed over,
    a few times; then ``None`` says "read more" too.
    """
    at = len(tail)
    for _ in range(_MAX_LOOK_ALIKES):
        at = tail.rfind(session.marker, 0, at)
        cut = tail.rfind(session.opening, 0, at) if at >= 0 else -1
        if cut < 0:
            return None
        try:
            events, members, closing = _split(tail, cut)
        except ValueError:
            continue  # the marker stands inside an event
        if not closing.startswith(_STOCK_CLOSING):
            continue  # the list is not that of the events, or another writer's
        first = session.last_in(events)
        if first is not None:
            starts_at = None if first else size_bytes - len(tail) + cut
            text = b"" if first else tail[cut:]
            return Parsed(events[first:], members, _known(tail, size_bytes, closing, False), False, starts_at, text)
    return None


def parse_addition(known: Known, text: bytes, size_bytes: int) -> Optional[Parsed]:
    """Parse what was appended after ``known``, or return ``None`` if the document was changed in another way.

    ``text``: the stored bytes from the beginning of ``known.anchor`` on; ``size_bytes``: of the whole document now.
    """
    if known.empty or not text.startswith(known.anchor):
        return None
    try:
        events, members, closing = _split(b"0" + text[len(known.anchor) :], 0)
    except ValueError:
        return None
    return Parsed(events[1:], members, _known(text, size_bytes, closing, False), False, None)


def known_end(tail: bytes, size_bytes: int) -> Optional[Known]:
    """Return what is known of a document by its last bytes alone, or ``None`` if its events do not end in ``tail``."""
    at = len(tail)
    for _ in range(_MAX_LOOK_ALIKES):
        at = tail.rfind(_STOCK_CLOSING, 0, at)
        if at <= 0:  # what stands before it is needed, too
            return None
        rest = b'{"": 0' + tail[at + 1 :]
        try:
            members, end = decode_json(rest, 0)
        except ValueError:
            continue  # it stands inside an event
        if end == len(rest) and isinstance(members, dict):
            return _known(tail, size_bytes, tail[at:], tail[:at].endswith(b"["))
    return None


def last_event(tail: bytes) -> Optional[Event]:
    """Return the last event of a document from its last bytes, or ``None`` if it does not begin in ``tail``."""
    at = len(tail)
    while True:
        at = tail.rfind(_EVENT, 0, at)
        if at < 0:
            return None
        try:
            events, _, closing = _split(tail, at)
        except ValueError:
            continue  # it stands inside an event
        if closing.startswith(_STOCK_CLOSING) and isinstance(events[-1], dict):
            return events[-1]


def _split(data: bytes, start: int) -> Tuple[List[Any], Dict[str, Any], bytes]:
    """Split the end of a document, from an event on, into the events, the other members, and the closing bytes."""
    events, end = decode_json(data, start, in_array=True)
    rest = b'{"": 0' + data[end:]
    members, final = decode_json(rest, 0)
    if final != len(rest) or "events" in members:
        raise ValueError("the document does not end with its other members")
    del members[""]
    return events, members, data[end - 1 :]


def _known(text: bytes, size_bytes: int, closing: bytes, empty: bool) -> Known:
    return Known(size_bytes, closing, text[: len(text) - len(closing)][-_ANCHOR_BYTES:], empty)
