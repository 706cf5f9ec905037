"""Carries out runs in processes of their own, some at a time, and leaves none of them behind."""

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

from extras.bench import faults_namespace as namespace

SECONDS_FOR_A_RUN = 120.0


@dataclass
class Job:
    """``work`` is carried out in a process, in namespaces if it ``is_isolated``; its result is plain data."""

    name: str
    work: Callable[[], Dict[str, Any]]
    is_isolated: bool


@dataclass
class _Running:
    index: int
    pid: int
    reading: int
    deadline: float
    said: bytes = b""


def carry_out(jobs: Sequence[Job], at_once: int, say: Callable[[str], None]) -> List[Dict[str, Any]]:
    """Return the results in the order of the jobs; one that failed has ``failed``, with the reason."""
    results: List[Dict[str, Any]] = [{} for _ in jobs]
    waiting = list(enumerate(jobs))
    running: Dict[int, _Running] = {}
    folder = tempfile.mkdtemp(prefix="extras-")  # of this process, so that none is left of one that is killed
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, job = waiting.pop(0)
                say(job.name)
                pid, reading = _start(job, folder)
                running[reading] = _Running(index, pid, reading, time.monotonic() + SECONDS_FOR_A_RUN)
            for reading in select.select(list(running), [], [], 0.2)[0]:
                data = os.read(reading, 65536)
                running[reading].said += data
                if not data:
                    done = running.pop(reading)
                    results[done.index] = _result(done)
            for late in [found for found in running.values() if time.monotonic() > found.deadline]:
                _kill(late)  # its end of the pipe closes
    finally:
        for left in running.values():
            _kill(left)
            _result(left)
        _remove(folder)
    return results


def _start(job: Job, folder: str) -> Tuple[int, int]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        os.setsid()
        os.close(reading)
        tempfile.tempdir = folder
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        result: Dict[str, Any]
        try:
            namespace.end_with_parent()
            if job.is_isolated:
                namespace.isolate()
            result = job.work()
        except BaseException:
            result = {"failed": traceback.format_exc()}
        line = json.dumps(result).encode()
        while line:
            line = line[os.write(writing, line) :]
    finally:
        os._exit(0)


def _remove(folder: str) -> None:
    deadline = time.monotonic() + 5
    while os.path.exists(folder) and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)  # a server that is just being killed may write there
        time.sleep(0.02)


def _kill(run: _Running) -> None:
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)


def _result(run: _Running) -> Dict[str, Any]:
    os.close(run.reading)
    _kill(run)
    os.waitpid(run.pid, 0)
    try:
        return dict(json.loads(run.said))
    except ValueError:
        return {"failed": f"the run took longer than {SECONDS_FOR_A_RUN:.0f} s, or was killed"}
