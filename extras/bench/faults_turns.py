"""The events of the turns that are written while faults happen. Each event has an id of its own."""

import time
from typing import Any, Dict, List

TURNS_A_SESSION = 10
LARGE_BYTES = 600_000
"""More than the buffers between a client and a server that does not read hold: see ``small_buffers``."""


def turn(name: str, number: int, is_large: bool = False) -> List[Dict[str, Any]]:
    """Return the events of one turn: something said, and an answer; from time to time a session begins before it."""
    events = _session_start(f"{name}-{number}") if number % TURNS_A_SESSION == 0 else []
    return [*events, *_exchange(f"{name}-{number}", is_large)]


def _session_start(name: str) -> List[Dict[str, Any]]:
    return [
        _event("action", f"{name}-start", name="action_session_start", policy=None, confidence=1.0),
        _event("session_started", f"{name}-started"),
        _event("action", f"{name}-listen", name="action_listen", policy=None, confidence=1.0),
    ]


def _exchange(name: str, is_large: bool) -> List[Dict[str, Any]]:
    text = f"{name}-user"
    parse_data = {"intent": {"name": "greet", "confidence": 1.0}, "entities": [], "text": text}
    data = {"attachment": "x" * LARGE_BYTES} if is_large else {}
    return [
        _event("user", text, text=text, parse_data=parse_data, input_channel="rest", message_id=name),
        _event("bot", f"{name}-bot", text=f"{name}-bot", data=data),
    ]


def _event(kind: str, identity: str, **fields: Any) -> Dict[str, Any]:
    return {"event": kind, "timestamp": time.time(), "metadata": {"id": identity}, **fields}
