"""Faults of the network and of Redis, on our store in this host: calls end, the loop runs on, nothing is lost.

Bounds of time are wider than those of ``python -m extras.bench --faults`` itself, by what a busy machine may take.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from the_host import IS_PRO

from extras.bench import faults_namespace, faults_stores, recorded
from extras.bench.faults import FAULTS

BUSY_CALL_S = 2.5
"""How much longer a call may take, before anything looks at the time, where other tests run beside."""
BUSY_PAUSE_S = 0.5
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "SQLALCHEMY_SILENCE_UBER_WARNING": "1"}
WHY_NO_NETWORK = faults_namespace.why_not()


ROWS = ("CLIENT KILL", "port refused")
RUNS = {
    "all rows": ("--faults", "--contenders", "ours", "--at-once", "8"),
    "all contenders": ("--faults", "--rows", ",".join(ROWS)),
    **({} if IS_PRO else {"schedules": ("--schedules", "5", "--seed", "1")}),  # once is enough
}
Bench = Callable[[str], Tuple[int, str, Dict[str, Any]]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Wait for a run and return its exit code, what it printed, and its figures. All go by at once: they mostly wait.

    Away from the checkout, so that they are of the installed package.
    """
    folder = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack:
        processes = {}
        for name, arguments in RUNS.items():
            command = [sys.executable, "-m", "extras.bench", *arguments, "--json", f"{name}.json"]
            processes[name] = stack.enter_context(
                subprocess.Popen(
                    command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            stack.callback(processes[name].kill)

        @lru_cache(maxsize=None)
        def wait(name: str) -> Tuple[int, str, Dict[str, Any]]:
            printed, said = processes[name].communicate(timeout=300)
            file = folder / f"{name}.json"
            assert file.exists(), said
            return processes[name].returncode, printed, recorded.as_one(recorded.read(file))

        yield wait


@pytest.fixture
def faults(bench: Bench) -> Dict[str, Any]:
    """All rows for our store."""
    found: Dict[str, Any] = bench("all rows")[2]["faults"]
    return found


def needs_network() -> None:
    if WHY_NO_NETWORK is not None:
        pytest.skip(WHY_NO_NETWORK)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_our_store_under(fault: Any, faults: Dict[str, Any]) -> None:
    if fault.network:
        needs_network()
    row = next(row for row in faults["rows"] if row["fault"] == fault.name)
    found = row["contenders"]["ours"]
    assert "failed" not in found, found["failed"]
    assert (found["lost"], found["doubled"], found["disordered"]) == (0, 0, 0)
    assert found["acknowledged"] > 20
    assert found["back_s"] is not None
    if faults_stores.HAS_CALL_TIMEOUT:
        assert found["longest_s"] < faults_stores.CALL_TIMEOUT_S + 0.3 + BUSY_CALL_S
    assert found["pause_s"] < BUSY_PAUSE_S


HANGS = {
    "blackhole, idle connection",
    "blackhole, data in flight",
    "zero window, large write",
    "link down",
    "server frozen (SIGSTOP)",
    "CLIENT PAUSE of 6 s",
    "name server silent",
}


@pytest.mark.parametrize("name", sorted(HANGS))
def test_what_hangs_ends_in_a_timeout(name: str, faults: Dict[str, Any]) -> None:
    if next(fault for fault in FAULTS if fault.name == name).network:
        needs_network()
    found = next(row for row in faults["rows"] if row["fault"] == name)["contenders"]["ours"]
    assert "Timeout" in str(found["error"])
    assert 1 < found["after_s"] < faults_stores.CALL_TIMEOUT_S + 0.3 + BUSY_CALL_S


def test_tcp_liveness(faults: Dict[str, Any]) -> None:
    needs_network()
    cases = faults["liveness"]["cases"]
    assert len(cases) == 6
    for case in cases:
        if case["bound"].startswith("not"):
            assert case["after_s"] is None
        else:
            assert 3.3 < case["after_s"] < 5 + BUSY_CALL_S, case


@pytest.mark.skipif("schedules" not in RUNS, reason="once is enough, in Rasa 3")
def test_random_schedules_lose_and_double_nothing(bench: Bench) -> None:
    code, printed, data = bench("schedules")
    assert [found["seed"] for found in data["schedules"]["schedules"]] == [f"1.{number}" for number in range(5)]
    assert data["schedules"]["without network"] == WHY_NO_NETWORK
    assert code == 0, printed


def test_the_printed_table_is_that_of_the_figures(bench: Bench) -> None:
    code, text, data = bench("all contenders")
    found = data["faults"]
    assert [row["fault"] for row in found["rows"]] == ["CLIENT KILL, ten a second", "port refused"]
    assert code == (1 if any(row["broken"] for row in found["rows"]) else 0), text
    printed = [_cells(line) for line in text.splitlines() if line.startswith("| ")]
    assert printed[0][0] == "Fault"
    for row, cells in zip(found["rows"], printed[2:]):
        assert cells[0] == row["fault"]
        for number, name in enumerate(("stock", "redis-py", "ours")):
            ends, _pause, lost, _back = cells[1 + number * 4 : 5 + number * 4]
            result = row["contenders"][name]
            assert ends.startswith(result["error"] or str(result["after_s"])[:1])
            assert lost.startswith(f"{result['lost']}, {result['doubled']}")
        assert cells[-1] == (", ".join(row["broken"]) or "yes")
    for value in found["header"].values():
        assert str(value) in text


def _cells(line: str) -> List[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_process(tmp_path: Path, stop: signal.Signals) -> None:
    needs_network()  # without, a killed run leaves its servers
    command = [sys.executable, "-m", "extras.bench", "--faults", "--contenders", "redis-py", "--rows", "frozen,RST"]
    with tempfile.TemporaryDirectory() as folder:  # the path of a Unix socket is short
        stopped(command, folder, tmp_path, stop)
        if stop == signal.SIGINT:
            assert os.listdir(folder) == []


def stopped(command: List[str], folder: str, tmp_path: Path, stop: signal.Signals) -> None:
    environment = {**ENVIRONMENT, "TMPDIR": folder}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "frozen" in line:
                break
        _until(lambda: len(_descendants(process.pid)) > 6)
        inside = _descendants(process.pid)
        process.send_signal(stop)
        process.stderr.read()
        assert process.wait(60) == (128 + stop if stop == signal.SIGINT else -stop)
    _until(lambda: not [pid for pid in inside if _runs(pid)])


def _until(what: Any) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _descendants(pid: int) -> List[int]:
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(entry.name) == pid:
            children.append(int(entry.name))
    return [*children, *(further for child in children for further in _descendants(child))]


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
