"""What the actions answer and remember; a pipeline runs this before it builds their image."""

from typing import Any, Dict, List, Tuple

import pytest
from actions import ActionOrder
from rasa_sdk import Tracker
from rasa_sdk.executor import CollectingDispatcher


def ordered(slots: Dict[str, Any], entities: List[Dict[str, Any]]) -> Tuple[List[Dict[str, Any]], str]:
    """Order; return the events and the answer."""
    dispatcher = CollectingDispatcher()
    tracker = Tracker("alice", slots, {"entities": entities}, [], False, None, {}, "action_listen")
    events = ActionOrder().run(dispatcher, tracker, {})
    return events, dispatcher.messages[0]["text"]


@pytest.mark.parametrize(("before", "after"), [(None, 1), (1, 2), (2.0, 3)])
def test_each_order_is_one_cup_more(before: Any, after: int) -> None:
    events, answer = ordered({"cups": before}, [])
    assert [(event["name"], event["value"]) for event in events] == [("cups", after)]
    assert answer == f"Cup {after} is on its way."


def test_a_time_is_kept_to() -> None:
    _, answer = ordered({}, [{"entity": "time", "value": "2030-01-01T17:00:00.000+00:00"}])
    assert answer == "Cup 1 comes at 2030-01-01T17:00:00.000+00:00."
