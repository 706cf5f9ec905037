"""Rasa's tracker store on Redis: ``type: extras.trackerstore.ExtraRedisTrackerStore`` in ``endpoints.yml``.

Rasa takes an ``ImportError`` or ``AttributeError`` from a custom store for "not found", and goes on with an in-memory
store that forgets every conversation at the next restart. Neither may leave this module: they become errors of ours.
"""

import difflib
import json
import logging
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from extras.errors import HostError, OptionError

try:
    from rasa.shared.exceptions import RasaException
except (ImportError, AttributeError) as error:
    raise HostError(
        f"extras.trackerstore is loaded by Rasa 2.0 or later, which this Python does not have ({error})"
    ) from error


class TrackerStoreError(RasaException):  # type: ignore[misc]
    """The store cannot start or do what it was asked to; the message says what to do."""


@contextmanager
def _nothing_swallowed(doing: str) -> Iterator[None]:
    """Turn what Rasa would swallow, and errors in options, into errors that it reports."""
    try:
        yield
    except OptionError as error:
        raise TrackerStoreError(f"ExtraRedisTrackerStore: {error}") from error
    except (ImportError, AttributeError) as error:
        raise TrackerStoreError(
            f"ExtraRedisTrackerStore: {doing} failed with {type(error).__name__}: {error}. Reinstall the package and "
            f"its dependencies (pip install --force-reinstall rasa-extras); if that does not help, this version of "
            f"Rasa or redis-py is not supported"
        ) from error


with _nothing_swallowed("loading"):
    from extras import _rasa
    from extras.client import LoopClients, Steps, arun, run, sync_client
    from extras.conversation import TRACKER_INFIX, Conversations, UserIndex, load_many
    from extras.document import SEPARATOR, Known, Parsed, parse_addition
    from extras.document import parse as parse_document
    from extras.options import parse

logger = logging.getLogger(__name__)

Tracker = Any
"""The host's ``DialogueStateTracker``."""


class DocumentError(TrackerStoreError, _rasa.DocumentErrorBase):  # type: ignore[misc]
    """A stored conversation cannot be read. The message names its key; it is never overwritten."""


class _Stored(NamedTuple):
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


class _Store(_rasa.TrackerStore, _rasa.SerializedTrackerAsText):  # type: ignore[misc]
    """What both kinds of host share: options, and each operation as steps without I/O."""

    def __init__(
        self,
        domain: Optional[Any] = None,
        host: Optional[str] = None,
        event_broker: Optional[Any] = None,
        **options: Any,
    ) -> None:
        """Check the options; nothing connects before the first conversation.

        ``host`` is what Rasa calls the ``url`` of ``endpoints.yml``; ``options`` are described in
        :mod:`extras.options`. Raises :class:`TrackerStoreError`, which names the option and the way out.
        """
        with _nothing_swallowed("the start of the store"):
            if host is not None:
                options.setdefault("url", host)
            self.options = parse(options)
            self._open()
            super().__init__(domain, event_broker)
            self.record_exp = self.options.record_exp
            own = self.options.key_prefix
            self.key_prefix = f"{own}:{TRACKER_INFIX}" if own else _rasa.STOCK_PREFIX
            self._conversations = Conversations(
                self.key_prefix, self.options.scan_count, self.options.read_unprefixed_keys
            )
            self._user_index = UserIndex(self.key_prefix)

    def _open(self) -> None:
        raise NotImplementedError

    def init_tracker(self, *args: Any, **kwargs: Any) -> Tracker:
        """Make a tracker as the host does; when it is saved, nothing that others have stored is overwritten."""
        tracker = super().init_tracker(*args, **kwargs)
        tracker._extras_maker = self._conversations
        return tracker

    def _refuse(self, sender_id: str, error: Exception) -> DocumentError:
        key = self._conversations.key(sender_id).decode("utf-8", "replace")
        return DocumentError(
            f"the conversation stored under the Redis key {key!r} cannot be read and is left as it is: "
            f"{type(error).__name__}: {error}"
        )

    def _retrieve_steps(self, sender_id: str, whole: bool) -> Steps[Optional[Tracker]]:
        sender_id = self._conversations.bare(sender_id)
        if not whole and _rasa.reads_tail(self):
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
        tracker = tracker if whole else _rasa.latest_session(self, tracker)
        return self._stamped(tracker, parsed, _last(tracker))

    def _load_steps(self, sender_id: str) -> Steps[Optional[Parsed]]:
        document = yield from self._conversations.load(sender_id)
        return None if document is None else parse_document(document)

    def _parsed(self, sender_id: str, steps: "Steps[Optional[Parsed]]") -> "Steps[Optional[Parsed]]":
        try:
            return (yield from steps)
        except ValueError as error:
            raise self._refuse(sender_id, error) from error

    def _replayed(self, sender_id: str, parsed: Parsed, make: Callable[..., Tracker]) -> Tracker:
        try:
            return make(self, sender_id, parsed)
        except Exception as error:
            raise self._refuse(sender_id, error) from error

    def _stamped(self, tracker: Tracker, parsed: Parsed, last: Optional[Any]) -> Tracker:
        """Note on a tracker what is stored of it, up to its event ``last``, so that its next save can append the rest.

        ``last`` is taken before anything is waited for: what is added to the tracker meanwhile is not stored yet.
        """
        if parsed.known is not None and (last is not None or parsed.known.empty):
            session = _rasa.session_stored(tracker, parsed.members, last)
            tracker._extras_stored = _Stored(self._conversations, parsed.known, parsed.members, last, session)
        return tracker

    def _save_steps(self, tracker: Tracker, expires_after_s: Optional[float]) -> Steps[List[Any]]:
        """Store what is new of a tracker and return those events."""
        sender_id = self._conversations.bare(tracker.sender_id)
        expires_after_s = expires_after_s or self.record_exp
        new_events = self._new_since_stored(tracker)
        if new_events is None or not (
            yield from self._append_steps(sender_id, tracker, tracker._extras_stored, new_events, expires_after_s)
        ):
            new_events = yield from self._union_steps(sender_id, tracker, expires_after_s)
        yield from self._index_steps(sender_id, tracker, expires_after_s)
        return new_events

    def _new_since_stored(self, tracker: Tracker) -> Optional[List[Any]]:
        """Return the events after the last stored one, by identity; ``None`` if the tracker does not say."""
        stored: Optional[_Stored] = getattr(tracker, "_extras_stored", None)
        if stored is None or stored.owner is not self._conversations:
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
        stored: _Stored,
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
            addition = _rasa.serialise_events(self, tracker, missing)
            if addition and not known.empty:
                addition = SEPARATOR + addition
            written = _rasa.members_after(tracker, members, ending)
            closing = _rasa.serialise_closing(written).encode()
            found = yield from self._conversations.append(sender_id, known, addition.encode(), closing, expires_after_s)
            if isinstance(found, Known):
                session = _rasa.session_unless_own(ending, tracker)
                tracker._extras_stored = _Stored(stored.owner, found, written, last, session)
                return True
            added = parse_addition(known, found.text, found.size_bytes)
            if added is None or added.known is None:
                return False
            if session is not None or not _rasa.same_session(members, added.members):
                try:
                    session = _rasa.session_read(session, stored.last, added)
                except ValueError as error:
                    raise self._refuse(sender_id, error) from error
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
                    stored = _Stored(self._conversations, parsed.known, members, None, merged.session)
                    if (yield from self._append_steps(sender_id, tracker, stored, merged.new_events, expires_after_s)):
                        return merged.new_events
            text = _rasa.serialise(self, merged.tracker).encode()
            if (yield from self._conversations.replace_if(sender_id, document, text, expires_after_s)):
                self._stamped(tracker, parse_document(text), last)
                return merged.new_events

    def _merged(self, sender_id: str, document: bytes, tracker: Tracker) -> Tuple[Parsed, _rasa.Merged]:
        try:
            parsed = parse_document(document)
            stored = _rasa.unlimited_tracker(self, sender_id, parsed)
            return parsed, _rasa.merge(stored, tracker, getattr(tracker, "_extras_maker", None) is self._conversations)
        except Exception as error:
            raise self._refuse(sender_id, error) from error

    def _index_steps(self, sender_id: str, tracker: Tracker, expires_after_s: Optional[float]) -> Steps[None]:
        user_id = _rasa.user_id(tracker)
        if user_id:
            yield from self._user_index.add(user_id, sender_id, expires_after_s, time.time())

    def _replace_steps(self, sender_id: str, tracker: Tracker) -> Steps[None]:
        document = _rasa.serialise(self, tracker)
        yield from self._conversations.replace(sender_id, document, self.record_exp)
        yield from self._index_steps(sender_id, tracker, self.record_exp)

    def _delete_steps(self, sender_id: str) -> Steps[bool]:
        """Delete a conversation and its entry in the user index; return whether there was one."""
        sender_id = self._conversations.bare(sender_id)
        document = yield from self._conversations.load(sender_id)
        if document is None:
            return False
        parsed = _parsed(document)
        if parsed is None:
            logger.error("The document of %r cannot be read; it is deleted, the user index not looked at.", sender_id)
        elif parsed.get("user_id"):
            yield from self._user_index.remove(parsed["user_id"], [sender_id])
        yield from self._conversations.erase(sender_id)
        return True

    def _of_user_steps(self, user_id: str) -> Steps[List[Dict[str, Any]]]:
        """Return a user's conversations in the five fields of Rasa Pro's endpoint, oldest first."""
        sender_ids = yield from self._user_index.sender_ids(user_id, time.time())
        documents = yield from load_many(self._conversations, sender_ids)
        found: List[Dict[str, Any]] = []
        orphans: List[str] = []
        for sender_id, document in zip(sender_ids, documents):
            if document is None:
                orphans.append(sender_id)
                continue
            parsed = _parsed(document)
            if parsed is None:
                logger.error("The document of %r cannot be read and is left out.", sender_id)
            elif parsed.get("user_id") == user_id:
                found.append(self._endpoint_fields(sender_id, parsed))
        yield from self._user_index.remove(user_id, orphans)
        return sorted(found, key=self._sort_key_serialized)

    def _endpoint_fields(self, sender_id: str, document: Dict[str, Any]) -> Dict[str, Any]:
        started = document.get("conversation_started_timestamp")
        events = document.get("events") or []
        return {
            "sender_id": sender_id,
            "events": events,
            "user_id": document.get("user_id"),
            "conversation_started_timestamp": None if started is None else float(started),
            "current_session_id": self._current_session_id_from_events(events),
        }

    def _log_unpublished(self, tracker: Tracker, events: List[Any]) -> None:
        logger.exception(
            "The turn of %r is stored, but the event broker did not take all of its %d new events.",
            tracker.sender_id,
            len(events),
        )


def _parsed(document: bytes) -> Optional[Dict[str, Any]]:
    try:
        parsed = json.loads(document)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


class _AsyncStore(_Store):
    """The store on hosts whose tracker stores are coroutines (Rasa 3.3 and later): Redis never blocks the loop."""

    def _open(self) -> None:
        self._clients = LoopClients(self.options)

    async def _run(self, steps: "Steps[Any]") -> Any:
        return await arun(self._clients.current(), steps)

    async def save(self, tracker: Tracker, timeout: Optional[float] = None) -> None:
        """Store the conversation, then publish its new events once.

        ``timeout``: seconds after which the conversation expires, instead of ``record_exp``. Raises redis-py's
        errors and :class:`DocumentError`; then nothing was written or published.
        """
        events = await self._run(self._save_steps(tracker, timeout))
        if events and self.event_broker is not None:
            try:
                await _rasa.publish_async(self, tracker, events)
            except Exception:
                self._log_unpublished(tracker, events)

    async def retrieve(self, sender_id: str) -> Optional[Tracker]:
        """Return the latest session of a conversation, or ``None``."""
        return await self._run(self._retrieve_steps(sender_id, whole=False))

    async def retrieve_full_tracker(self, sender_id: str) -> Optional[Tracker]:
        """Return all sessions of a conversation, or ``None``."""
        return await self._run(self._retrieve_steps(sender_id, whole=True))

    async def exists(self, conversation_id: str) -> bool:
        """Return whether a conversation is stored, without reading it."""
        return bool(await self._run(self._conversations.exists(conversation_id)))

    async def keys(self) -> List[str]:
        """Return the bare sender ids of all conversations, each once."""
        found: List[str] = await self._run(self._conversations.sender_ids())
        return found

    async def delete(self, sender_id: str) -> None:
        """Delete a conversation and its entry in the user index (Rasa Pro)."""
        deleted = await self._run(self._delete_steps(sender_id))
        logger.info("Deleted conversation %r." if deleted else "There is no conversation %r to delete.", sender_id)

    async def update(self, tracker: Tracker, apply_deletion_only: bool = True) -> None:
        """Replace the stored conversation by ``tracker`` as it is (Rasa Pro); nothing is published."""
        sender_id = self._conversations.bare(tracker.sender_id)
        await self._run(self._replace_steps(sender_id, tracker))

    async def get_serialized_trackers_by_user_id(
        self, user_id: str, limit: Optional[int] = None, skip: Optional[int] = None
    ) -> List[Dict[str, Any]]:
        """Return a user's conversations (Rasa Pro), oldest first, without replaying them."""
        found = await self._run(self._of_user_steps(user_id))
        page: List[Dict[str, Any]] = self._apply_pagination_serialized(found, skip, limit)
        return page

    async def close(self) -> None:
        """Close this event loop's connections; the store stays usable and opens new ones when needed."""
        await self._clients.close()


class _SyncStore(_Store):
    """The store on hosts whose tracker stores are plain functions (before Rasa 3.3)."""

    def _open(self) -> None:
        self._client = sync_client(self.options)

    def _run(self, steps: "Steps[Any]") -> Any:
        return run(self._client, steps)

    def save(self, tracker: Tracker, timeout: Optional[float] = None) -> None:
        """Store the conversation, then publish its new events once; see :meth:`_AsyncStore.save`."""
        events = self._run(self._save_steps(tracker, timeout))
        if events and self.event_broker is not None:
            try:
                _rasa.publish(self, tracker, events)
            except Exception:
                self._log_unpublished(tracker, events)

    def retrieve(self, sender_id: str) -> Optional[Tracker]:
        """Return the conversation as the host's stock store would, or ``None``."""
        return self._run(self._retrieve_steps(sender_id, whole=False))

    def retrieve_full_tracker(self, sender_id: str) -> Optional[Tracker]:
        """Return all sessions of a conversation, or ``None``."""
        return self._run(self._retrieve_steps(sender_id, whole=True))

    def exists(self, conversation_id: str) -> bool:
        """Return whether a conversation is stored, without reading it."""
        return bool(self._run(self._conversations.exists(conversation_id)))

    def keys(self) -> List[str]:
        """Return the bare sender ids of all conversations, each once."""
        found: List[str] = self._run(self._conversations.sender_ids())
        return found

    def close(self) -> None:
        """Close all connections; the store stays usable and opens new ones when needed."""
        self._client.connection_pool.disconnect()


class ExtraRedisTrackerStore(_AsyncStore if _rasa.IS_ASYNC else _SyncStore):  # type: ignore[misc]  # the host decides
    """Conversations in Redis, in the stock store's format, over connections that notice a dead server.

    Named in ``endpoints.yml``; the options are those of :class:`extras.options.Options`.
    """


def __getattr__(name: str) -> Any:
    """Refuse a misspelt class name (PEP 562): Rasa would go on in memory after the usual ``AttributeError``."""
    if difflib.SequenceMatcher(None, name.lower(), "extraredistrackerstore").ratio() > 0.7:
        raise TrackerStoreError(f"there is no extras.trackerstore.{name}; did you mean ExtraRedisTrackerStore?")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
