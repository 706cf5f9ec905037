"""One server, the network between it and its client, and what faults do to both."""

import time
from pathlib import Path
from typing import Any, List, Optional

import redis

from extras.bench import faults_namespace as namespace
from extras.bench.faults_names import NAME, NameServer
from extras.bench.faults_stores import Target
from extras.bench.server import RedisServer

FILLER_KEYS = 3000
"""What the server has to load slowly when it is to be LOADING for a while."""

_DURABLE = ["--appendonly", "yes", "--appendfsync", "always"]
_FOR_ALL = ["--bind", "0.0.0.0", "--protected-mode", "no"]
"""In a network that ends at the client."""


class Arena:
    """The server's side of a run; every fault is done here. ``has_network``: whether it has one of its own to break."""

    def __init__(self, folder: Path, has_network: bool) -> None:
        self.names = NameServer()
        self.server = RedisServer(folder / "server", [*_DURABLE, *(_FOR_ALL if has_network else [])])
        self.client_network = namespace.ClientNetwork() if has_network else None
        self.fillers: List[Any] = []
        """Connections that take the places of others."""
        self._folder = folder
        self._control: Any = redis.Redis(unix_socket_path=self.server.unix_path, socket_timeout=30)

    def open(self) -> None:
        """Start the servers. The clients' processes are there by then: this starts a thread."""
        if self.client_network is not None:
            self.names.start(self._folder)
        self.server.start()
        self.command("PING")  # over the server's Unix socket, which no fault of the network reaches

    def close(self) -> None:
        """Stop the server; the network ends with the last process in it."""
        self.server.stop()

    def target(self, by_name: bool, password: Optional[str]) -> Target:
        """Return where the client finds the server."""
        if self.client_network is None:
            return Target("127.0.0.1", self.server.port, password)
        return Target(NAME if by_name else namespace.SERVER_ADDRESS, self.server.port, password)

    def command(self, *command: Any) -> Any:
        """Have the server carry out a command."""
        return self._control.execute_command(*command)

    def drop(self, rule: str) -> None:
        """Apply an nftables verdict to what goes through the server's end of the link, both ways."""
        namespace.run("nft", "add table inet extras")
        for hook, way in (("input", "iifname"), ("output", "oifname")):
            namespace.run("nft", f"add chain inet extras {hook} {{ type filter hook {hook} priority 0; }}")
            namespace.run("nft", f"add rule inet extras {hook} {way} {namespace.LINK} {rule}")

    def reject(self, rule: str) -> None:
        """Have the server's machine refuse, as nftables' ``reject`` says, what comes over the link."""
        namespace.run("nft", "add table inet extras")
        namespace.run("nft", "add chain inet extras input { type filter hook input priority 0; }")
        namespace.run("nft", f"add rule inet extras input iifname {namespace.LINK} {rule}")

    def let_through(self) -> None:
        """Take all rules away."""
        namespace.run("nft", "delete table inet extras")

    def ip(self, words: str) -> None:
        """Run ``ip``."""
        namespace.run("ip", *words.split())

    def tc(self, words: str) -> None:
        """Run ``tc``."""
        namespace.run("tc", *words.split())

    def small_buffers(self) -> None:
        """Have new TCP connections of both sides hold little, so that a large value does not go under in buffers."""
        # tcp(7). Of the server's network: what it does not read stays with the client.
        Path("/proc/sys/net/ipv4/tcp_rmem").write_text("4096 16384 65536\n", encoding="ascii")

    def restart_loading(self) -> None:
        """Kill the server, and start it such that it loads its data for long."""
        pipeline = self._control.pipeline(transaction=False)
        for number in range(FILLER_KEYS):
            pipeline.set(f"filler:{number}", "x" * 100)
        pipeline.execute()
        self.command("BGREWRITEAOF")
        while self._control.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.02)
        self.server.kill()
        # Microseconds for each key, and replies -LOADING between them; redis.conf calls the first for tests only.
        self.server.launch("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
        while not self._is_loading():
            time.sleep(0.02)

    def _is_loading(self) -> bool:
        try:
            return bool(self._control.info("persistence")["loading"])
        except redis.ConnectionError:
            return False

    def load_at_once(self) -> None:
        """Have the server load the rest without delay, and wait until it has."""
        self.command("CONFIG", "SET", "key-load-delay", "0")
        while self._is_loading():
            time.sleep(0.02)

    def take_all_places(self) -> None:
        """Leave no place for a further client, and disconnect those that are there."""
        self.fillers = [redis.Redis(unix_socket_path=self.server.unix_path) for _ in range(2)]
        for filler in self.fillers:
            filler.ping()
        self.command("CONFIG", "SET", "maxclients", 1 + len(self.fillers))
        for client in self._control.client_list():
            if client["addr"].startswith((namespace.CLIENT_ADDRESS, "127.0.0.1")) and ":0" not in client["addr"]:
                self.command("CLIENT", "KILL", "ID", client["id"])

    def leave_places(self) -> None:
        """Give the places back."""
        self.command("CONFIG", "SET", "maxclients", 1000)
        for filler in self.fillers:
            filler.connection_pool.disconnect()
        self.fillers = []
