"""Let the Rasa of this Python keep a conversation by the installed wheel, as its own start does: from endpoints.yml.

``python store.py FOLDER``: a Redis server is started there. Turn by turn the recorded conversation is read and saved; a
store of its own, as in another process, reads it back; then Redis is killed, and the store has to say so in time.
"""

import asyncio
import importlib
import importlib.util
import inspect
import json
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, List, Optional, Tuple

import redis

from extras import fastsock
from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED

SENDER = "alice"
CALL_S = 5.0
"""``call_timeout``'s default; a busy machine may take as long again."""


def make(endpoints: Path) -> Any:
    """Return the store that Rasa makes; Rasa Pro wraps it."""
    from rasa.shared.core.domain import Domain
    from rasa.utils.endpoints import read_endpoint_config

    pro = importlib.util.find_spec("rasa.core.tracker_stores") is not None
    host = importlib.import_module("rasa.core.tracker_stores.tracker_store" if pro else "rasa.core.tracker_store")
    store = host.TrackerStore.create(read_endpoint_config(str(endpoints), "tracker_store"), Domain.empty())
    return getattr(store, "_tracker_store", store)


async def came(value: Any) -> Any:
    """Return what a method of the store returns, on hosts where it is a coroutine, too."""
    return await value if inspect.isawaitable(value) else value


def known() -> List[Any]:
    """Return the recorded events that this host knows: Rasa 2.0 does not know all of 3.6."""
    from rasa.shared.core.events import Event

    found = []
    for event in json.loads(RECORDED)["events"]:
        with suppress(ValueError):
            found.append(Event.from_parameters(event))
    return found


def spoken(events: List[Any]) -> List[Tuple[str, Optional[str]]]:
    """Return who said what."""
    return [(event.type_name, event.text) for event in events if event.type_name in ("user", "bot")]


async def failure(store: Any, tracker: Any) -> Optional[Exception]:
    """Return what a save fails with."""
    try:
        await came(store.save(tracker))
    except Exception as error:
        return error
    return None


async def keep(server: RedisServer, endpoints: Path) -> int:
    """Carry it all out; return how many events were stored."""
    recorded = known()
    store = make(endpoints)
    assert type(store).__name__ == "ExtraRedisTrackerStore", f"Rasa made a {type(store).__name__} instead"
    starts = [number for number, event in enumerate(recorded) if event.type_name == "user"]
    for first, end in zip([0, *starts], [*starts, len(recorded)]):
        tracker = await came(store.retrieve(SENDER)) or store.init_tracker(SENDER)
        for event in recorded[first:end]:
            tracker.update(event)
        await came(store.save(tracker))

    other = make(endpoints)
    found = await came(other.retrieve(SENDER))
    assert len(spoken(recorded)) == RECORDED.count('"event": "user"') + RECORDED.count('"event": "bot"') > 20
    assert spoken(list(found.events)) == spoken(recorded)
    assert list(await came(other.keys())) == [SENDER]

    server.kill()
    start = time.monotonic()
    error = await failure(store, tracker)
    took_s = time.monotonic() - start
    assert isinstance(error, (redis.ConnectionError, redis.TimeoutError)), repr(error)
    assert took_s < CALL_S * 2, f"{error!r} after {took_s:.1f} s"
    for each in (store, other):
        await came(each.close())
    return len(recorded)


def main() -> None:
    """Start the server, and let Rasa keep the conversation in it."""
    assert fastsock.IMPL == "native", fastsock.IMPL
    folder = Path(sys.argv[1])
    folder.mkdir()
    with RedisServer(folder / "redis") as server:
        endpoints = folder / "endpoints.yml"
        text = f"tracker_store:\n  type: extras.trackerstore.ExtraRedisTrackerStore\n  url: redis://127.0.0.1:{server.port}\n"
        endpoints.write_text(text, encoding="utf-8")
        count = asyncio.run(keep(server, endpoints))
    names = [name for name in ("rasa", "rasa-pro", "redis") if _version(name)]
    said = ", ".join(f"{name} {_version(name)}" for name in names)
    print(f"Python {sys.version.split()[0]}, {said}: {count} events kept and read back", flush=True)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
