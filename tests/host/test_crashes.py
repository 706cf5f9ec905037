"""Whatever dies in the midst of a save, the conversation is as it was before or after it, and what was acknowledged is
kept; a save whose reply was lost can be repeated and adds nothing twice.
"""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest
import redis
from conversations import add
from proxy import Proxy
from writer import SENDER, event_id, session_start, turn

from extras import _rasa
from extras.bench.server import RedisServer

Call = Callable[[Any], Any]
Make = Callable[..., Any]

KEY = f"{_rasa.STOCK_PREFIX}{SENDER}"
WRITER = Path(__file__).with_name("writer.py")
MOST_CUTS = 250
SERVER_KILLS = 6
CLIENT_KILLS = 20


def ids(document: Optional[bytes]) -> List[str]:
    """Return the ids of the events in a document."""
    if document is None:
        return []
    return [event_id(event) for event in json.loads(document)["events"] if event["event"] != "slot"]


def start_writer(number: int, port: int, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(number), str(port), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "SQLALCHEMY_SILENCE_UBER_WARNING": "1"},
        universal_newlines=True,
    )


class Situation:
    """A conversation, and a tracker with new events that is about to be saved through a proxy."""

    def __init__(self, name: str, make: Make, call: Call, client: Any, proxy: Proxy) -> None:
        self._call, self._client = call, client
        self.store = make(port=proxy.port, db=0, socket_timeout=1)
        self.old_ids: List[str] = []
        if name != "new conversation":
            tracker = self.store.init_tracker(SENDER)
            add(tracker, session_start("old") + turn("old"))
            call(self.store.save(tracker))
        self.tracker = call(self.store.retrieve(SENDER)) or self.store.init_tracker(SENDER)
        add(self.tracker, turn("new"))
        if name == "another writer":
            other = make(db=0)
            tracker = call(other.retrieve(SENDER))
            add(tracker, turn("other"))
            call(other.save(tracker))
        if name == "tracker of unknown origin":
            del self.tracker._extras_stored
        self.old: Optional[bytes] = client.get(KEY)
        self.old_ids = ids(self.old)
        if name != "server without scripts":
            self._teach_scripts(make)
        else:
            client.script_flush()

    def _teach_scripts(self, make: Make) -> None:
        """Let the server learn both scripts of a save."""
        store = make(db=2)
        for _ in range(2):
            tracker = self._call(store.retrieve(SENDER)) or store.init_tracker(SENDER)
            add(tracker, turn("taught"))
            self._call(store.save(tracker))

    def restore(self) -> None:
        """Put the old document back."""
        if self.old is None:
            self._client.delete(KEY)
        else:
            self._client.set(KEY, self.old)


SITUATIONS = ["append", "server without scripts", "another writer", "new conversation", "tracker of unknown origin"]


@pytest.fixture
def client(server: RedisServer, raw: "redis.Redis") -> Any:
    return raw


@pytest.fixture
def proxy(server: RedisServer) -> Any:
    with Proxy(server.port) as running:
        yield running


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_client_that_dies_between_any_two_bytes_of_a_save_leaves_the_old_or_the_new_state(
    name: str, ours: Make, call: Call, client: Any, proxy: Proxy, server: RedisServer
) -> None:
    situation = Situation(name, ours, call, client, proxy)
    proxy.sent.clear()
    call(situation.store.save(situation.tracker))
    sent = bytes(proxy.sent)
    new = client.get(KEY)
    assert ids(new) == [*situation.old_ids, "new-user", "new-bot"]

    cuts = sorted({round(step * len(sent) / MOST_CUTS) for step in range(MOST_CUTS + 1)} | {len(sent) - 1})
    found = []
    for cut in cuts:
        situation.restore()
        if name == "server without scripts":
            client.script_flush()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(sent[:cut])
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass  # the server has carried out what it understood of this when it hangs up too
        found.append(client.get(KEY))
        assert found[-1] in (situation.old, new), f"after {cut} of {len(sent)} bytes"
    print(f"{name}: {len(cuts)} cuts of {len(sent)} bytes")
    assert [document == new for document in found] == [cut == len(sent) for cut in cuts]


def test_killed_clients_leave_whole_turns_and_all_that_was_acknowledged(server: RedisServer, raw: Any) -> None:
    output, _ = start_writer(1, server.port, "victim", str(CLIENT_KILLS)).communicate()
    acknowledged = [line.split() for line in output.splitlines()]
    stored = ids(raw.get(KEY))
    assert len(stored) == len(set(stored))
    assert {line[0].partition("-")[0] for line in acknowledged} == {f"1.{victim}" for victim in range(CLIENT_KILLS)}
    unacknowledged = list(stored)
    for line in acknowledged:
        start = stored.index(line[0])
        assert stored[start : start + len(line)] == line
        for identity in line:
            unacknowledged.remove(identity)
    turns = {identity.rpartition("-")[0] for identity in unacknowledged}
    print(f"{CLIENT_KILLS} kills, {len(acknowledged)} turns acknowledged, {len(turns)} stored but not acknowledged")
    assert len(turns) <= CLIENT_KILLS
    assert unacknowledged == [f"{name}-{who}" for name in sorted(turns, key=_order) for who in ("user", "bot")]


def _order(name: str) -> List[int]:
    return [int(part) for part in name.replace(".", "-").split("-")]


class Reading(threading.Thread):
    """Keeps the turns that a writer says were acknowledged."""

    def __init__(self, writer: "subprocess.Popen[str]") -> None:
        super().__init__(daemon=True)
        self.writer = writer
        self.turns: List[List[str]] = []

    def run(self) -> None:
        assert self.writer.stdout is not None
        for line in self.writer.stdout:
            self.turns.append(line.split())

    def wait_for(self, more: int) -> None:
        """Wait until so many more turns are acknowledged."""
        enough = len(self.turns) + more
        deadline = time.monotonic() + 30
        while len(self.turns) < enough:
            assert time.monotonic() < deadline, f"the writer does not go on after {len(self.turns)} turns"
            assert self.writer.poll() is None, "the writer has died"
            time.sleep(0.005)


def test_a_killed_server_comes_back_with_every_acknowledged_event_and_writers_go_on(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "server", ["--appendonly", "yes", "--appendfsync", "always"]) as server:
        client: Any = redis.Redis(port=server.port)
        writers = [Reading(start_writer(number, server.port, "insist")) for number in (1, 2)]
        try:
            for writer in writers:
                assert writer.writer.stdout is not None
                assert writer.writer.stdout.readline() == "ready\n"
                writer.start()
            for _ in range(SERVER_KILLS):
                for writer in writers:
                    writer.wait_for(10)
                time.sleep(random.uniform(0, 0.05))
                server.kill()
                before = [turn for writer in writers for turn in list(writer.turns)]
                server.start()
                client.connection_pool.disconnect()
                stored = set(ids(client.get(KEY)))
                assert not [identity for turn in before for identity in turn if identity not in stored]
            for writer in writers:
                writer.wait_for(10)
                assert writer.writer.stdin is not None
                writer.writer.stdin.close()
            for writer in writers:
                assert writer.writer.wait(30) == 0
                writer.join(10)
        finally:
            for writer in writers:
                writer.writer.kill()
                if writer.is_alive():
                    writer.join(10)
                with writer.writer:
                    pass  # waits for it and closes its pipes
        stored_once = ids(client.get(KEY))
        client.connection_pool.disconnect()
    print(f"{SERVER_KILLS} kills, {[len(writer.turns) for writer in writers]} turns")
    for number, writer in enumerate(writers, 1):
        mine = [identity for identity in stored_once if identity.startswith(f"{number}-")]
        assert mine == [identity for turn in writer.turns for identity in turn]
    assert len(stored_once) == sum(len(turn) for writer in writers for turn in writer.turns)


ERRORS: Dict[str, Any] = {"close": redis.exceptions.ConnectionError, "keep": redis.exceptions.TimeoutError}


@pytest.mark.parametrize("name", SITUATIONS)
@pytest.mark.parametrize("lose", ERRORS)
def test_a_save_whose_reply_was_lost_is_reported_and_repeating_it_adds_nothing(
    name: str, lose: str, ours: Make, call: Call, client: Any, proxy: Proxy
) -> None:
    situation = Situation(name, ours, call, client, proxy)
    expected = [*situation.old_ids, "new-user", "new-bot"]
    for _ in range(3):
        proxy.lose = lose
        with pytest.raises(ERRORS[lose]):
            call(situation.store.save(situation.tracker))
        proxy.lose = ""
        assert ids(client.get(KEY)) in (situation.old_ids, expected)
    assert proxy.lost >= 3
    call(situation.store.save(situation.tracker))
    assert ids(client.get(KEY)) == expected
    add(situation.tracker, turn("next"))
    call(situation.store.save(situation.tracker))
    assert ids(client.get(KEY)) == [*expected, "next-user", "next-bot"]
