"""A process that talks to one conversation and tells what it did: ``writer.py NUMBER PORT MODE [SAVES]``.

Modes: ``mix`` forks NUMBER children. Each saves so many times as fast as it can, in turn as a Rasa server does
(retrieve, add a turn, save) and as an action server's caller does (keep the tracker, save it several times), and what
its event broker was given is printed, a line for each child.
``insist`` saves until its input ends, each turn again until Redis acknowledges it, and prints each turn then.
``victim`` forks SAVES children one after the other, each of which saves like ``insist``, and kills each in the midst.

Every event has an id of its own: the text of what was said, or the ``id`` in its metadata.
"""

import asyncio
import inspect
import os
import random
import select
import signal
import sys
import time
import traceback
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

import redis
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import Event
from the_host import IS_RASA_2

from extras.trackerstore import ExtraRedisTrackerStore

SAVES_A_SESSION = 125
SAVES_A_TRACKER = [1, 20, 50, 100] if IS_RASA_2 else [1, 1, 1, 2, 5, 20]
"""How often a tracker is saved before it is read anew. Rasa 2 reads from the conversation's beginning."""

SENDER = "alice"
TOLD = os.fdopen(os.dup(1), "w", buffering=1)
"""What this process tells; its standard output is the host's log."""

DOMAIN = {
    "intents": ["greet"],
    "responses": {"utter_greet": [{"text": "hi"}]},
    "session_config": {"session_expiration_time": 60, "carry_over_slots_to_new_session": True},
}


def event_id(event: Dict[str, Any]) -> str:
    """Return the id of an event that a writer made."""
    return str(event["text"] if event["event"] in ("user", "bot") else event["metadata"]["id"])


def session_start(name: str) -> List[Dict[str, Any]]:
    """Return what Rasa adds when a session begins."""
    return [
        _event("action", f"{name}-start", name="action_session_start", policy=None, confidence=1.0),
        _event("session_started", f"{name}-started"),
        _event("action", f"{name}-listen", name="action_listen", policy=None, confidence=1.0),
    ]


def turn(name: str) -> List[Dict[str, Any]]:
    """Return something said, and an answer."""
    parse_data = {"intent": {"name": "greet", "confidence": 1.0}, "entities": [], "text": f"{name}-user"}
    said = {"text": f"{name}-user", "parse_data": parse_data, "input_channel": "rest", "message_id": name}
    return [_event("user", f"{name}-user", **said), _event("bot", f"{name}-bot", text=f"{name}-bot", data={})]


def _event(kind: str, identity: str, **fields: Any) -> Dict[str, Any]:
    return {"event": kind, "timestamp": time.time(), "metadata": {"id": identity}, **fields}


class Broker:
    """Remembers which events it was given."""

    def __init__(self) -> None:
        self.published: List[str] = []

    def publish(self, event: Dict[str, Any]) -> None:
        """Remember ``event``."""
        self.published.append(event_id(event))


class Writer:
    """One store, and the names of the turns that it has still to say."""

    def __init__(self, number: str, port: int) -> None:
        self.number = number
        self.broker = Broker()
        self.random = random.Random(number)
        self.said = 0
        self._loop = asyncio.new_event_loop()
        self._store = ExtraRedisTrackerStore(
            Domain.from_dict(DOMAIN), "127.0.0.1", self.broker, port=port, socket_timeout=10
        )

    def call(self, value: Any) -> Any:
        """Wait for what a host's method returned."""
        return self._loop.run_until_complete(value) if inspect.isawaitable(value) else value

    def retrieve(self) -> Any:
        """Read the conversation, or begin it."""
        return self.call(self._store.retrieve(SENDER)) or self._store.init_tracker(SENDER)

    def add_turn(self, tracker: Any) -> List[str]:
        """Put the next turn on a tracker and return the ids of its events."""
        name = f"{self.number}-{self.said}"
        events = session_start(name) if self.said % SAVES_A_SESSION == 0 else []
        events += turn(name)
        self.said += 1
        for event in events:
            tracker.update(Event.from_parameters(event))
        return [event_id(event) for event in events]

    def save(self, tracker: Any) -> None:
        """Save."""
        self.call(self._store.save(tracker))

    def mix(self, saves: int) -> None:
        """Save so many times."""
        tracker: Optional[Any] = None
        kept = 0
        while self.said < saves:
            if tracker is None or kept == 0:
                tracker = self.retrieve()
                kept = self.random.choice(SAVES_A_TRACKER) if self.said > 9 else 1
            kept -= 1
            self.add_turn(tracker)
            self.save(tracker)

    def insist(self, ends: Callable[[], Any]) -> None:
        """Save until the end, whatever becomes of the server."""
        tracker = self._insist(self.retrieve)
        while not ends():
            if self.said % 7 == 6:
                tracker = self._insist(self.retrieve)
            identities = self.add_turn(tracker)
            self._insist(partial(self.save, tracker))
            print(*identities, file=TOLD)

    def _insist(self, what: Any) -> Any:
        while True:
            try:
                return what()
            except redis.RedisError:
                time.sleep(0.02)

    def close(self) -> None:
        """Close the store."""
        self.call(self._store.close())
        self._loop.close()


def fork(work: Callable[[], None]) -> Tuple[int, int]:
    """Fork a child that does some work; return its process id and where one can read what it tells."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, TOLD.fileno())
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    return child, reading


def mix(number: str, port: int, saves: int) -> None:
    """Save so many times, and print what was published."""
    writer = Writer(number, port)
    writer.mix(saves)
    print(*writer.broker.published, file=TOLD)
    writer.close()


def insist(number: str, port: int) -> None:
    """Save for ever."""
    Writer(number, port).insist(lambda: False)


def main() -> None:
    """Do what the arguments say."""
    os.dup2(2, 1)
    number, port, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if mode == "victim":
        for victim in range(int(sys.argv[4])):
            child, reading = fork(partial(insist, f"{number}.{victim}", port))
            acknowledged = os.read(reading, 65536)
            time.sleep(random.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            with os.fdopen(reading, "rb") as rest:
                acknowledged += rest.read()
            print(acknowledged.decode(), end="", file=TOLD)
    elif mode == "mix":
        failed = False
        for child, reading in [fork(partial(mix, str(each), port, int(sys.argv[4]))) for each in range(int(number))]:
            with os.fdopen(reading, "rb") as told:
                print(told.read().decode(), end="", file=TOLD)
            failed |= os.waitpid(child, 0)[1] != 0
        sys.exit(failed)
    else:
        writer = Writer(number, port)
        print("ready", file=TOLD)
        writer.insist(lambda: select.select([sys.stdin], [], [], 0)[0])
        writer.close()


if __name__ == "__main__":
    main()
