"""Which messages are events, and how one that comes again is known. PostgreSQL's part is tried by ``run_here.py``."""

import json
from typing import Any

import pytest
from to_postgresql import Event, Refused, read

EVENT = {"sender_id": "alice", "event": "user", "timestamp": 1700000000.25, "text": "tea please"}


def test_an_event_is_a_row() -> None:
    row = read(json.dumps(EVENT).encode())
    assert isinstance(row, Event)
    assert (row.sender_id, row.event, row.happened_at.isoformat()) == (
        "alice",
        "user",
        "2023-11-14T22:13:20.250000+00:00",
    )
    assert json.loads(row.body) == EVENT


def test_it_is_known_again_whatever_the_order_of_its_members() -> None:
    again = read(json.dumps(dict(reversed(EVENT.items()))).encode())
    later = read(json.dumps({**EVENT, "timestamp": 1700000000.5}).encode())
    first = read(json.dumps(EVENT).encode())
    assert isinstance(first, Event)
    assert isinstance(again, Event)
    assert isinstance(later, Event)
    assert first.digest == again.digest != later.digest


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        json.dumps({**EVENT, "sender_id": None}).encode(),
        json.dumps({**EVENT, "timestamp": "now"}).encode(),
        json.dumps({**EVENT, "timestamp": 1e300}).encode(),
        json.dumps({"event": "user", "timestamp": 1.0}).encode(),
    ],
)
def test_what_is_none_is_kept_as_it_came(body: Any) -> None:
    row = read(body)
    assert isinstance(row, Refused)
    assert row.body == body
    assert row.reason
