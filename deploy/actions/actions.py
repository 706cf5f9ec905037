"""What the assistant does beyond talking: it takes orders, and counts them."""

from typing import Any, Dict, List

from rasa_sdk import Action, Tracker
from rasa_sdk.events import SlotSet
from rasa_sdk.executor import CollectingDispatcher


class ActionOrder(Action):
    """Bring one more cup than the conversation has had, at the time that Duckling has found in the message, if any."""

    def name(self) -> str:
        """Return what ``domain.yml`` calls it."""
        return "action_order"

    def run(self, dispatcher: CollectingDispatcher, tracker: Tracker, domain: Dict[str, Any]) -> List[Dict[str, Any]]:
        """Answer, and keep the count in the conversation: the action server itself remembers nothing."""
        cups = int(tracker.get_slot("cups") or 0) + 1
        when = next(tracker.get_latest_entity_values("time"), None)
        dispatcher.utter_message(text=f"Cup {cups} comes at {when}." if when else f"Cup {cups} is on its way.")
        return [SlotSet("cups", cups)]
