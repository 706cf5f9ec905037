"""Holds server and client to cores, so that the scheduler's choice of them is not what is measured.

On one core they take turns, and a wake-up of the other costs no interrupt between cores: the steadiest figures. On two
they overlap, as on a machine with cores to spare.
"""

import os
from contextlib import contextmanager
from typing import Iterator, List, NamedTuple, Optional

from extras.bench.missing import Missing

CHOICES = ("same-core", "split-core", "none")


class Plan(NamedTuple):
    """Which core the server and the client are held to, ``None`` where the system chooses."""

    server: Optional[int]
    client: Optional[int]

    def __str__(self) -> str:
        if self.server is None:
            return "none, the system chooses cores"
        if self.server == self.client:
            return f"same-core, server and clients on core {self.server}"
        return f"split-core, server on core {self.server}, clients on core {self.client}"


def plan(asked: Optional[str], own_server: bool) -> Plan:
    """Return the cores for one of ``CHOICES``; ``None``: ``same-core`` where that can be done.

    Raises :class:`Missing` that says why, if what was asked for cannot be done.
    """
    cores = _cores()
    if asked == "none" or (asked is None and not (own_server and cores)):
        return Plan(None, None)
    if not own_server:
        raise Missing(f"--pin {asked}: the server of --url cannot be pinned; leave one of the two out")
    if not cores:
        raise Missing(f"--pin {asked}: this system ({os.name}) has no os.sched_setaffinity; use --pin none")
    if asked == "split-core":
        if len(cores) < 2:
            raise Missing("--pin split-core: this process may run on one core only; use --pin same-core")
        return Plan(server=cores[-1], client=cores[-2])
    return Plan(server=cores[-1], client=cores[-1])


def _cores() -> List[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


@contextmanager
def pinned(core: Optional[int]) -> Iterator[None]:
    """Hold this thread to a core for a while, and with it the threads and processes that it starts meanwhile."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
