"""The liveness options of a connection: what is asked for, applied to a new socket, and read back from the kernel."""

import logging
import socket
from functools import lru_cache
from typing import Any, Optional, Tuple

from extras import fastsock, telemetry
from extras._redis import KEEPALIVE_DEFAULT, SENTINEL
from extras.keepalive import Keepalive, parse
from extras.resolver import AddressInfo

logger = logging.getLogger(__name__)


def _asked(enabled: Optional[bool], options: Any) -> Keepalive:
    """Return the liveness to apply on this system, after a warning for what it has no option for."""
    parsed = parse(enabled is not False, None if options is SENTINEL else options)
    here = frozenset(fastsock.SPELLING)
    missing = [name for field, name in parsed.names.items() if field not in here]
    if parsed.ignored or missing:
        _warn_no_meaning((*parsed.ignored, *missing))
    return parsed.keepalive.with_defaults().only(here)


@lru_cache(maxsize=64)
def _warn_no_meaning(names: Tuple[str, ...]) -> None:
    logger.warning("socket_keepalive_options: no meaning on this system, ignored: %s", ", ".join(names))


@lru_cache(maxsize=64)
def _report(asked: Keepalive, held: Keepalive, socket_timeout_s: Optional[float]) -> None:
    """Log once what the kernel holds and what follows from it, as a warning where it is not what was asked for."""
    noticed = held.noticed_after(socket_timeout_s)
    if held.only(asked.given()) == asked or not asked.enabled:
        logger.info(
            "Liveness of Redis connections, as the kernel (%s) accepted it: %s; %s", fastsock.IMPL, held, noticed
        )
    else:
        logger.warning("Liveness of Redis connections: asked for %s, but the kernel holds %s; %s", asked, held, noticed)


class Lively:
    """Put before a TCP connection class of redis-py, blocking or async, takes the liveness options of any system.

    ``keepalive``: what the kernel holds for the open socket, ``None`` before the first connect.
    """

    keepalive: Optional[Keepalive] = None

    def __init__(
        self,
        *args: Any,
        socket_keepalive: Optional[bool] = True,
        socket_keepalive_options: Any = KEEPALIVE_DEFAULT,
        **kwargs: Any,
    ) -> None:
        self._asked = _asked(socket_keepalive, socket_keepalive_options)
        kwargs["socket_keepalive"] = self._asked.enabled
        kwargs["socket_keepalive_options"] = socket_keepalive_options
        super().__init__(*args, **kwargs)


def new_socket(address: AddressInfo, keepalive: Keepalive) -> socket.socket:
    """Return a socket for an address that has the options before it connects. Raises ``OSError``."""
    sock = socket.socket(*address[:3])
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fastsock.apply_keepalive(sock.fileno(), keepalive)
    except BaseException:
        sock.close()
        raise
    return sock


def held(sock: socket.socket, asked: Keepalive, socket_timeout_s: Optional[float]) -> Keepalive:
    """Return what the kernel holds for a socket that is connected, after it was logged; telemetry counts it."""
    found = fastsock.read_keepalive(sock.fileno())
    if telemetry.hooks is not None:
        telemetry.hooks.connected()
    _report(asked, found, socket_timeout_s)
    return found


def warn_unix(enabled: Optional[bool], options: Any) -> None:
    """Warn of options that have no meaning on a Unix socket."""
    if enabled or (options and options is not SENTINEL):
        _warn_no_meaning_on_unix()


@lru_cache(maxsize=1)
def _warn_no_meaning_on_unix() -> None:
    logger.warning("socket_keepalive and socket_keepalive_options have no meaning on a Unix socket and are ignored")
