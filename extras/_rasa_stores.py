"""What the tracker stores of Rasa's versions need of whoever moves conversations from one to another."""

from typing import Any, List

from extras._rasa import TAKES_IS_REPLAY
from extras._rasa import InMemoryTrackerStore as InMemoryTrackerStore
from extras._rasa import StockRedisTrackerStore as StockRedisTrackerStore
from extras._rasa import TrackerStore as TrackerStore
from extras._rasa import read_endpoint_config as read_endpoint_config
from extras._rasa import rebuild as rebuild


def bare_store(store: Any) -> Any:
    """Return the store inside of what a host wraps it in, where errors would be hidden or events kept in memory."""
    while hasattr(store, "_tracker_store"):
        store = store._tracker_store
    return store


def replanted(store: Any, tracker: Any, events: List[Any]) -> Any:
    """Return a tracker of ``store`` with these events, replayed, and what else of ``tracker`` belongs to them."""
    dialogue = tracker.as_dialogue()
    dialogue.events = list(events)
    known_user = {"user_id": dialogue.user_id} if hasattr(dialogue, "user_id") else {}
    copied = store.init_tracker(tracker.sender_id, **known_user)
    copied.recreate_from_dialogue(dialogue)
    return copied


def continued(tracker: Any, events: List[Any]) -> Any:
    """Return a tracker with events added to it as they are."""
    replay = {"is_replay": True} if TAKES_IS_REPLAY else {}
    for event in events:
        tracker.update(event, **replay)
    return tracker


def read_all_sessions(store: Any) -> Any:
    """Return the method of ``store`` that reads all sessions of a conversation."""
    if hasattr(store, "load_events_from_previous_conversation_sessions"):  # SQL and MongoDB on Rasa 2.0
        store.load_events_from_previous_conversation_sessions = True
    return getattr(store, "retrieve_full_tracker", store.retrieve)


def would_add(store: Any, tracker: Any) -> Any:
    """Return the events that a save of ``tracker`` would add, or a coroutine of them; ``None`` where all are compared.

    The host's stores for SQL and MongoDB, and Rasa Pro's for DynamoDB, count the events of the last session that they
    have, and add those of the tracker beyond that number, whatever they are.
    """
    if hasattr(store, "session_scope"):
        with store.session_scope() as session:
            return list(store._additional_events(session, tracker))
    if hasattr(store, "_additional_events"):
        return list(store._additional_events(tracker))
    called = getattr(getattr(type(store).save, "__code__", None), "co_names", ())
    return store.events_not_yet_persisted(tracker) if "events_not_yet_persisted" in called else None
