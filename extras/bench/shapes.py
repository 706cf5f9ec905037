"""Conversations of any length in the shape of a real one, so that stores are measured on what Rasa really writes."""

import copy
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

RECORDED = Path(__file__).with_name("conversation.json").read_text(encoding="utf-8").rstrip("\n")
"""The document that Rasa 3.6.21's own Redis store wrote for 20 turns with the assistant of ``rasa init``."""

SESSION_EVENTS = 60
_MOST_UNTIMED = 7
_STARTED_S = 1_700_000_000.0
_STEP_S = 1.2345678

Event = Dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """How many events a conversation has, and how many of them make a session; the last session may be shorter."""

    events: int
    session: int = SESSION_EVENTS

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Read ``events`` or ``events/session``. Raises ``ValueError`` that says what is wrong."""
        events, slash, session = text.strip().partition("/")
        try:
            shape = cls(int(events), int(session) if slash else SESSION_EVENTS)
        except ValueError:
            raise ValueError(f"{text!r} is no number of events, nor events/session such as 2000/1000") from None
        if shape.events < 1 or shape.session < 4:
            raise ValueError(f"{text!r}: at least 1 event, and sessions of at least 4")
        return shape

    def __str__(self) -> str:
        if self.events <= self.session:
            return f"{self.events:,} in one session"
        if self.events == 2 * self.session:
            return f"{self.session:,} old + {self.session:,}"
        return f"{self.events:,} in sessions of {self.session:,}"


FLAT_FROM, FLAT_TO = Shape(100), Shape(100_000)
"""Conversations with last sessions alike: where the length of the history does not matter, turns take equally long."""


def recorded_events() -> List[Event]:
    """Return the events of the recorded conversation, as dicts."""
    events: List[Event] = json.loads(RECORDED)["events"]
    return events


def conversation(shape: Shape, recorded: List[Event]) -> List[Event]:
    """Return a conversation's events, each session being the recorded one, its turns over and over if it is longer.

    ``recorded``: a conversation that begins with what opens a session; it may lack kinds that a host does not know.
    """
    opening = _opening(recorded)
    turns = recorded[len(opening) :]
    events: List[Event] = []
    for number in range(shape.events):
        place = number % shape.session
        event = copy.copy(opening[place] if place < len(opening) else turns[(place - len(opening)) % len(turns)])
        event["timestamp"] = _time_s(number)
        events.append(event)
    return events


def next_turn(shape: Shape, recorded: List[Event]) -> List[Event]:
    """Return the recorded first turn, from what the user says to the next listening, to follow a conversation."""
    events = copy.deepcopy(recorded[len(_opening(recorded)) :])
    listens = [number for number, event in enumerate(events) if event.get("name") == "action_listen"]
    turn = events[: listens[0] + 1]
    for number, event in enumerate(turn, shape.events):
        event["timestamp"] = _time_s(number)
    return turn


def untimed_turns(shape: Shape, recorded: List[Event]) -> int:
    """Return how many turns are best done before one is timed: some, as far as the last session has so many."""
    in_session = shape.events % shape.session or shape.session
    possible = (in_session - len(_opening(recorded))) // len(next_turn(shape, recorded))
    return max(0, min(_MOST_UNTIMED, possible))


def before_untimed_turns(shape: Shape, recorded: List[Event]) -> Shape:
    """Return the shape that those turns make a conversation of ``shape`` of."""
    turns = untimed_turns(shape, recorded) * len(next_turn(shape, recorded))
    return Shape(shape.events - turns, shape.session)


def _opening(recorded: List[Event]) -> List[Event]:
    return list(itertools.takewhile(lambda event: event["event"] != "user", recorded))


def _time_s(number: int) -> float:
    return round(_STARTED_S + number * _STEP_S, 7)
