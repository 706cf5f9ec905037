"""The master that Sentinels watch: where they say that it is, as redis-py reads ``SENTINEL MASTERS``."""

from typing import Any, List, Optional, Sequence, Tuple, Union

from extras import _redis
from extras.budget import UnsettledError
from extras.layout import Address
from extras.slots import Detour, Route
from extras.topology import Topology


class Sentinels(Topology):
    """Knows the address of one master, and asks the Sentinels anew when it is lost, or says that it is none.

    And every quarter of a second that it is used: a master that was replaced by hand goes on as one for up to ten
    seconds before Sentinels make a replica of it, and what is written there meanwhile is thrown away.
    """

    check_s = 0.25

    def __init__(self, seeds: Sequence[Address], service: str) -> None:
        super().__init__(seeds)
        self._service = service
        self._master: Optional[Address] = None

    @property
    def masters(self) -> Tuple[Address, ...]:
        """Return the address of the master."""
        return () if self._master is None else (self._master,)

    def route(self, command: Sequence[Any]) -> Optional[Route]:
        """Return where a command goes: to the master."""
        if command[0] == "SCAN":
            return self.scans.route(command)
        return None if self._master is None else Route(self._master, command)

    def _sent_on(self, error: Exception, at: Address, asking: bool) -> Optional[Detour]:
        return None  # it is a cluster's node, which is for the user to know

    def _in_order(self) -> List[Address]:
        return list(self.seeds)

    def _failed(self, seed: Address) -> None:
        # The next one is asked first from now on; nobody waits twice for one that is gone.
        self.seeds = (*(address for address in self.seeds if address != seed), seed)

    def noted(self, error: Exception, at: Address) -> Union[Detour, UnsettledError, None]:
        """Note what an error of the master says; another Sentinel is asked then, the first may be cut off with it."""
        was_known = self._is_stale
        found = super().noted(error, at)
        if self._is_stale and not was_known:
            self._failed(self.seeds[0])
        return found

    def _question(self) -> Tuple[str, ...]:
        return ("SENTINEL", "MASTERS")

    def _take(self, reply: Any, asked: Address) -> None:
        master = _redis.sentinel_master(reply, self._service)
        if master is None:
            raise UnsettledError(f"it has no master {self._service!r} that is up")
        self.scans.update([master], [] if master == self._master else [master])
        self._master = master

    def _nobody(self) -> str:
        return f"no Sentinel says where the master {self._service!r} is"
