"""How soon the bare connection classes notice a network that swallows everything, by TCP liveness alone.

Without a read timeout, on real sockets: keepalive notices it on an idle connection, ``TCP_USER_TIMEOUT`` while sent
data is unacknowledged, and keepalive alone does not (RFC 1122, 4.2.3.6; tcp(7)).
"""

import asyncio
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from extras import _redis, connection
from extras.bench.faults_arena import Arena
from extras.bench.faults_contender import Heartbeat
from extras.bench.faults_run import Process

PROBES = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
DEAD_AFTER_S = 4
WATCHED_S = 10.0


class Case(NamedTuple):
    """What is asked of a connection whose network is gone."""

    name: str
    sends: bool
    has_user_timeout: bool
    from_s: Optional[float]
    """When it must be noticed; ``None``: not while it is watched."""
    until_s: float


CASES = [
    Case("idle, keepalive 1/1/3", sends=False, has_user_timeout=True, from_s=3.5, until_s=DEAD_AFTER_S + 1.0),
    Case("in flight, keepalive 1/1/3", sends=True, has_user_timeout=True, from_s=0.0, until_s=DEAD_AFTER_S + 1.0),
    Case("in flight, keepalive alone", sends=True, has_user_timeout=False, from_s=None, until_s=WATCHED_S),
]
KINDS = ("FastConnection", "AsyncFastConnection") if _redis.HAS_ASYNCIO else ("FastConnection",)


def run() -> Dict[str, Any]:
    """Carry out all cases at once, in one network, and return when each noticed."""
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder), has_network=True)
        target = arena.target(False, None)

        def main(orders: Any, tells: int, _heartbeat: Heartbeat) -> None:
            _Watcher(target.host, target.port, orders, tells).run()

        process = Process(arena, "watcher", main)
        try:
            process.listen()
            arena.open()
            process.tell(go="connect")
            if process.next(30) is None:
                raise RuntimeError("the connections are not there in time")
            arena.drop("drop")
            process.tell(go="read")
            noticed: List[Dict[str, Any]] = []
            deadline = time.monotonic() + WATCHED_S
            while time.monotonic() < deadline:
                told = process.next(max(0.0, deadline - time.monotonic()))
                noticed += [told] if told is not None else []
            return {"cases": [_judged(kind, case, noticed) for kind in KINDS for case in CASES]}
        finally:
            process.kill()
            arena.close()


def _judged(kind: str, case: Case, noticed: List[Dict[str, Any]]) -> Dict[str, Any]:
    found = [told for told in noticed if (told["kind"], told["case"]) == (kind, case.name)]
    after_s = found[0]["after_s"] if found else None
    return {
        "connection": kind,
        "case": case.name,
        "error": found[0]["error"] if found else None,
        "message": found[0]["message"] if found else "",
        "after_s": after_s,
        "bound": _bound(case),
        "is_kept": is_kept(case, after_s),
    }


def _bound(case: Case) -> str:
    if case.from_s is None:
        return f"not within {case.until_s:g} s"
    return f"{case.from_s:g} to {case.until_s:g} s" if case.from_s else f"within {case.until_s:g} s"


def is_kept(case: Case, after_s: Optional[float]) -> bool:
    """Whether a case was noticed when it must be."""
    if case.from_s is None:
        return after_s is None
    return after_s is not None and case.from_s <= after_s <= case.until_s


class _Watcher:
    """Connects all, and then reads on all of them at once."""

    def __init__(self, host: str, port: int, orders: Any, tells: int) -> None:
        self._given: Dict[str, Any] = {
            "host": host,
            "port": port,
            "socket_timeout": None,
            "socket_connect_timeout": 5,
            "socket_keepalive_options": PROBES,
        }
        self._orders = orders
        self._tells = tells

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        blocking: List[Any] = [connection.FastConnection(**self._given) for _ in CASES]
        waiting: List[Any] = [getattr(connection, kind)(**self._given) for kind in KINDS[1:] for _ in CASES]
        self._orders.readline()
        for one, case in zip(blocking, CASES):
            one.connect()
            _without_user_timeout(case, one._sock)
        for one, case in zip(waiting, CASES):
            await one.connect()
            _without_user_timeout(case, one._writer.get_extra_info("socket"))
        self._tell(connected=True)
        self._orders.readline()
        begun = time.monotonic()
        for one, case in zip(blocking, CASES):
            threading.Thread(target=self._read, args=(one, case, begun), daemon=True).start()
        await asyncio.gather(*(self._aread(one, case, begun) for one, case in zip(waiting, CASES)))
        time.sleep(WATCHED_S)

    def _read(self, one: Any, case: Case, begun: float) -> None:
        try:
            if case.sends:
                one.send_command("PING")
            one.read_response()
        except Exception as error:
            self._noticed("FastConnection", case, begun, error)

    async def _aread(self, one: Any, case: Case, begun: float) -> None:
        try:
            if case.sends:
                await one.send_command("PING")
            await one.read_response()
        except Exception as error:
            self._noticed("AsyncFastConnection", case, begun, error)

    def _noticed(self, kind: str, case: Case, begun: float, error: Exception) -> None:
        after_s = time.monotonic() - begun
        self._tell(kind=kind, case=case.name, after_s=after_s, error=type(error).__name__, message=str(error))

    def _tell(self, **what: Any) -> None:
        os.write(self._tells, json.dumps(what).encode() + b"\n")


def _without_user_timeout(case: Case, sock: Any) -> None:
    if not case.has_user_timeout:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
