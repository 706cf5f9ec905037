"""Install the wheel as a user does: into an empty environment, without a compiler, in seconds; then try it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import List, NamedTuple, Optional

from distribution import PROJECT, repair

sys.path.insert(0, str(PROJECT / "demo"))

from interpreters import find_python

PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
LIMIT_S = 15.0
"""Of the processor, so that it is the same on a busy machine."""
PIP = ("-m", "pip", "--disable-pip-version-check", "-q")


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


def without_compiler(python: Path) -> "dict[str, str]":
    """Return an environment of variables in which nothing can be compiled, and the native module must be there."""
    hidden = {"CC", "CXX", "PYTHONPATH"}
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**variables, "PATH": str(python.parent), "EXTRAS_FASTSOCK": "native"}


def install(made: Made, folder: Path) -> List[str]:
    """Install and try a wheel; return what is wrong."""
    python = environment(folder / f"installed-{made.version}", made.interpreter)
    bare = without_compiler(python)
    with subprocess.Popen([str(python), *PIP, "install", str(made.wheel)], env=bare) as installing:
        _, status, used = os.wait4(installing.pid, 0)
        installing.returncode = status
    if status != 0:
        raise subprocess.CalledProcessError(status, installing.args)
    took_s = used.ru_utime + used.ru_stime
    subprocess.run([str(python), *PIP, "check"], env=bare, check=True)
    trial = Path(__file__).with_name("wheel.py")
    subprocess.run([str(python), "-W", "error", str(trial)], env=bare, cwd=folder, check=True)
    print(f"Python {made.version}: {made.wheel.name} installed in {took_s:.1f} s of the processor", flush=True)
    return [f"Python {made.version}: pip took {took_s:.1f} s"] if took_s > LIMIT_S else []
