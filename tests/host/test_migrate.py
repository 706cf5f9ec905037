"""``rasa-extras migrate`` between the host's own stores and ours: all is there, whatever happens in between."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from conversations import Script, add, known_here
from the_host import IS_PRO, IS_RASA_2

from extras import _rasa, _rasa_stores
from extras.bench.server import RedisServer
from extras.bench.shapes import Shape, conversation, recorded_events
from extras.cli.main import main
from extras.cli.migration import Side, digest

Call = Callable[[Any], Any]
CONVERSATIONS = 60 if IS_RASA_2 else 300
OURS = "extras.trackerstore.ExtraRedisTrackerStore"


class Stores:
    """Tracker stores by the names that the tests give them, each with its endpoints.yml."""

    def __init__(self, folder: Path, port: int, domain: Any) -> None:
        self.folder = folder
        self._domain = domain
        self.options: Dict[str, Dict[str, Any]] = {
            "sqlite": {"type": "SQL", "dialect": "sqlite", "db": str(folder / "a.db")},
            "ours": {"type": OURS, "url": "127.0.0.1", "port": port, "db": 1},
            "stock": {"type": "redis", "url": "127.0.0.1", "port": port, "db": 2},
            "ours-again": {"type": OURS, "url": "127.0.0.1", "port": port, "db": 3, "key_prefix": "again"},
            "memory": {},
        }
        self._sides: Dict[str, Side] = {}

    def path(self, name: str) -> str:
        text = json.dumps({"tracker_store": self.options[name]})
        path = self.folder / f"{name}-{hash(text)}.yml"  # Rasa Pro remembers what it has read of a file
        path.write_text(text)
        return str(path)

    def side(self, name: str) -> Side:
        """Return a store to put conversations into, and to look at them."""
        if name not in self._sides:
            config = _rasa_stores.read_endpoint_config(self.path(name), "tracker_store")
            self._sides[name] = Side(_rasa_stores, config)
            self._sides[name].store.domain = self._domain
        return self._sides[name]

    def put(self, name: str, sender_id: str, events: List[Dict[str, Any]]) -> None:
        """Put events on what a store returns of a conversation, and save it, as the assistant does."""
        side = self.side(name)
        tracker = side.wait(side.store.retrieve(sender_id)) or side.store.init_tracker(sender_id)
        add(tracker, events)
        side.wait(side.store.save(tracker))

    def digests(self, name: str) -> Dict[str, str]:
        """Return the digest of every conversation of a store."""
        found = {}
        for sender_id in self.side(name).sender_ids():
            tracker = self.side(name).read(sender_id)
            assert tracker is not None
            found[sender_id] = digest([_rasa.canonical(event.as_dict()) for event in tracker.events])
        return found

    def close(self) -> None:
        for side in self._sides.values():
            side.close()


@pytest.fixture
def stores(tmp_path: Path, server: RedisServer, raw: Any, domain: Any) -> Any:
    found = Stores(tmp_path, server.port, domain)
    yield found
    found.close()


@pytest.fixture
def migrate(stores: Stores, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Move in this process; return the exit code, the report and what was remarked."""

    def run(source: str, target: str, *more: str) -> Any:
        state = str(stores.folder / f"{source}-{target}.state")
        paths = ["--from", stores.path(source), "--to", stores.path(target)]
        capsys.readouterr()  # what the host's stores of these tests have logged
        code = main(["migrate", *paths, "--state", state, "--json", *more])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return run


def fill(stores: Stores, name: str, number: int) -> None:
    """Put conversations of several kinds into a store: the recorded one, hostile ones, some of several sessions."""
    recorded = known_here(recorded_events())
    for at in range(number):
        if at % 10 == 0:
            script = Script(at)
            events = known_here([*script.session_start(), *script.turn(), *script.turn()])
            stores.put(name, f"héllo:{at}", events)
            stores.put(name, f"héllo:{at}", known_here([*script.session_start(), *script.turn()]))
        else:
            stores.put(name, f"id-{at}", conversation(Shape(3 + at % 8), recorded))


def test_sqlite_to_ours_to_stock_redis_to_ours_is_the_same(stores: Stores, migrate: Any) -> None:
    fill(stores, "sqlite", CONVERSATIONS)
    wanted = stores.digests("sqlite")
    assert len(wanted) == CONVERSATIONS
    way = ["sqlite", "ours", "stock", "ours-again"]
    for source, target in zip(way, way[1:]):
        code, report, err = migrate(source, target)
        assert (code, report["moved"], err) == (0, CONVERSATIONS, ""), report
    assert stores.digests("ours-again") == wanted


def test_running_twice_changes_nothing(stores: Stores, migrate: Any, raw: Any, server: RedisServer) -> None:
    fill(stores, "sqlite", 20)
    code, report, _ = migrate("sqlite", "ours", "--dry-run")
    assert (code, report["moved"]) == (0, 20)
    assert stores.digests("ours") == {}
    assert migrate("sqlite", "ours")[0] == 0
    client = type(raw)(port=server.port, db=1)
    before = {key: client.get(key) for key in client.scan_iter()}
    for remembers in (True, False):
        if not remembers:
            (stores.folder / "sqlite-ours.state").unlink()
        code, report, _ = migrate("sqlite", "ours")
        assert (code, report["moved"], report["already_there"]) == (0, 0, 20)
        assert {key: client.get(key) for key in client.scan_iter()} == before
    client.close()
    client.connection_pool.disconnect()


@pytest.mark.parametrize(("source", "target"), [("sqlite", "ours"), ("ours", "sqlite"), ("ours", "stock")])
def test_what_was_written_since_is_added(source: str, target: str, stores: Stores, migrate: Any) -> None:
    fill(stores, source, 15)
    assert migrate(source, target)[0] == 0
    script = Script(7)
    script._now += 10_000_000
    stores.put(source, "héllo:0", known_here(script.turn()))
    stores.put(source, "id-1", known_here([*script.session_start(), *script.turn()]))
    stores.put(source, "new", known_here(script.turn()))
    code, report, _ = migrate(source, target, "--dry-run")
    assert (code, report["moved"], report["already_there"]) == (0, 3, 13)
    code, report, _ = migrate(source, target)
    assert (code, report["moved"], report["already_there"]) == (0, 3, 13), report
    assert stores.digests(target) == stores.digests(source)


def test_what_is_in_the_target_is_never_overwritten(stores: Stores, migrate: Any) -> None:
    script = Script(3)
    start, more, other = (known_here(script.turn()) for _ in range(3))
    for sender_id in ("ahead", "other"):
        stores.put("sqlite", sender_id, start)
    assert migrate("sqlite", "ours")[0] == 0
    stores.put("ours", "ahead", more)
    stores.put("sqlite", "other", more)
    stores.put("ours", "other", other)
    before = stores.digests("ours")
    (stores.folder / "sqlite-ours.state").unlink()
    code, report, _ = migrate("sqlite", "ours")
    assert (code, report["longer_in_the_target"], report["different"]) == (1, 1, 1)
    assert report["reasons"][0]["sender_id"] == "other"
    assert stores.digests("ours") == before


def test_whose_conversation_it_is_moves_along(stores: Stores, migrate: Any) -> None:
    if not IS_PRO:
        return  # which has no users
    side = stores.side("ours")
    tracker = side.store.init_tracker("alice", user_id="u1")
    add(tracker, known_here(Script(2).turn()))
    side.wait(side.store.save(tracker))
    way = ["ours", "sqlite", "stock", "ours-again"]
    for source, target in zip(way, way[1:]):
        assert migrate(source, target)[0] == 0
        assert getattr(stores.side(target).read("alice"), "user_id", None) == "u1"
        found = stores.side(target).wait(stores.side(target).store.get_serialized_trackers_by_user_id("u1"))
        assert [row["sender_id"] for row in found] == ["alice"]


def command(stores: Stores, source: str, target: str, *more: str) -> List[str]:
    state = str(stores.folder / "killed.state")
    paths = ["--from", stores.path(source), "--to", stores.path(target)]
    return [sys.executable, "-W", "ignore", "-m", "extras", "migrate", *paths, "--state", state, "--json", *more]


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_in_the_middle_it_finishes_and_keeps_what_was_written_meanwhile(stores: Stores) -> None:
    fill(stores, "sqlite", 40)
    state = stores.folder / "killed.state"
    script = Script(11)
    script._now += 10_000_000
    with subprocess.Popen(command(stores, "sqlite", "ours", "--rate", "15"), stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while lines_of(state) < 10:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        done = json.loads(state.read_bytes().splitlines()[2])["sender_id"]
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert 0 < len(stores.digests("ours")) < 40
    with state.open("ab") as file:
        file.write(b'{"sender_id": "torn')
    stores.put("sqlite", done, known_here(script.turn()))
    finished = subprocess.run(command(stores, "sqlite", "ours"), stdout=subprocess.PIPE, check=True, timeout=120)
    report = json.loads(finished.stdout.splitlines()[-1])
    assert report["failed"] == report["different"] == 0
    assert stores.digests("ours") == stores.digests("sqlite")


def test_ctrl_c_ends_it_in_good_order_and_the_same_command_goes_on(stores: Stores) -> None:
    fill(stores, "sqlite", 60)
    state = stores.folder / "killed.state"
    with subprocess.Popen(
        command(stores, "sqlite", "ours", "--workers", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background of a shell has it ignored, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        deadline = time.monotonic() + 120
        while lines_of(state) < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert err.decode().splitlines()[-1] == "interrupted; what is done is remembered, the same command goes on"
    assert b"Traceback" not in err
    done = lines_of(state) - 1
    assert 0 < done < 60
    finished = subprocess.run(command(stores, "sqlite", "ours"), stdout=subprocess.PIPE, check=True, timeout=120)
    report = json.loads(finished.stdout.splitlines()[-1])
    assert (report["moved"], report["already_there"]) == (60 - done, done)
    assert stores.digests("ours") == stores.digests("sqlite")


def test_turns_that_are_saved_during_the_move_are_kept(stores: Stores) -> None:
    fill(stores, "ours", 30)
    state = stores.folder / "killed.state"
    script = Script(12)
    script._now += 10_000_000
    with subprocess.Popen(command(stores, "ours", "sqlite", "--rate", "15"), stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while lines_of(state) < 10:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        done = json.loads(state.read_bytes().splitlines()[3])["sender_id"]
        stores.put("ours", done, known_here(script.turn()))
        stores.put("ours", "begun since", known_here(script.turn()))
        assert process.wait(120) == 0
        assert process.stdout is not None
        report = json.loads(process.stdout.read().splitlines()[-1])
    assert report["moved"] == 31
    assert stores.digests("sqlite") == stores.digests("ours")


def test_what_cannot_be_moved_is_told_without_what_was_said(
    stores: Stores, migrate: Any, raw: Any, server: Any
) -> None:
    client = type(raw)(port=server.port, db=1)
    client.set(f"{_rasa.STOCK_PREFIX}broken", '{"events": [{"event": "user", "text": "my secret"')
    client.set(f"{_rasa.STOCK_PREFIX}empty", '{"events": [], "name": "empty"}')
    client.connection_pool.disconnect()
    stores.put("ours", "fine", known_here(Script(1).turn()))
    code, report, err = migrate("ours", "sqlite")
    assert (code, report["moved"], report["failed"]) == (1, 2, 1)
    assert report["reasons"][0]["sender_id"] == "broken"
    assert "secret" not in json.dumps(report) + err


def test_it_gives_up_where_a_store_is_away(stores: Stores, migrate: Any, own_server: RedisServer) -> None:
    fill(stores, "sqlite", 40)
    stores.options["ours"]["port"] = own_server.port
    own_server.stop()
    code, report, _ = migrate("sqlite", "ours", "--workers", "2")
    assert (code, report["gave_up"], report["moved"]) == (1, True, 0)
    assert 20 <= report["failed"] < 40
    own_server.start()
    code, report, _ = migrate("sqlite", "ours")
    assert (code, report["moved"]) == (0, 40)


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("ours", "memory", "--to: the host stores in memory"),
        ("memory", "ours", "has no tracker_store|--from: the host stores in memory"),
        ("ours", "ours", "the same tracker store"),
    ],
)
def test_what_makes_no_sense_is_refused(source: str, target: str, says: str, stores: Stores, migrate: Any) -> None:
    if "memory" in (source, target):
        stores.options["memory"] = {"url": "nowhere"}
    code, report, err = migrate(source, target)
    assert (code, report) == (2, None)
    assert any(part in err for part in says.split("|"))
    assert len(err.splitlines()) == 1


def test_a_state_of_another_move_and_bad_options_are_refused(stores: Stores, migrate: Any) -> None:
    stores.put("sqlite", "alice", known_here(Script(1).turn()))
    assert migrate("sqlite", "ours")[0] == 0
    os.rename(stores.folder / "sqlite-ours.state", stores.folder / "sqlite-stock.state")
    code, _, err = migrate("sqlite", "stock")
    assert code == 2
    assert "between other stores" in err
    stores.options["ours"]["prot"] = 5
    code, _, err = migrate("sqlite", "ours")
    assert code == 2
    assert "did you mean 'port'" in err


def test_events_that_add_to_earlier_ones_are_the_same_afterwards(stores: Stores, migrate: Any) -> None:
    if IS_RASA_2:
        return  # which has no such event in 2.0
    script = Script(5)
    entities = [{"entity": "name", "value": "hi"}, {"entity": "city", "value": "hi"}]
    parsed = {"text": "hi", "intent": {"name": "greet"}, "entities": entities[:1]}
    user = script._event("user", text="hi", parse_data=parsed)
    added = script._event("entities", entities=entities)
    stores.put("sqlite", "alice", [user])
    assert migrate("sqlite", "ours")[0] == 0
    stores.put("sqlite", "alice", [added, script.action("action_listen")])
    code, report, _ = migrate("sqlite", "ours")
    assert (code, report["moved"]) == (0, 1), report
    assert stores.digests("ours") == stores.digests("sqlite")
