"""Looks names up without holding anybody up for longer than they care to wait, however long the resolver takes.

``getaddrinfo`` cannot be ended. It runs on a daemon thread of its own, so that a resolver that hangs holds up neither
an event loop, nor asyncio's executor, nor the end of the interpreter; one for each name and port, which all who ask
meanwhile share. Who asks later than ``STALE_S`` after it began has another begun, so that one that hangs for ever does
not keep the name from all, but never more than ``MOST`` of a name, so that threads do not pile up. What was found is
not kept: names move.
"""

import asyncio
import ipaddress
import os
import socket
import threading
from contextlib import suppress
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from extras import budget

AddressInfo = Tuple[Any, Any, int, str, Any]
"""One result of ``getaddrinfo``: family, type, protocol, canonical name, address."""

Host = Optional[str]
"""What ``getaddrinfo`` takes: a name, an address, ``None`` for this machine, and, whatever types say, bytes."""

Question = Tuple[Host, int, int]
"""Host, port and address family, 0 for any."""


class _LookUp:
    """One call of ``getaddrinfo`` under way, and whom to wake when it has returned."""

    def __init__(self) -> None:
        self.waiting: Set[Callable[[], None]] = set()
        self.found: List[AddressInfo] = []
        self.failure: Optional[Exception] = None
        self.began_at = monotonic()

    def result(self) -> List[AddressInfo]:
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)  # one for each, because a traceback is written into it
        return self.found


STALE_S = 2.0
MOST = 4

_lock = threading.Lock()
_under_way: Dict[Question, List[_LookUp]] = {}
"""What is asked at present, the newest last."""


def _after_fork() -> None:
    """Forget the parent's threads, which a child process does not have."""
    global _lock, _under_way
    _lock, _under_way = threading.Lock(), {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def look_up(host: Host, port: int, family: int, timeout_s: Optional[float]) -> List[AddressInfo]:
    """Return the addresses of a name. Raises ``OSError``, ``socket.timeout`` after ``timeout_s`` seconds."""
    literal = _literal(host, port, family)
    if literal is not None:
        return literal
    budget.waiting_for(f"the address of {host}")
    has_ended = threading.Event()
    under_way = _join((host, port, family), has_ended.set)
    try:
        if not has_ended.wait(timeout_s):
            raise socket.timeout("timed out")
    finally:
        _leave(under_way, has_ended.set)
    return under_way.result()


async def alook_up(host: Host, port: int, family: int = 0) -> List[AddressInfo]:
    """Return the addresses of a name, and let the event loop run meanwhile. Raises ``OSError``."""
    literal = _literal(host, port, family)
    if literal is not None:
        return literal
    budget.waiting_for(f"the address of {host}")
    loop = asyncio.get_running_loop()
    has_ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not has_ended.done():
            has_ended.set_result(None)

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end)

    under_way = _join((host, port, family), wake)
    try:
        await has_ended
    finally:
        _leave(under_way, wake)
    return under_way.result()


def _literal(host: Host, port: int, family: int) -> Optional[List[AddressInfo]]:
    """Return what ``host`` says itself, if it is an address; ``None`` if it has to be looked up."""
    if not isinstance(host, str):
        return None
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return list(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST))


def _join(question: Question, wake: Callable[[], None]) -> _LookUp:
    """Wait with others for the answer to a question, after asking it if nobody has, lately."""
    with _lock:
        all_under_way = _under_way.setdefault(question, [])
        if all_under_way:
            newest = all_under_way[-1]
            if len(all_under_way) >= MOST or monotonic() < newest.began_at + STALE_S:
                newest.waiting.add(wake)
                return newest
        under_way = _LookUp()
        under_way.waiting.add(wake)
        all_under_way.append(under_way)
        thread = threading.Thread(
            target=_ask, args=(question, under_way, _lock, _under_way), name="extras-getaddrinfo", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            _forget(question, under_way, _under_way)
            if isinstance(error, RecursionError):
                raise
            raise OSError(f"cannot look up {question[0]!r}: {error}") from error
    return under_way


def _forget(question: Question, under_way: _LookUp, register: Dict[Question, List[_LookUp]]) -> None:
    if under_way in register.get(question, ()):
        register[question].remove(under_way)
        if not register[question]:
            del register[question]


def _leave(under_way: _LookUp, wake: Callable[[], None]) -> None:
    with _lock:
        under_way.waiting.discard(wake)


def _ask(question: Question, under_way: _LookUp, lock: Any, register: Dict[Question, List[_LookUp]]) -> None:
    host, port, family = question
    try:
        under_way.found = list(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
        if not under_way.found:
            raise OSError(f"the name {host!r} has no address")
    except Exception as error:  # also UnicodeError, for a name that is none
        under_way.failure = error if isinstance(error, OSError) else OSError(f"{host!r} is no host name: {error}")
        under_way.failure.__traceback__ = None
    with lock:
        _forget(question, under_way, register)
        waiting, under_way.waiting = under_way.waiting, set()
    for wake in waiting:
        wake()
