"""Conversations in Redis: one string key each, in the host's own document format and key names.

Every method that needs Redis is a generator of steps (see :mod:`extras.steps`): it yields commands and is sent their
replies. Nothing here does I/O, and nothing here knows Rasa.
"""

import hashlib
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from extras.document import Known, Parsed, SessionStart, parse, parse_tail
from extras.outbox import outbox_key
from extras.steps import Script, Steps

TRACKER_INFIX = "tracker:"
"""What the stock stores since Rasa 2.1 put before a sender id, after the prefix."""

_DOCUMENT_START = b'{"events": ['


# Answers [size of the document, its end]. The end reaches back to the last event that contains ARGV[1], and ARGV[2]
# bytes more, so that the event's beginning is in it; without such an event it is the whole document. Goes backwards
# piece by piece; finds ARGV[1] by its end from byte ARGV[3] on, which begins with a character that is rare in JSON,
# because Lua looks for the first character alone and stops at each.
READ_TAIL = Script(
    """
local size = redis.call('STRLEN', KEYS[1])
local before, rare = string.sub(ARGV[1], 1, ARGV[3]), string.sub(ARGV[1], ARGV[3] + 1)
local upto = size
while upto > 0 do
  local start = math.max(upto - 16384, 0)
  local text = redis.call('GETRANGE', KEYS[1], start, upto + #ARGV[1] - 2)
  local last, at = nil, string.find(text, rare, 1, true)
  while at do
    if at > #before and string.sub(text, at - #before, at - 1) == before then last = at - #before end
    at = string.find(text, rare, at + 1, true)
  end
  if last then
    start = math.max(start + last - 1 - ARGV[2], 0)
    return {size, redis.call('GETRANGE', KEYS[1], start, -1)}
  end
  upto = start
end
return {size, redis.call('GET', KEYS[1]) or ''}
"""
)

# Appends if the document is still ARGV[1] bytes long and ends in ARGV[2]: puts ARGV[3] in the place of that end, and
# answers [1, its new size]. Otherwise changes nothing and answers [0, its size, its bytes from offset ARGV[5] on].
# ARGV[4]: milliseconds until it expires, 0 for never. ARGV from 6 on go to the list KEYS[2], if there is one; they are
# taken off again where the document is not taken, which may be too long by then for this server.
APPEND = Script(
    """
local size = redis.call('STRLEN', KEYS[1])
local kept = ARGV[1] - #ARGV[2]
if size ~= tonumber(ARGV[1]) or redis.call('GETRANGE', KEYS[1], kept, -1) ~= ARGV[2] then
  return {0, size, redis.call('GETRANGE', KEYS[1], ARGV[5], -1)}
end
for i = 6, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
local written
if kept + #ARGV[3] >= size then
  written = redis.pcall('SETRANGE', KEYS[1], kept, ARGV[3])
else
  local head = kept > 0 and redis.call('GETRANGE', KEYS[1], 0, kept - 1) or ''
  written = redis.pcall('SET', KEYS[1], head .. ARGV[3])
end
if type(written) == 'table' and written.err then
  if #ARGV > 5 then redis.call('LTRIM', KEYS[2], 0, 4 - #ARGV) end
  return written
end
if ARGV[4] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[4]) else redis.call('PERSIST', KEYS[1]) end
return {1, kept + #ARGV[3]}
"""
)

# Stores ARGV[2] if the SHA-1 of what is stored is ARGV[1], empty for nothing; ARGV[4]: nothing will do in any case.
# ARGV from 5 on go to the list KEYS[2], if there is one, and are taken off again where the document is not taken.
REPLACE_IF = Script(
    """
local stored = redis.call('GET', KEYS[1])
if stored and redis.sha1hex(stored) ~= ARGV[1] then return 0 end
if not stored and ARGV[1] ~= '' and ARGV[4] == '0' then return 0 end
for i = 5, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
local written
if ARGV[3] ~= '0' then
  written = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  written = redis.pcall('SET', KEYS[1], ARGV[2])
end
if written.err then
  if #ARGV > 4 then redis.call('LTRIM', KEYS[2], 0, 3 - #ARGV) end
  return written
end
return 1
"""
)

_TAIL_MARGIN_BYTES = 1024
_MOST_PLACES = 10_000
_GROWTH_BYTES = 262_144


class Changed(NamedTuple):
    """A document that is no longer what was known: its size, and its bytes from the known anchor on."""

    size_bytes: int
    text: bytes


class _Place(NamedTuple):
    """Where in a document its last session begins, and where its events ended when it was last read, in bytes."""

    start: int
    end_of_events: int


class Conversations:
    """Keys and values of all conversations below one prefix.

    ``prefix``: what stands before the sender id in a key, empty for Rasa 2.0's bare ids. ``scan_count``: keys that
    one SCAN step looks at. ``read_unprefixed``: also find what a Rasa 2.0 store left under the bare id.
    """

    def __init__(self, prefix: str, scan_count: int, read_unprefixed: bool) -> None:
        self.prefix = prefix
        self._scan_count = scan_count
        self._read_unprefixed = read_unprefixed and prefix != ""
        self._places: Dict[str, _Place] = {}

    def __deepcopy__(self, memo: Dict[int, Any]) -> "Conversations":
        """Stay the same: a copy of a tracker still belongs to the store that its original came from."""
        return self

    def bare(self, sender_id: str) -> str:
        """Return the sender id without the key prefix, so that a key handed back in is understood."""
        return sender_id[len(self.prefix) :] if self.prefix and sender_id.startswith(self.prefix) else sender_id

    def key(self, sender_id: str) -> bytes:
        """Return the key that holds the conversation of ``sender_id``."""
        return _encode(self.prefix + self.bare(sender_id))

    def load(self, sender_id: str) -> Steps[Optional[bytes]]:
        """Return the stored document, or ``None``."""
        document: Optional[bytes] = yield ("GET", self.key(sender_id))
        if document is None and self._read_unprefixed:
            key = _encode(self.bare(sender_id))
            if (yield from self.holds_document(key)):
                document = yield ("GET", key)
        return document

    def load_session(self, sender_id: str, session: SessionStart) -> Steps[Optional[Parsed]]:
        """Return the last session of a conversation, reading little more than that, or all of it, or ``None``.

        Where it begins is found by a script, and remembered for the conversations that were read last: Redis hands out
        bytes from a known place on at a fraction of the cost, and documents only grow, unless they are replaced.
        Raises ``ValueError`` if the stored bytes are no document.
        """
        place = self._places.pop(sender_id, None)
        parsed = None if place is None else (yield from self._load_from(place, sender_id, session))
        if parsed is None:
            parsed = yield from self._find_session(sender_id, session)
        if parsed is not None and parsed.known is not None and parsed.starts_at is not None:
            if len(self._places) >= _MOST_PLACES:
                self._places.pop(next(iter(self._places)), None)
            self._places[sender_id] = _Place(parsed.starts_at, parsed.known.end_of_events)
        return parsed

    def _load_from(self, place: _Place, sender_id: str, session: SessionStart) -> Steps[Optional[Parsed]]:
        """Return the last session, read from where it began when last seen, or ``None`` if it is not there any more.

        What is read proves itself as ever: after a change of any kind it does not parse, or it is what it seems to be.
        """
        most = place.end_of_events - place.start + _GROWTH_BYTES
        tail: bytes = yield ("GETRANGE", self.key(sender_id), place.start, place.start + most - 1)
        if not tail or len(tail) == most or tail.find(session.marker, place.end_of_events - place.start) >= 0:
            return None
        return parse_tail(tail, place.start + len(tail), session) if place.start else parse(tail)

    def _find_session(self, sender_id: str, session: SessionStart) -> Steps[Optional[Parsed]]:
        size, tail = yield from READ_TAIL.call(
            self.key(sender_id), session.marker, _TAIL_MARGIN_BYTES, session.marker.find(b"_")
        )
        if not tail:
            document = (yield from self.load(sender_id)) if self._read_unprefixed else None
            return None if document is None else parse(document)._replace(known=None)
        if len(tail) < size:
            parsed = parse_tail(tail, size, session)
            if parsed is not None:
                return parsed
            tail = yield ("GET", self.key(sender_id))
        return None if tail is None else parse(tail)

    def append(
        self,
        sender_id: str,
        known: Known,
        addition: bytes,
        closing: bytes,
        expires_after_s: Optional[float],
        bodies: Sequence[bytes] = (),
    ) -> Steps[Union[Known, Changed]]:
        """Put ``addition`` and a new ``closing`` in place of the known closing bytes, if nothing has changed since.

        Returns what is known afterwards, or what was found instead. One round trip; Redis and its replicas receive the
        new bytes only. Repeating it after a lost reply changes nothing. ``bodies`` go to the outbox with it, or not.
        """
        key = self.key(sender_id)
        replied = yield from APPEND.call(
            key,
            known.size_bytes,
            known.closing,
            addition + closing,
            _milliseconds(expires_after_s),
            known.end_of_events - len(known.anchor),
            *bodies,
            another=outbox_key(key) if bodies else None,
        )
        if replied[0] == 1:
            return known.after_append(addition, closing)
        return Changed(replied[1], replied[2])

    def replace_if(
        self,
        sender_id: str,
        stored: Optional[bytes],
        document: bytes,
        expires_after_s: Optional[float],
        bodies: Sequence[bytes] = (),
    ) -> Steps[bool]:
        """Store a whole document in place of ``stored``, if that is what is there; return whether it was.

        ``stored`` may have been found under the bare id of a Rasa 2.0 store; then there must be nothing yet. ``bodies``
        go to the outbox with it, or not.
        """
        key = self.key(sender_id)
        digest = hashlib.sha1(stored).hexdigest() if stored is not None else ""
        replied = yield from REPLACE_IF.call(
            key,
            digest,
            document,
            _milliseconds(expires_after_s),
            int(self._read_unprefixed),
            *bodies,
            another=outbox_key(key) if bodies else None,
        )
        return bool(replied)

    def exists(self, sender_id: str) -> Steps[bool]:
        """Return whether a conversation is stored."""
        found = yield ("EXISTS", self.key(sender_id))
        if not found and self._read_unprefixed:
            found = yield from self.holds_document(_encode(self.bare(sender_id)))
        return bool(found)

    def replace(self, sender_id: str, document: str, expires_after_s: Optional[float]) -> Steps[None]:
        """Store the whole document; it expires after so many seconds, or never for ``None`` and 0."""
        expiry = ("PX", _milliseconds(expires_after_s)) if expires_after_s else ()
        yield ("SET", self.key(sender_id), document.encode(), *expiry)

    def erase(self, sender_id: str) -> Steps[None]:
        """Delete the conversation under its key and, where those are read, under the bare id."""
        keys = [self.key(sender_id)]
        if self._read_unprefixed:
            bare_key = _encode(self.bare(sender_id))
            if (yield from self.holds_document(bare_key)):
                keys.append(bare_key)
        for key in keys:
            yield ("DEL", key)

    def sender_ids(self) -> Steps[List[str]]:
        """Return the bare sender ids of all conversations, each once, by SCAN: Redis goes on serving meanwhile."""
        found: Dict[str, None] = {}
        cursor = 0
        while True:
            cursor, sender_ids = yield from self.some_sender_ids(cursor)
            found.update(dict.fromkeys(sender_ids))
            if cursor == 0:
                return list(found)

    def some_sender_ids(self, cursor: int) -> Steps[Tuple[int, List[str]]]:
        """Return the sender ids of one SCAN step, and before them the cursor of the next step: 0 at the end.

        ``cursor``: 0 for the first step. Redis may name one in two steps, if conversations come or go meanwhile.
        """
        everything = self._read_unprefixed or not self.prefix
        pattern = b"*" if everything else _encode(_escape_glob(self.prefix)) + b"*"
        found: List[str] = []
        then, keys = yield ("SCAN", cursor, "MATCH", pattern, "COUNT", self._scan_count)
        for key in keys:
            name = key.decode("utf-8", "surrogateescape")
            if self.prefix and name.startswith(self.prefix):
                found.append(self.bare(name))
            elif everything and (yield from self.holds_document(key)):
                found.append(name)
        return int(then), found

    def holds_document(self, key: bytes) -> Steps[bool]:
        """Return whether a key of unknown origin holds a conversation; other applications may share the database."""
        kind = yield ("TYPE", key)
        if kind not in (b"string", "string"):
            return False
        start = yield ("GETRANGE", key, 0, len(_DOCUMENT_START) - 1)
        return bool(start == _DOCUMENT_START)


class UserIndex:
    """Which conversations belong to a user: Rasa Pro's ``user_trackers:<user_id>`` sorted sets.

    The score is the time, in seconds since the epoch, at which the conversation expires, or ``inf``.
    """

    def __init__(self, prefix: str) -> None:
        # Pro splits at the first "tracker:", wherever that is, even in a prefix of the user's own.
        self._namespace = prefix.split(TRACKER_INFIX)[0]

    def key(self, user_id: str) -> bytes:
        """Return the key of the user's sorted set."""
        return _encode(f"{self._namespace}user_trackers:{user_id}")

    def add(self, user_id: str, sender_id: str, expires_after_s: Optional[float], now_s: float) -> Steps[None]:
        """Add a conversation, or renew when it expires."""
        score = repr(now_s + expires_after_s) if expires_after_s else "inf"
        yield ("ZADD", self.key(user_id), score, _encode(sender_id))

    def remove(self, user_id: str, sender_ids: List[str]) -> Steps[None]:
        """Take conversations out."""
        if sender_ids:
            yield ("ZREM", self.key(user_id), *(_encode(sender_id) for sender_id in sender_ids))

    def sender_ids(self, user_id: str, now_s: float) -> Steps[List[str]]:
        """Drop what has expired and return the sender ids that are left."""
        key = self.key(user_id)
        yield ("ZREMRANGEBYSCORE", key, "-inf", repr(now_s))
        members: List[Any] = yield ("ZRANGEBYSCORE", key, repr(now_s), "+inf")
        return [member.decode("utf-8", "surrogateescape") for member in members]


def load_many(conversations: Conversations, sender_ids: List[str]) -> Steps[List[Optional[bytes]]]:
    """Return the documents of several conversations in one round trip, ``None`` where there is none."""
    if not sender_ids:
        return []
    documents: List[Optional[bytes]] = yield ("MGET", *(conversations.key(sender_id) for sender_id in sender_ids))
    return documents


def _milliseconds(expires_after_s: Optional[float]) -> int:
    return max(1, round(expires_after_s * 1000)) if expires_after_s else 0


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _escape_glob(pattern: str) -> str:
    return "".join("\\" + character if character in "*?[]\\" else character for character in pattern)
