"""Any sequence of operations leaves the same trackers and the same bytes as the host's own store, side by side.

Hypothesis makes the sequences; ``RASA_EXTRAS_EXAMPLES`` says how many. The stock store works on database 0 and ours on
database 1, each with the other kind of store writing to its database in between. Where ours differs on purpose, what it
promises instead is checked: on Rasa 2 it keeps all events where the stock store overwrites, and everywhere it keeps the
first saved bytes of a user event to which a replay adds entities.
"""

import copy
import json
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set

import redis
from conversations import Script, add, contents, known_here
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import Event
from the_host import IS_PRO, IS_RASA_2

from extras import _rasa

Call = Callable[[Any], Any]
Make = Callable[..., Any]

SENDERS = ["alice", "bob:2", "ünïcode id"]
KINDS = ["new", "turn", "turn", "turn", "full", "stale", "stale again", "put", "other", "keys", "restart", "entities"]
PRO_KINDS = ["update", "delete", "inactive"]


class Step(NamedTuple):
    """One operation. ``drop``: newest events that a PUT leaves out; ``again``: whether it is saved twice.

    ``long``: whether the user says more than the first read of a document's end holds.
    """

    kind: str
    sender: str = "alice"
    seed: int = 0
    session: bool = False
    ending: Optional[str] = None
    hostile: bool = False
    long: bool = False
    again: bool = False
    keep: bool = False
    drop: int = 0


STEPS = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from([*KINDS, *(PRO_KINDS if IS_PRO else [])]),
        sender=st.sampled_from(["alice", *SENDERS]),
        seed=st.integers(0, 99),
        session=st.booleans(),
        ending=st.sampled_from([None, None, "rewind", "undo", "restart"]),
        hostile=st.booleans(),
        long=st.integers(0, 3).map(lambda number: number == 3),
        again=st.booleans(),
        keep=st.booleans(),
        drop=st.integers(0, 3),
    ),
    min_size=1,
    max_size=14,
)


class Side:
    """A database with the store under test, and one of the other kind that writes to it in between."""

    def __init__(self, db: int, store: Make, other: Make) -> None:
        self.db = db
        self.make = store
        self.store = store()
        self.other = other()
        self.kept: Dict[str, Any] = {}


def form(event: Any) -> str:
    """Return text that is the same for the same event, whether or not a replay has added entities to it."""
    fields = copy.deepcopy(event)
    (fields.get("parse_data") or {}).pop("entities", None)
    return json.dumps(fields, sort_keys=True)


def forms(events: Any) -> List[str]:
    """Return the form of each event."""
    return [form(event) for event in events]


class World:
    """Both sides, what they must have in common, and on Rasa 2 what ours must hold."""

    def __init__(self, stock: Make, ours: Make, call: Call, raw: "redis.Redis", domain: Domain, same: Any) -> None:
        self._stock, self._ours, self._call, self._domain, self._same = stock, ours, call, domain, same
        port = raw.connection_pool.connection_kwargs["port"]
        self._databases: List[Any] = [redis.Redis(port=port, db=db) for db in (0, 1)]
        self.sides = [Side(0, stock, lambda: ours(db=0)), Side(1, ours, lambda: stock(db=1))]
        self._script = Script(0)
        self._begin()

    def _begin(self) -> None:
        self._number = 0
        self._expected: Dict[str, List[str]] = {}
        self._with_entities: Set[str] = set()
        for database in self._databases:
            database.flushdb()
        for side in self.sides:
            side.kept.clear()

    def close(self) -> None:
        """Hang up."""
        for database in self._databases:
            database.connection_pool.disconnect()

    def play(self, steps: List[Step]) -> None:
        """Begin with nothing, do the steps on both sides and compare after each."""
        self._begin()
        self._script = Script(len(steps))
        for step in steps:
            self._number += 1
            events = self._events(step)
            for side in self.sides:
                self._same(self._number)
                self._carry_out(side, step, copy.deepcopy(events))
            self._compare(step.sender)
        for sender in {step.sender for step in steps}:
            self._compare_read(sender)

    def _events(self, step: Step) -> List[Dict[str, Any]]:
        script = self._script
        script.random.seed(step.seed)
        events = script.session_start() if step.session else []
        turn = script.turn()
        if not step.hostile:
            turn = [event for event in turn if event["event"] not in ("rewind", "undo", "restart")]
            turn[0].update(text="hello", metadata={})
            turn[0]["parse_data"].update(text="hello", metadata={})
        if step.long:
            turn[0]["text"] = "y" * 20_000
        if step.ending:
            turn.insert(-1, {"event": step.ending, "timestamp": script.action("")["timestamp"]})
        if step.kind == "inactive":
            turn.append({"event": "inactive", "timestamp": script.action("")["timestamp"]})
        return known_here([*events, *turn])

    def _read(self, store: Any, sender: str, whole: bool = False) -> Any:
        full = getattr(store, "retrieve_full_tracker", store.retrieve)
        return self._call((full if whole else store.retrieve)(sender))

    def _exists(self, store: Any, sender: str) -> bool:
        if not hasattr(store, "exists"):  # the stock store of Rasa 2.0
            return self._read(store, sender) is not None
        return bool(self._call(store.exists(sender)))

    def _made(self, store: Any, sender: str) -> Any:
        user = {"user_id": f"user of {sender}"} if IS_PRO and sender != "alice" else {}
        return store.init_tracker(sender, **user)

    def _carry_out(self, side: Side, step: Step, events: List[Dict[str, Any]]) -> None:
        store, sender, kind = side.store, step.sender, step.kind
        tracker: Any = None
        if kind == "keys":
            listed = sorted(map(_bare, self._call(store.keys())))
            assert listed == sorted(name for name in map(_bare, self._stored(side.db)) if name in SENDERS)
            assert self._exists(store, sender) == (sender in listed)
            return
        if kind == "restart":
            side.kept.clear()
            side.store = side.make()
            return
        if kind == "delete":
            self._call(store.delete(sender))
            self._expected.pop(sender, None)
            return
        if kind == "other":
            store = side.other
        elif kind in ("stale", "stale again"):
            tracker = side.kept.get(sender)
        elif kind == "put":
            tracker = self._rebuilt(store, step)
        if tracker is None and kind != "new":
            tracker = self._read(store, sender, whole=kind == "full")
        if tracker is None:
            tracker = self._made(store, sender)
        if kind not in ("stale again", "put") or not tracker.events:
            add(tracker, events)
        self._save(side, store, step, tracker)
        if kind == "entities":
            self._with_entities.add(sender)
            entity = {"entity": "city", "value": f"added {self._number}", "start": 0, "end": 1}
            timestamp = events[-1]["timestamp"] + 0.000001
            user = {
                **events[-1],
                "event": "user",
                "text": "x",
                "parse_data": {"entities": [], "intent": {}, "text": "x"},
            }
            add(tracker, [{**user, "timestamp": timestamp}])
            self._save(side, store, step, tracker)
            tracker = self._read(store, sender, whole=step.drop > 1)
            added = [{"event": "entities", "timestamp": timestamp + 0.000001, "entities": [entity]}]
            add(tracker, known_here(added))
            self._save(side, store, step, tracker)
        if step.keep and store is side.store:
            side.kept[sender] = tracker

    def _rebuilt(self, store: Any, step: Step) -> Any:
        """Return a tracker as ``PUT /conversations/<id>/tracker/events`` makes it, or ``None`` if there is none yet."""
        stored = self._read(store, step.sender, whole=step.again)
        if stored is None:
            return None
        events = [event.as_dict() for event in stored.events]
        kept = events[: len(events) - step.drop] or events
        rebuilt = [Event.from_parameters(copy.deepcopy(event)) for event in kept]
        user = {"user_id": stored.user_id} if IS_PRO else {}
        return _rasa.DialogueStateTracker.from_events(step.sender, rebuilt, self._domain.slots, **user)

    def _save(self, side: Side, store: Any, step: Step, tracker: Any) -> None:
        for _ in range(2 if step.again else 1):
            self._call(store.update(tracker) if step.kind == "update" else store.save(tracker))
        if side.db == 1:
            known = forms(event.as_dict() for event in tracker.events)
            replaces = step.kind == "update" or (IS_RASA_2 and step.kind == "put")
            before = [] if replaces else self._expected.get(step.sender, [])
            self._expected[step.sender] = before + [one for one in known if one not in before]

    def _stored(self, db: int) -> Dict[str, Any]:
        database = self._databases[db]
        keys = sorted(database.keys("*"))
        return {
            key.decode(): database.get(key)
            if database.type(key) == b"string"
            else database.zrange(key, 0, -1, withscores=True)
            for key in keys
        }

    def _compare(self, sender: str) -> None:
        theirs, ours = self._stored(0), self._stored(1)
        assert list(theirs) == list(ours)
        for key in theirs:
            name = _bare(key)
            if name not in SENDERS:
                assert theirs[key] == ours[key]
                continue
            document = json.loads(ours[key])
            assert sorted(forms(document["events"])) == sorted(self._expected[name])
            if self._differs(name, json.loads(theirs[key])):
                continue
            if name in self._with_entities:
                assert _without_entities(theirs[key]) == _without_entities(ours[key])
            else:
                assert theirs[key] == ours[key]
        self._compare_read(sender)

    def _differs(self, sender: str, theirs: Any) -> bool:
        """Return whether the stock store of Rasa 2 has overwritten events that ours keeps."""
        return IS_RASA_2 and sorted(forms(theirs["events"])) != sorted(self._expected[sender])

    def _compare_read(self, sender: str) -> None:
        found = [
            [contents(self._read(store, sender, whole)) for whole in (False, True)]
            for side in self.sides
            for store in (side.store, side.other)
        ]
        assert found[2] == found[3]
        if found[0][1] is None or not self._differs(sender, found[0][1]):
            assert found[0] == found[1] == found[2]
        assert {self._exists(side.store, sender) for side in self.sides} == {found[0][0] is not None}


def _bare(key: Any) -> str:
    name: str = key.decode() if isinstance(key, bytes) else key
    return name[len(_rasa.STOCK_PREFIX) :] if name.startswith(_rasa.STOCK_PREFIX) else name


def _without_entities(document: bytes) -> Any:
    found = json.loads(document)
    return json.dumps({**found, "events": forms(found["events"])})


def test_any_sequence_of_operations(
    stock: Make, ours: Make, call: Call, raw: "redis.Redis", domain: Domain, same_session_ids: Callable[[int], None]
) -> None:
    world = World(stock, ours, call, raw, domain, same_session_ids)

    @settings(
        max_examples=int(os.environ.get("RASA_EXTRAS_EXAMPLES", "100" if IS_PRO or IS_RASA_2 else "200")),
        derandomize=True,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @example([Step("new", session=True, keep=True), Step("turn"), Step("stale", again=True), Step("put", drop=2)])
    @example([Step("turn", session=True), Step("other", session=True), Step("restart"), Step("full"), Step("turn")])
    @example([Step("turn", session=True, long=True), *[Step("turn", session=number == 2) for number in range(6)]])
    @example([Step("turn", session=True), Step("entities"), Step("turn"), Step("full"), Step("other"), Step("turn")])
    @given(STEPS)
    def play(steps: List[Step]) -> None:
        world.play(steps)

    try:
        play()
    finally:
        world.close()
