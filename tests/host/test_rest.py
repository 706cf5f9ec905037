"""The whole of Rasa: after ``rasa train``, ``rasa run`` keeps conversations in Redis through restarts."""

import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List, Optional

import pytest
import rasa as rasa_package
import redis
from rasa_server import RasaServer, trained
from rest_turns import EVENTS, SESSIONS, prepare, rounds

from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED

CONFIGURATION = """\
recipe: default.v1
assistant_id: quick
language: en
pipeline: [{name: KeywordIntentClassifier}]
policies: [{name: MemoizationPolicy}, {name: RulePolicy}]
"""
"""Understands what these tests say, without neural networks: to train those takes minutes, and a store sees none."""


class Rasa:
    """One Rasa server on a Redis that keeps everything on disk; starting it takes half a minute, so tests share it."""

    def __init__(self, assistant: Path, folder: Path, store: RedisServer) -> None:
        self.store = store
        self._assistant, self._folder = assistant, folder
        self._server: Optional[RasaServer] = None

    def server(self) -> RasaServer:
        """Return the running server; start it if there is none."""
        if self._server is None:
            self._server = RasaServer(self._assistant, self._folder, self.store.port)
        return self._server

    def stop(self, may_complain: bool = False) -> None:
        """Stop the server, which must not have complained."""
        if self._server is not None:
            server, self._server = self._server, None
            server.stop()
            log = "" if may_complain else server.log.read_text()
            assert "InMemoryTrackerStore" not in log
            assert "Traceback" not in log


@pytest.fixture(scope="module")
def rasa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rasa]:
    """The server, with an assistant that is trained once for each environment of this host."""
    folder = tmp_path_factory.mktemp("rasa")
    moods = Path(rasa_package.__file__).parent / "cli" / "initial_project"
    assistant = trained(Path(sys.prefix) / "quick-assistant", moods, CONFIGURATION)
    with RedisServer(folder / "redis", ["--appendonly", "yes", "--appendfsync", "always"]) as store:
        shared = Rasa(assistant, folder, store)
        try:
            yield shared
        finally:
            shared.stop()


@pytest.fixture
def client(rasa: Rasa) -> Iterator[Any]:
    """Stock redis-py client on the server's Redis."""
    made: Any = redis.Redis(port=rasa.store.port)
    yield made
    made.connection_pool.disconnect()


def test_conversations_outlive_a_restart_of_redis_and_of_rasa(rasa: Rasa, client: Any) -> None:
    assert rasa.server().say("hello") == ["Hey! How are you?"]
    assert "rasa" in [connection["name"] for connection in client.client_list()]

    rasa.store.stop()
    rasa.store.start()
    assert rasa.server().say("I feel very sad and unhappy") == [
        "Here is something to cheer you up:",
        "Did that help you?",
    ]
    rasa.stop()

    assert rasa.server().said() == ["hello", "I feel very sad and unhappy"]
    assert rasa.server().say("yes it did") == ["Great, carry on!"]
    assert rasa.server().said() == ["hello", "I feel very sad and unhappy", "yes it did"]

    client.connection_pool.disconnect()
    document = json.loads(client.get("tracker:alice"))
    texts = [event["text"] for event in document["events"] if event["event"] == "user"]
    assert texts == ["hello", "I feel very sad and unhappy", "yes it did"]


def test_a_message_in_a_long_conversation_moves_the_bytes_of_its_last_session(rasa: Rasa, client: Any) -> None:
    server = rasa.server()
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


FREEZE_S = 5.0
PROMPT_S = 0.5
BUSY_S = 2.0
"""What an answer may take on a machine that has other things to do, and still not have waited for Redis."""


def test_a_frozen_redis_holds_up_only_those_who_talk(rasa: Rasa) -> None:
    server = rasa.server()
    assert server.say("hello", "before")
    answers: List[Any] = []

    def talk(sender: str) -> None:
        try:
            answers.append(server.say("hello", sender))
        except OSError as error:  # HTTP 500: no lock is to be had
            answers.append(error)

    talkers = [threading.Thread(target=talk, args=(f"talker {number}",)) for number in range(4)]
    took_s = []
    try:
        rasa.store.freeze()
        until = time.monotonic() + FREEZE_S
        for talker in talkers:
            talker.start()
        while time.monotonic() < until:
            asked_at = time.monotonic()
            assert server.get("version")["version"]
            took_s.append(time.monotonic() - asked_at)
            time.sleep(0.02)
    finally:
        rasa.store.thaw()
    for talker in talkers:
        talker.join()
    took_s.sort()
    print(f"{len(took_s)} times /version: median {statistics.median(took_s) * 1000:.1f} ms, longest {took_s[-1]:.3f} s")
    assert took_s[int(len(took_s) * 0.95)] < PROMPT_S
    assert took_s[-1] < BUSY_S
    assert len(answers) == len(talkers)
    assert server.say("hello", "after") == ["Hey! How are you?"]
    rasa.stop(may_complain=True)
