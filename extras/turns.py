"""How a turn is read and saved: a tracker of what is stored, and what is new of a tracker appended to it.

Steps without I/O (see :mod:`extras.steps`), written once for both kinds of host and for outages, when the last known
documents take the place of Redis.
"""

import logging
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from extras import _rasa
from extras.acknowledged import Acks, NotAcknowledgedError, acknowledged
from extras.conversation import Conversations, UserIndex
from extras.document import SEPARATOR, Known, Parsed, parse_addition
from extras.document import parse as parse_document
from extras.steps import Steps

logger = logging.getLogger(__name__)

Tracker = Any
"""The host's ``DialogueStateTracker``."""


class Stored(NamedTuple):
    """What a tracker remembers of its stored document: ``last`` is the newest event object that is in it.

    ``session``: the one that the document is in, where another writer has ended that of the tracker.
    """

    owner: Conversations
    known: Known
    members: Dict[str, Any]
    last: Optional[Any]
    session: Optional[_rasa.Session] = None


def _last(tracker: Tracker) -> Optional[Any]:
    return tracker.events[-1] if tracker.events else None


def _without_equals(new: List[Any], stored: List[Any]) -> List[Any]:
    """Leave out new events that are equal, though not identical, to stored ones; equal events have equal times."""
    times = {event.timestamp for event in new}
    forms = {_rasa.canonical(event.as_dict()) for event in stored if event.timestamp in times}
    return [event for event in new if _rasa.canonical(event.as_dict()) not in forms] if forms else new


class Turns:
    """Reading and saving of one store's conversations in ``conversations``, wherever those are.

    ``owner``: what tells trackers of this store from others. ``user_index``: where a save puts a user's conversation.
    ``acks``: the replicas that must have what is saved.
    ``filled``: is told the key of a document whose new events a save has put into its outbox; without it there is none.
    """

    def __init__(
        self,
        store: Any,
        conversations: Conversations,
        owner: Conversations,
        user_index: Optional[UserIndex],
        acks: Optional[Acks] = None,
        filled: Optional[Callable[[bytes], None]] = None,
    ) -> None:
        self._store = store
        self._conversations = conversations
        self._owner = owner
        self._user_index = user_index
        self._acks = acks
        self._filled = filled

    def retrieve(self, sender_id: str, whole: bool) -> Steps[Optional[Tracker]]:
        """Return a conversation's latest session, or all of them for ``whole``, or ``None``."""
        sender_id = self._conversations.bare(sender_id)
        if not whole and _rasa.reads_tail(self._store):
            parsed = yield from self._parsed(
                sender_id, self._conversations.load_session(sender_id, _rasa.SESSION_START)
            )
            session = None if parsed is None else _rasa.session_of(parsed)
            if session is not None:
                tracker = self._replayed(sender_id, session, _rasa.session_tracker)
                if tracker is not None:
                    return self._stamped(tracker, session, _last(tracker))
            if parsed is not None and not parsed.whole:
                parsed = yield from self._parsed(sender_id, self._load_steps(sender_id))
        else:
            parsed = yield from self._parsed(sender_id, self._load_steps(sender_id))
        if parsed is None:
            logger.debug("There is no conversation for sender id %r.", sender_id)
            return None
        tracker = self._replayed(sender_id, parsed, _rasa.whole_tracker)
        tracker = tracker if whole else _rasa.latest_session(self._store, tracker)
        return self._stamped(tracker, parsed, _last(tracker))

    def _load_steps(self, sender_id: str) -> Steps[Optional[Parsed]]:
        document = yield from self._conversations.load(sender_id)
        return None if document is None else parse_document(document)

    def _parsed(self, sender_id: str, steps: "Steps[Optional[Parsed]]") -> "Steps[Optional[Parsed]]":
        try:
            return (yield from steps)
        except ValueError as error:
            raise self._store.refuse(sender_id, error) from error

    def _replayed(self, sender_id: str, parsed: Parsed, make: Callable[..., Tracker]) -> Tracker:
        try:
            return make(self._store, sender_id, parsed)
        except Exception as error:
            raise self._store.refuse(sender_id, error) from error

    def _stamped(self, tracker: Tracker, parsed: Parsed, last: Optional[Any]) -> Tracker:
        """Note on a tracker what is stored of it, up to its event ``last``, so that its next save can append the rest.

        ``last`` is taken before anything is waited for: what is added to the tracker meanwhile is not stored yet.
        """
        if parsed.known is not None and (last is not None or parsed.known.empty):
            session = _rasa.session_stored(tracker, parsed.members, last)
            tracker._extras_stored = Stored(self._owner, parsed.known, parsed.members, last, session)
        return tracker

    def save(self, tracker: Tracker, expires_after_s: Optional[float]) -> Steps[List[Any]]:
        """Store what is new of a tracker and return those events."""
        before = getattr(tracker, "_extras_stored", None)
        try:
            new_events: List[Any] = yield from self.kept(self._save(tracker, expires_after_s))
        except NotAcknowledgedError:
            tracker._extras_stored = before  # so that another save has the same new events to publish
            raise
        return new_events

    def kept(self, steps: "Steps[Any]") -> "Steps[Any]":
        """Let steps count only when replicas have what they change, where that is asked for."""
        return steps if self._acks is None else acknowledged(steps, self._acks)

    def _save(self, tracker: Tracker, expires_after_s: Optional[float]) -> Steps[List[Any]]:
        sender_id = self._conversations.bare(tracker.sender_id)
        new_events = self.new_since_stored(tracker)
        if new_events is None or not (
            yield from self._append_steps(sender_id, tracker, tracker._extras_stored, new_events, expires_after_s)
        ):
            new_events = yield from self._union_steps(sender_id, tracker, expires_after_s)
        yield from self.index(sender_id, tracker, expires_after_s)
        return new_events

    def new_since_stored(self, tracker: Tracker) -> Optional[List[Any]]:
        """Return the events after the last stored one, by identity; ``None`` if the tracker does not say."""
        stored: Optional[Stored] = getattr(tracker, "_extras_stored", None)
        if stored is None or stored.owner is not self._owner:
            return None
        events = list(tracker.events)
        first = len(events)
        while first > 0 and events[first - 1] is not stored.last:
            first -= 1
        if first == 0 and stored.last is not None:
            return None
        return _without_equals(events[first:], events[:first])

    def _append_steps(
        self,
        sender_id: str,
        tracker: Tracker,
        stored: Stored,
        new_events: List[Any],
        expires_after_s: Optional[float],
    ) -> Steps[bool]:
        """Append events to the stored document; return whether that was possible.

        What others have appended in the meantime is read, and of ours only what is not among it is appended: another
        writer loses nothing, and a save that is repeated after a lost reply adds nothing. Whoever is overtaken reads
        only what the others have added, and somebody always gets on.
        """
        known, members, session = stored.known, stored.members, stored.session
        missing, last = new_events, _last(tracker)
        while True:
            ending = None if session is None else _rasa.session_after(session, missing)
            addition = _rasa.serialise_events(self._store, tracker, missing)
            if addition and not known.empty:
                addition = SEPARATOR + addition
            written = _rasa.members_after(tracker, members, ending)
            closing = _rasa.serialise_closing(written).encode()
            bodies = self._bodies(tracker, missing)
            found = yield from self._conversations.append(
                sender_id, known, addition.encode(), closing, expires_after_s, bodies
            )
            if isinstance(found, Known):
                self._has_filled(sender_id, bodies)
                session = _rasa.session_unless_own(ending, tracker)
                tracker._extras_stored = Stored(stored.owner, found, written, last, session)
                return True
            added = parse_addition(known, found.text, found.size_bytes)
            if added is None or added.known is None:
                return False
            if session is not None or not _rasa.same_session(members, added.members):
                try:
                    session = _rasa.session_read(session, stored.last, added)
                except ValueError as error:
                    raise self._store.refuse(sender_id, error) from error
            known, members = added.known, added.members
            forms = set(map(_rasa.canonical, added.events))
            missing = [event for event in missing if _rasa.canonical(event.as_dict()) not in forms]

    def _union_steps(self, sender_id: str, tracker: Tracker, expires_after_s: Optional[float]) -> Steps[List[Any]]:
        """Store the union of the stored conversation and a tracker of unknown origin; return what was new.

        New events behind the stored ones are appended, so that no other writer can overtake this for long.
        """
        while True:
            document = yield from self._conversations.load(sender_id)
            last = _last(tracker)
            merged = _rasa.Merged(tracker, list(tracker.events), False, None)
            if document is not None:
                parsed, merged = self._merged(sender_id, document, tracker)
                if merged.appends and parsed.known is not None:
                    # Of all events, not of the parsed members, which another version of the host may have written.
                    members = _rasa.members_after(merged.tracker, parsed.members, merged.session)
                    stored = Stored(self._owner, parsed.known, members, None, merged.session)
                    if (yield from self._append_steps(sender_id, tracker, stored, merged.new_events, expires_after_s)):
                        return merged.new_events
            text = _rasa.serialise(self._store, merged.tracker).encode()
            bodies = self._bodies(tracker, merged.new_events)
            if (yield from self._conversations.replace_if(sender_id, document, text, expires_after_s, bodies)):
                self._has_filled(sender_id, bodies)
                self._stamped(tracker, parse_document(text), last)
                return merged.new_events

    def _bodies(self, tracker: Tracker, events: List[Any]) -> List[bytes]:
        return [] if self._filled is None else _rasa.bodies(self._store, tracker, events)

    def _has_filled(self, sender_id: str, bodies: List[bytes]) -> None:
        if bodies and self._filled is not None:
            self._filled(self._conversations.key(sender_id))

    def _merged(self, sender_id: str, document: bytes, tracker: Tracker) -> Tuple[Parsed, _rasa.Merged]:
        try:
            parsed = parse_document(document)
            stored = _rasa.unlimited_tracker(self._store, sender_id, parsed)
            return parsed, _rasa.merge(stored, tracker, getattr(tracker, "_extras_maker", None) is self._owner)
        except Exception as error:
            raise self._store.refuse(sender_id, error) from error

    def index(self, sender_id: str, tracker: Tracker, expires_after_s: Optional[float]) -> Steps[None]:
        """Put a conversation into its user's, where it has one."""
        user_id = _rasa.user_id(tracker)
        if user_id and self._user_index is not None:
            yield from self._user_index.add(user_id, sender_id, expires_after_s, time.time())
