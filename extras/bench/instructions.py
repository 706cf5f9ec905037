"""How many instructions an operation takes its client, by valgrind's callgrind: a figure that no noise reaches.

Of the client's process alone, all its threads, without the kernel's. The difference of few and many operations is
taken, so that what is done around them does not count. See the Valgrind manual, "Callgrind", for the tool.
"""

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional

from extras.bench import groups
from extras.bench.missing import Missing
from extras.bench.peers import BASELINE
from extras.bench.progress import Teller
from extras.bench.server import running_server
from extras.bench.text import table

CASES = ("GET 100 B", "SET 10 KB", "pipeline of 50 SET 100 B")
FEW, MANY = 20, 120
ANSWER_S = 120
_NOT_COUNTED = ("C hiredis", "redis-py, no hiredis")
"""Another program, and what would take longest."""


def steps(names: List[str]) -> int:
    """Return how many steps the progress of :func:`measure` has."""
    return sum(len(groups.GROUPS[name].openers) - len(_NOT_COUNTED) for name in names)


def measure(names: List[str], teller: Teller) -> Dict[str, Any]:
    """Count for the clients of groups; return instructions of an operation, by group, case and side.

    Raises :class:`Missing` if valgrind is, or cannot be told to count.
    """
    for program in ("valgrind", "callgrind_control"):
        if shutil.which(program) is None:
            raise Missing(f"--instructions needs {program}; install valgrind")
    found: Dict[str, Any] = {}
    with running_server() as url:
        for name in names:
            cases: Dict[str, Dict[str, float]] = {case: {} for case in CASES}
            for side in groups.GROUPS[name].openers:
                if side in _NOT_COUNTED:
                    continue
                teller.begin(f"{side}: counting instructions")
                for case, count in _counts(name, side, url):
                    cases[case][side] = count
            found[name] = {case: counts for case, counts in cases.items() if counts}
    return found


def _counts(group: str, side: str, url: str) -> Iterator["tuple[str, float]"]:
    """Yield the cases that a side can do, and what an operation of each takes; none if the side is not there."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="extras-callgrind-")))
        command = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no"]
        command += [f"--callgrind-out-file={folder / 'out'}", sys.executable, "-m", "extras.bench.counted"]
        process = subprocess.Popen(
            [*command, group, side, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
        )
        stack.callback(_end, process)
        if _line(process.stdout) != "ready":
            return
        _control(process.pid, "--instr=on")
        dumps = 0
        for case in CASES:
            totals = []
            for operations in (FEW, FEW, MANY):  # the first also does what is done once only
                print(f"{case}\t{operations}", file=process.stdin, flush=True)
                if _line(process.stdout) != "done":
                    break
                _control(process.pid, "--dump")
                dumps += 1
                totals.append(_total(folder / f"out.{dumps}"))
            if len(totals) == 3:
                yield case, (totals[2] - totals[1]) / (MANY - FEW)


def _end(process: "subprocess.Popen[str]") -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _line(stream: Optional[IO[str]]) -> str:
    return "" if stream is None else stream.readline().strip()


def _control(pid: int, request: str) -> None:
    try:
        done = subprocess.run(
            ["callgrind_control", request, str(pid)], capture_output=True, text=True, check=False, timeout=ANSWER_S
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"--instructions: callgrind does not answer within {ANSWER_S} s") from error
    if done.returncode != 0 or "OK." not in done.stdout:
        raise Missing(
            f"--instructions: callgrind cannot be told to count: {done.stderr.strip() or done.stdout.strip()}"
        )


def _total(dump: Path) -> int:
    for line in dump.read_text(encoding="utf-8").splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise Missing(f"--instructions: callgrind has written no total to {dump.name}")


def as_text(counted: Dict[str, Any]) -> str:
    """Return a table of each group: instructions of an operation, and how many times fewer than redis-py's."""
    texts = []
    for name, cases in counted.items():
        sides = list(dict.fromkeys(side for counts in cases.values() for side in counts))
        rows = [["case", *sides]]
        for case, counts in cases.items():
            rows.append([case, *(_cell(counts, side) for side in sides)])
        texts.append(f"{groups.GROUPS[name].title}: instructions of an operation, without the kernel's\n{table(rows)}")
    return "\n\n".join(texts)


def _cell(counts: Dict[str, float], side: str) -> str:
    if side not in counts:
        return "-"
    fewer = f" {counts[BASELINE] / counts[side]:.2f}x" if BASELINE in counts else ""
    return f"{counts[side]:,.0f}{fewer}"
