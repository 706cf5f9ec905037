"""With ``on_outage: journal`` turns said while Redis is away are in Redis afterwards: all, once, and in their order.

``OUTAGE_TURNS=1000 OUTAGE_S=30 OUTAGE_SEEDS=3`` makes the outages in whose midst clients are killed as long.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import redis
from chat import PATIENCE_S, Chat, told, wait_for_replay
from conversations import Script, add, contents, known_here
from proxy import Proxy
from the_host import IS_PRO, IS_RASA_2, RecordingBroker
from writer import event_id

from extras import _rasa
from extras.bench.server import RedisServer
from extras.trackerstore import DocumentError, TrackerStoreError

Call = Callable[[Any], Any]
Make = Callable[..., Any]

TALKER = Path(__file__).with_name("talker.py")
TURNS = int(os.environ.get("OUTAGE_TURNS", "80"))
OUTAGE_S = float(os.environ.get("OUTAGE_S", "1.5"))
SEEDS = range(int(os.environ.get("OUTAGE_SEEDS", "1")))
CONVERSATIONS = 8
REPLAY_KILLS = 5


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that keeps what it has acknowledged when it is killed."""
    with RedisServer(tmp_path / "server", ["--appendonly", "yes", "--appendfsync", "always"]) as running:
        yield running


@pytest.fixture
def journaling(ours: Make, own_server: RedisServer, tmp_path: Path) -> Make:
    """Make a store with a journal."""

    def make(**options: Any) -> Any:
        given = {"port": own_server.port, "db": 0, "socket_timeout": 0.5, "on_outage": "journal"}
        return ours(**{**given, "journal_path": str(tmp_path / "journal"), **options})

    return make


def document(server: RedisServer, sender_id: str) -> Any:
    """Return a conversation as it is stored."""
    client: Any = redis.Redis(port=server.port)
    try:
        text = client.get(f"{_rasa.STOCK_PREFIX}{sender_id}")
        return None if text is None else json.loads(text)
    finally:
        client.connection_pool.disconnect()


def times(server: RedisServer, sender_id: str) -> List[float]:
    """Return the times of the events that are stored, slots aside."""
    found = document(server, sender_id) or {"events": []}
    return [event["timestamp"] for event in found["events"]]


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_turns_of_an_outage_are_served_meanwhile_and_stored_after_it(
    how: str, journaling: Make, call: Call, own_server: RedisServer, stock: Make
) -> None:
    broker = RecordingBroker()
    store = journaling(event_broker=broker)
    chat, other = Chat(store, call), Chat(store, call, "bob", 2)
    for _ in range(3):
        chat.say()
        other.say()
    kept = document(own_server, "bob")
    assert store.outage_journal().records == 0
    getattr(own_server, how)()
    try:
        chat.say()
        chat.say(session=True)
        tracker = chat.say()
        assert contents(call(store.retrieve("alice"))) == contents(tracker) or IS_PRO
        assert call(store.exists("alice"))
        state = store.outage_journal()
        assert (state.records, state.conversations) == (3, 1)
        assert state.bytes > 0
        assert state.since is not None
        assert state.last_error is not None
        with pytest.raises(redis.exceptions.RedisError):
            call(store.keys())
    finally:
        own_server.thaw() if how == "freeze" else own_server.start()
    wait_for_replay(store)
    assert times(own_server, "alice") == told(chat.said)
    assert document(own_server, "bob") == kept
    chat.say()
    assert store.outage_journal().records == 0
    assert times(own_server, "alice") == told(chat.said)
    assert [event["timestamp"] for event in broker.published if event["sender_id"] == "alice"] == told(chat.said)
    assert os.path.getsize(store.outage_journal().path) == 0


@pytest.mark.parametrize("seed", range(3))
def test_reads_during_an_outage_and_documents_after_it_are_those_of_a_store_without_one(
    seed: int,
    journaling: Make,
    ours: Make,
    call: Call,
    own_server: RedisServer,
    raw: Any,
    same_session_ids: Callable[[int], None],
) -> None:
    stores = [journaling(), ours()]
    script = Script(seed)
    outage = False
    for round_ in range(18):
        if round_ in (6, 15):
            own_server.kill()
            outage = True
        if round_ == 11:
            own_server.start()
            outage = False
            wait_for_replay(stores[0])
        events = known_here(script.turn() if round_ % 5 else script.session_start() + script.turn())
        seen = []
        for store in stores:
            same_session_ids(round_)
            tracker = call(store.retrieve("alice"))
            seen.append(contents(tracker))
            tracker = tracker or store.init_tracker("alice")
            add(tracker, events)
            call(store.save(tracker))
            seen.append(contents(call(store.retrieve("alice"))))
        assert seen[:2] == seen[2:], (round_, outage)
    own_server.start()
    wait_for_replay(stores[0])
    client: Any = redis.Redis(port=own_server.port)
    other: Any = redis.Redis(port=raw.connection_pool.connection_kwargs["port"], db=1)
    key = f"{_rasa.STOCK_PREFIX}alice"
    assert client.get(key) == other.get(key)
    for used in (client, other):
        used.connection_pool.disconnect()


class Talking(threading.Thread):
    """A talker and what it told."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.options: Dict[str, Any] = {}
        self.turns: Dict[str, List[List[str]]] = {}
        self.lines: List[str] = []
        self.lives = 0
        self.pid = 0
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(TALKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "SQLALCHEMY_SILENCE_UBER_WARNING": "1"},
            universal_newlines=True,
        )
        self.start()

    def run(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            words = line.split()
            if words[0] == "turn":
                self.turns.setdefault(words[1], []).append(words[2:])
            else:
                self.lines.append(line.strip())

    @property
    def said(self) -> int:
        return sum(map(len, self.turns.values()))

    def live(self, senders: List[str], turns: int, pause_s: float, seed: int = 0) -> int:
        """Begin a life; return its process id."""
        self.lines.clear()
        self.lives += 1
        orders = {
            "life": str(self.lives),
            "said": {sender: len(self.turns.get(sender, [])) for sender in senders},
            **{"turns": turns, "pause_s": pause_s, "seed": seed, "options": self.options},
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(orders) + "\n")
        self.process.stdin.flush()
        self.wait_for(lambda: self.has("pid") and (self.has("ready") or self.has("ended")))
        self.pid = int(next(line for line in self.lines if line.startswith("pid")).split()[1])
        return self.pid

    def has(self, word: str) -> bool:
        return any(line.startswith(word) for line in self.lines)

    def wait_for(self, happened: Callable[[], Any], patience_s: float = 60.0) -> None:
        deadline = time.monotonic() + patience_s
        while not happened():
            assert time.monotonic() < deadline, (self.lines, self.said)
            assert self.process.poll() is None
            time.sleep(0.002)

    def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: self.has("ended"))

    def __enter__(self) -> "Talking":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.join(10)
            with self.process:
                pass  # closes its pipes

    def check(self, server: RedisServer, kills: int) -> int:
        """Assert that what was acknowledged is stored once and in order; return how many more turns are."""
        surplus = 0
        for sender, acknowledged in self.turns.items():
            found = document(server, sender)
            stored = [event_id(event) for event in found["events"] if event["event"] != "slot"]
            assert len(stored) == len(set(stored))
            expected = [identity for turn in acknowledged for identity in turn]
            told = set(expected)
            assert [identity for identity in stored if identity in told] == expected
            # What a killed process had not acknowledged yet is there as a whole, or not at all.
            names = {identity.rpartition("-")[0] for identity in stored if identity not in told}
            for name in names:
                whole = [f"{name}-start", f"{name}-started", f"{name}-listen", f"{name}-user", f"{name}-bot"]
                there = [identity for identity in stored if identity.rpartition("-")[0] == name]
                assert there in (whole, whole[3:])
            assert len(names) <= kills
            surplus += len(names)
        return surplus


def options_of(server: RedisServer, tmp_path: Path) -> Dict[str, Any]:
    path = str(tmp_path / "journal")
    return {"port": server.port, "socket_timeout": 0.5, "on_outage": "journal", "journal_path": path}


@pytest.fixture(scope="module")
def talker() -> Iterator[Talking]:
    with Talking() as running:
        yield running


@pytest.fixture
def talking(talker: Talking, own_server: RedisServer, tmp_path: Path) -> Iterator[Talking]:
    """A talker that has not said anything yet."""
    talker.options = options_of(own_server, tmp_path)
    talker.turns = {}
    yield talker
    if not talker.has("ended"):
        talker.kill(talker.pid)


@pytest.mark.parametrize("seed", SEEDS)
def test_turns_of_an_outage_in_which_the_client_is_killed_are_stored_once_and_in_order(
    seed: int, talking: Talking, own_server: RedisServer, tmp_path: Path
) -> None:
    chosen = random.Random(seed)
    senders = [f"sender{number}" for number in range(CONVERSATIONS)]
    turns = 3 + TURNS // CONVERSATIONS
    pause_s = 0.5 * OUTAGE_S / turns
    talking.live(senders, 1, 0.0)
    talking.wait_for(lambda: talking.has("ended"))
    assert talking.said == CONVERSATIONS
    # Read once, so that the outage begins in the midst of conversations.
    pid = talking.live(senders, turns, pause_s, seed)
    talking.wait_for(lambda: len(talking.turns) == CONVERSATIONS and talking.said >= 2 * CONVERSATIONS)
    before = talking.said
    own_server.kill()
    began = time.monotonic()
    killed_at = before + int(chosen.uniform(0.3, 0.7) * TURNS)
    talking.wait_for(lambda: talking.said >= killed_at, PATIENCE_S + OUTAGE_S)
    time.sleep(chosen.uniform(0, 0.02))
    talking.kill(pid)
    talking.live(senders, turns, pause_s, seed + 1)
    kept = next(line for line in talking.lines if line.startswith("ready"))
    talking.wait_for(lambda: time.monotonic() - began > OUTAGE_S, PATIENCE_S + OUTAGE_S)
    in_outage = talking.said - before
    own_server.start()
    talking.wait_for(lambda: talking.has("stored"), PATIENCE_S + OUTAGE_S)
    blocked = next(line for line in talking.lines if line.startswith("blocked"))
    talking.wait_for(lambda: talking.has("ended"))
    assert talking.said == turns * CONVERSATIONS
    surplus = talking.check(own_server, kills=1)
    print(
        f"{in_outage} turns acknowledged in an outage of {OUTAGE_S:.0f} s, killed after {killed_at - before} "
        f"({kept.split()[1]} found in the journal), {surplus} stored but not acknowledged, loop {blocked} ms at most"
    )
    assert os.path.getsize(tmp_path / "journal") == 0


def test_a_replay_that_is_killed_again_and_again_stores_everything_once(
    talking: Talking, own_server: RedisServer
) -> None:
    senders = [f"sender{number}" for number in range(40)]
    pid = talking.live(senders, 10, 0.05)
    talking.wait_for(lambda: talking.said >= 2 * len(senders))
    own_server.kill()
    before = talking.said
    talking.wait_for(lambda: talking.said >= before + 4 * len(senders))
    talking.kill(pid)
    own_server.start()
    found = []
    for kill in range(REPLAY_KILLS):
        pid = talking.live([], 0, 0.0)
        found.append(int(next(line for line in talking.lines if line.startswith("ready")).split()[1]))
        time.sleep(random.Random(kill).uniform(0.09, 0.16))
        if not talking.has("ended"):
            talking.kill(pid)
    talking.live([], 0, 0.0)
    talking.wait_for(lambda: talking.has("stored"))
    talking.wait_for(lambda: talking.has("ended"))
    print(f"turns found in the journal by one life after the other: {found}")
    assert found[0] > 0
    talking.check(own_server, kills=1)


def journaled(store: Any, call: Call, server: RedisServer, sender_id: str = "alice", seed: int = 1) -> Chat:
    """Say two turns, and two more while the server is away."""
    chat = Chat(store, call, sender_id, seed)
    chat.say()
    chat.say()
    server.kill()
    chat.say()
    chat.say()
    return chat


def test_what_others_wrote_before_the_replay_is_kept_and_the_stock_store_reads_it_all(
    journaling: Make, ours: Make, call: Call, own_server: RedisServer, domain: Any
) -> None:
    store = journaling()
    chat = journaled(store, call, own_server)
    call(store.close())
    own_server.start()
    other = Chat(ours(port=own_server.port, db=0), call, "alice", 5)
    other.script._now += 100_000
    other.say(session=True)
    other.say()
    again = journaling()
    wait_for_replay(again)
    stored = times(own_server, "alice")
    assert sorted(stored) == sorted(told(chat.said + other.said))
    for written in (chat, other):
        assert [at for at in stored if at in told(written.said)] == told(written.said)
    stock = _rasa.StockRedisTrackerStore(domain, host="127.0.0.1", port=own_server.port)
    full = getattr(stock, "retrieve_full_tracker", stock.retrieve)
    assert len(call(full("alice")).events) == len(stored)


@pytest.mark.parametrize("session", [False, True])
def test_a_journal_that_is_replayed_once_more_adds_nothing(
    session: bool, journaling: Make, call: Call, own_server: RedisServer, tmp_path: Path
) -> None:
    """As after a crash between the last save to Redis and the emptying of the file."""
    store = journaling()
    chat = journaled(store, call, own_server)
    chat.say(session=session)
    call(store.close())
    kept = (tmp_path / "journal").read_bytes()
    own_server.start()
    chat.store = journaling()
    wait_for_replay(chat.store)
    for _ in range(2):
        stored = document(own_server, "alice")
        call(chat.store.close())
        (tmp_path / "journal").write_bytes(kept)
        chat.store = journaling()
        assert chat.store.outage_journal().records == 3
        wait_for_replay(chat.store)
        assert document(own_server, "alice") == stored
        chat.say(session=session)
    assert times(own_server, "alice") == told(chat.said)


def test_a_restarted_process_goes_on_with_the_conversations_of_the_one_before(
    journaling: Make, call: Call, own_server: RedisServer
) -> None:
    store = journaling()
    chat = journaled(store, call, own_server)
    expected = contents(call(store.retrieve("alice")))
    call(store.close())
    chat.store = journaling()
    assert chat.store.outage_journal().records == 2
    assert contents(call(chat.store.retrieve("alice"))) == expected
    chat.say()
    assert chat.store.outage_journal().records == 3
    own_server.start()
    wait_for_replay(chat.store)
    assert times(own_server, "alice") == told(chat.said)


def test_an_unknown_conversation_cannot_be_read_but_what_is_said_in_it_is_kept(
    journaling: Make, ours: Make, call: Call, own_server: RedisServer
) -> None:
    before = Chat(ours(port=own_server.port, db=0), call)
    before.say()
    store = journaling()
    own_server.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        call(store.retrieve("alice"))
    chat = Chat(store, call, "alice", 3)
    chat.script._now += 100_000
    said = known_here(chat.script.session_start() + chat.script.turn())
    tracker = store.init_tracker("alice")
    add(tracker, said)
    call(store.save(tracker))
    if not IS_RASA_2:
        with pytest.raises(OSError, match="last session"):
            call(store.retrieve_full_tracker("alice"))
    own_server.start()
    wait_for_replay(store)
    assert times(own_server, "alice") == told(before.said + said)


REFUSALS = {
    "full": (["config", "set", "maxmemory", "1"], ["config", "set", "maxmemory", "0"]),
    "read-only": (["replicaof", "127.0.0.1", "1"], ["replicaof", "no", "one"]),
    "too few replicas": (
        ["config", "set", "min-replicas-to-write", "1"],
        ["config", "set", "min-replicas-to-write", "0"],
    ),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_a_server_that_refuses_writes_for_now_is_an_outage(
    how: str, journaling: Make, call: Call, own_server: RedisServer
) -> None:
    store = journaling()
    chat, other = Chat(store, call), Chat(store, call, "bob", 2)
    chat.say()
    other.say()
    client: Any = redis.Redis(port=own_server.port)
    client.execute_command(*REFUSALS[how][0])
    chat.say()
    chat.say()
    assert store.outage_journal().records == 2
    assert len(call(store.retrieve("bob")).events) > 0
    assert len(call(store.keys())) == 2
    client.execute_command(*REFUSALS[how][1])
    client.connection_pool.disconnect()
    wait_for_replay(store)
    assert times(own_server, "alice") == told(chat.said)


def test_a_refused_command_or_password_is_no_outage(journaling: Make, call: Call, own_server: RedisServer) -> None:
    store = journaling()
    chat = Chat(store, call)
    chat.say()
    client: Any = redis.Redis(port=own_server.port)
    client.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
    with pytest.raises(redis.exceptions.RedisError):
        chat.say()
    client.execute_command("ACL", "SETUSER", "default", "+evalsha", "+eval")
    wrong = journaling(password="not it", username="nobody", journal_path=store.options.journal_path + "-other")
    with pytest.raises(redis.exceptions.RedisError):
        call(wrong.save(wrong.init_tracker("alice")))
    assert store.outage_journal().records == wrong.outage_journal().records == 0
    client.connection_pool.disconnect()


def test_turns_of_a_document_that_cannot_be_read_are_set_aside_and_can_be_brought_back(
    journaling: Make, call: Call, own_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = journaling()
    chats = [Chat(store, call, sender_id, seed) for seed, sender_id in enumerate(["bob", "alice"])]
    for chat in chats:
        chat.say()
    own_server.kill()
    for chat in chats:
        chat.say()
    call(store.close())
    own_server.start()
    client: Any = redis.Redis(port=own_server.port)
    key = f"{_rasa.STOCK_PREFIX}bob"
    good = client.get(key)
    client.set(key, b"broken")
    store = journaling()
    wait_for_replay(store)
    assert client.get(key) == b"broken"
    assert times(own_server, "alice") == told(chats[1].said)
    assert "journal.refused" in caplog.text
    with pytest.raises(DocumentError):
        call(store.retrieve("bob"))
    call(store.close())
    client.set(key, good)
    (tmp_path / "journal.refused").rename(tmp_path / "journal.9")
    wait_for_replay(journaling())
    assert times(own_server, "bob") == told(chats[0].said)
    client.connection_pool.disconnect()


def test_what_is_waiting_is_not_deleted_and_a_full_journal_fails_the_save(
    journaling: Make, call: Call, own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker = RecordingBroker()
    store = journaling(journal_max_bytes="20000", event_broker=broker)
    chat = Chat(store, call)
    chat.say()
    own_server.kill()
    while store.outage_journal().bytes < 17_000:
        chat.say()
    said = len(chat.said)
    for _ in range(20):
        with suppress(OSError):
            chat.say()
    assert said <= len(chat.said) < said + 40
    kept = store.outage_journal()
    assert 0 < kept.bytes <= 20_000
    with pytest.raises(OSError, match="journal_max_bytes"):
        chat.say()
    assert caplog.text.count("journal_max_bytes") == 1
    assert [event["timestamp"] for event in broker.published] == told(chat.said)
    if hasattr(store, "delete") and not IS_RASA_2:
        with pytest.raises(TrackerStoreError, match="ask again"):
            call(store.delete("alice"))
    own_server.start()
    wait_for_replay(store)
    assert times(own_server, "alice") == told(chat.said)
    assert "hello" not in caplog.text


def test_only_the_first_turn_of_an_outage_waits_for_redis(
    journaling: Make, call: Call, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = journaling()
    chats = [Chat(store, call, f"sender{number}", number) for number in range(5)]
    for chat in chats:
        chat.say()
    own_server.freeze()
    asked = []
    original = store._run

    def run(steps: Any) -> Any:
        asked.append(steps)
        return original(steps)

    monkeypatch.setattr(store, "_run", run)
    for chat in chats:
        chat.say()
        chat.say()
    assert len(asked) == 1
    own_server.thaw()
    wait_for_replay(store)
    for chat in chats:
        assert times(own_server, chat.sender_id) == told(chat.said)


@pytest.mark.parametrize("lose", ["close", "keep"])
def test_a_save_whose_reply_was_lost_is_journaled_and_adds_nothing_twice(
    lose: str, journaling: Make, call: Call, own_server: RedisServer
) -> None:
    with Proxy(own_server.port) as proxy:
        store = journaling(port=proxy.port)
        chat = Chat(store, call)
        for _ in range(2):  # the server learns the script of a save
            chat.say()
        tracker = call(store.retrieve("alice"))
        events = known_here(chat.script.turn())
        add(tracker, events)
        proxy.lose = lose
        call(store.save(tracker))
        assert store.outage_journal().records == 1
        assert times(own_server, "alice") == told(chat.said + events)
        proxy.lose = ""
        wait_for_replay(store)
        assert times(own_server, "alice") == told(chat.said + events)
        chat.said += events
        more = known_here(chat.script.turn())
        add(tracker, more)
        call(store.save(tracker))
        assert times(own_server, "alice") == told(chat.said + more)
        call(store.close())


if _rasa.IS_ASYNC:

    def test_the_loop_goes_on_while_the_disk_is_slow_and_turns_share_what_it_does(
        journaling: Make, call: Call, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = journaling()
        chats = [Chat(store, call, f"sender{number}", number) for number in range(20)]
        for chat in chats:
            chat.say()
        own_server.kill()
        chats[0].say()
        synced: List[str] = []
        ticks: List[float] = []
        original = os.fsync

        def fsync(fd: int) -> None:
            synced.append(threading.current_thread().name)
            time.sleep(0.3)
            original(fd)

        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        async def save(chat: Chat) -> None:
            tracker = await store.retrieve(chat.sender_id)
            events = known_here(chat.script.turn())
            add(tracker, events)
            chat.said += events
            await store.save(tracker)

        async def main() -> None:
            ticking = asyncio.ensure_future(tick())
            saves = [asyncio.ensure_future(save(chat)) for chat in chats]
            while not synced:
                await asyncio.sleep(0.001)
            saves[7].cancel()  # who gives up waiting takes nothing back
            await asyncio.gather(*saves, return_exceptions=True)
            ticking.cancel()

        monkeypatch.setattr(os, "fsync", fsync)
        call(main())
        monkeypatch.undo()
        assert set(synced) == {"extras-journal"}
        assert len(synced) <= 4
        assert len(ticks) >= 5 * len(synced)  # of the 30 that a free loop makes meanwhile
        own_server.start()
        wait_for_replay(store)
        for chat in chats:
            assert times(own_server, chat.sender_id) == told(chat.said)


def test_a_forked_process_has_a_journal_of_its_own(journaling: Make, call: Call, own_server: RedisServer) -> None:
    store = journaling()
    chat = journaled(store, call, own_server)
    child = os.fork()
    if child == 0:
        state = store.outage_journal()
        os._exit(0 if state.path.endswith("journal.1") and state.records == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.outage_journal().records == 2
    own_server.start()
    wait_for_replay(store)
    assert times(own_server, "alice") == told(chat.said)


def test_options_of_the_journal(ours: Make, tmp_path: Path) -> None:
    with pytest.raises(TrackerStoreError, match="no journal_path"):
        ours(on_outage="journal")
    with pytest.raises(TrackerStoreError, match="cannot be opened"):
        ours(on_outage="journal", journal_path=str(tmp_path / "nowhere" / "journal"))
    (tmp_path / "letter").write_text("Dear Redis")
    with pytest.raises(TrackerStoreError, match="something else"):
        ours(on_outage="journal", journal_path=str(tmp_path / "letter"))
    assert (tmp_path / "letter").read_text() == "Dear Redis"
    assert ours().outage_journal() is None


def test_a_store_that_the_host_makes_again_in_an_outage_goes_on_with_the_same_journal(
    journaling: Make, call: Call, own_server: RedisServer, tmp_path: Path
) -> None:
    """As Rasa Pro does after any exception."""
    first = journaling()
    chat = Chat(first, call)
    chat.say()
    own_server.kill()
    chat.say()
    chat.store = again = journaling()
    assert again is not first
    chat.say()
    assert again.outage_journal().records == first.outage_journal().records == 2
    assert [path.name for path in tmp_path.glob("journal*")] == ["journal"]
    own_server.start()
    wait_for_replay(again)
    assert times(own_server, "alice") == told(chat.said)
