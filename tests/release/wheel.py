"""Try an installed wheel, without Rasa, a server or a test tool: ``python tests/release/wheel.py [COMMAND ...]``.

Run by cibuildwheel for every wheel that is released, and by the cell ``build``; the native module must be there.
``COMMAND``: a Redis server to start, for commands beside the native calls.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib import metadata
from typing import List

from extras import fastsock
from extras._version import VERSION
from extras.client import FastRedis
from extras.keepalive import Keepalive

STARTS_S = 30


def try_native() -> None:
    """Let each part of the native module do something, on a real socket where it is about one."""
    assert fastsock.IMPL == "native", fastsock.IMPL
    assert metadata.version("rasa-extras") == VERSION
    wanted = Keepalive(True, 30, 5, 3, 45_000).only(list(fastsock.SPELLING))
    with socket.socket() as tcp:
        fastsock.apply_keepalive(tcp.fileno(), wanted)
        held = fastsock.read_keepalive(tcp.fileno())
        assert held.enabled, held
        assert os.name != "posix" or held == wanted, (held, wanted)
    document = {"events": [{"event": "user", "text": "caf\u00e9 \U0001f600", "timestamp": 1.5e9}] * 100, "name": "a"}
    text = json.dumps(document).encode()
    assert fastsock.decode_json(text, 0) == (document, len(text))
    assert fastsock.pack_commands([("GET", "key")], frozenset()) == [b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"]


def try_client(command: List[str]) -> None:
    """Store and read in a real server, value by value and in a pipeline."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        arguments = [*command, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        until = time.monotonic() + STARTS_S
        while True:
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.05)
        client = FastRedis(port=port, socket_keepalive_options={"TCP_KEEPIDLE": 30})
        stack.callback(client.connection_pool.disconnect)
        client.set("key", b"x" * 100_000)
        assert client.get("key") == b"x" * 100_000
        pipeline = client.pipeline()
        pipeline.incr("n")
        pipeline.incr("n")
        assert pipeline.execute() == [1, 2]


if __name__ == "__main__":
    try_native()
    if sys.argv[1:]:
        try_client(sys.argv[1:])
    print(f"rasa-extras {VERSION}, {fastsock.IMPL}, Python {sys.version.split()[0]}: works")
