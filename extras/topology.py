"""Where commands go, as far as it is known, and how it is found out: what a cluster and Sentinels have in common.

Nothing here does I/O: :meth:`Topology.discovery` yields questions, which :mod:`extras.routed` and
:mod:`extras.async_routed` ask.
"""

import time
from typing import Any, Generator, List, NamedTuple, Optional, Sequence, Tuple, Union

from redis.exceptions import RedisError

from extras.budget import UnsettledError, is_distrusted
from extras.failures import stops_reads
from extras.layout import Address
from extras.slots import MOST_REDIRECTS, Detour, Next, Route, Scans, next_attempt, place_in

FRESH_S = 0.05
"""What was found out so little ago is not asked again, however many have failed meanwhile."""


class Question(NamedTuple):
    """A command for one server."""

    address: Address
    command: Tuple[str, ...]


class Sending(NamedTuple):
    """Commands that go to one server in one piece; those after the first belong to it."""

    address: Address
    commands: Tuple[Sequence[Any], ...]


Discovery = Generator[Question, Any, None]
"""Yields questions, is sent the replies, or thrown the errors."""


class Topology:
    """What is known of the servers. Threads may share it: what is known is replaced as a whole.

    ``version``: how often it was found out. ``seeds``: where to ask when nothing is known, or nobody known answers.
    ``check_s``: after so many seconds it is asked again although all goes well.
    """

    check_s = float("inf")

    def __init__(self, seeds: Sequence[Address]) -> None:
        self.seeds = tuple(seeds)
        self.version = 0
        self.scans = Scans()
        self._suspects: Tuple[Address, ...] = ()
        self._is_stale = True
        self._found_at_s = float("-inf")

    @property
    def needs_discovery(self) -> bool:
        """Whether to find out first where commands go."""
        age_s = time.monotonic() - self._found_at_s
        return age_s > self.check_s or (self._is_stale and age_s > FRESH_S)

    def begin_check(self) -> bool:
        """Return whether what is known will do where nobody says more, while one caller asks and the others go on."""
        if self._is_stale or not self.masters:
            return False
        self._found_at_s = time.monotonic()
        return True

    @property
    def masters(self) -> Tuple[Address, ...]:
        """Return the addresses of all masters, in a steady order."""
        raise NotImplementedError

    @property
    def nodes(self) -> Tuple[Address, ...]:
        """Return the addresses of all servers with conversations that are known: masters, and who may become one."""
        return self.masters

    def route(self, command: Sequence[Any]) -> Optional[Route]:
        """Return where a command goes, ``None`` if that is not known or a scan is over."""
        raise NotImplementedError

    def discovery(self) -> Discovery:
        """Find out where commands go, asking one server after the other.

        Raises :class:`~extras.budget.UnsettledError` where nobody knows, or answers. Where no server lets itself be
        asked: what one says to it that asking again does not mend, such as that the password is wrong.
        """
        failures: List[Tuple[Address, Exception]] = []
        for address in self._in_order():
            try:
                reply = yield Question(address, self._question())
                self._take(reply, address)
            except RedisError as error:
                failures.append((address, error))
                self._failed(address)
            else:
                self._found()
                return
        refused = next((failure for _, failure in failures if _is_refusal(failure)), None)
        if refused is not None and not any(isinstance(failure, UnsettledError) for _, failure in failures):
            raise refused from refused.__cause__ or refused.__context__  # its context would be what is handled now
        said = "; ".join(f"{host}:{port}: {error}" for (host, port), error in failures)
        raise UnsettledError(f"{self._nobody()} ({said})") from failures[-1][1]

    def noted(self, error: Exception, at: Address) -> Union[Detour, UnsettledError, None]:
        """Note what an error of the server at an address says; return where the command goes now.

        ``None``: ``error`` is what the caller is to see. ``UnsettledError``: the command is to be repeated in a moment.
        """
        meaning = next_attempt(error)
        if meaning is Next.NONE:
            return None
        if meaning is Next.MOVED or meaning is Next.ASK:
            return self._sent_on(error, at, meaning is Next.ASK)
        self._is_stale = True
        self._suspects = (at, *(address for address in self._suspects if address != at))[:3]
        return UnsettledError(f"{at[0]}:{at[1]}: {error}", error) if meaning is Next.LATER else None

    def _sent_on(self, error: Exception, at: Address, asking: bool) -> Optional[Detour]:
        return Detour(place_in(error, at)[1], asking)

    def _found(self) -> None:
        self._is_stale, self._found_at_s, self._suspects = False, time.monotonic(), ()
        self.version += 1

    def _in_order(self) -> List[Address]:
        """Return whom to ask, those last who have failed just now."""
        known = list(dict.fromkeys((*self._known(), *self.seeds)))
        return sorted(known, key=lambda address: address in self._suspects)

    def _failed(self, seed: Address) -> None:
        """Note that a server could not say where commands go."""

    def _known(self) -> Sequence[Address]:
        raise NotImplementedError

    def _question(self) -> Tuple[str, ...]:
        raise NotImplementedError

    def _take(self, reply: Any, asked: Address) -> None:
        """Take in what a server has answered. Raises ``RedisError`` if that is of no use."""
        raise NotImplementedError

    def _nobody(self) -> str:
        raise NotImplementedError


def _is_refusal(error: Exception) -> bool:
    return is_distrusted(error) or not stops_reads(error)


def carried_out(topology: Topology, *commands: Sequence[Any]) -> Generator[Optional[Sending], Any, List[Any]]:
    """Carry out a command, with others that belong to it right behind, wherever servers send it; return the replies.

    Yields what is to be sent, and is sent the replies or thrown the error; yields ``None`` where the topology is to be
    discovered first. Raises :class:`~extras.budget.UnsettledError` where the command is to be repeated in a moment.
    """
    if topology.needs_discovery:
        is_known = topology.begin_check()
        try:
            yield None
        except RedisError:
            if not is_known:
                raise
    route = topology.route(commands[0])
    if route is None:
        if commands[0][0] == "SCAN":
            return [[0, []]]
        yield None
        route = topology.route(commands[0])
        if route is None:
            raise UnsettledError("nobody has the slot of the key at present")
    at, asking = route.address, False
    wire = (route.command, *commands[1:])
    for _ in range(MOST_REDIRECTS):
        try:
            if asking:
                replies: List[Any] = (yield Sending(at, (("ASKING",), *wire)))[1:]
            else:
                replies = yield Sending(at, wire)
            break
        except RedisError as error:
            found = topology.noted(error, at)
            if found is None:
                raise
            if isinstance(found, UnsettledError):
                raise found from error
            at, asking = found
    else:
        raise UnsettledError(f"sent on {MOST_REDIRECTS} times, at last to {at[0]}:{at[1]}")
    if route.scanned is not None:
        of_node, keys = replies[0]
        cursor = topology.scans.cursor(route.scanned, int(of_node))
        if not cursor:  # unless there is something new
            yield None
            cursor = topology.scans.cursor(route.scanned, 0)
        return [[cursor, keys]]
    return replies
