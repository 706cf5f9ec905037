"""Talk to the store as Rasa does, in a process of its own: ``turns.py write`` replays the recorded conversation turn by
turn, ``turns.py read`` prints what a fresh process finds. Run by ``demo/run.py``, in the demo's environment.
"""

import asyncio
import importlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Dict, List

from extras.bench.shapes import RECORDED

warnings.showwarning = lambda *_, **__: None  # the host's own deprecations, whose filters it sets itself
logging.basicConfig(format="      log: %(message)s")
logging.getLogger("extras").setLevel(logging.INFO)

DEMO = Path(__file__).parent
SENDER = "alice"


def load_store() -> Any:
    """Build the store as Rasa's own start does: from endpoints.yml, by TrackerStore.create."""
    from rasa.shared.core.domain import Domain
    from rasa.utils.endpoints import read_endpoint_config

    pro = importlib.util.find_spec("rasa.core.tracker_stores") is not None
    host = importlib.import_module("rasa.core.tracker_stores.tracker_store" if pro else "rasa.core.tracker_store")
    endpoint = read_endpoint_config(str(DEMO / "endpoints.yml"), "tracker_store")
    store = host.TrackerStore.create(endpoint, Domain.load(str(DEMO / "domain.yml")))
    return getattr(store, "_tracker_store", store)  # Rasa Pro wraps it


def turns(events: List[Dict[str, Any]]) -> List[List[Dict[str, Any]]]:
    """Split the recorded events before each thing the user said."""
    split: List[List[Dict[str, Any]]] = [[]]
    for event in events:
        if event["event"] == "user":
            split.append([])
        split[-1].append(event)
    return split


async def write(store: Any) -> None:
    """Replay the conversation: one retrieve and one save a turn, as a message to Rasa does."""
    from rasa.shared.core.events import Event

    took_ms = []
    for turn in turns(json.loads(RECORDED)["events"]):
        start = time.perf_counter()
        tracker = await store.retrieve(SENDER) or store.init_tracker(SENDER)
        for event in turn:
            tracker.update(Event.from_parameters(event))
        await store.save(tracker)
        took_ms.append((time.perf_counter() - start) * 1000)
        print(f"\r      save {len(took_ms):2}: {len(tracker.events):3} events", end="", flush=True)
    median_ms = sorted(took_ms)[len(took_ms) // 2]
    print(f"\n      median of retrieve + save {median_ms:.1f} ms, store {type(store).__qualname__}")
    _show_kernel_timer()


def _show_kernel_timer() -> None:
    """Let ``ss`` show the keepalive timer of the open connection; that it needs no help of ours is the point."""
    if shutil.which("ss") is None:
        return
    port = os.environ["REDIS_PORT"]
    listed = subprocess.run(
        ["ss", "-Htno", "state", "established", f"( dport = :{port} )"], capture_output=True, text=True, check=False
    )
    print(f"      ss -o: {' '.join(listed.stdout.split()) or 'nothing listed'}")


async def read(store: Any) -> None:
    """Print the conversation as a chat, and compare the document with the recorded one."""
    tracker = await store.retrieve(SENDER)
    for event in tracker.events:
        who = {"user": "alice", "bot": "  bot"}.get(event.type_name)
        if who and event.text:
            print(f"      {who}: {event.text}")
    from extras import fastsock

    client = store._async.current()
    document = (await client.execute_command("GET", f"{store.key_prefix}{SENDER}")).decode()
    print(f"      the document has {len(document):,} bytes")
    if os.environ["DEMO_HOST"].startswith("rasa-3.6"):  # the version that it was recorded with
        if document != RECORDED:
            raise SystemExit("the stored document differs from the recorded one")
        print("      and is byte for byte the one that Rasa's own store wrote")
    keepalive = client.shared_connection().connection.keepalive
    print(f"      kernel ({fastsock.IMPL}): {keepalive}")
    print(f"      a dead peer is noticed after {keepalive.dead_after_s} s of silence")


async def _main() -> None:
    store = load_store()
    if type(store).__name__ != "ExtraRedisTrackerStore":
        raise SystemExit(f"Rasa made a {type(store).__name__} instead")
    await {"write": write, "read": read}[sys.argv[1]](store)
    await store.close()


asyncio.run(_main())
