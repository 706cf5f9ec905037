"""One run: a contender writes turns, a fault comes and is healed, and what happened is judged."""

import json
import os
import queue
import signal
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from extras.bench import faults_namespace as namespace
from extras.bench import faults_stores
from extras.bench.faults import WRONG_PASSWORD, Fault
from extras.bench.faults_arena import Arena
from extras.bench.faults_contender import Contender, Heartbeat
from extras.bench.faults_judge import Judged, event_ids, judge

LIMIT_S = 20.0
"""How long a call, and then the service's return, are waited for."""
WARM_TURNS = 60
_TURNS_AFTER = 10
_SETTLES_S = 0.05
"""What was answered as the fault came may be read a little later."""


class Process:
    """A process on the client's side: what it is told, and what it has told. To be made before any thread is started.

    ``main``: what it does, with a file of orders, the number of the file to tell in, and the shared heartbeat.
    """

    def __init__(self, arena: Arena, name: str, main: Callable[[Any, int, Heartbeat], None]) -> None:
        orders, self._orders = os.pipe()
        self._told, tells = os.pipe()
        self.name = name
        self.heartbeat = Heartbeat()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                namespace.end_with_parent()
                os.close(self._orders)
                os.close(self._told)
                if arena.client_network is not None:
                    arena.client_network.enter()
                with os.fdopen(orders, encoding="utf-8") as lines:
                    main(lines, tells, self.heartbeat)
            except BaseException:
                os.write(tells, json.dumps({"failed": traceback.format_exc()}).encode() + b"\n")
            finally:
                os._exit(0)
        os.close(orders)
        os.close(tells)
        self.calls: List[Dict[str, Any]] = []
        """Calls that have ended."""
        self.open_calls: Dict[float, float] = {}
        """Calls that have not, by when they began."""
        self.acknowledged: Dict[Tuple[str, str], List[str]] = {}
        self.acknowledged_at: List[float] = []
        self._other: queue.Queue[Dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def listen(self) -> None:
        """Begin to take down what it tells."""
        self._reader.start()

    def _read(self) -> None:
        with os.fdopen(self._told, encoding="utf-8") as lines:
            for line in lines:
                told = json.loads(line)
                if "ended" in told:
                    self.open_calls.pop(told["begun"], None)
                    self.calls.append(told)
                elif "begun" in told:
                    self.open_calls[told["begun"]] = told["begun"]
                elif "acknowledged" in told:
                    self.acknowledged.setdefault((told["of"], self.name), []).extend(told["acknowledged"])
                    self.acknowledged_at.append(time.monotonic())
                else:
                    self._other.put(told)

    def tell(self, **order: Any) -> None:
        """Give an order."""
        with suppress(OSError):  # it has ended, which is seen elsewhere
            os.write(self._orders, json.dumps(order).encode() + b"\n")

    def next(self, seconds: float) -> Optional[Dict[str, Any]]:
        """Return what else it tells, ``None`` if that does not come in time."""
        try:
            return self._other.get(timeout=seconds)
        except queue.Empty:
            return None

    def kill(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        if self._reader.is_alive():
            self._reader.join(5)


def wait_until(what: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so; whether it became so in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def writer(store: Callable[[], Any], name: str, conversations: List[str]) -> Callable[[Any, int, Heartbeat], None]:
    """Return the ``main`` of a process that writes turns."""
    return lambda orders, tells, heartbeat: Contender(store(), name, conversations, orders, tells, heartbeat).run()


def run(fault: Fault, contender: str, has_network: bool) -> Dict[str, Any]:
    """Carry out a row with a contender, and return what came of it; units are in the names."""
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder), has_network)
        target = arena.target(fault.by_name, WRONG_PASSWORD if fault.password else None)
        process = Process(arena, "a", writer(lambda: faults_stores.open_store(contender, target), "a", ["alice"]))
        try:
            process.listen()
            arena.open()
            fault.before(arena)
            return _Run(fault, arena, process).carry_out()
        finally:
            process.kill()
            arena.close()


class _Run:
    def __init__(self, fault: Fault, arena: Arena, process: Process) -> None:
        self._fault = fault
        self._arena = arena
        self._process = process

    def carry_out(self) -> Dict[str, Any]:
        fault, process = self._fault, self._process
        if fault.while_client != "starts":
            process.tell(turns=WARM_TURNS)
            told = process.next(60)
            if told is None or "failed" in told:
                raise RuntimeError(f"turns without a fault do not succeed: {told} {process.calls[-3:]}")
        if fault.while_client == "writes":
            process.tell(go=True)
            wait_until(lambda: len(process.acknowledged_at) > WARM_TURNS + 2, 5)
        fault.inject(self._arena)
        injected = time.monotonic()
        if fault.while_client != "writes":
            time.sleep(fault.idle_s)
            process.tell(go=True, large=fault.is_large)
        self._hold(injected)
        during = self._during(injected)
        fault.heal(self._arena)
        healed = time.monotonic()
        count = len(process.acknowledged_at)
        is_back = wait_until(lambda: len(process.acknowledged_at) > count, LIMIT_S)
        back_s = process.acknowledged_at[count] - healed if is_back else None
        if is_back:
            wait_until(lambda: len(process.acknowledged_at) > count + _TURNS_AFTER, 5)
        pause_s = process.heartbeat.longest_pause_s()
        longest_s = self._longest_s(injected)
        process.tell(stop=True)
        wait_until(lambda: not process.open_calls, 3)
        process.next(1)
        process.kill()
        judged = judge(process.acknowledged, stored(self._arena))
        return {**during, "pause_s": pause_s, "longest_s": longest_s, "back_s": back_s, **judged_data(judged)}

    def _hold(self, injected: float) -> None:
        """Wait until the fault has been there long enough, and some call has ended under it, or for too long."""
        again = injected
        begun = time.monotonic()

        def is_over() -> bool:
            nonlocal again
            now = time.monotonic()
            if self._fault.every_s and now - again > self._fault.every_s:
                self._fault.inject(self._arena)
                again = now
            return now - begun > self._fault.holds_s and any(
                call["ended"] > injected + _SETTLES_S for call in self._process.calls[-50:]
            )

        wait_until(is_over, LIMIT_S)

    def _during(self, injected: float) -> Dict[str, Any]:
        """Return what the caller got of the first call that failed, or, where none did, of the slowest."""
        calls = [call for call in list(self._process.calls) if call["ended"] > injected]
        failed = [call for call in calls if "error" in call]
        if failed:
            first = failed[0]
            return {"error": first["error"], "message": first["message"], "after_s": first["ended"] - first["begun"]}
        lasted = [call["ended"] - call["begun"] for call in calls]
        if any(call["ended"] > injected + _SETTLES_S for call in calls):
            return {"error": None, "message": "", "after_s": max(lasted)}
        return {"error": None, "message": "", "after_s": None}  # none has ended

    def _longest_s(self, injected: float) -> float:
        """Return the longest call since the fault came."""
        now = time.monotonic()
        lasted = [call["ended"] - call["begun"] for call in list(self._process.calls) if call["ended"] > injected]
        return max([*lasted, *(now - begun for begun in list(self._process.open_calls.values()))], default=0.0)


def judged_data(judged: Judged) -> Dict[str, int]:
    """Return a verdict as plain data."""
    return dict(judged._asdict())


def stored(arena: Arena) -> Dict[str, List[str]]:
    """Return the ids of all events that the server holds, by conversation."""
    found: Dict[str, List[str]] = {}
    for key in arena.command("KEYS", "*"):
        name = key.decode().rpartition(":")[2]
        if not key.startswith(b"filler:"):
            found[name] = event_ids(json.loads(arena.command("GET", key))["events"])
    return found
