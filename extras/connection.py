"""Connections for redis-py whose TCP liveness options the kernel has accepted, usable as ``connection_class=``.

Each takes redis-py's own arguments. ``socket_keepalive`` is on unless it is ``False``, and
``socket_keepalive_options`` may hold any system's option names (see :mod:`extras.keepalive`). The options are applied
before ``connect()``, so that they cover the connect too, and read back after it: ``connection.keepalive`` is what the
kernel holds. Everything else is redis-py's.
"""

import socket
from time import monotonic
from typing import Any, Optional

from extras import budget, telemetry, tls
from extras._redis import (
    HAS_ASYNCIO,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    accepted,
    checks_hostname,
    with_known_tls,
)
from extras.dialling import connect
from extras.keepalive import Given
from extras.liveness import Lively, held, new_socket, warn_unix
from extras.resolver import look_up
from extras.transfer import FastTransfer

if HAS_ASYNCIO:
    from extras.async_connection import AsyncFastConnection, AsyncFastSSLConnection, AsyncFastUnixConnection

    __all__ = [
        "AsyncFastConnection",
        "AsyncFastSSLConnection",
        "AsyncFastUnixConnection",
        "FastConnection",
        "FastSSLConnection",
        "FastUnixConnection",
    ]
else:
    __all__ = ["FastConnection", "FastSSLConnection", "FastUnixConnection"]


class FastConnection(Lively, FastTransfer, Connection):
    """A TCP connection to Redis that notices a dead peer as soon as its options say.

    ``keepalive``: what the kernel holds for the open socket, ``None`` before the first connect. Connecting raises
    redis-py's ``ConnectionError`` or ``TimeoutError``; all addresses of a name share ``socket_connect_timeout``.
    """

    def _connect(self) -> socket.socket:
        timeout_s = budget.within(self.socket_connect_timeout)
        deadline = None if timeout_s is None else monotonic() + timeout_s
        addresses = look_up(self.host, self.port, self.socket_type, timeout_s)
        budget.waiting_for(f"a connection to {self.host}:{self.port}")
        sock = connect(addresses, lambda address: new_socket(address, self._asked), _left(deadline))
        try:
            sock.settimeout(self._handshake_timeout_s())
            was_open = self.keepalive is not None
            self.keepalive = held(sock, self._asked, self.socket_timeout)
            if was_open and telemetry.hooks is not None:
                telemetry.hooks.reconnected()
        except BaseException:
            sock.close()
            raise
        return sock

    def _handshake_timeout_s(self) -> Optional[float]:
        return self.socket_timeout


def _left(deadline: Optional[float]) -> Optional[float]:
    if deadline is None:
        return None
    left_s = deadline - monotonic()
    if left_s <= 0:
        raise socket.timeout("timed out")
    return left_s


class FastSSLConnection(SSLConnection, FastConnection):
    """:class:`FastConnection` under TLS: the same liveness options, below the handshake.

    Takes what the newest redis-py takes, on all of them, and reads the files for each connection; see
    :mod:`extras.tls`. Checks of OCSP are redis-py's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._tls = tls.asked(kwargs, checks_hostname(SSLConnection))
        super().__init__(*args, **with_known_tls(SSLConnection, kwargs))

    def _handshake_timeout_s(self) -> Optional[float]:
        return budget.within(self.socket_timeout)

    def _connect(self) -> socket.socket:
        sock: socket.socket
        if self._tls is None:
            sock = super()._connect()  # type: ignore[no-untyped-call]
        else:
            context = self._tls.context()
            plain = FastConnection._connect(self)
            try:
                sock = context.wrap_socket(plain, server_hostname=self.host)
            except BaseException:
                plain.close()
                raise
        sock.settimeout(self.socket_timeout)
        return sock


class FastUnixConnection(FastTransfer, UnixDomainSocketConnection):
    """A connection over a Unix socket. TCP liveness has no meaning there; asking for it ends in a warning."""

    def __init__(
        self,
        *args: Any,
        socket_keepalive: Optional[bool] = None,
        socket_keepalive_options: Optional[Given] = None,
        **kwargs: Any,
    ) -> None:
        warn_unix(socket_keepalive, socket_keepalive_options)
        super().__init__(*args, **accepted(UnixDomainSocketConnection, kwargs))
        # redis-py 3.5 lacks the second, 4.5.3 both.
        self.socket_timeout = kwargs.get("socket_timeout", getattr(self, "socket_timeout", None))
        self.socket_connect_timeout = kwargs.get("socket_connect_timeout") or self.socket_timeout

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(budget.within(self.socket_connect_timeout))
            sock.connect(self.path)
            sock.settimeout(self.socket_timeout)
        except BaseException:
            sock.close()
            raise
        return sock
