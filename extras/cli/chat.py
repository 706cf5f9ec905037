"""A conversation's events as a chat that people can read: who said what, when, and what the assistant did."""

import json
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional, Tuple

from extras.cli.output import printable

_WIDTH = 6


class Chat:
    """Turns events into lines, with a line of its own where a day begins."""

    def __init__(self) -> None:
        self._day = ""

    def lines(self, event: Any) -> List[str]:
        """Return the lines of an event, none for what only the assistant's machinery cares about."""
        if not isinstance(event, dict):
            return ["?         an event that is no JSON object"]
        told = _told(event)
        if told is None:
            return []
        who, text = told
        day, time = _time(event.get("timestamp"))
        found = []
        if day != self._day:
            self._day = day
            found.append(f"{day}")
        first, *others = text.split("\n")
        found.append(f"{time}  {who:{_WIDTH}}{printable(first)}".rstrip())
        found += [" " * (len(time) + 2 + _WIDTH) + printable(line) for line in others]
        return found


def _time(timestamp_s: Any) -> Tuple[str, str]:
    try:
        moment = datetime.fromtimestamp(float(timestamp_s), timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError):
        return "-", "--:--:--"
    return moment.strftime("%A, %Y-%m-%d (UTC)"), moment.strftime("%H:%M:%S")


def _told(event: Dict[str, Any]) -> Optional[Tuple[str, str]]:
    """Return who did it and what, or ``None``."""
    kind, name = event.get("event"), event.get("name")
    if kind == "user":
        return "user", _said(event)
    if kind == "bot":
        return "bot", "\n".join([str(event.get("text") or ""), *_attached(event.get("data"))]).strip("\n")
    if kind == "action":
        return (
            None if name in ("action_listen", "action_session_start") else ("", f"[{name or event.get('action_text')}]")
        )
    if kind == "slot":
        return "", f"{name} = {_json(event.get('value'))}"
    if kind in ("active_loop", "form"):
        return "", f"(form {name} begins)" if name else "(form ends)"
    if kind == "session_started":
        return "", "--- a session begins ---"
    plain = _PLAIN.get(str(kind), f"({kind})")
    return None if not plain else ("", f"{plain} {name}".strip() if name and plain.startswith("(") else plain)


_PLAIN = {
    "restart": "--- starts over ---",
    "rewind": "(the last message is taken back)",
    "undo": "(the last action is taken back)",
    "pause": "(the assistant pauses)",
    "resume": "(the assistant resumes)",
    "followup": "",
    "entities": "",
    "user_featurization": "",
    "action_execution_rejected": "(rejected)",
    "loop_interrupted": "",
    "reset_slots": "(all slots are emptied)",
}


def _said(event: Dict[str, Any]) -> str:
    data = event.get("parse_data")
    data = data if isinstance(data, dict) else {}
    notes = []
    intent = data.get("intent")
    if isinstance(intent, dict) and intent.get("name"):
        sure = intent.get("confidence")
        notes.append(f"{intent['name']} {sure:.2f}" if isinstance(sure, (int, float)) else str(intent["name"]))
    for entity in data.get("entities") or []:
        if isinstance(entity, dict):
            notes.append(f"{entity.get('entity')}={_json(entity.get('value'))}")
    for command in data.get("commands") or []:
        if isinstance(command, dict):
            notes.append(str(command.get("command")))
    text = str(event.get("text") or "")
    return f"{text}   <{', '.join(notes)}>" if notes else text


def _attached(data: Any) -> List[str]:
    """Return a line for each of the things that came with a message."""
    if not isinstance(data, dict):
        return []
    lines = []
    for what in ("buttons", "quick_replies"):
        for button in data.get(what) or []:
            if isinstance(button, dict):
                lines.append(f"[{button.get('title')}]")
    for what in ("image", "attachment"):
        if data.get(what):
            lines.append(f"({what}: {_json(data[what])})")
    for what in ("elements", "custom"):
        if data.get(what):
            lines.append(f"({what})")
    return lines


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
