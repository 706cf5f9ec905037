"""A RabbitMQ of one's own on free loopback ports: no system service, nothing shared, nothing left behind.

The distribution's package (``rabbitmq-server``) brings the scripts that are called here without its service.
"""

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional

from extras.bench.server import free_port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The script that runs in the foreground; what is on ``PATH`` changes to the user of the system service."""

CONFIGURATION = "vm_memory_high_watermark.absolute = 256MB\ndisk_free_limit.absolute = 1MB\n"
START_S = 120


class RabbitMQ:
    """A server process and the name server that Erlang wants; ``with`` stops both.

    ``configuration`` is its ``rabbitmq.conf``, which may say more than a small one does, but for the port.
    """

    def __init__(self, folder: Path, configuration: str = CONFIGURATION, port: Optional[int] = None) -> None:
        self.port = port or free_port()
        self._epmd_port = free_port()
        self._folder = folder
        self._processes: List[subprocess.Popen[bytes]] = []
        folder.mkdir()
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbit.conf").write_text(configuration)

    @property
    def environment(self) -> Dict[str, str]:
        """What is in the environment of the server, and of the commands that talk to it."""
        own = {
            "HOME": str(self._folder),
            "ERL_CRASH_DUMP": os.devnull,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_BASE": str(self._folder),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbit"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_NODENAME": f"extras{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
        }
        return {**os.environ, **own}

    def start(self) -> None:
        """Start it and wait until it answers."""
        epmd = shutil.which("epmd")
        assert epmd is not None
        with (self._folder / "server.log").open("ab") as log:
            for command in ([epmd], [str(SERVER)]):
                self._processes.append(
                    subprocess.Popen(
                        command,
                        env=self.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        server = self._processes[-1]
        deadline = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > deadline or server.poll() is not None:
                said = (self._folder / "server.log").read_text(errors="replace")
                self.stop()
                raise RuntimeError(f"RabbitMQ does not start:\n{said[-3000:]}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
            sock.settimeout(5)
            sock.sendall(b"AMQP\x00\x00\x09\x01")
            return sock.recv(1) == b"\x01"  # the server's Connection.Start
        return False

    def stop(self) -> None:
        """Kill it, as a machine that loses its power would; its durable queues stay on the disk."""
        while self._processes:
            process = self._processes.pop()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait(30)
        self._end_name_server()

    def _end_name_server(self) -> None:
        """End the name server that RabbitMQ starts by itself, apart from all, where it finds none: once a minute."""
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run([epmd, "-kill"], env=self.environment, capture_output=True, check=False, timeout=30)

    def __enter__(self) -> "RabbitMQ":
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


def missing() -> Optional[str]:
    """Return what has to be installed for a RabbitMQ, ``None`` if it is there."""
    return None if SERVER.exists() and shutil.which("epmd") else "rabbitmq-server"
