"""A master with two replicas that three Sentinels watch, on free loopback ports."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from topologies import FAILOVER_S, HOST, NODE_TIMEOUT_S, Servers, TlsFiles, until

from extras.bench.server import RedisServer, find_server, free_port

SERVICE = "mymaster"


class _Sentinel(RedisServer):
    """A Sentinel, which writes what it learns into its own settings."""

    def __init__(self, folder: Path, host: str, master: int, others: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._settings = folder / "sentinel.conf"
        folder.mkdir(parents=True)
        lines = [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {folder}",
            "sentinel resolve-hostnames yes",
            "sentinel announce-hostnames yes",
            f"sentinel monitor {SERVICE} {host} {master} 2",
            f"sentinel down-after-milliseconds {SERVICE} {int(NODE_TIMEOUT_S * 1000)}",
            f"sentinel failover-timeout {SERVICE} 2000",
            *others,
        ]
        self._settings.write_text("\n".join(lines) + "\n")

    def _command(self, arguments: Sequence[str]) -> List[str]:
        return [find_server(), str(self._settings), "--sentinel", *arguments]


class Watched(Servers):
    """A master, two replicas, three Sentinels. ``of_sentinels``: more lines for their settings.

    ``password`` and ``sentinel_password``: those that the arguments and the lines ask for. ``tls``: with which all of
    them, and Sentinels with them, speak TLS, too. ``host``: by which the Sentinels name servers.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str] = (),
        of_sentinels: Sequence[str] = (),
        password: Optional[str] = None,
        sentinel_password: Optional[str] = None,
        tls: Optional[TlsFiles] = None,
        host: str = HOST,
    ) -> None:
        super().__init__()
        self._tls = tls
        self._host = host
        self._passwords = password, sentinel_password
        self._folder = folder
        self._arguments = ["--repl-diskless-sync-delay", "0", *arguments]
        self._of_sentinels = of_sentinels
        self.nodes: List[int] = []
        self.sentinels: List[int] = []

    def __enter__(self) -> "Watched":
        try:
            for number in range(3):
                of = ["--replicaof", self._host, str(self._named_by(self.nodes[0]))] if number else []
                announced = ["--replica-announce-ip", self._host, *self._over_tls()]
                folder = self._folder / f"redis-{number}"
                server = RedisServer(folder, [*self._arguments, *announced, *of])
                self._note(announced, self.add(server, self._passwords[0]), self.nodes)
            until("replication", lambda: all(map(self.has_link, self.nodes[1:])))
            for number in range(3):
                over_tls = self._over_tls()
                lines = [" ".join(pair).lstrip("-") for pair in zip(over_tls[::2], over_tls[1::2])]
                master = self._named_by(self.nodes[0])
                folder = self._folder / f"sentinel-{number}"
                sentinel = _Sentinel(folder, self._host, master, [*lines, *self._of_sentinels])
                self._note(over_tls, self.add(sentinel, self._passwords[1]), self.sentinels)
            self.settle()
        except BaseException:
            self.stack.close()
            raise
        return self

    def _over_tls(self) -> List[str]:
        return [] if self._tls is None else self._tls.arguments(free_port())

    def _note(self, arguments: Sequence[str], port: int, ports: List[int]) -> None:
        if "--tls-port" in arguments:
            self.tls_ports[port] = int(arguments[arguments.index("--tls-port") + 1])
        ports.append(port)

    def _named_by(self, port: int) -> int:
        """Return the port by which other servers know the one at a plain port."""
        return self.tls_ports.get(port, port)

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
            return known and state["flags"] == "master" and self._port_in(state) == self.master()

        until("the Sentinels agree", lambda: all(map(is_settled, self.sentinels)))
        until("one master", lambda: sum(self.role(port) == "master" for port in self.nodes) == 1)
        until("replication", lambda: all(self.has_link(port) for port in self.nodes if port != self.master()))

    def master(self) -> int:
        """Return the port of the master, by what the Sentinel says that knows of the latest fail-over."""
        newest = max(self.sentinels, key=lambda sentinel: int(self.state(sentinel)["config-epoch"]))
        named = int(self.at(newest).execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        return next((port for port in self.nodes if self._named_by(port) == named), named)

    def _port_in(self, state: Dict[str, Any]) -> int:
        named = int(state["port"])
        return next((port for port in self.nodes if self._named_by(port) == named), named)

    def master_of(self, key: str) -> int:
        """Return the port of the master, which has all keys."""
        return self.master()

    def taken_over(self, lost: int, key: str) -> Tuple[int, float]:
        """Wait until a Sentinel names another one than ``lost`` and that takes writes; return its port, the moment."""
        until("a new name", lambda: self.master() != lost, pause_s=0.01)
        return self.writable([self.master()], f"{{{key}}}:written")

    def revive(self, port: int) -> None:
        """Start a server that was killed again, as a replica of the master, which Sentinels take ten seconds for."""
        self.servers[port].start()
        self.at(port).execute_command("REPLICAOF", self._host, self._named_by(self.master()))
        until("replication again", lambda: self.has_link(port))

    def fail_over(self) -> int:
        """Let the Sentinels make another one the master, by hand; return its port when one says so."""
        before = self.master()
        self.order_fail_over()
        until("the manual fail-over", lambda: self.master() != before, FAILOVER_S)
        return self.master()

    def order_fail_over(self) -> None:
        """Have the Sentinels make another one the master, as soon as one of them takes the order."""
        order = "SENTINEL", "FAILOVER", SERVICE
        until("a Sentinel takes the order", lambda: self.at(self.sentinels[0]).execute_command(*order))
