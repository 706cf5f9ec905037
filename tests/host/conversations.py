"""Conversations as a seed makes them: the same operations, event for event, for two stores to carry out."""

import copy
import random
from typing import Any, Dict, List

import rasa.shared.utils.common
from rasa.shared.core.events import Event

from extras.bench.shapes import RECORDED as RECORDED

HOSTILE = [
    "hello",
    "",
    "héllo wörld \u2603 \U0001f600",
    '{"event": "action", "name": "action_session_start"}',
    '"}], "name": "mallory"}',
    "line\nbreak\ttab \\ backslash \u2028",
    "lone \ud83d surrogate",
    "null",
]


class Script:
    """Events with timestamps of their own, so that two stores can be given equal but separate ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._now = 1_700_000_000.0

    def _event(self, kind: str, **fields: Any) -> Dict[str, Any]:
        self._now += self.random.choice([0.000001, 0.001, 1.25, 3600.0])
        return {"event": kind, "timestamp": self._now, **fields}

    def action(self, name: str) -> Dict[str, Any]:
        """Return an action event."""
        return self._event("action", name=name, policy=None, confidence=1.0)

    def session_start(self) -> List[Dict[str, Any]]:
        """Return what Rasa adds when a session begins."""
        return [self.action("action_session_start"), self._event("session_started"), self.action("action_listen")]

    def turn(self) -> List[Dict[str, Any]]:
        """Return one user message with what follows it."""
        text = self.random.choice(HOSTILE)
        intent = {"name": self.random.choice(["greet", "inform"]), "confidence": self.random.random()}
        entities = [{"entity": "name", "value": text, "start": 0, "end": 1}] if self.random.random() < 0.4 else []
        parse_data = {
            "intent": intent,
            "entities": entities,
            "text": text,
            "metadata": {"events": [{"event": "action", "name": "action_session_start"}], "deep": [[], {"a": None}]},
        }
        events = [
            self._event(
                "user",
                text=text,
                parse_data=parse_data,
                input_channel=self.random.choice(["rest", None]),
                message_id=f"m{self.random.randrange(10**6)}",
                metadata={"nested": {"event": "action", "name": "action_session_start"}},
            )
        ]
        for _ in range(self.random.randrange(3)):
            events += self.random.choice(
                [
                    [self._event("slot", name="city", value=self.random.choice(["Berlin", None, "Zürich"]))],
                    [self.action("utter_greet"), self._event("bot", text=text, data={"image": None}, metadata={})],
                    [self._event("followup", name="action_listen")],
                    [self._event("pause"), self._event("resume")],
                ]
            )
        ending = self.random.random()
        if ending < 0.08:
            events.append(self._event("rewind"))
        elif ending < 0.14:
            events.append(self._event("undo"))
        elif ending < 0.2:
            events.append(self._event("restart"))
        events.append(self.action("action_listen"))
        return events


def known_here(events: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Leave out the kinds of event that this host's version does not have yet."""
    kinds = {kind.type_name for kind in rasa.shared.utils.common.all_subclasses(Event)}
    return [event for event in events if event["event"] in kinds]


def add(tracker: Any, events: List[Dict[str, Any]]) -> None:
    """Put events on a tracker, as new objects."""
    for event in events:
        tracker.update(Event.from_parameters(copy.deepcopy(event)))


def contents(tracker: Any) -> Any:
    """Return all that a tracker holds, in a form that can be compared."""
    if tracker is None:
        return None
    return {
        "sender_id": tracker.sender_id,
        "events": [event.as_dict() for event in tracker.events],
        "slots": {name: slot.value for name, slot in tracker.slots.items()},
        "paused": getattr(tracker, "_paused", None),
        "latest": None if tracker.latest_message is None else tracker.latest_message.text,
        "latest_action": tracker.latest_action_name,
        "followup": tracker.followup_action,
        "max_event_history": tracker._max_event_history,
        "user_id": getattr(tracker, "user_id", None),
    }
