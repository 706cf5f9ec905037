"""A Redis Cluster of three masters with a replica each, and a master with two replicas that three Sentinels watch.

Both on free loopback ports, made by commands alone: embedded wheels bring no redis-cli.
"""

import random
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

import redis

from extras import _redis
from extras.bench.server import RedisServer, find_server

Address = Tuple[str, int]

HOST = "127.0.0.1"
SLOTS = 16384
NODE_TIMEOUT_S = 1.0
"""After how long other nodes hold a silent master for lost, and a Sentinel the one that it watches."""
FAILOVER_S = 12.0
"""Within this a fail-over is over, on a machine that is busy; on an idle one it takes two to four seconds."""
SERVICE = "mymaster"
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
        port = random.randrange(12000, 22000)
        with suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind((HOST, port))
            other.bind((HOST, port + _BUS))
            return port


class _Servers:
    """Servers that are stopped together, and a stock client of each."""

    def __init__(self) -> None:
        self._passwords_of: Dict[int, Optional[str]] = {}
        self._stack = ExitStack()
        self._clients: Dict[int, Any] = {}
        self.servers: Dict[int, RedisServer] = {}

    def _add(self, server: RedisServer, password: Optional[str] = None) -> int:
        self._passwords_of[server.port] = password
        self.servers[server.port] = server
        self._stack.callback(server.stop)
        server.start()
        return server.port

    def at(self, port: int) -> Any:
        """Return a client of the server at a port."""
        if port not in self._clients:
            client = redis.Redis(HOST, port, password=self._passwords_of[port], socket_timeout=5)
            self._stack.callback(client.connection_pool.disconnect)
            self._clients[port] = client
        return self._clients[port]

    def __exit__(self, *exc_info: Any) -> None:
        self._stack.close()

    def role(self, port: int) -> str:
        """Return ``master`` or ``slave``."""
        return str(self.at(port).info("replication")["role"])

    def has_link(self, port: int) -> bool:
        """Return whether a replica has all that its master has."""
        return bool(self.at(port).info("replication").get("master_link_status") == "up")

    def _writable(self, ports: List[int], key: str) -> Tuple[int, float]:
        """Wait until one of these takes a write, as an observer sees it who asks every 10 ms; its port, the moment."""
        found: List[int] = []

        def takes_it(port: int) -> bool:
            with suppress(redis.ResponseError):  # it is a replica, or the cluster is down
                return bool(self.at(port).set(key, "by an observer"))
            return False

        until("the fail-over", lambda: found.extend(filter(takes_it, ports)) or found, pause_s=0.01)
        return found[0], time.monotonic()

    def revive(self, port: int) -> None:
        """Start a server that was killed again, and wait until it is a replica that has what its master has."""
        self.servers[port].start()
        until("replication again", lambda: self.role(port) == "slave" and self.has_link(port))


class RedisCluster(_Servers):
    """Six nodes. ``masters`` are those of the beginning; who is one now, :meth:`owners` says."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        super().__init__()
        self._folder = folder
        self._arguments = [*arguments]
        self.masters: List[int] = []
        self.ids: Dict[int, str] = {}

    def __enter__(self) -> "RedisCluster":
        for number in range(6):
            folder = self._folder / f"node-{number}"
            timeout = ["--cluster-node-timeout", str(int(NODE_TIMEOUT_S * 1000)), "--repl-diskless-sync-delay", "0"]
            server = RedisServer(folder, ["--cluster-enabled", "yes", *timeout, *self._arguments])
            server.port = cluster_port()
            self._add(server)
        try:
            self._join()
        except BaseException:
            self._stack.close()
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
            self.at(ports[0]).execute_command("CLUSTER", "MEET", HOST, port)
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
        until("replication", lambda: all(self.role(port) == "master" or self.has_link(port) for port in ports))
        until("replicas are known", lambda: all(len(entry) >= 4 for port in ports for entry in self._slots(port)))

    def nodes(self, port: int) -> List[str]:
        """Return the lines of ``CLUSTER NODES`` of nodes that have shaken hands."""
        return [line for line in self._said(port, "CLUSTER", "NODES").splitlines() if "handshake" not in line]

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
        return self._writable([port for port in self.servers if port != lost], f"{{{key}}}:written")

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
            self.at(source).execute_command("MIGRATE", HOST, target, "", 0, 5000, "KEYS", *keys)
        return len(keys)

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


class _Sentinel(RedisServer):
    """A Sentinel, which writes what it learns into its own settings."""

    def __init__(self, folder: Path, master: int, others: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._settings = folder / "sentinel.conf"
        folder.mkdir(parents=True)
        lines = [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {folder}",
            f"sentinel monitor {SERVICE} {HOST} {master} 2",
            f"sentinel down-after-milliseconds {SERVICE} {int(NODE_TIMEOUT_S * 1000)}",
            f"sentinel failover-timeout {SERVICE} 2000",
            *others,
        ]
        self._settings.write_text("\n".join(lines) + "\n")

    def _command(self, arguments: Sequence[str]) -> List[str]:
        return [find_server(), str(self._settings), "--sentinel", *arguments]


class Watched(_Servers):
    """A master, two replicas, three Sentinels. ``of_sentinels``: more lines for their settings.

    ``password`` and ``sentinel_password``: those that the arguments and the lines ask for.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str] = (),
        of_sentinels: Sequence[str] = (),
        password: Optional[str] = None,
        sentinel_password: Optional[str] = None,
    ) -> None:
        super().__init__()
        self._passwords = password, sentinel_password
        self._folder = folder
        self._arguments = ["--repl-diskless-sync-delay", "0", *arguments]
        self._of_sentinels = of_sentinels
        self.nodes: List[int] = []
        self.sentinels: List[int] = []

    def __enter__(self) -> "Watched":
        try:
            for number in range(3):
                of = ["--replicaof", HOST, str(self.nodes[0])] if number else []
                server = RedisServer(self._folder / f"redis-{number}", [*self._arguments, *of])
                self.nodes.append(self._add(server, self._passwords[0]))
            until("replication", lambda: all(map(self.has_link, self.nodes[1:])))
            for number in range(3):
                folder = self._folder / f"sentinel-{number}"
                sentinel = _Sentinel(folder, self.nodes[0], self._of_sentinels)
                self.sentinels.append(self._add(sentinel, self._passwords[1]))
            self.settle()
        except BaseException:
            self._stack.close()
            raise
        return self

    @property
    def endpoints(self) -> List[str]:
        """Where the Sentinels are."""
        return [f"{HOST}:{port}" for port in self.sentinels]

    @property
    def options(self) -> Dict[str, Any]:
        """Of a store that knows all Sentinels."""
        return {"deployment_mode": "sentinel", "endpoints": self.endpoints, "sentinel_service": SERVICE}

    def empty(self) -> None:
        """Delete all keys."""
        self.at(self.master()).flushall()

    def state(self, sentinel: int) -> Dict[str, Any]:
        """Return what a Sentinel knows of the master."""
        reply = self.at(sentinel).execute_command("SENTINEL", "MASTER", SERVICE)
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])  # RESP3, RESP2
        return {name.decode(): value.decode() for name, value in pairs}

    def settle(self) -> None:
        """Wait until all Sentinels know each other, the master and both replicas, and those replicate."""

        def is_settled(sentinel: int) -> bool:
            state = self.state(sentinel)
            known = state["num-other-sentinels"] == "2" and state["num-slaves"] == "2"
            return known and state["flags"] == "master" and int(state["port"]) == self.master()

        until("the Sentinels agree", lambda: all(map(is_settled, self.sentinels)))
        until("one master", lambda: sum(self.role(port) == "master" for port in self.nodes) == 1)
        until("replication", lambda: all(self.has_link(port) for port in self.nodes if port != self.master()))

    def master(self) -> int:
        """Return the port of the master, by what the first Sentinel says."""
        return int(self.state(self.sentinels[0])["port"])

    def master_of(self, key: str) -> int:
        """Return the port of the master, which has all keys."""
        return self.master()

    def taken_over(self, lost: int, key: str) -> Tuple[int, float]:
        """Wait until a Sentinel names another one than ``lost`` and that takes writes; return its port, the moment."""
        until("a new name", lambda: self._named() - {lost}, pause_s=0.01)
        return self._writable(list(self._named() - {lost}), f"{key}:written")

    def _named(self) -> Set[int]:
        return {int(self.state(sentinel)["port"]) for sentinel in self.sentinels}

    def revive(self, port: int) -> None:
        """Start a server that was killed again, as a replica of the master, which Sentinels take ten seconds for."""
        self.servers[port].start()
        self.at(port).execute_command("REPLICAOF", HOST, self.master())
        until("replication again", lambda: self.has_link(port))

    def fail_over(self) -> int:
        """Let the Sentinels make another one the master, by hand; return its port when all say so."""
        before = self.master()
        self.order_fail_over()
        until("the manual fail-over", lambda: self.master() != before, FAILOVER_S)
        return self.master()

    def order_fail_over(self) -> None:
        """Have the Sentinels make another one the master, as soon as one of them takes the order."""
        order = "SENTINEL", "FAILOVER", SERVICE
        until("a Sentinel takes the order", lambda: self.at(self.sentinels[0]).execute_command(*order))
