"""The faults: how each is injected and healed, and what the client is doing when it comes."""

from dataclasses import dataclass
from typing import Callable, Tuple

from extras.bench.faults_arena import Arena

WRONG_PASSWORD = "wrong"


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    inject: Callable[[Arena], object]
    heal: Callable[[Arena], object]
    while_client: str = "writes"
    """What the client does when the fault comes: it ``writes``, is ``idle``, or only ``starts``."""
    holds_s: float = 6.0
    """Longer than a call may take, where calls hang; else until there were some dozens of errors."""
    idle_s: float = 0.0
    """How long the client stays idle under the fault."""
    every_s: float = 0.0
    """How often the fault is injected again."""
    is_large: bool = False
    """Whether the first turn under the fault is a large one."""
    network: bool = True
    """Whether it needs a network of its own."""
    by_name: bool = False
    password: bool = False
    before: Callable[[Arena], object] = lambda arena: None
    """What is done before the client connects."""
    is_random: bool = False
    """Whether random schedules have it."""


def _blackhole(arena: Arena) -> None:
    arena.drop("drop")


def _heal_network(arena: Arena) -> None:
    arena.let_through()


def _slow(arena: Arena) -> None:
    arena.tc("qdisc add dev extras0 root tbf rate 256kbit burst 4kb latency 400ms")
    arena.reject("limit rate over 32 kbytes/second burst 16 kbytes drop")


def _fast(arena: Arena) -> None:
    arena.tc("qdisc del dev extras0 root")
    arena.let_through()


def _pause(arena: Arena) -> None:
    arena.command("CLIENT", "PAUSE", 6000)


def _wait_for_unpause(arena: Arena) -> None:
    arena.command("PING")  # nobody's CLIENT UNPAUSE is carried out under a CLIENT PAUSE of all


def _config(*pairs: Tuple[str, object]) -> Callable[[Arena], None]:
    def change(arena: Arena) -> None:
        for name, value in pairs:
            arena.command("CONFIG", "SET", name, value)

    return change


def _names(mode: str) -> Callable[[Arena], None]:
    def change(arena: Arena) -> None:
        arena.names.mode = mode

    return change


_OOM = _config(("maxmemory-policy", "noeviction"), ("maxmemory", 1))

FAULTS = [
    Fault("blackhole, idle connection", _blackhole, _heal_network, while_client="idle", idle_s=3.0),
    Fault("blackhole, data in flight", _blackhole, _heal_network, is_random=True),
    Fault(
        "zero window, large write",
        lambda arena: arena.server.freeze(),
        lambda arena: arena.server.thaw(),
        while_client="idle",
        is_large=True,
        before=Arena.small_buffers,
    ),
    Fault(
        "RST",
        lambda arena: arena.reject("meta l4proto tcp reject with tcp reset"),
        _heal_network,
        holds_s=1.5,
        is_random=True,
    ),
    Fault(
        "link down",
        lambda arena: arena.ip("link set extras0 down"),
        lambda arena: arena.ip("link set extras0 up"),
        is_random=True,
    ),
    Fault(
        "10 % of packets lost",
        lambda arena: arena.drop("numgen random mod 10 == 0 drop"),
        _heal_network,
        holds_s=5.0,
        is_random=True,
    ),
    Fault("slow link, 256 kbit/s", _slow, _fast, holds_s=5.0, is_random=True),
    Fault(
        "server frozen (SIGSTOP)",
        lambda arena: arena.server.freeze(),
        lambda arena: arena.server.thaw(),
        network=False,
        is_random=True,
    ),
    Fault("CLIENT PAUSE of 6 s", _pause, _wait_for_unpause, network=False, is_random=True),
    Fault(
        "server killed, restarted",
        lambda arena: arena.server.kill(),
        lambda arena: arena.server.start(),
        holds_s=1.5,
        network=False,
        is_random=True,
    ),
    Fault(
        "CLIENT KILL, ten a second",
        lambda arena: arena.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        lambda arena: None,
        holds_s=1.5,
        every_s=0.1,
        network=False,
        is_random=True,
    ),
    Fault(
        "address unroutable (ICMP)",
        lambda arena: arena.reject("reject with icmp type net-unreachable"),
        _heal_network,
        while_client="starts",
        holds_s=1.5,
    ),
    Fault(
        "name does not resolve",
        _names("no such name"),
        _names("address"),
        while_client="starts",
        holds_s=1.5,
        by_name=True,
    ),
    Fault("name server silent", _names("silence"), _names("address"), while_client="starts", by_name=True),
    Fault(
        "port refused",
        lambda arena: arena.server.stop(),
        lambda arena: arena.server.start(),
        while_client="starts",
        holds_s=1.5,
        network=False,
    ),
    Fault("LOADING", Arena.restart_loading, Arena.load_at_once, holds_s=3.0, network=False, is_random=True),
    Fault("out of memory, noeviction", _OOM, _config(("maxmemory", 0)), holds_s=1.5, network=False, is_random=True),
    Fault(
        "read-only replica",
        lambda arena: arena.command("REPLICAOF", "127.0.0.1", "1"),
        lambda arena: arena.command("REPLICAOF", "NO", "ONE"),
        holds_s=1.5,
        network=False,
        is_random=True,
    ),
    Fault(
        "wrong password",
        _config(("requirepass", "right")),
        _config(("requirepass", WRONG_PASSWORD)),
        while_client="starts",
        holds_s=1.5,
        network=False,
        password=True,
    ),
    Fault("max clients reached", Arena.take_all_places, Arena.leave_places, holds_s=1.5, network=False, is_random=True),
]
