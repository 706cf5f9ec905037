"""The documented rights are what the stores need: with them all operations work, without any of them one fails.

On each server that the machine has of: the embedded one, the system's Redis.
"""

import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import redis
from least_privilege import give, servers, with_user

from extras.cli.checks_acl import OF_CLUSTERS, commands_of_outbox, rights_of
from extras.configured import sync_client
from extras.conversation import TRACKER_INFIX, Changed, Conversations, UserIndex, load_many
from extras.document import SessionStart
from extras.document import parse as read
from extras.options import parse
from extras.steps import Steps, run
from extras.tickets import LOCK_INFIX, Queues

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "how-to" / "login.md"
PREFIX = "shop"
OF_OUTBOX = tuple(f"+{command[0].lower()}" for command in commands_of_outbox("") if command[0] != "DEL")
EVENTS = '{"event": "action", "name": "action_session_start", "timestamp": 1.0}, {"event": "user", "timestamp": 2.0}'
DOCUMENT = f'{{"events": [{EVENTS}], "name": "alice"}}'

Used = Tuple[Any, Any, Dict[str, Any]]


@pytest.fixture(scope="module", params=servers())
def used(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Used]:
    with with_user(request.param, tmp_path_factory.mktemp("acl"), rights_of(PREFIX)) as made:
        yield made


def of_conversations() -> "Steps[None]":
    """Do what a tracker store does, on every Rasa."""
    conversations = Conversations(f"{PREFIX}:{TRACKER_INFIX}", 1000, False)
    index = UserIndex(conversations.prefix)
    session = SessionStart.of_action("action_session_start")
    assert (yield from conversations.replace_if("alice", None, DOCUMENT.encode(), 60))
    assert (yield from conversations.exists("alice"))
    parsed = yield from conversations.load_session("alice", session)
    assert parsed is not None
    for expires_after_s in (60, None):
        document = yield from conversations.load("alice")
        assert document is not None
        known = read(document).known
        assert known is not None
        found = yield from conversations.append("alice", known, b', {"event": "bot"}', known.closing, expires_after_s)
        assert not isinstance(found, Changed)
    assert (yield from conversations.sender_ids()) == ["alice"]
    yield from index.add("user", "alice", None, time.time())
    assert (yield from index.sender_ids("user", time.time())) == ["alice"]
    assert None not in (yield from load_many(conversations, ["alice"]))
    yield from index.remove("user", ["alice"])
    yield from conversations.replace("alice", DOCUMENT, None)
    yield from conversations.erase("alice")


def of_locks() -> "Steps[None]":
    """Do what a lock store does; the second in the queue is called when the first has gone."""
    queues = Queues(f"{PREFIX}:{LOCK_INFIX}")
    first = yield from queues.issue("alice", "one", 60)
    yield from queues.issue("alice", "two", 60)
    yield from queues.replace("alice", first.queue.decode(), 60)
    yield from queues.issue("alice", "two", 60)
    assert (yield from queues.load("alice"))
    assert (yield from queues.give_back("alice", "one"))
    assert (yield from queues.look("alice", "two", 1))
    assert (yield from queues.give_back("alice", "two"))
    yield from queues.erase("alice")


def all_of_it(admin: Any, given: Dict[str, Any]) -> None:
    """Do everything on a new connection, as after a reconnect. Raises ``RedisError`` or ``AssertionError``."""
    admin.flushall()
    admin.script_flush()
    client: Any = sync_client(parse(given))
    calls = client.pubsub()
    try:
        calls.subscribe(f"{PREFIX}:{LOCK_INFIX}called")
        assert calls.get_message(timeout=5)["type"] == "subscribe"
        for _ in range(2):  # the second time its scripts are known
            run(client, of_conversations())
            run(client, of_locks())
        called = calls.get_message(timeout=0.2)
        assert called is not None, "nobody was called"
    finally:
        calls.close()
        client.connection_pool.disconnect()


def test_they_are_enough(used: Used) -> None:
    _, admin, given = used
    give(admin, rights_of(PREFIX))
    all_of_it(admin, given)


@pytest.mark.parametrize("right", rights_of(PREFIX))
def test_each_is_needed(right: str, used: Used) -> None:
    _, admin, given = used
    give(admin, [each for each in rights_of(PREFIX) if each != right])
    with pytest.raises((redis.RedisError, AssertionError)) as error:
        all_of_it(admin, given)
    assert "permission" in str(error.value).lower() or "can't" in str(error.value) or "called" in str(error.value)


def test_others_are_refused(used: Used) -> None:
    _, admin, given = used
    give(admin, rights_of(PREFIX))
    client: Any = sync_client(parse(given))
    commands: List[Tuple[str, ...]] = [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("GET", "other"),
        ("SET", "tracker:alice", "x"),
        ("PUBLISH", "other", "x"),
    ]
    try:
        for command in commands:
            with pytest.raises(redis.RedisError, match=r"(?i)permission"):
                client.execute_command(*command)
    finally:
        client.connection_pool.disconnect()


def line(key_prefix: str = "") -> str:
    """Return the line of the page on login."""
    return f"ACL SETUSER rasa reset resetchannels on >PASSWORD {' '.join(rights_of(key_prefix))}"


def test_the_page_has_them() -> None:
    assert line() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("platform", "more"), [("compose", OF_OUTBOX), ("kubernetes", OF_CLUSTERS)])
def test_the_deployments_have_them_and_no_others(platform: str, more: Tuple[str, ...]) -> None:
    """On Kubernetes it is a cluster, where a slot on its way is had by ``ASKING``."""
    users = (PROJECT / "deploy" / platform / "redis_users.acl").read_text(encoding="utf-8")
    rights = next(row for row in users.splitlines() if row.startswith("user rasa ")).partition(" -@all ")[2].split()
    known = (*rights_of(), *more)
    assert set(rights) >= set(known)
    assert [right for right in rights if right.startswith("+") and right not in known] == []


if __name__ == "__main__":
    print(line())
