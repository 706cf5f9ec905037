"""The group of faults: which runs there are, which cannot be had here, and what they amount to."""

import os
from typing import Any, Dict, List, Optional, Sequence

import redis

from extras.bench import faults_liveness, faults_namespace, faults_run, faults_schedules, faults_stores, machine
from extras.bench.faults import FAULTS, Fault
from extras.bench.faults_jobs import Job, carry_out
from extras.bench.faults_judge import Bounds
from extras.bench.missing import Missing
from extras.bench.progress import Teller
from extras.bench.server import running_server

AT_ONCE = 3
CALL_SLACK_S = 0.3
PAUSE_S = 0.05


def chosen(texts: Optional[Sequence[str]]) -> List[Fault]:
    """Return the faults whose names hold one of these texts. Raises :class:`Missing` where one is in none."""
    for text in texts or []:
        if not any(text in fault.name for fault in FAULTS):
            raise Missing(f"--rows: no fault's name holds {text!r}; there are {', '.join(f.name for f in FAULTS)}")
    return [fault for fault in FAULTS if texts is None or any(text in fault.name for text in texts)]


def steps(rows: Optional[Sequence[str]], contenders: Sequence[str], at_once: int) -> int:
    """Return how many steps the progress of :func:`measure` has at most. Raises as :func:`chosen`."""
    return len(chosen(rows)) * len(contenders) + (rows is None)


def measure(rows: Optional[Sequence[str]], contenders: Sequence[str], at_once: int, teller: Teller) -> Dict[str, Any]:
    """Carry out the rows with each contender, and return everything as plain data; units are in the names.

    Raises :class:`Missing` if no contender can be had.
    """
    _needs_fork()
    teller.say("loading Rasa")
    faults = chosen(rows)
    skipped = _load(contenders)
    present = [name for name in contenders if name not in skipped]
    if not present:
        raise Missing("; ".join(f"{name}: {why}" for name, why in skipped.items()))
    why_no_network = faults_namespace.why_not()
    has_network = why_no_network is None
    not_run = {fault.name: str(why_no_network) for fault in faults if fault.network and not has_network}
    run_here = [fault for fault in faults if fault.name not in not_run]
    jobs = [_job(fault, name, has_network) for fault in run_here for name in present]
    watches = has_network and rows is None
    if watches:
        jobs.append(Job("TCP liveness", faults_liveness.run, is_isolated=True))
    results = carry_out(jobs, at_once, teller.begin)
    liveness = results.pop() if watches else {"cases": []}
    bounds = _bounds() if "ours" in present else None
    _again_alone(jobs, results, teller)
    by_row = [results[start : start + len(present)] for start in range(0, len(results), len(present))]
    return {
        "header": _header(),
        "skipped": skipped,
        "not_run": not_run,
        "bounds": None if bounds is None else str(bounds),
        "rows": [_row(fault, dict(zip(present, found)), bounds) for fault, found in zip(run_here, by_row)],
        "liveness": liveness,
    }


def _needs_fork() -> None:
    if not hasattr(os, "fork"):
        raise Missing(f"faults are injected beside forked processes, which this system ({os.name}) has not")


def _load(contenders: Sequence[str]) -> Dict[str, str]:
    skipped = {}
    for name in contenders:
        try:
            faults_stores.load(name)
        except Missing as error:
            skipped[name] = str(error)
    return skipped


def _job(fault: Fault, contender: str, has_network: bool) -> Job:
    return Job(
        f"{fault.name}: {contender}", lambda: faults_run.run(fault, contender, has_network), is_isolated=has_network
    )


def _again_alone(jobs: Sequence[Job], results: List[Dict[str, Any]], teller: Teller) -> None:
    """Repeat, one by one, runs that may owe a pause of the event loop to those beside them."""
    for number, result in enumerate(results):
        if PAUSE_S < result.get("pause_s", 0.0) < 1.0 and not jobs[number].name.endswith(": stock"):
            results[number] = carry_out([jobs[number]], 1, lambda name: teller.say(f"{name}, alone"))[0]


def _bounds() -> Bounds:
    is_blocking = faults_stores.blocks_the_loop("ours")
    return Bounds(
        call_s=faults_stores.CALL_TIMEOUT_S + CALL_SLACK_S if faults_stores.HAS_CALL_TIMEOUT else None,
        pause_s=None if is_blocking else PAUSE_S,
    )


def _row(fault: Fault, found: Dict[str, Dict[str, Any]], bounds: Optional[Bounds]) -> Dict[str, Any]:
    row: Dict[str, Any] = {"fault": fault.name, "contenders": found}
    if bounds is not None:
        row["broken"] = bounds.broken(found["ours"])
    return row


def _header() -> Dict[str, Any]:
    with running_server() as url:
        client: Any = redis.Redis.from_url(url)
        try:
            return {**machine.describe(client.info()), **machine.versions("rasa", "rasa-pro", "uvloop")}
        finally:
            client.connection_pool.disconnect()


def measure_schedules(count: int, seed: str, at_once: int, teller: Teller) -> Dict[str, Any]:
    """Carry out random schedules with our store. Raises :class:`Missing` if it cannot be had."""
    _needs_fork()
    faults_stores.load("ours")
    why_no_network = faults_namespace.why_not()
    has_network = why_no_network is None
    seeds = [f"{seed}.{number}" for number in range(count)] if count > 1 else [seed]

    def job(one: str) -> Job:
        return Job(f"schedule {one}", lambda: faults_schedules.run(one, has_network), is_isolated=has_network)

    results = carry_out([job(one) for one in seeds], at_once, teller.begin)
    return {
        "header": _header(),
        "without network": why_no_network,
        "schedules": [{"seed": one, **result} for one, result in zip(seeds, results)],
    }


def is_right(data: Dict[str, Any]) -> bool:
    """Whether all that our store promises was kept, of what :func:`measure` or the schedules returned."""
    if "schedules" in data:
        return all(found.get("is_right", False) for found in data["schedules"])
    failed = any("failed" in found for row in data["rows"] for found in row["contenders"].values())
    return not (
        failed
        or any(row.get("broken") for row in data["rows"])
        or "failed" in data["liveness"]
        or not all(case["is_kept"] for case in data["liveness"].get("cases", []))
    )
