"""Makes the builds, and then fuzzes, in a process beside the other jobs: they take one processor, this the other.

``python background.py FOLDER replies=30 json=15`` touches ``FOLDER/built``, then writes to ``FOLDER/replies.json`` what
came of so many seconds, and so on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional

import builds

PATIENCE_S = 300


class Background:
    """That process, as the jobs see it."""

    def __init__(self, folder: Path, seconds: Dict[str, int]) -> None:
        self._folder = folder
        self._said = folder / "background.txt"
        shares = [f"{target}={share}" for target, share in seconds.items()]
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(folder), *shares],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it ends with all that it has started
            )

    def wait_for(self, name: str) -> Path:
        """Wait until a file is there."""
        deadline = time.monotonic() + PATIENCE_S
        while not (self._folder / name).exists():
            if self._process.poll() is not None and not (self._folder / name).exists():
                raise AssertionError(f"no {name}: {self._said.read_text(errors='replace')}")
            assert time.monotonic() < deadline, f"no {name} in {PATIENCE_S} s"
            time.sleep(0.05)
        return self._folder / name

    def fuzzed(self, target: str) -> Dict[str, Any]:
        """Return what came of a target: ``status``, ``said``, and ``inputs`` that crashed, hung or took too much."""
        found: Dict[str, Any] = json.loads(self.wait_for(f"{target}.json").read_text())
        return found

    def end(self) -> None:
        """End it, where the jobs have ended before it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def fuzzed(
    target: str, seconds: int, corpus: Path, fault: str = "", seed: Optional[bytes] = None
) -> "subprocess.CompletedProcess[str]":
    """Fuzz a target for so long, and return what was printed."""
    more: List[str] = [] if seed is None else ["--seed", seed.hex()]
    command = [sys.executable, str(builds.HERE / "fuzz.py"), target, str(seconds), "--corpus", str(corpus), *more]
    return builds.run(command, builds.sanitizing(fault), seconds + 120)


def main() -> None:
    folder = Path(sys.argv[1])
    builds.all_builds()
    (folder / "built").touch()
    for given in sys.argv[2:]:
        target, _, seconds = given.partition("=")
        done = fuzzed(target, int(seconds), folder / f"{target}-corpus" / "kept")
        inputs = [path.read_bytes().hex() for path in (folder / f"{target}-corpus").glob("failed-*")]
        written = folder / f"{target}.written"
        written.write_text(json.dumps({"status": done.returncode, "said": done.stdout, "inputs": inputs}))
        written.rename(folder / f"{target}.json")  # never half a file


if __name__ == "__main__":
    main()
