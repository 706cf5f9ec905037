"""The one place that knows how Rasa's versions, 2.0 to Pro 3.21, differ.

Differences are found by what the host's modules hold, not by version number; the stock ``RedisTrackerStore`` of the
host decides what is equal to it.
"""

import importlib
import importlib.util
import json
from contextlib import suppress
from copy import copy
from functools import lru_cache
from inspect import iscoroutinefunction, signature
from types import SimpleNamespace
from typing import Any, Dict, List, NamedTuple, Optional

from rasa.shared.core import events as _events
from rasa.shared.core import trackers as _trackers
from rasa.shared.core.constants import ACTION_SESSION_START_NAME
from rasa.shared.core.conversation import Dialogue
from rasa.shared.exceptions import RasaException
from rasa.shared.utils.common import all_subclasses
from rasa.utils.endpoints import read_endpoint_config as read_endpoint_config

from extras._rasa_iam import with_iam as with_iam
from extras.document import START, Parsed, SessionStart
from extras.document import canonical as canonical

DialogueStateTracker = _trackers.DialogueStateTracker


def _stock_modules() -> Any:
    if importlib.util.find_spec("rasa.core.tracker_stores") is not None:  # Rasa Pro since 3.13
        package = "rasa.core.tracker_stores"
        return importlib.import_module(f"{package}.tracker_store"), importlib.import_module(
            f"{package}.redis_tracker_store"
        )
    module = importlib.import_module("rasa.core.tracker_store")
    return module, module


_base, _redis_module = _stock_modules()

TrackerStore: Any = _base.TrackerStore
InMemoryTrackerStore: Any = _base.InMemoryTrackerStore
StockRedisTrackerStore: Any = _redis_module.RedisTrackerStore

SerializedTrackerAsText: Any = getattr(_base, "SerializedTrackerAsText", object)
"""Mix-in that holds ``serialise_tracker`` since Rasa 3.3; before, ``TrackerStore`` has it."""

IS_ASYNC: bool = iscoroutinefunction(TrackerStore.save)

STOCK_PREFIX: str = getattr(_redis_module, "DEFAULT_REDIS_TRACKER_STORE_KEY_PREFIX", "")
"""What stands before the sender id in a key; empty on Rasa 2.0."""

DocumentErrorBase: type = getattr(_base, "TrackerDeserialisationException", RasaException)

SESSION_START = SessionStart.of_action(ACTION_SESSION_START_NAME)

_USES_PROTO_JSON = hasattr(TrackerStore, "uses_proto_json")
_STREAMS_GIVEN_EVENTS = "new_events" in signature(TrackerStore.stream_events).parameters
_SPLITS_SESSIONS = "retrieve_full_tracker" in vars(StockRedisTrackerStore)
_MERGES = hasattr(StockRedisTrackerStore, "_merge_trackers")
_REPLAY_SAFE_SESSION = getattr(_trackers, "get_latest_replay_safe_session_tracker", None)
TAKES_IS_REPLAY = "is_replay" in signature(DialogueStateTracker.update).parameters
_HAS_SESSION_IDS = hasattr(DialogueStateTracker, "_generate_session_id")
_INACTIVE_AFTER = {"inactive": True, "resume": False, "user": False, "session_started": False, "restart": False}
_FAILED_PATCHES = tuple(
    getattr(_trackers, name) for name in ("JsonPatchException", "JsonPointerException") if hasattr(_trackers, name)
)

_classes: Dict[str, Any] = {}


def rebuild(serialised: List[Any]) -> List[Any]:
    """Return events from their dicts like the host's ``deserialise_events``, whose walk of all classes it saves.

    What is not plain (an unknown kind, a missing field) is left to the host, which raises or skips it.
    """
    rebuilt = []
    for position, fields in enumerate(serialised):
        try:
            event = _classes[fields["event"]]._from_parameters(fields)
        except Exception:
            for kind in all_subclasses(_events.Event):
                _classes.setdefault(kind.type_name, kind)
            try:
                rebuilt += _events.deserialise_events([fields])
            except Exception as error:
                raise ValueError(f"event {position} of {len(serialised)}: {error}") from error
        else:
            rebuilt += [event] if event else _events.deserialise_events([fields])
    return rebuilt


def reads_tail(store: Any) -> bool:
    """Return whether ``retrieve`` needs no more than what follows the last session start."""
    if store.max_event_history is not None:
        return False
    if _REPLAY_SAFE_SESSION is not None:
        return bool(store.domain.session_config.start_session_after_expiry)
    return _SPLITS_SESSIONS


def session_of(parsed: Parsed) -> Optional[Parsed]:
    """Return the part of which ``retrieve`` makes its tracker alone, ``None`` if the host makes it of all events."""
    if not parsed.whole:
        return parsed
    if _REPLAY_SAFE_SESSION is None or not parsed.events:
        return None
    return parsed._replace(events=parsed.events[SESSION_START.last_in(parsed.events) or 0 :])


def whole_tracker(store: Any, sender_id: str, parsed: Parsed) -> Any:
    """Return the tracker of all events, as the host's ``deserialise_tracker`` does."""
    dialogue = Dialogue.from_parameters({**parsed.members, "events": []})
    dialogue.events = rebuild(parsed.events)
    known_user = {"user_id": dialogue.user_id} if hasattr(dialogue, "user_id") else {}
    tracker = store.init_tracker(sender_id, **known_user)
    applied = _applied_events(dialogue.events)
    if applied is not None:
        tracker.applied_events = lambda: applied
    try:
        tracker.recreate_from_dialogue(dialogue)
    finally:
        vars(tracker).pop("applied_events", None)
    return tracker


def _applied_events(events: List[Any]) -> Optional[List[Any]]:
    """Return what the host's ``applied_events`` returns of events that undo none, else ``None``.

    The host asks each event whether it is of one of six classes, and that is slow, because its events are abstract
    base classes; there are few classes among many events.
    """
    kinds = set(map(type, events))
    if any(map(_undoes, kinds)):
        return None
    resetting = set(filter(_resets, kinds))
    first = len(events)
    while first > 0 and type(events[first - 1]) not in resetting:
        first -= 1
    return events[first:]


@lru_cache(maxsize=256)
def _undoes(kind: type) -> bool:
    return issubclass(kind, (_events.ActionReverted, _events.UserUtteranceReverted, _events.ActiveLoop))


@lru_cache(maxsize=256)
def _resets(kind: type) -> bool:
    return issubclass(kind, (_events.Restarted, _events.SessionStarted))


def unlimited_tracker(store: Any, sender_id: str, parsed: Parsed) -> Any:
    """Return the tracker of all events, also where ``max_event_history`` limits what the host is handed."""
    if store.max_event_history is not None:
        store = copy(store)  # which other threads go on with
        store.max_event_history = None
    return whole_tracker(store, sender_id, parsed)


def session_tracker(store: Any, sender_id: str, parsed: Parsed) -> Optional[Any]:
    """Return the tracker of the last session, as the host makes it of several; ``None`` if it needs what is before."""
    slots = store._tracker_slots() if hasattr(store, "_tracker_slots") else store.domain.slots
    known_user = {"user_id": parsed.members.get("user_id")} if _REPLAY_SAFE_SESSION is not None else {}
    try:
        return DialogueStateTracker.from_events(sender_id, rebuild(parsed.events), slots, **known_user)
    except _FAILED_PATCHES:
        return None


def latest_session(store: Any, tracker: Any) -> Any:
    """Return what the stock ``retrieve`` returns of a full tracker: its last session, by the host's own rules."""
    if _REPLAY_SAFE_SESSION is not None:
        return _REPLAY_SAFE_SESSION(
            tracker, start_session_after_expiry=store.domain.session_config.start_session_after_expiry
        )
    if not _SPLITS_SESSIONS:
        return tracker
    events = list(tracker.events)
    # What get_trackers_for_conversation_sessions() does, without a tracker of every session but the last.
    starts = [
        position
        for position, event in enumerate(events)
        if getattr(event, "action_name", None) == ACTION_SESSION_START_NAME
        and isinstance(event, _events.ActionExecuted)
    ]
    if not starts or starts == [0]:
        return tracker
    return DialogueStateTracker.from_events(
        tracker.sender_id,
        events[starts[-1] :],
        tracker.slots.values(),
        sender_source=tracker.sender_source,
        max_event_history=tracker._max_event_history,
    )


class Session(NamedTuple):
    """The session that a document is in, by Rasa Pro's id of it, and what decides whether an event begins another.

    ``inactive``: whether a message of the user does; that it may be taken back by a rewind or an undo is not followed,
    which would need the whole conversation. ``last``: the document's last event.
    """

    id: Optional[str]
    inactive: bool
    last: Any


def session_read(session: Optional[Session], last: Any, parsed: Parsed) -> Session:
    """Return the session after events that others have appended to a document whose last event was ``last``.

    ``session``: the one before, where it is known. Where it is not, others have just begun one, which is active.
    Raises ``ValueError`` where an event cannot be read.
    """
    session = session or Session(None, False, last)
    return _followed(session, rebuild(parsed.events))._replace(id=parsed.members.get("current_session_id"))


def session_after(session: Session, events: List[Any]) -> Session:
    """Return the session after new events, each of which is given the id of its session if it has none yet.

    As the stock ``_merge_trackers`` does it when it puts events of a tracker behind those that are stored.
    """
    state = DialogueStateTracker("", None)
    state.current_session_id = session.id
    for event in events:
        state.inactive = session.inactive
        state.events = [session.last] * 2  # of a single one the host thinks that the conversation begins
        state._prepare_event_metadata(event, False)
        session = _followed(session, [event])._replace(id=state.current_session_id)
    return session


def session_stored(tracker: Any, members: Dict[str, Any], last: Any) -> Optional[Session]:
    """Return the session of a document that ends in an event of a tracker, ``None`` where the tracker is in it too."""
    session = Session(members.get("current_session_id"), getattr(tracker, "inactive", False), last)
    return session_unless_own(session, tracker)


def session_unless_own(session: Optional[Session], tracker: Any) -> Optional[Session]:
    """Return the session of a document, ``None`` where a tracker is in it too and tells itself how it goes on."""
    return None if session is None or session.id == getattr(tracker, "current_session_id", None) else session


def _followed(session: Session, events: List[Any]) -> Session:
    inactive = session.inactive
    for event in events:
        inactive = _INACTIVE_AFTER.get(event.type_name, inactive)
    return session._replace(inactive=inactive, last=events[-1] if events else session.last)


class Merged(NamedTuple):
    """What to store of a conversation and a tracker, and the new events in it, which are its last ones.

    ``appends``: whether the events before those are the stored ones; otherwise the tracker replaces them.
    ``session``: the one that the stored events end in, ``None`` on hosts without an id of it.
    """

    tracker: Any
    new_events: List[Any]
    appends: bool
    session: Optional[Session]


def merge(stored: Any, tracker: Any, made_here: bool) -> Merged:
    """Return what to store in place of ``stored``.

    The result is that of the stock ``_merge_trackers``, which compares each event with each. Hosts before 3.0 have
    none: there a tracker that the store did not make replaces the stored one, as ``PUT .../tracker/events`` wants it.
    """
    events = list(tracker.events)
    if not stored.events:
        return Merged(tracker, events, False, None)
    if (
        replaces(tracker, made_here)
        or tracker.travel_back_in_time(target_time=stored.events[-1].timestamp).events == stored.events
    ):
        return Merged(tracker, events[len(stored.events) :], False, None)
    if _MERGES:
        merged = tracker.init_copy()
        merged._max_event_history = None  # limits what the host is handed, not what is stored
        merged.events = merged._create_events([])
        replay = {"is_replay": True} if TAKES_IS_REPLAY else {"domain": None}
        merged.update_with_events(list(stored.events), override_timestamp=False, **replay)
    else:
        merged = stored  # which was made for this; the copies of Rasa 2.0 forget whose they are
    known = {canonical(event.as_dict()) for event in merged.events}
    old_events = list(merged.events)
    session = None
    if _HAS_SESSION_IDS:
        session = Session(merged.current_session_id, merged.inactive, old_events[-1])
    for event in events:
        form = canonical(event.as_dict())
        if form not in known:
            known.add(form)
            merged.update(event)
    return Merged(merged, list(merged.events)[len(old_events) :], True, session)


def replaces(tracker: Any, made_here: bool) -> bool:
    """Return whether a tracker of unknown origin takes the place of what is stored; see :func:`merge`."""
    return not _MERGES and not made_here


def restored_tracker(store: Any, sender_id: str, events: List[Any], members: Dict[str, Any]) -> Any:
    """Return a tracker that holds events as they are, to be saved: they are not replayed, so that none can change.

    ``members``: those of its document beside the events.
    """
    user_id = members.get("user_id")
    tracker = store.init_tracker(sender_id, **({"user_id": user_id} if hasattr(Dialogue("", []), "user_id") else {}))
    tracker._max_event_history = None
    tracker.events = tracker._create_events(events)
    for name in ("conversation_started_timestamp", "current_session_id"):
        if hasattr(tracker, name):
            setattr(tracker, name, members.get(name))
    return tracker


def serialise(store: Any, tracker: Any) -> str:
    """Return the whole document, byte for byte as the stock store writes it."""
    if hasattr(tracker, "ensure_conversation_started_timestamp"):
        tracker.ensure_conversation_started_timestamp()
    if _USES_PROTO_JSON:
        return str(store.serialise_tracker(tracker, use_proto_json=store.uses_proto_json()))
    return str(store.serialise_tracker(tracker))


def serialise_events(store: Any, tracker: Any, events: List[Any]) -> str:
    """Return events as they stand in a document, between its brackets."""
    if _USES_PROTO_JSON and store.uses_proto_json():
        dicts = _base.serialise_events(events, tracker.sender_id, tracker.user_id, use_proto_json=True)
    else:
        dicts = [event.as_dict() for event in events]
    return json.dumps(dicts)[1:-1]


def members_after(tracker: Any, members: Dict[str, Any], session: Optional[Session]) -> Dict[str, Any]:
    """Return the members beside the events that a document has once events of a tracker are appended to it.

    ``members``: those of the stored document, whose start of the conversation is older than that of one session.
    ``session``: the one that the document is in then, ``None`` for that of the tracker.
    """
    dialogue = tracker.as_dialogue()
    dialogue.events = []
    found: Dict[str, Any] = dialogue.as_dict()
    del found["events"]
    if _USES_PROTO_JSON:
        found["sender_id"] = tracker.sender_id
    started = "conversation_started_timestamp"
    if started in found and members.get(started) is not None:
        found[started] = members[started]
    if session is not None:
        found["current_session_id"] = session.id
    return found


def serialise_closing(members: Dict[str, Any]) -> str:
    """Return what ends a document: the bracket after its events and the other members."""
    return json.dumps({"events": [], **members})[len(START) :]


def same_session(members: Dict[str, Any], others: Dict[str, Any]) -> bool:
    """Return whether two states of a document are in the same session, by Rasa Pro's id of it."""
    return bool(members.get("current_session_id") == others.get("current_session_id"))


def user_id(tracker: Any) -> Optional[str]:
    """Return the user a conversation belongs to (Rasa Pro), or ``None``."""
    found: Optional[str] = getattr(tracker, "user_id", None)
    return found


async def publish_async(store: Any, tracker: Any, events: List[Any]) -> None:
    """Hand new events to the event broker, each in the form the host gives it."""
    if _STREAMS_GIVEN_EVENTS:
        await store.stream_events(tracker, new_events=events)
    else:
        publish(store, tracker, events)


def publish(store: Any, tracker: Any, events: List[Any]) -> None:
    """Like :func:`publish_async`, for hosts whose ``stream_events`` cannot be given the events."""
    for event in events:
        store.event_broker.publish({"sender_id": tracker.sender_id, **event.as_dict()})


def bodies(store: Any, tracker: Any, events: List[Any]) -> List[bytes]:
    """Return as JSON what the host would hand to the event broker for new events."""
    if store.event_broker is None or not getattr(store.event_broker, "stream_pii", True):
        return []
    taking = _Taking()
    if _STREAMS_GIVEN_EVENTS:
        streaming = store._stream_new_events(taking, events, tracker.sender_id, tracker.user_id)
        with suppress(StopIteration):
            streaming.send(None)  # waits for nothing
    else:
        publish(SimpleNamespace(event_broker=taking), tracker, events)
    return taking.bodies


class _Taking:
    """Keeps what an event broker is given."""

    def __init__(self) -> None:
        self.bodies: List[bytes] = []

    def publish(self, event: Dict[str, Any]) -> None:
        self.bodies.append(json.dumps(event).encode())
