"""The slots of a Redis Cluster: which master has the key of a command, as redis-py reads ``CLUSTER SLOTS``."""

import random
from typing import Any, Dict, Optional, Sequence, Tuple

from extras import _redis
from extras._redis import key_slot
from extras.budget import UnsettledError
from extras.layout import Address
from extras.slots import Detour, Route, key_of, place_in
from extras.topology import Topology


class Cluster(Topology):
    """Knows the master of each slot. A key outside all slots that are served is found out about again."""

    def __init__(self, seeds: Sequence[Address]) -> None:
        super().__init__(seeds)
        self._slots: Dict[int, Address] = {}
        self._masters: Tuple[Address, ...] = ()
        self._nodes: Tuple[Address, ...] = ()
        self._reply: Any = None
        self._table: Tuple[Dict[int, Address], Tuple[Address, ...]] = ({}, ())

    @property
    def masters(self) -> Tuple[Address, ...]:
        """Return the addresses of all masters that have slots."""
        return self._masters

    @property
    def nodes(self) -> Tuple[Address, ...]:
        """Return the addresses of all masters and replicas."""
        return tuple(self._nodes)

    def route(self, command: Sequence[Any]) -> Optional[Route]:
        """Return where a command goes; one without a key goes to any master."""
        if command[0] == "SCAN":
            return self.scans.route(command)
        key = key_of(command)
        if key is None:
            return Route(self._masters[0], command) if self._masters else None
        address = self._slots.get(key_slot(key if isinstance(key, bytes) else str(key).encode()))
        return None if address is None else Route(address, command)

    def _sent_on(self, error: Exception, at: Address, asking: bool) -> Optional[Detour]:
        slot, address = place_in(error, at)
        if not asking:
            self._slots[slot] = address
            if address in self._masters:
                self.scans.update(self._masters, [address])
            else:  # a fail-over, most likely, of more than this slot
                self._is_stale = True
        return Detour(address, asking)

    def _known(self) -> Sequence[Address]:
        # Not always the same one first: it would have to answer all clients of a cluster.
        return random.sample(self._nodes, len(self._nodes))

    def _question(self) -> Tuple[str, ...]:
        return ("CLUSTER", "SLOTS")

    def _take(self, reply: Any, asked: Address) -> None:
        if reply != self._reply or not self._slots:  # what takes the longest is done for something new only
            self._table = _redis.cluster_table(reply, asked)
        slots, nodes = self._table
        if not slots:
            raise UnsettledError(f"{asked[0]}:{asked[1]} knows of nobody that has slots")
        gained = {address for slot, address in slots.items() if self._slots.get(slot) != address}
        self._reply, self._slots, self._nodes = reply, dict(slots), nodes
        self._masters = tuple(sorted(set(slots.values())))
        self.scans.update(self._masters, gained)

    def _nobody(self) -> str:
        return "no node of the cluster says who has the slots"
