"""What a cluster's or a Sentinel's servers say about where to ask: a decision table, and where a scan goes on.

Nothing here does I/O. Source: "Redis cluster specification" and "Sentinel client spec" of the Redis documentation.
"""

import re
from enum import Enum
from typing import Any, Dict, FrozenSet, Iterable, NamedTuple, Optional, Sequence, Tuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras.budget import UnsettledError
from extras.failures import says
from extras.layout import Address
from extras.routing import first_word

MOST_REDIRECTS = 5
"""How often a command is sent on at once; servers that send it round in circles are asked again after a pause."""

_ON_SCRIPTS = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})
_SUBCOMMANDS_OF_KEYS = frozenset({"MEMORY", "OBJECT"})
_KEYLESS: FrozenSet[str] = frozenset(
    " ".join(
        (
            "ACL AUTH CLIENT CLUSTER COMMAND CONFIG DBSIZE ECHO HELLO INFO KEYS LATENCY LOLWUT PING PUBLISH RANDOMKEY",
            "ROLE SCAN SCRIPT SELECT SLOWLOG TIME WAIT",
        )
    ).split()
)
_LATER = {
    "TRYAGAIN": "TryAgainError",
    "CLUSTERDOWN": "ClusterDownError",
    "MASTERDOWN": "MasterDownError",
    "READONLY": "ReadOnlyError",
    "UNBLOCKED": "",  # it became a replica while a command of ours waited
}
_PLACE = re.compile(r"(?:^| )(\d+) (\S*):(\d+)$")
"""At the end: redis-py's pipelines put a text of theirs before it."""

_NUMBER_BITS = 24


class Next(Enum):
    """What an error says about the next attempt at its command."""

    NONE = "what the server answers to the command; another attempt would get the same answer"
    MOVED = "at once, at the server that has the slot from now on"
    ASK = "at once, but only this once, at the server that a slot is on its way to"
    LATER = "in a moment, when servers have agreed on who has what; ask them first"
    LOST = "perhaps elsewhere: nobody answered there; ask the others first"


def next_attempt(error: BaseException) -> Next:
    """Return what an error means."""
    if not isinstance(error, RedisError):
        return Next.NONE
    if says(error, {"MOVED": "MovedError"}):
        return Next.MOVED
    if says(error, {"ASK": "AskError"}):
        return Next.ASK
    if says(error, _LATER):
        return Next.LATER
    return Next.LOST if isinstance(error, (RedisConnectionError, RedisTimeoutError)) else Next.NONE


def is_demoted(error: BaseException) -> bool:
    """Return whether a server says that it is a replica, and takes no writes."""
    return isinstance(error, RedisError) and says(error, {"READONLY": "ReadOnlyError"})


def place_in(error: BaseException, asked: Address) -> Tuple[int, Address]:
    """Return the slot and the address that ``MOVED`` or ``ASK`` names; a host that is left out is the one asked."""
    found = _PLACE.search(str(error))
    if found is None:
        raise UnsettledError(f"{asked[0]}:{asked[1]} sends on to an address that cannot be read: {error}")
    return int(found[1]), (found[2] or asked[0], int(found[3]))


def key_of(command: Sequence[Any]) -> Optional[Any]:
    """Return the key by which a command finds its server, ``None`` for one that any server may answer."""
    name = first_word(command[0])
    if name in _KEYLESS:
        return None
    at = 3 if name in _ON_SCRIPTS else 1
    if name in _SUBCOMMANDS_OF_KEYS and name == str(command[0]).upper():
        at = 2
    return command[at] if len(command) > at else None


class Route(NamedTuple):
    """Where a command goes, and what is sent there. ``scanned``: the number of the master that a ``SCAN`` is at."""

    address: Address
    command: Sequence[Any]
    scanned: Optional[int] = None


class Detour(NamedTuple):
    """Where a command is sent on to; ``asking``: only this once, after ``ASKING``."""

    address: Address
    asking: bool


class Scans:
    """Leads ``SCAN`` over all masters, one after the other, by a cursor that says which one it is at.

    Each has a number, and gets a new one, above all others, when it takes over slots or is a master for the first
    time. So a scan that goes on to the next higher number sees what was moved behind it before; it may see some of it
    twice. What is under way between two masters while the scan passes may be seen by neither.
    """

    def __init__(self) -> None:
        self._numbers: Dict[Address, int] = {}
        self._last = 0

    def update(self, masters: Iterable[Address], gained: Iterable[Address]) -> None:
        """Take note of the masters there are now, and of those that have something now that they had not before."""
        new = set(gained)
        numbers: Dict[Address, int] = {}
        for address in sorted(masters, key=lambda address: self._numbers.get(address, self._last + 1)):
            if address in new or address not in self._numbers:
                self._last += 1
                numbers[address] = self._last
            else:
                numbers[address] = self._numbers[address]
        self._numbers = numbers

    def route(self, command: Sequence[Any]) -> Optional[Route]:
        """Return where a ``SCAN`` goes on, ``None`` where it is over."""
        cursor = int(command[1])
        number, of_node = cursor & ((1 << _NUMBER_BITS) - 1), cursor >> _NUMBER_BITS
        for address, known in self._numbers.items():
            if known == number:
                return Route(address, ("SCAN", of_node, *command[2:]), number)
        following = self._after(number)
        if following is None:
            return None
        return Route(following[1], ("SCAN", 0, *command[2:]), following[0])

    def cursor(self, scanned: int, of_node: int) -> int:
        """Return the cursor after one step at a master, whose own cursor is ``of_node``; 0 where the scan is over."""
        if of_node:
            return of_node << _NUMBER_BITS | scanned
        following = self._after(scanned)
        return 0 if following is None else following[0]

    def _after(self, number: int) -> Optional[Tuple[int, Address]]:
        later = [(known, address) for address, known in self._numbers.items() if known > number]
        return min(later, default=None)
