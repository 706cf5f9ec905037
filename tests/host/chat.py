"""A conversation that a test has with a store, and what it was told."""

import time
from typing import Any, Callable, Dict, List

from conversations import Script, add, known_here

Call = Callable[[Any], Any]

PATIENCE_S = 30.0


def told(events: List[Dict[str, Any]]) -> List[float]:
    return [event["timestamp"] for event in events]


class Chat:
    """One conversation as a host has it."""

    def __init__(self, store: Any, call: Call, sender_id: str = "alice", seed: int = 1) -> None:
        self.store, self.call, self.sender_id = store, call, sender_id
        self.script = Script(seed)
        self.said: List[Dict[str, Any]] = []

    def say(self, session: bool = False) -> Any:
        """Retrieve, add a turn, save."""
        tracker = self.call(self.store.retrieve(self.sender_id))
        begins = tracker is None or session
        tracker = tracker or self.store.init_tracker(self.sender_id)
        events = known_here((self.script.session_start() if begins else []) + self.script.turn())
        add(tracker, events)
        self.call(self.store.save(tracker))
        self.said += events
        return tracker


def wait_for_replay(store: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while store.outage_journal().records:
        assert time.monotonic() < deadline, store.outage_journal()
        time.sleep(0.01)
