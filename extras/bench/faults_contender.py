"""The process that writes turns while faults happen, and tells what it saw, a JSON object a line.

It is told what to do through a pipe: ``{"turns": 60}`` (write so many, as fast as they go), ``{"go": ...}`` (write
until ``{"stop": ...}``). It tells: ``{"begun": time}`` and ``{"ended": time, "error": ..., "message": ...}`` of each
call of the store, ``{"acknowledged": ids, "of": conversation}`` of each turn, and ``{"done": ...}``. Times are those of
``time.monotonic``, which all processes of a machine share (clock_gettime(2)).
"""

import asyncio
import json
import mmap
import os
import struct
import threading
import time
from contextlib import suppress
from typing import IO, Any, Awaitable, Callable, Dict, List, Optional

from extras.bench.faults_turns import turn
from extras.bench.loop import run_on_server_loop

PACE_S = 0.02
_TICK_S = 0.005


class Heartbeat:
    """What the event loop's ticker leaves in memory shared with the parent, who can read it also if the loop hangs."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 16)

    def write(self, now: float, longest_s: float) -> None:
        """Note a tick."""
        self._shared[:] = struct.pack("dd", now, longest_s)

    def longest_pause_s(self) -> float:
        """Return the longest time between two ticks, or since the last one."""
        last, longest_s = struct.unpack("dd", self._shared[:])
        return max(float(longest_s), time.monotonic() - last - _TICK_S if last else 0.0)


def _waited_for_cpu_s() -> float:
    """Return how long this thread has waited for a processor that others had (Documentation/scheduler/sched-stats)."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


class Contender:
    """Writes turns to some conversations on one store. ``name``: of the writer, the beginning of all its ids."""

    def __init__(
        self, store: Any, name: str, conversations: List[str], told: "IO[str]", tells: int, heartbeat: Heartbeat
    ) -> None:
        self._store = store
        self._name = name
        self._conversations = conversations
        self._told = told
        self._tells = tells
        self._heartbeat = heartbeat
        self._numbers = dict.fromkeys(conversations, 0)
        self._stops = False
        self._is_large = False
        self._longest_pause_s = 0.0

    def run(self) -> None:
        """Do what is told until the pipe ends."""
        run_on_server_loop(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        orders: asyncio.Queue[Optional[Dict[str, Any]]] = asyncio.Queue()

        def listen() -> None:
            for line in self._told:
                order = json.loads(line)
                if "stop" in order:
                    self._stops = True
                loop.call_soon_threadsafe(orders.put_nowait, order)
            self._stops = True
            loop.call_soon_threadsafe(orders.put_nowait, None)

        threading.Thread(target=listen, daemon=True).start()
        ticker = loop.create_task(self._tick())
        while True:
            order = await orders.get()
            if order is None or "stop" in order:
                break
            self._is_large = order.get("large", False)
            self._longest_pause_s = 0.0
            await asyncio.gather(*(self._write(conversation, order) for conversation in self._conversations))
            self._tell(done=True)
        ticker.cancel()
        with suppress(asyncio.CancelledError):
            await ticker
        self._tell(done=True)

    async def _tick(self) -> None:
        while True:
            before, waited_s = time.monotonic(), _waited_for_cpu_s()
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            paused_s = now - before - _TICK_S - (_waited_for_cpu_s() - waited_s)
            self._longest_pause_s = max(self._longest_pause_s, paused_s)
            self._heartbeat.write(now, self._longest_pause_s)

    async def _write(self, conversation: str, order: Dict[str, Any]) -> None:
        left = order.get("turns")
        while not self._stops and (left is None or left > 0):
            tracker = await self._insist(self._store.retrieve, conversation)
            if tracker is None:
                return
            number = self._numbers[conversation]
            self._numbers[conversation] += 1
            is_large, self._is_large = self._is_large, False
            events = turn(f"{self._name}-{conversation}", number, is_large)
            self._store.add(tracker, events)
            if await self._insist(self._store.save, tracker) is None:
                return
            ids = [event.get("text") or event["metadata"]["id"] for event in events]
            self._tell(acknowledged=ids, of=conversation)
            if left is None:
                await asyncio.sleep(PACE_S)
            else:
                left -= 1
                await asyncio.sleep(0)  # a store that blocks gives the ticker no other chance

    async def _insist(self, call: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
        """Repeat a call until it succeeds, or all ends; return something that is not ``None`` if it has."""
        while not self._stops:
            begun = time.monotonic()
            self._tell(begun=begun)
            try:
                result = await call(argument)
            except Exception as error:
                self._tell(begun=begun, ended=time.monotonic(), error=type(error).__name__, message=str(error))
            else:
                self._tell(begun=begun, ended=time.monotonic())
                return True if result is None else result
            await asyncio.sleep(PACE_S)
        return None

    def _tell(self, **what: Any) -> None:
        line = json.dumps(what).encode() + b"\n"
        while line:
            line = line[os.write(self._tells, line) :]
