"""Random schedules of faults, while two writers write to the same conversations; a seed repeats one."""

import random
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from extras.bench import faults_stores
from extras.bench.faults import FAULTS, Fault
from extras.bench.faults_arena import Arena
from extras.bench.faults_judge import judge
from extras.bench.faults_run import LIMIT_S, Process, judged_data, stored, wait_until, writer

SECONDS = 20.0
WRITERS = ("a", "b")
CONVERSATIONS = ["alice", "bob", "carol"]


class Step(NamedTuple):
    """A fault, injected and healed so many seconds after the start."""

    at_s: float
    fault: Fault
    is_healed: bool


def schedule(seed: str, has_network: bool) -> List[Step]:
    """Return the steps of a seed, in order: one fault of the network and one of the server at a time, or both."""
    choice = random.Random(seed)
    steps: List[Step] = []
    for network in (True, False) if has_network else (False,):
        faults = [fault for fault in FAULTS if fault.is_random and fault.network is network]
        at_s = choice.uniform(0.2, 3)
        while at_s < SECONDS - 0.5:
            until_s = min(at_s + choice.uniform(0.1, 4), SECONDS)
            fault = choice.choice(faults)
            steps += [Step(at_s, fault, False), Step(until_s, fault, True)]
            at_s = until_s + choice.uniform(0.1, 3)
    return sorted(steps, key=lambda step: step.at_s)


def told(steps: List[Step]) -> List[str]:
    """Return steps in words."""
    return [f"{step.at_s:.2f} s {'heal' if step.is_healed else 'inject'} {step.fault.name}" for step in steps]


def run(seed: str, has_network: bool) -> Dict[str, Any]:
    """Carry out a schedule with our store, and return what was lost, doubled or out of order."""
    steps = schedule(seed, has_network)
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder), has_network)
        target = arena.target(False, None)
        writers = [
            Process(arena, name, writer(lambda: faults_stores.open_store("ours", target), name, CONVERSATIONS))
            for name in WRITERS
        ]
        try:
            for process in writers:
                process.listen()
            arena.open()
            for process in writers:
                process.tell(go=True)
            _carry_out(arena, steps)
            counts = [len(process.acknowledged_at) for process in writers]
            is_back = wait_until(
                lambda: all(len(process.acknowledged_at) > count + 6 for process, count in zip(writers, counts)),
                LIMIT_S,
            )
            for process in writers:
                process.tell(stop=True)
            for process in writers:
                wait_until(lambda process=process: not process.open_calls, 6)  # type: ignore[misc]
                process.next(1)
                process.kill()
            acknowledged = {key: ids for process in writers for key, ids in process.acknowledged.items()}
            judged = judge(acknowledged, stored(arena))
            failed = sum("error" in call for process in writers for call in process.calls)
            longest_s = max(call["ended"] - call["begun"] for process in writers for call in process.calls)
            return {
                "seed": seed,
                "is_right": judged.is_right and is_back and judged.acknowledged > 0,
                **judged_data(judged),
                "is_back": is_back,
                "failed_calls": failed,
                "longest_s": longest_s,
                "steps": told(steps),
            }
        finally:
            for process in writers:
                process.kill()
            arena.close()


def _carry_out(arena: Arena, steps: List[Step]) -> None:
    begun = time.monotonic()
    for step in steps:
        time.sleep(max(0.0, begun + step.at_s - time.monotonic()))
        if step.is_healed:
            step.fault.heal(arena)
        else:
            step.fault.inject(arena)
