"""A writer that others overtake goes on from what they have added, and gets on as soon as they leave it one moment."""

import json
import os
from typing import Any, Callable, Dict, List

import pytest
import redis
from conversations import Script, add, contents
from the_host import IS_PRO

from extras import _rasa
from extras.bench.server import RedisServer
from extras.steps import run

Call = Callable[[Any], Any]
Make = Callable[..., Any]

KEY = f"{_rasa.STOCK_PREFIX}alice"
OVERTAKEN = 20


class Overtaking:
    """A client that does something else before each of its first commands, and remembers what it was answered."""

    def __init__(self, client: Any, overtake: Callable[[], None]) -> None:
        self._client, self._overtake = client, overtake
        self.commands: List[str] = []
        self.most_bytes = 0

    def execute_command(self, *command: Any) -> Any:
        """Carry out a command."""
        if len(self.commands) < OVERTAKEN:
            self._overtake()
        self.commands.append(command[0])
        reply = self._client.execute_command(*command)
        if command[0] == "EVALSHA" and isinstance(reply, list) and len(reply) == 3:
            self.most_bytes = max(self.most_bytes, len(reply[2]))
        return reply


@pytest.mark.parametrize("others_begin_sessions", [True, False])
@pytest.mark.parametrize("begins_session", [True, False])
@pytest.mark.parametrize("made_by", ["retrieve", "the host"])
def test_an_overtaken_save_reads_what_was_added_and_ends_when_it_is_left_one_round_trip(
    made_by: str, begins_session: bool, others_begin_sessions: bool, ours: Make, call: Call, server: RedisServer
) -> None:
    client: Any = redis.Redis(port=server.port, db=1)
    script = Script(1)
    store, other = ours(), ours()
    expected: List[float] = []

    def say(tracker: Any, session: bool) -> List[float]:
        start = script.session_start() if session else []
        events = [*start, script.action(f"utter_{script.random.random()}"), script.action("action_listen")]
        add(tracker, events)
        return [event["timestamp"] for event in events]

    tracker = store.init_tracker("alice")
    for _ in range(100):
        expected += say(tracker, False)
    call(store.save(tracker))
    call(store.save(tracker))
    mine, theirs = call(store.retrieve("alice")), call(other.retrieve("alice"))
    if made_by == "the host":
        del mine._extras_stored

    def overtake() -> None:
        expected.extend(say(theirs, others_begin_sessions))
        call(other.save(theirs))

    overtaking: Any = Overtaking(client, overtake)
    for first in ("GET" if made_by == "the host" else "EVALSHA", "EVALSHA"):  # the second time it is known
        new = say(mine, begins_session)
        overtaking.commands.clear()
        run(overtaking, store._save_steps(mine, None))
        expected += new
        assert overtaking.commands == [first] + ["EVALSHA"] * OVERTAKEN
    assert overtaking.most_bytes < 256 + 2_000
    expected += say(theirs, False)
    call(other.save(theirs))
    expected += say(mine, False)
    call(store.save(mine))
    assert [event["timestamp"] for event in json.loads(client.get(KEY))["events"]] == expected
    client.connection_pool.disconnect()


def forms(tracker: Any) -> Any:
    """Return what a tracker holds, with the id of its session."""
    return {**contents(tracker), "session": getattr(tracker, "current_session_id", None)}


def said(script: Script, inactive: bool) -> List[Dict[str, Any]]:
    """Return what a writer adds to a conversation before it saves.

    Either the conversation is ``inactive`` at times or something is taken back: whether an event that is taken back had
    ended the inactivity, only the whole conversation tells.
    """
    events: List[Dict[str, Any]] = []
    if script.random.random() < 0.3:
        events += script.session_start()
    if script.random.random() < 0.8:
        events += [event for event in script.turn() if not (inactive and event["event"] in ("rewind", "undo"))]
    if script.random.random() < 0.3:
        kind = script.random.choice(["inactive", "resume", "session_started", "slot", "action"])
        fields: Dict[str, Dict[str, Any]] = {
            "slot": {"name": "session_started_metadata", "value": {}},
            "action": {"name": "action_session_start"},
        }
        if kind != "inactive" or inactive:
            event = {**script.action(""), "event": kind, **fields.get(kind, {})}
            events.insert(script.random.randrange(len(events) + 1), event)
    return events


if IS_PRO:

    @pytest.mark.parametrize("seed", range(int(os.environ.get("OVERTAKEN_SEEDS", "10"))))
    def test_writers_that_end_each_others_sessions_store_the_bytes_that_the_stock_store_does(
        seed: int, stock: Make, ours: Make, call: Call, server: RedisServer, same_session_ids: Callable[[int], None]
    ) -> None:
        clients: List[Any] = [redis.Redis(port=server.port, db=db) for db in (0, 1)]
        stores = [stock(), ours()]
        script = Script(seed)
        trackers: List[Dict[int, Any]] = [{}, {}]
        for number in range(30):
            writer = script.random.randrange(3)
            events = said(script, inactive=seed % 2 == 0)
            anew, unknown = script.random.random() < 0.2, script.random.random() < 0.1
            for store, kept in zip(stores, trackers):
                same_session_ids(number)
                if anew or writer not in kept:
                    kept[writer] = call(store.retrieve("alice")) or store.init_tracker("alice")
                if unknown and hasattr(kept[writer], "_extras_stored"):
                    del kept[writer]._extras_stored
                add(kept[writer], events)
                call(store.save(kept[writer]))
            assert clients[0].get(KEY) == clients[1].get(KEY), number
            for read in ("retrieve", "retrieve_full_tracker"):
                assert forms(call(getattr(stores[0], read)("alice"))) == forms(call(getattr(stores[1], read)("alice")))
        for client in clients:
            client.connection_pool.disconnect()
