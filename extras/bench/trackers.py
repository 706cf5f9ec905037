"""The tracker stores that are measured: the installed Rasa's own for Redis, and ours, on one and the same key."""

import copy
import inspect
import random
import uuid
from functools import partial
from typing import Any, Callable, Dict, List, Optional

import redis
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import Event
from rasa.shared.utils.common import all_subclasses

from extras import _rasa
from extras.bench import shapes
from extras.bench.interleaved import shuffled
from extras.bench.shapes import Shape
from extras.configured import sync_client
from extras.errors import OptionError
from extras.options import Options, parse
from extras.trackerstore import ExtraRedisTrackerStore

MOST_STOCK_EVENTS = 20_000
"""Longest conversation that the stock store is measured on: a turn of 100,000 events takes it minutes."""

_STOCK = "stock"

_DOMAIN = {
    "intents": ["greet", "goodbye", "affirm", "deny", "mood_great", "mood_unhappy", "bot_challenge"],
    "responses": {
        f"utter_{name}": [{"text": name}]
        for name in ("greet", "cheer_up", "did_that_help", "happy", "goodbye", "iamabot")
    },
    "session_config": {"session_expiration_time": 60, "carry_over_slots_to_new_session": True},
}


def server_options(url: str) -> Options:
    """Read a ``redis://`` or ``rediss://`` URL. Raises ``OptionError``."""
    options = parse({"url": url, "socket_timeout": 60})
    if options.unix_path:
        raise OptionError("url: the stock store knows no Unix sockets; use redis:// or rediss://")
    return options


class TrackerSide:
    """One store on one conversation; see :class:`extras.bench.rounds.Side`."""

    def __init__(self, name: str, store: Any, sender_id: str, turn: List[Dict[str, Any]]) -> None:
        self.name = name
        self.is_quick = name != _STOCK
        self._store = store
        self._sender_id = sender_id
        self._turn = turn

    def events(self, number: int = 0) -> List[Any]:
        """Return the events of a turn, as new objects; those of turn 1 come after those of turn 0."""
        events = copy.deepcopy(self._turn)
        for event in events:
            event["timestamp"] += number * 3600.0
        return _rasa.rebuild(events)

    async def retrieve(self) -> Any:
        """Return the tracker, as Rasa reads it at the beginning of a turn."""
        found = self._store.retrieve(self._sender_id)
        return await found if _rasa.IS_ASYNC else found

    def add(self, tracker: Any, events: List[Any]) -> None:
        """Put events on a tracker, as Rasa does one by one during a turn."""
        for event in events:
            tracker.update(event)

    async def save(self, tracker: Any) -> None:
        """Store a tracker, as Rasa does at the end of a turn."""
        saved = self._store.save(tracker)
        if _rasa.IS_ASYNC:
            await saved

    def contents(self, tracker: Any) -> Dict[str, Any]:
        """Return what a tracker holds, in a form that can be compared."""
        return {
            "events of the tracker": [event.as_dict() for event in tracker.events],
            "slots": {name: slot.value for name, slot in tracker.slots.items()},
            "latest message": None if tracker.latest_message is None else tracker.latest_message.as_dict(),
            "latest action": tracker.latest_action_name,
        }


def _recorded_events() -> List[Dict[str, Any]]:
    """Return the recorded conversation, as far as this host knows the kinds of its events."""
    kinds = {kind.type_name for kind in all_subclasses(Event)}
    return [event for event in shapes.recorded_events() if event["event"] in kinds]


class Lone:
    """Our store by itself with a user's options, on one conversation, which ``close`` deletes.

    Raises ``TrackerStoreError`` for wrong options.
    """

    def __init__(self, options: Dict[str, Any], sender_id: str) -> None:
        self._store: Any = ExtraRedisTrackerStore(Domain.from_dict(_DOMAIN), **options)
        self._options = parse(options)
        self._sender_id = sender_id

    async def prepared(self, shape: Shape) -> TrackerSide:
        """Store a conversation, and return what has turns on it."""
        recorded = _recorded_events()
        side = TrackerSide("ours", self._store, self._sender_id, shapes.next_turn(shape, recorded))
        tracker = self._store.init_tracker(self._sender_id)
        side.add(tracker, _rasa.rebuild(shapes.conversation(shape, recorded)))
        await side.save(tracker)
        return side

    async def close(self) -> None:
        """Delete the conversation and close all connections."""
        client: Any = sync_client(self._options)
        try:
            client.delete(self._store.key_prefix + self._sender_id)
        finally:
            client.connection_pool.disconnect()
            closed = self._store.close()
            if _rasa.IS_ASYNC:
                await closed


class Document:
    """The stored document under measurement; see :class:`extras.bench.rounds.Stored`.

    The server keeps a copy that it is put back from: to send 40 MB would leave the client's CPU caches cold.
    """

    def __init__(self, client: Any, key: str, copy_key: str, text: bytes) -> None:
        self.key = key
        self._client: Any = client
        self._copy_key = copy_key
        client.set(copy_key, text)

    def reset(self) -> None:
        """Put the document back to what it was before the first turn."""
        try:
            self._client.execute_command("COPY", self._copy_key, self.key, "REPLACE")
        except redis.ResponseError:  # before Redis 6.2
            self._client.set(self.key, self._client.get(self._copy_key))

    def read(self) -> Optional[bytes]:
        """Return the document as it is now."""
        text: Optional[bytes] = self._client.get(self.key)
        return text


class Trackers:
    """Both stores on one server, below a key prefix of this run, where the host has prefixes; ``close`` cleans up.

    ``again``: ours twice, without the host's. Raises redis-py's errors if the server cannot be reached.
    """

    def __init__(self, options: Options, again: bool = False) -> None:
        run = uuid.uuid4().hex[:12]
        self._sender_id = f"extras-bench-{run}"
        self.client: Any = sync_client(options)
        self.client.ping()
        given = {
            "port": options.port,
            "db": options.db,
            "username": options.username,
            "password": options.password,
            "use_ssl": options.use_ssl,
            "ssl_keyfile": options.ssl_keyfile,
            "ssl_certfile": options.ssl_certfile,
            "ssl_ca_certs": options.ssl_ca_certs,
            "key_prefix": f"extrasbench{run}",
        }
        known = inspect.signature(_rasa.StockRedisTrackerStore.__init__).parameters
        given = {name: value for name, value in given.items() if name in known and value is not None}
        domain = Domain.from_dict(_DOMAIN)
        stock: Callable[[], Any] = partial(_rasa.StockRedisTrackerStore, domain, host=options.url, **given)
        ours: Callable[[], Any] = partial(ExtraRedisTrackerStore, domain, options.url, **given)
        self._makers = {"ours": ours, "ours again": ours} if again else {_STOCK: stock, "ours": ours}
        self._stores = {name: make() for name, make in self._makers.items()}
        self._writer = stock()  # of the documents; it never connects
        self._recorded = _recorded_events()
        self._key: str = self._stores["ours"].key_prefix + self._sender_id
        self._keys = {self._key}

    async def renew(self, draw: random.Random) -> None:
        """Close the stores and make others, in an order that is drawn; ``sides`` has the new ones."""
        await self._close_stores()
        for name in shuffled(list(self._makers), draw):
            self._stores[name] = self._makers[name]()

    def sides(self, shape: Shape) -> List[TrackerSide]:
        """Return the stores to measure on a shape: stock, unless that would take minutes, and ours."""
        turn = shapes.next_turn(shape, self._recorded)
        return [
            TrackerSide(name, self._stores[name], self._sender_id, turn)
            for name in self._makers
            if name != _STOCK or shape.events <= MOST_STOCK_EVENTS
        ]

    def untimed_turns(self, shape: Shape) -> int:
        """Return how many turns complete what :meth:`document` returns to a conversation of this shape."""
        return shapes.untimed_turns(shape, self._recorded)

    def document(self, shape: Shape) -> Document:
        """Return what precedes those turns, in the bytes in which the stock store of this host writes it."""
        tracker = self._writer.init_tracker(self._sender_id)
        events = shapes.conversation(shapes.before_untimed_turns(shape, self._recorded), self._recorded)
        for event in _rasa.rebuild(events):
            tracker.update(event)
        text = _rasa.serialise(self._writer, tracker).encode()
        copy_key = f"{self._key}:{shape.events}:{shape.session}"
        self._keys.add(copy_key)
        return Document(self.client, self._key, copy_key, text)

    async def close(self) -> None:
        """Delete the keys of this run and close all connections."""
        try:
            self.client.delete(*self._keys)
        finally:
            await self._close_stores()
            self.client.connection_pool.disconnect()

    async def _close_stores(self) -> None:
        while self._stores:
            name, store = self._stores.popitem()
            if name != _STOCK:
                closed = store.close()
                if _rasa.IS_ASYNC:
                    await closed
            elif hasattr(store, "red"):
                store.red.connection_pool.disconnect()
