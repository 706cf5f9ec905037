"""Compares what was acknowledged with what Redis holds. Plain data, no I/O."""

from collections import Counter
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

Acknowledged = Mapping[Tuple[str, str], List[str]]
"""Ids of the events that were acknowledged, in order, by conversation and writer."""


class Judged(NamedTuple):
    """How many events were acknowledged, and how many of them are not as they should be."""

    acknowledged: int
    lost: int
    """Acknowledged, but not stored."""
    doubled: int
    """Stored more than once, acknowledged or not."""
    disordered: int
    """Stored before an event that the same writer was acknowledged earlier."""

    @property
    def is_right(self) -> bool:
        """Whether every acknowledged event is there once, in its writer's order."""
        return not (self.lost or self.doubled or self.disordered)


def judge(acknowledged: Acknowledged, stored: Mapping[str, List[str]]) -> Judged:
    """Compare. ``stored``: the ids of all events of a conversation, in order."""
    lost = disordered = 0
    for (conversation, _), ids in acknowledged.items():
        first_at: Dict[str, int] = {}
        for position, identity in enumerate(stored.get(conversation, [])):
            first_at.setdefault(identity, position)
        positions = [first_at[identity] for identity in ids if identity in first_at]
        lost += len(ids) - len(positions)
        disordered += sum(later < earlier for earlier, later in zip(positions, positions[1:]))
    doubled = sum(count > 1 for ids in stored.values() for count in Counter(ids).values())
    return Judged(sum(map(len, acknowledged.values())), lost, doubled, disordered)


class Bounds(NamedTuple):
    """What our store promises of each call and of the event loop; ``None`` where it promises nothing."""

    call_s: Optional[float]
    pause_s: Optional[float]

    def __str__(self) -> str:
        call = "" if self.call_s is None else f"a call ends within {self.call_s:g} s; "
        pause = (
            "" if self.pause_s is None else f"the event loop is never held for more than {self.pause_s * 1000:g} ms; "
        )
        return f"{call}{pause}every acknowledged event is stored once, in order; service comes back"

    def broken(self, result: Mapping[str, Any]) -> List[str]:
        """Return what a run did not keep, in words."""
        if "failed" in result:
            return ["failed"]
        found = [f"{result[what]} {what}" for what in ("lost", "doubled", "disordered") if result[what]]
        if not result["acknowledged"]:
            found.append("nothing acknowledged")
        if self.call_s is not None and result["longest_s"] > self.call_s:
            found.append(f"call of {result['longest_s']:.1f} s")
        if self.pause_s is not None and result["pause_s"] > self.pause_s:
            found.append(f"loop held {result['pause_s'] * 1000:.0f} ms")
        if result["back_s"] is None:
            found.append("not back")
        return found


def event_ids(events: Iterable[Dict[str, Any]]) -> List[str]:
    """Return the ids of events of a stored document, by which :mod:`extras.bench.faults_turns` tells them apart."""
    ids = (event["text"] if event["event"] in ("user", "bot") else event["metadata"]["id"] for event in events)
    return list(map(str, ids))
