"""Who is put through the faults: the installed Rasa's own tracker store for Redis, redis-py alone, and ours.

A failed save is repeated with the same tracker, as a caller would who was told that it failed.
"""

import importlib
import inspect
import json
from typing import Any, Dict, List, NamedTuple, Optional

import redis

from extras import _redis
from extras.bench.missing import Missing
from extras.options import TABLE

CALL_TIMEOUT_S = 5.0
SOCKET_TIMEOUT_S = 2.0

OURS: Dict[str, Any] = {
    name: value
    for name, value in {"socket_timeout": SOCKET_TIMEOUT_S, "call_timeout": CALL_TIMEOUT_S}.items()
    if name in TABLE
}
"""The options that our store is given; all others are the defaults."""

HAS_CALL_TIMEOUT = "call_timeout" in TABLE


class Target(NamedTuple):
    """Where the server is. ``password`` is what the client is given, not what is right."""

    host: str
    port: int
    password: Optional[str]


class HostStore:
    """A tracker store of a Rasa."""

    def __init__(self, kind: Any, target: Target, options: Dict[str, Any]) -> None:
        domain: Any = importlib.import_module("rasa.shared.core.domain").Domain
        self._rebuild: Any = importlib.import_module("extras._rasa").rebuild
        given = {"port": target.port, "password": target.password, **options}
        config = {"intents": ["greet"], "responses": {"utter_greet": [{"text": "hi"}]}}
        config["session_config"] = {"session_expiration_time": 60, "carry_over_slots_to_new_session": True}
        self._store = kind(domain.from_dict(config), host=target.host, **given)

    async def retrieve(self, sender_id: str) -> Any:
        """Return the tracker of a conversation."""
        return await _value(self._store.retrieve(sender_id)) or self._store.init_tracker(sender_id)

    def add(self, tracker: Any, events: List[Dict[str, Any]]) -> None:
        """Put events on a tracker."""
        for event in self._rebuild(events):
            tracker.update(event)

    async def save(self, tracker: Any) -> None:
        """Store a tracker."""
        await _value(self._store.save(tracker))


class RedisPy:
    """redis-py's own client with its defaults, on the same keys and documents: asyncio's where it has one."""

    def __init__(self, target: Target) -> None:
        kind: Any = _redis.redis_asyncio.Redis if _redis.HAS_ASYNCIO else redis.Redis
        self._client = kind(host=target.host, port=target.port, password=target.password)

    async def retrieve(self, sender_id: str) -> Any:
        """Return the document of a conversation."""
        text = await _value(self._client.get(f"tracker:{sender_id}"))
        return {"events": [], "name": sender_id} if text is None else json.loads(text)

    def add(self, tracker: Any, events: List[Dict[str, Any]]) -> None:
        """Put events into a document."""
        tracker["events"] += events

    async def save(self, tracker: Any) -> None:
        """Store a document."""
        await _value(self._client.set(f"tracker:{tracker['name']}", json.dumps(tracker)))


async def _value(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


NAMES = ("stock", "redis-py", "ours")


def load(name: str) -> None:
    """Import what a contender needs, so that its processes need not. Raises :class:`Missing`."""
    if name == "redis-py":
        return
    try:
        importlib.import_module("extras.trackerstore")
    except Exception as error:  # a half-installed Rasa fails in many ways, and all mean the same here
        raise Missing(f"no Rasa that can be loaded here ({type(error).__name__}: {error})") from error


def blocks_the_loop(name: str) -> bool:
    """Whether a contender's calls wait for Redis on the event loop's own thread because its host has no async store."""
    return name != "redis-py" and not importlib.import_module("extras._rasa").IS_ASYNC


def open_store(name: str, target: Target) -> Any:
    """Make a contender's store; it connects at its first call."""
    if name == "redis-py":
        return RedisPy(target)
    if name == "stock":
        return HostStore(importlib.import_module("extras._rasa").StockRedisTrackerStore, target, {})
    return HostStore(importlib.import_module("extras.trackerstore").ExtraRedisTrackerStore, target, OURS)
