"""Where faults are planted for ``rasa-extras doctor``: a good server, its file, and what may stand beside them."""

import http.server
import json
import socket
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
import redis
from tls_proxy import Certificates, TlsProxy

from extras.bench.server import RedisServer, free_port
from extras.cli.main import main

PASSWORD = "hunter2-of-redis"
OURS = "extras.trackerstore.ExtraRedisTrackerStore"
GOOD = ["--appendonly", "yes", "--maxmemory", "200mb", "--requirepass", PASSWORD]

Section = Dict[str, Any]


class Place:
    """A good server and what faults do to it and to the file; all of it is undone at the end of a test."""

    def __init__(
        self,
        server: RedisServer,
        folder: Path,
        certificates: Certificates,
        monkeypatch: pytest.MonkeyPatch,
        undo: ExitStack,
    ) -> None:
        self.server = server
        self.folder = folder
        self.certificates = certificates
        self.monkeypatch = monkeypatch
        self.undo = undo
        self.root = self.client(server)

    def client(self, server: RedisServer) -> "redis.Redis":
        """Return a stock client of a server, which is closed when the test ends."""
        client = redis.Redis(port=server.port, password=PASSWORD)
        self.undo.callback(lambda: client.connection_pool.disconnect())  # holds on to the client, which closes in time
        return client

    def store(self, **options: Any) -> Section:
        """Return a good tracker store, with some options changed, or left out for ``...``."""
        section = {"type": OURS, "url": "127.0.0.1", "port": self.server.port, "password": PASSWORD}
        section.update({"socket_timeout": 10, "socket_connect_timeout": 10, **options})  # the machine may be busy
        return {name: value for name, value in section.items() if value is not ...}

    def config(self, name: str, value: str) -> None:
        """Change a setting of the server until the test ends."""
        before = self.root.config_get(name)[name] or ""
        self.root.config_set(name, value)
        self.undo.callback(self.root.config_set, name, before)

    def user(self, *rules: str) -> Dict[str, str]:
        """Make an ACL user; return the options that log it in."""
        self.root.execute_command("ACL SETUSER", "bot", "reset", "resetchannels", "on", f">{PASSWORD}", *rules)
        self.undo.callback(self.root.execute_command, "ACL DELUSER", "bot")
        return {"username": "bot"}

    def own(self, *arguments: str, port: Optional[int] = None) -> RedisServer:
        """Start another server."""
        server = RedisServer(self.folder / f"own-{port}", list(arguments))
        server.port = port or server.port
        return self.undo.enter_context(server)

    def tls(self, certificate: Any = None, client_needs_one: bool = False) -> Section:
        """Return a store that reaches the server through TLS."""
        context = self.certificates.context(certificate or self.certificates.server, client_needs_one)
        proxy = self.undo.enter_context(TlsProxy(context, self.server.port))
        return self.store(port=proxy.port, use_ssl=True, ssl_ca_certs=self.certificates.ca_file)

    def http(self, status: int) -> int:
        """Start an HTTP server that answers every POST with a status; return its port."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self._serve(partial(server.serve_forever, 0.02), server.shutdown, server.server_close)
        return int(server.server_address[1])

    def slow(self, delay_s: float) -> int:
        """Start a proxy that holds every request back; return its port."""
        listener = socket.create_server(("127.0.0.1", 0))
        ending = threading.Event()

        def serve() -> None:
            listener.settimeout(0.05)
            while not ending.is_set():
                with suppress(OSError):
                    client, _ = listener.accept()
                    self._hold_back(client, delay_s, ending)

        self._serve(serve, ending.set, listener.close)
        return int(listener.getsockname()[1])

    def _hold_back(self, client: socket.socket, delay_s: float, ending: threading.Event) -> None:
        with client, socket.create_connection(("127.0.0.1", self.server.port)) as target:
            client.setblocking(False)
            target.setblocking(False)
            while not ending.is_set():
                for source, sink in ((client, target), (target, client)):
                    with suppress(BlockingIOError):
                        data = source.recv(65536)
                        if not data:
                            return
                        time.sleep(delay_s if source is client else 0)
                        sink.sendall(data)
                time.sleep(0.0005)

    def _serve(self, run: Callable[[], None], *ends: Callable[[], Any]) -> None:
        thread = threading.Thread(target=run)
        self.undo.callback(ends[-1])
        self.undo.callback(thread.join)
        for end in ends[:-1]:
            self.undo.callback(end)
        thread.start()

    def own_address(self) -> str:
        """Return an address of this machine that is not its loopback."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect(("192.0.2.1", 9))  # sends nothing
            except OSError:
                pytest.skip("this machine has no address but its loopback")
            return str(sock.getsockname()[0])

    def refused_port(self) -> int:
        """Return a port where nothing listens."""
        return free_port()

    def write(self, endpoints: Any) -> str:
        """Write the file: a mapping (JSON is YAML), or a text; return its path."""
        path = self.folder / "endpoints.yml"
        path.write_text(endpoints if isinstance(endpoints, str) else json.dumps(endpoints), encoding="utf-8")
        return str(path)


def cluster_port() -> int:
    """Return a free port whose cluster bus port, 10,000 above it, is one too."""
    while True:
        port = free_port(below=22000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)), socket.create_server(
            ("127.0.0.1", port + 10000)
        ):
            return port


Report = Tuple[int, List[Dict[str, str]], str]
"""Exit code, findings, and everything that was printed."""


def report(path: str, capsys: "pytest.CaptureFixture[str]") -> Report:
    """Run the command with ``--json``."""
    capsys.readouterr()
    code = main(["doctor", path, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out)["findings"], out + err


def levels(findings: List[Dict[str, str]], *wanted: str) -> Iterator[Dict[str, str]]:
    """Yield the findings of some levels."""
    return (finding for finding in findings if finding["level"] in wanted)
