"""Connects to whichever address of a name answers first, so that a dead one costs a quarter of a second.

The addresses are tried in the resolver's order, families in turn, each a little after the one before it, or at once
when that has failed (RFC 8305, "Happy Eyeballs Version 2", sections 4 and 5). The sockets are the caller's to make,
because liveness options have to be on them before they connect, which asyncio's own way does not allow.
"""

import asyncio
import os
import selectors
import socket
from collections import deque
from itertools import chain, zip_longest
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from extras.resolver import AddressInfo

HEAD_START_S = 0.25
"""RFC 8305's "Connection Attempt Delay"."""

NewSocket = Callable[[AddressInfo], socket.socket]
_Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)


def interleaved(addresses: List[AddressInfo]) -> List[AddressInfo]:
    """Return addresses with their families in turn, the first one's first."""
    families: Dict[int, List[AddressInfo]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for address in chain(*zip_longest(*families.values())) if address is not None]


def connect(addresses: List[AddressInfo], new_socket: NewSocket, timeout_s: Optional[float]) -> socket.socket:
    """Return a socket that is connected, and closes all others. It does not block.

    Raises ``socket.timeout`` after ``timeout_s`` seconds, and the last address's ``OSError`` if all have failed.
    """
    deadline = None if timeout_s is None else monotonic() + timeout_s
    left = deque(interleaved(addresses))
    failure = OSError("there is no address")
    next_at = 0.0
    with _Selector() as selector:
        try:
            while left or selector.get_map():
                now = monotonic()
                if deadline is not None and now >= deadline:
                    raise socket.timeout("timed out")
                if left and now >= next_at:
                    next_at = now + HEAD_START_S
                    try:
                        sock, is_connected = _begun(left.popleft(), new_socket)
                    except OSError as error:  # also an address family that the kernel lacks
                        failure, next_at = error, 0.0
                        continue
                    if is_connected:
                        return sock
                    selector.register(sock, selectors.EVENT_WRITE)
                    continue
                ends = [end for end in (deadline, next_at if left else None) if end is not None]
                for key, _ in selector.select(max(0.0, min(ends) - now) if ends else None):
                    sock = _socket_of(key)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    selector.unregister(sock)
                    if code == 0:
                        return sock
                    sock.close()
                    failure, next_at = OSError(code, os.strerror(code)), 0.0
        finally:
            for key in list(selector.get_map().values()):
                _socket_of(key).close()
    raise failure


def _socket_of(key: selectors.SelectorKey) -> socket.socket:
    sock: Any = key.fileobj
    made: socket.socket = sock
    return made


def _begun(address: AddressInfo, new_socket: NewSocket) -> Tuple[socket.socket, bool]:
    """Begin to connect; return the socket, and whether it is connected already."""
    sock = new_socket(address)
    try:
        sock.setblocking(False)
        sock.connect(address[4])
    except (BlockingIOError, InterruptedError):
        return sock, False
    except BaseException:
        sock.close()
        raise
    return sock, True


async def aconnect(addresses: List[AddressInfo], new_socket: NewSocket) -> socket.socket:
    """Do what :func:`connect` does on the running event loop, until it is cancelled."""
    if len(addresses) == 1:
        return await _aconnect_one(addresses[0], new_socket)
    left = deque(interleaved(addresses))
    failure = OSError("there is no address")
    under_way: Set[asyncio.Task[socket.socket]] = set()
    connected: List[socket.socket] = []
    try:
        try:
            while not connected and (left or under_way):
                if left:
                    under_way.add(asyncio.ensure_future(_aconnect_one(left.popleft(), new_socket)))
                done, _ = await asyncio.wait(
                    under_way, timeout=HEAD_START_S if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    under_way.discard(task)
                    error = task.exception()
                    if error is None:
                        connected.append(task.result())
                    elif isinstance(error, OSError):
                        failure = error
                    else:
                        raise error
        finally:
            for task in under_way:
                task.cancel()
                task.add_done_callback(_close_result)
            if under_way:
                await asyncio.wait(under_way)
    except BaseException:
        for sock in connected:
            sock.close()
        raise
    for sock in connected[1:]:
        sock.close()
    if not connected:
        raise failure
    return connected[0]


async def _aconnect_one(address: AddressInfo, new_socket: NewSocket) -> socket.socket:
    sock = new_socket(address)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address[4])
    except BaseException:
        sock.close()
        raise
    return sock


def _close_result(task: "asyncio.Task[socket.socket]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
