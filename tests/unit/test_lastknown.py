"""What is remembered of conversations in Redis is what Redis has, and no more than the bound."""

import json
from typing import Any, Dict, Optional

import pytest
import redis

from extras import lastknown
from extras.bench.server import RedisServer
from extras.document import SessionStart, parse
from extras.lastknown import ABSENT, UNKNOWN, RememberingConversations
from extras.steps import run

SESSION = SessionStart.of_action("action_session_start")


def event(number: int, text: str = "") -> Dict[str, Any]:
    return {"event": "user", "timestamp": float(number), "text": text}


def start(number: int) -> Dict[str, Any]:
    return {"event": "action", "timestamp": float(number), "name": "action_session_start"}


def document(*events: Dict[str, Any]) -> bytes:
    return json.dumps({"events": list(events), "name": "alice"}).encode()


class Both:
    """A remembering store and the client to look behind it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.kept = RememberingConversations("tracker:", 10, False)

    def do(self, steps: Any) -> Any:
        return run(self.client, steps)

    def stored(self) -> Optional[bytes]:
        found: Optional[bytes] = self.client.get("tracker:alice")
        return found

    def is_right(self) -> None:
        """Assert that the image has the document's last events and says how large the document is."""
        image, found = self.kept.last_known("alice"), self.stored()
        assert found is not None
        assert image.size_bytes == len(found)
        events = json.loads(image.text)["events"]
        assert events == json.loads(found)["events"][-len(events) :]
        assert found.endswith(image.text[len('{"events": [') :])
        assert image.known is not None
        known = parse(found).known
        assert known is not None
        assert known.anchor.endswith(image.known.anchor)
        assert image.known.closing == known.closing


@pytest.fixture
def both(server: RedisServer) -> Any:
    client: Any = redis.Redis(port=server.port)
    client.flushall()
    yield Both(client)
    client.connection_pool.disconnect()


def test_what_is_read_is_remembered(both: Both) -> None:
    assert both.kept.last_known("alice") == UNKNOWN
    assert both.do(both.kept.load_session("alice", SESSION)) is None
    assert both.kept.last_known("alice") == ABSENT
    both.client.set("tracker:alice", document(start(1), event(2)))
    both.do(both.kept.load_session("alice", SESSION))
    both.is_right()
    many = [event(number, "x" * 100) for number in range(3, 60)]
    both.client.set("tracker:alice", document(start(1), event(2), *many, start(100), event(101)))
    for _ in range(2):
        parsed = both.do(both.kept.load_session("alice", SESSION))
        assert not parsed.whole
        both.is_right()
        assert both.kept.last_known("alice").whole is False
    assert json.loads(both.kept.last_known("alice").text)["events"] == [start(100), event(101)]
    both.do(both.kept.load("alice"))
    both.is_right()
    assert both.kept.last_known("alice").whole is True


@pytest.mark.parametrize("sessions", [1, 2])
def test_what_is_appended_is_remembered_with_what_others_append(sessions: int, both: Both) -> None:
    old = [start(1), *[event(number, "x" * 100) for number in range(2, 50)]]
    both.client.set("tracker:alice", document(*old, *([start(60), event(61)] if sessions == 2 else [])))
    known = both.do(both.kept.load_session("alice", SESSION)).known
    closing = b'], "name": "alice"}'

    def addition(number: int) -> bytes:
        return b", " + json.dumps(event(number)).encode()

    after = both.do(both.kept.append("alice", known, addition(70), closing, None))
    both.is_right()
    other = RememberingConversations("tracker:", 10, False)
    both.do(other.append("alice", after, addition(71), closing, None))
    both.do(both.kept.append("alice", after, addition(72), closing, None))  # overtaken: shows what there is
    both.is_right()
    newest = both.kept.last_known("alice").known
    assert newest is not None
    both.do(both.kept.append("alice", newest, addition(72), closing, None))
    both.is_right()
    assert [entry["timestamp"] for entry in json.loads(both.kept.last_known("alice").text)["events"]][-3:] == [
        70,
        71,
        72,
    ]


def test_what_is_replaced_or_deleted_is_remembered(both: Both) -> None:
    assert both.do(both.kept.replace_if("alice", None, document(event(1)), None))
    both.is_right()
    assert not both.do(both.kept.replace_if("alice", None, document(event(2)), None))
    both.is_right()
    both.do(both.kept.replace("alice", document(event(3)).decode(), None))
    both.is_right()
    both.do(both.kept.erase("alice"))
    assert both.kept.last_known("alice") == ABSENT


def test_other_spellings_are_remembered_in_the_hosts(both: Both) -> None:
    both.client.set("tracker:alice", json.dumps(json.loads(document(start(1), event(2))), indent=2))
    both.do(both.kept.load_session("alice", SESSION))
    image, closing = both.kept.last_known("alice").spelt()
    assert image.text == document(start(1), event(2))
    assert image.known is None
    assert image.text.endswith(closing)


def test_no_more_is_kept_than_the_bound(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lastknown, "MOST_BYTES", 10_000)
    large = document(event(1, "x" * 3000))
    for number in range(6):
        both.do(both.kept.replace(f"sender{number}", large.decode(), None))
    known = [number for number in range(6) if both.kept.last_known(f"sender{number}") != UNKNOWN]
    assert known == [4, 5] or known == [3, 4, 5]
    both.do(both.kept.replace("huge", document(event(1, "x" * 20_000)).decode(), None))
    assert both.kept.last_known("huge") == UNKNOWN
