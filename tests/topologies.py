"""A Redis Cluster of three masters with a replica each, on free loopback ports.

It is made by commands alone: embedded wheels bring no redis-cli. :mod:`watched` has the other layout.
"""

import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

import redis

from extras import _redis
from extras.bench.server import RedisServer, free_port

Address = Tuple[str, int]

HOST = "127.0.0.1"
SLOTS = 16384
NODE_TIMEOUT_S = 1.0
"""After how long other nodes hold a silent master for lost, and a Sentinel the one that it watches."""
FAILOVER_S = 12.0
"""Within this a fail-over is over, on a machine that is busy; on an idle one it takes two to four seconds."""
_SETTLED_S = 60.0
_BUS = 10_000


def until(what: str, is_so: Callable[[], Any], limit_s: float = _SETTLED_S, pause_s: float = 0.05) -> None:
    """Wait until something is so. Raises ``AssertionError`` after so many seconds."""
    deadline = time.monotonic() + limit_s
    while True:
        with suppress(redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            if is_so():
                return
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:g} s"
        time.sleep(pause_s)


def cluster_port() -> int:
    """Return a free port whose cluster bus port is free, and no client is given, too."""
    while True:
        port = free_port(below=22000)
        with suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind((HOST, port))
            other.bind((HOST, port + _BUS))
            return port


class TlsFiles(NamedTuple):
    """What servers show, and trust, beside their plain ports."""

    certificate: str
    key: str
    ca: str

    def arguments(self, port: int) -> List[str]:
        """Return a server's arguments to speak TLS at a port, and with other servers; clients need no certificate."""
        files = ["--tls-cert-file", self.certificate, "--tls-key-file", self.key, "--tls-ca-cert-file", self.ca]
        return ["--tls-port", str(port), *files, "--tls-auth-clients", "optional", "--tls-replication", "yes"]


class Servers:
    """Servers that are stopped together, and a stock client of each."""

    def __init__(self) -> None:
        self._passwords_of: Dict[int, Optional[str]] = {}
        self.stack = ExitStack()
        self._clients: Dict[int, Any] = {}
        self.servers: Dict[int, RedisServer] = {}
        self.tls_ports: Dict[int, int] = {}
        """Beside each port the one with TLS, where there is one."""

    def add(self, server: RedisServer, password: Optional[str] = None) -> int:
        """Start a server, and stop it with the others; return its port."""
        self._passwords_of[server.port] = password
        self.servers[server.port] = server
        self.stack.callback(server.stop)
        server.start()
        return server.port

    def at(self, port: int) -> Any:
        """Return a client of the server at a port."""
        if port not in self._clients:
            client = redis.Redis(HOST, port, password=self._passwords_of[port], socket_timeout=5)
            self.stack.callback(client.connection_pool.disconnect)
            self._clients[port] = client
        return self._clients[port]

    def __exit__(self, *exc_info: Any) -> None:
        self.stack.close()

    def role(self, port: int) -> str:
        """Return ``master`` or ``slave``."""
        return str(self.at(port).info("replication")["role"])

    def has_link(self, port: int) -> bool:
        """Return whether a replica has all that its master has."""
        return bool(self.at(port).info("replication").get("master_link_status") == "up")

    def writable(self, ports: List[int], key: str) -> Tuple[int, float]:
        """Wait until one of these takes a write, as an observer sees it who asks every 10 ms; its port, the moment."""
        found: List[int] = []

        def is_taken() -> bool:
            for port in ports:
                with suppress(redis.ConnectionError, redis.TimeoutError, redis.ResponseError):  # a replica, say
                    if self.at(port).set(key, "by an observer"):
                        found.append(port)
            return bool(found)

        until("the fail-over", is_taken, pause_s=0.01)
        return found[0], time.monotonic()

    def until_copied(self, master: int) -> None:
        """Wait until the replicas of a master have all that it has: it may take along, else, what it acknowledged."""

        def has_all() -> bool:
            state = self.at(master).info("replication")
            replicas = [value for name, value in state.items() if name.startswith("slave") and isinstance(value, dict)]
            return bool(replicas) and all(int(each["offset"]) == state["master_repl_offset"] for each in replicas)

        until("the replicas have it", has_all)

    def revive(self, port: int) -> None:
        """Start a server that was killed again, and wait until it is a replica that has what its master has."""
        self.servers[port].start()
        until("replication again", lambda: self.role(port) == "slave" and self.has_link(port))


class RedisCluster(Servers):
    """Six nodes. ``masters`` are those of the beginning; who is one now, :meth:`owners` says."""

    def __init__(self, folder: Path, arguments: Sequence[str] = (), tls: Optional[TlsFiles] = None) -> None:
        super().__init__()
        self._folder = folder
        self._arguments = [*arguments]
        self._tls = tls
        self.masters: List[int] = []
        self.ids: Dict[int, str] = {}

    def __enter__(self) -> "RedisCluster":
        for number in range(6):
            folder = self._folder / f"node-{number}"
            timeout = ["--cluster-node-timeout", str(int(NODE_TIMEOUT_S * 1000)), "--repl-diskless-sync-delay", "0"]
            port, tls_port, over_tls = cluster_port(), cluster_port(), []
            if self._tls is not None:
                self.tls_ports[port] = tls_port
                over_tls = [*self._tls.arguments(tls_port), "--tls-cluster", "yes"]
            server = RedisServer(folder, ["--cluster-enabled", "yes", *timeout, *over_tls, *self._arguments])
            server.port = port
            self.add(server)
        try:
            self._join()
        except BaseException:
            self.stack.close()
            raise
        return self

    @property
    def options(self) -> Dict[str, Any]:
        """Of a store that knows one of those that were masters at first."""
        return {"cluster": True, "endpoints": [f"{HOST}:{self.masters[0]}"]}

    def empty(self) -> None:
        """Delete all keys."""
        for port in set(self.owners(self.masters[0]).values()):
            self.at(port).flushall()

    def _join(self) -> None:
        ports = list(self.servers)
        self.masters = ports[:3]
        for number, port in enumerate(ports):
            self.at(port).execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            self.ids[port] = self.at(port).execute_command("CLUSTER", "MYID").decode()
            self.at(ports[0]).execute_command("CLUSTER", "MEET", HOST, self.tls_ports.get(port, port))
        for number, port in enumerate(self.masters):
            own = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
            self.at(port).execute_command("CLUSTER", "ADDSLOTS", *own)
        until("all nodes are known", lambda: all(len(self.nodes(port)) == 6 for port in ports))
        for master, replica in zip(self.masters, ports[3:]):
            self.at(replica).execute_command("CLUSTER", "REPLICATE", self.ids[master])
        self.settle()

    def settle(self) -> None:
        """Wait until all nodes hold the cluster for whole, and each of the three masters has a replica."""
        ports = list(self.servers)
        until("the cluster is up", lambda: all(self.is_up(port) for port in ports))
        until("all agree", lambda: len({str(self.owners(port)) for port in ports}) == 1)
        until("all have heard of the last moves", lambda: len({self._epochs(port) for port in ports}) == 1)
        until("replication", lambda: all(self.role(port) == "master" or self.has_link(port) for port in ports))
        until("replicas are known", lambda: all(len(entry) >= 4 for port in ports for entry in self._slots(port)))

    def until_all_say(self, host: str) -> None:
        """Wait until all nodes name all masters by a host."""
        until(
            "the announced name",
            lambda: all(entry[2][0].decode() == host for port in self.servers for entry in self._slots(port)),
        )

    def nodes(self, port: int) -> List[str]:
        """Return the lines of ``CLUSTER NODES`` of nodes that have shaken hands."""
        return [line for line in self._said(port, "CLUSTER", "NODES").splitlines() if "handshake" not in line]

    def _epochs(self, port: int) -> FrozenSet[Tuple[str, ...]]:
        """Return the configuration epoch of each master: until all know it, what is older may still be believed."""
        lines = (line.split() for line in self.nodes(port))
        return frozenset((fields[0], fields[6]) for fields in lines if "master" in fields[2])

    def _said(self, port: int, *command: str) -> str:
        return str(self.at(port).execute_command(*command).decode())

    def _slots(self, port: int) -> Any:
        return self.at(port).execute_command("CLUSTER", "SLOTS")

    def is_up(self, port: int) -> bool:
        """Return whether a node holds the cluster for whole."""
        return "cluster_state:ok" in self._said(port, "CLUSTER", "INFO")

    def owners(self, port: int) -> Dict[Tuple[int, int], int]:
        """Return the master's port of each range of slots, as a node sees it."""
        return dict(sorted({(first, last): master[1] for first, last, master, *_ in self._slots(port)}.items()))

    def owner(self, slot: int) -> int:
        """Return the port of a slot's master, by what a node that lives says."""
        for port in self.servers:
            with suppress(redis.ConnectionError, redis.TimeoutError):
                owners = self.owners(port)
                return next(owner for (first, last), owner in owners.items() if first <= slot <= last)
        raise AssertionError("no node answers")

    def replica_of(self, port: int) -> int:
        """Return the port of a master's replica."""
        found = next(entry[3] for entry in self._slots(port) if entry[2][1] == port)
        return int(found[1])

    def slot_of(self, key: str) -> int:
        """Return the slot of a key."""
        return int(_redis.key_slot(key.encode()))

    def master_of(self, key: str) -> int:
        """Return the port of the master that has a key."""
        return self.owner(self.slot_of(key))

    def taken_over(self, lost: int, key: str) -> Tuple[int, float]:
        """Wait until another one than ``lost`` takes writes to the slot of a key; return its port, and the moment."""
        return self.writable([port for port in self.servers if port != lost], f"{{{key}}}:written")

    def start_moving(self, slot: int, target: int) -> int:
        """Begin to move a slot to another master; return the port of the one that has it."""
        source = self.owner(slot)
        self.at(target).execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.at(source).execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])
        return source

    def move_keys(self, slot: int, source: int, target: int) -> int:
        """Move the keys of a slot that is being moved; return how many."""
        keys = self.at(source).execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        if keys:
            self.migrate(source, target, *keys)
        return len(keys)

    def migrate(self, source: int, target: int, *keys: bytes) -> None:
        """Move keys of a slot that is being moved."""
        to = self.tls_ports.get(target, target)
        self.at(source).execute_command("MIGRATE", HOST, to, "", 0, 5000, "KEYS", *keys)

    def finish_moving(self, slot: int, target: int) -> None:
        """Give a slot to its new master, once all its keys are there."""
        masters = [target, *(port for port in self.servers if port != target)]
        for port in masters:
            with suppress(redis.ResponseError):  # replicas are told by their master
                self.at(port).execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])

    def move(self, slot: int, target: int) -> None:
        """Move a slot with its keys, as ``redis-cli --cluster reshard`` does."""
        source = self.start_moving(slot, target)
        while self.move_keys(slot, source, target):
            pass
        self.finish_moving(slot, target)

    def move_range(self, slots: range, target: int) -> None:
        """Move those of a range that one master has, and its first one is among."""
        source = self.owner(slots[0])
        for slot in slots:
            if self.owner(slot) == source:
                self.move(slot, target)

    def fail_over(self, master: int) -> int:
        """Let the replica of a master take over, by hand; return its port when it has."""
        replica = self.replica_of(master)
        self.at(replica).execute_command("CLUSTER", "FAILOVER")
        until("the manual fail-over", lambda: self.role(replica) == "master", FAILOVER_S)
        return replica
