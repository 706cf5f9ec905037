"""What kind of Rasa these tests run in, and an event broker to give it."""

import importlib.util
from typing import Any, Dict, List

from extras import _rasa

IS_PRO = importlib.util.find_spec("rasa.core.tracker_stores") is not None
IS_RASA_2 = not _rasa.IS_ASYNC
HAS_SERVER = importlib.util.find_spec("tensorflow") is not None
"""Whether the whole Rasa is installed, not only what its tracker stores need."""


class RecordingBroker:
    """An event broker that keeps what it is given, and fails while ``failing`` is set."""

    def __init__(self) -> None:
        self.published: List[Dict[str, Any]] = []
        self.failing = False

    def publish(self, event: Dict[str, Any]) -> None:
        """Keep ``event``."""
        if self.failing:
            raise ConnectionResetError("the broker is away")
        self.published.append(event)
