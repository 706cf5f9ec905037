"""The stack of ``deploy/`` does what it is for, and leaves nothing behind; its actions and its consumer, by themselves."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from databases import missing

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RUN_S = 400
"""How long the stack may take: what it does take is three quarters of a minute, on a machine that is not busy."""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the script puts its files; PostgreSQL, which does not run as root, must get there, too."""
    with tempfile.TemporaryDirectory(prefix="stack-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def started(temporary: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-u", str(DEPLOY / "run_here.py")],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes(folder: Path) -> List[str]:
    """Return the commands of all processes that work in a folder, or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command + os.readlink(process / "cwd"):
                found.append(command)
    return found


def test_a_conversation_goes_through_the_whole_stack(temporary: Path) -> None:
    process = started(temporary)
    try:
        said, _ = process.communicate(timeout=RUN_S)
    finally:
        process.terminate()
        process.wait(60)
    print(said)
    if process.returncode == 2:
        missing(said)
    assert process.returncode == 0, said
    for seen in ("(rasa-1: Cup ", "(rasa-2: Cup ", ": 502)", "401 without a login", "each once, in order", "0 failed"):
        assert seen in said
    assert processes(temporary) == []
    assert list(temporary.iterdir()) == []


def test_it_stops_everything_when_it_is_interrupted(temporary: Path) -> None:
    process = started(temporary)
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if "postgresql is well" in line:
                break
        if process.poll() == 2:
            missing(said)
        assert len(processes(temporary)) >= 4, said
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        said += process.stdout.read()
        assert process.wait(60) == 130, said
    finally:
        process.stdout.close()
        process.kill()
        process.wait(60)
    assert processes(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["actions", "events"])
def test_what_is_beside_rasa_works_by_itself(name: str) -> None:
    packages = next((Path(sys.prefix) / "tea-room" / name / "lib").glob("python*/site-packages"))
    environment: Dict[str, str] = {**os.environ, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run(
        [*command, "-c", os.devnull, "."], cwd=DEPLOY / name, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
