"""The whole of Rasa: ``rasa init``, ``rasa train`` and ``rasa run`` keep conversations in Redis through restarts."""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
import redis
from rasa_server import RasaServer, train
from rest_turns import EVENTS, SESSIONS, prepare, rounds

from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED


@pytest.fixture(scope="session")
def assistant() -> Path:
    """Train the assistant of ``rasa init``, once for each environment of this host."""
    return train(Path(sys.prefix) / "assistant")


@pytest.fixture
def rasa(assistant: Path, tmp_path: Path) -> Iterator[Callable[[int], RasaServer]]:
    """Start Rasa servers, and stop them."""
    started: List[RasaServer] = []

    def start(redis_port: int) -> RasaServer:
        started.append(RasaServer(assistant, tmp_path, redis_port))
        return started[-1]

    yield start
    for server in started:
        server.stop()
        log = server.log.read_text()
        assert "InMemoryTrackerStore" not in log
        assert "Traceback" not in log


def test_conversations_outlive_a_restart_of_redis_and_of_rasa(
    rasa: Callable[[int], RasaServer], tmp_path: Path
) -> None:
    with RedisServer(tmp_path / "redis", ["--appendonly", "yes", "--appendfsync", "always"]) as store:
        client: Any = redis.Redis(port=store.port)
        server = rasa(store.port)
        assert server.say("hello") == ["Hey! How are you?"]
        names = [connection["name"] for connection in client.client_list()]
        assert "rasa" in names

        store.stop()
        store.start()
        assert server.say("I feel very sad and unhappy") == [
            "Here is something to cheer you up:",
            "Did that help you?",
        ]
        server.stop()

        server = rasa(store.port)
        assert server.said() == ["hello", "I feel very sad and unhappy"]
        assert server.say("yes it did") == ["Great, carry on!"]
        assert server.said() == ["hello", "I feel very sad and unhappy", "yes it did"]

        client.connection_pool.disconnect()
        document = json.loads(client.get("tracker:alice"))
        texts = [event["text"] for event in document["events"] if event["event"] == "user"]
        assert texts == ["hello", "I feel very sad and unhappy", "yes it did"]
        client.connection_pool.disconnect()


def test_a_message_in_a_long_conversation_moves_the_bytes_of_its_last_session(
    rasa: Callable[[int], RasaServer], own_server: RedisServer
) -> None:
    client: Any = redis.Redis(port=own_server.port)
    server = rasa(own_server.port)
    names = prepare(client, json.loads(RECORDED)["events"], time.time())
    events = json.loads(client.get("tracker:long"))["events"]
    assert len(events) == EVENTS == 2000
    assert sum(event.get("name") == "action_session_start" for event in events) == SESSIONS
    found = rounds(server, client, names, messages=6)
    for direction in ("sent_bytes", "received_bytes"):
        long, short = (
            statistics.median(getattr(measured, direction) for measured in found[kind]) for kind in ("long", "short")
        )
        assert 0 < long <= 1.3 * short
    after = json.loads(client.get("tracker:long"))["events"]
    assert after[:EVENTS] == events
    assert sum(event["event"] == "user" for event in after[EVENTS:]) == 6
    assert "action_session_start" not in [event.get("name") for event in after[EVENTS:]]
    client.connection_pool.disconnect()
