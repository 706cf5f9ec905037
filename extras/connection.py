"""Connections for redis-py whose TCP liveness options the kernel has accepted, usable as ``connection_class=``.

Each takes redis-py's own arguments. ``socket_keepalive`` is on unless it is ``False``, and
``socket_keepalive_options`` may hold any system's option names (see :mod:`extras.keepalive`). The options are applied
before ``connect()``, so that they cover the connect too, and read back after it: ``connection.keepalive`` is what the
kernel holds. Everything else is redis-py's.
"""

import logging
import socket
from functools import lru_cache
from time import monotonic
from typing import Any, Optional, Tuple

from redis.exceptions import ConnectionError as RedisConnectionError

from extras import fastsock
from extras._redis import (
    HAS_ASYNCIO,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    accepted,
    async_timeout,
    redis_asyncio,
)
from extras.keepalive import Given, Keepalive, parse
from extras.transfer import FastTransfer

logger = logging.getLogger(__name__)

AddressInfo = Tuple[int, int, int, str, Any]
"""One result of ``getaddrinfo``: family, type, protocol, canonical name, address."""


def _asked(enabled: Optional[bool], options: Optional[Given]) -> Keepalive:
    """Return the liveness to apply on this system, after a warning for what it has no option for."""
    parsed = parse(enabled is not False, options)
    here = frozenset(fastsock.SPELLING)
    missing = [name for field, name in parsed.names.items() if field not in here]
    if parsed.ignored or missing:
        _warn_no_meaning((*parsed.ignored, *missing))
    return parsed.keepalive.with_defaults().only(here)


@lru_cache(maxsize=64)
def _warn_no_meaning(names: Tuple[str, ...]) -> None:
    logger.warning("socket_keepalive_options: no meaning on this system, ignored: %s", ", ".join(names))


@lru_cache(maxsize=64)
def _report(asked: Keepalive, held: Keepalive) -> None:
    """Log once what the kernel holds, as a warning where it is not what was asked for."""
    if held.only(asked.given()) == asked or not asked.enabled:
        logger.info("Liveness of Redis connections, as the kernel (%s) accepted it: %s", fastsock.IMPL, held)
    else:
        logger.warning("Liveness of Redis connections: asked for %s, but the kernel holds %s", asked, held)


def _new_socket(address: AddressInfo, keepalive: Keepalive) -> socket.socket:
    sock = socket.socket(*address[:3])
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fastsock.apply_keepalive(sock.fileno(), keepalive)
    except BaseException:
        sock.close()
        raise
    return sock


def _held(sock: socket.socket, asked: Keepalive) -> Keepalive:
    held = fastsock.read_keepalive(sock.fileno())
    _report(asked, held)
    return held


class FastConnection(FastTransfer, Connection):
    """A TCP connection to Redis that notices a dead peer as soon as its options say.

    ``keepalive``: what the kernel holds for the open socket, ``None`` before the first connect. Connecting raises
    redis-py's ``ConnectionError`` or ``TimeoutError``; all addresses of a name share ``socket_connect_timeout``.
    """

    keepalive: Optional[Keepalive] = None

    def __init__(
        self,
        *args: Any,
        socket_keepalive: Optional[bool] = True,
        socket_keepalive_options: Optional[Given] = None,
        **kwargs: Any,
    ) -> None:
        self._asked = _asked(socket_keepalive, socket_keepalive_options)
        kwargs["socket_keepalive"] = self._asked.enabled
        super().__init__(*args, **kwargs)

    def _connect(self) -> socket.socket:
        timeout_s = self.socket_connect_timeout
        deadline = None if timeout_s is None else monotonic() + timeout_s
        failure: OSError = OSError(f"the name {self.host!r} has no address")
        for address in socket.getaddrinfo(self.host, self.port, self.socket_type, socket.SOCK_STREAM):
            try:
                sock = _new_socket(address, self._asked)
                try:
                    sock.settimeout(_left(deadline))
                    sock.connect(address[4])
                    sock.settimeout(self.socket_timeout)
                    self.keepalive = _held(sock, self._asked)
                except BaseException:
                    sock.close()
                    raise
            except OSError as error:  # refused, unreachable, or an address family that the kernel lacks
                failure = error
                continue
            return sock
        raise failure


def _left(deadline: Optional[float]) -> Optional[float]:
    if deadline is None:
        return None
    left_s = deadline - monotonic()
    if left_s <= 0:
        raise socket.timeout("timed out")
    return left_s


class FastSSLConnection(SSLConnection, FastConnection):
    """:class:`FastConnection` under TLS: the same liveness options, below the handshake."""


class FastUnixConnection(FastTransfer, UnixDomainSocketConnection):
    """A connection over a Unix socket. TCP liveness has no meaning there; asking for it ends in a warning."""

    def __init__(
        self,
        *args: Any,
        socket_keepalive: Optional[bool] = None,
        socket_keepalive_options: Optional[Given] = None,
        **kwargs: Any,
    ) -> None:
        _warn_unix(socket_keepalive, socket_keepalive_options)
        super().__init__(*args, **accepted(UnixDomainSocketConnection, kwargs))
        # redis-py 3.5 lacks the second, 4.5.3 both.
        self.socket_timeout = kwargs.get("socket_timeout", getattr(self, "socket_timeout", None))
        self.socket_connect_timeout = kwargs.get("socket_connect_timeout") or self.socket_timeout

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.socket_connect_timeout)
            sock.connect(self.path)
            sock.settimeout(self.socket_timeout)
        except BaseException:
            sock.close()
            raise
        return sock


def _warn_unix(enabled: Optional[bool], options: Optional[Given]) -> None:
    if enabled or options:
        _warn_no_meaning_on_unix()


@lru_cache(maxsize=1)
def _warn_no_meaning_on_unix() -> None:
    logger.warning("socket_keepalive and socket_keepalive_options have no meaning on a Unix socket and are ignored")


if HAS_ASYNCIO:
    import asyncio

    class _Careful:
        """Never takes a closed connection for an open one, nor one caller's reply for another's.

        That the server has closed an idle connection redis-py asks the stream, which learns of it only when the event
        loop next runs; redis-py 8 does not ask at all where maintenance notifications are on. The kernel knows at once
        (recv(2), MSG_PEEK). After a cancelled call redis-py 4.5.3 gives the reply still to come to the next caller.
        """

        _reader: Optional[asyncio.StreamReader]
        _writer: Optional[asyncio.StreamWriter]
        _own_socket: Optional[socket.socket] = None

        async def can_read_destructive(self) -> bool:
            return not self._is_quiet() and bool(await super().can_read_destructive())  # type: ignore[misc]

        async def can_read(self) -> bool:
            return not self._is_quiet() and bool(await super().can_read())  # type: ignore[misc]

        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().read_response(*args, **kwargs)  # type: ignore[misc]
            except asyncio.CancelledError:
                if kwargs.get("disconnect_on_error", True):
                    await self.disconnect(nowait=True)  # type: ignore[attr-defined]
                raise

        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            try:
                await super().send_packed_command(*args, **kwargs)  # type: ignore[misc]
            except asyncio.CancelledError:
                await self.disconnect(nowait=True)  # type: ignore[attr-defined]
                raise

        def detach(self) -> asyncio.StreamWriter:
            """Hand the open stream to somebody who goes on with its transport, and forget it."""
            stream, reader = self._writer, self._reader
            self._reader = self._writer = None
            if stream is None or reader is None or reader.at_eof() or vars(reader).get("_buffer"):
                if stream is not None:
                    stream.transport.abort()
                raise RedisConnectionError("the server has closed the connection, or sent what nobody asked for")
            return stream

        def abandon(self) -> None:
            """Close the socket of a connection whose event loop is closed, and can do it no more."""
            if self._own_socket is not None:
                self._own_socket.close()
            self._reader = self._writer = self._own_socket = None

        def _is_quiet(self) -> bool:
            """Return whether nothing waits to be read, as far as that can be told without redis-py's own check."""
            closed = self._reader is not None and self._reader.at_eof()
            quiet = False
            if not closed and self._own_socket is not None:
                try:
                    closed = self._own_socket.recv(1, socket.MSG_PEEK) == b""
                except (BlockingIOError, InterruptedError):
                    quiet = getattr(self._reader, "_buffer", None) == b""
                except OSError:
                    closed = True
            if closed:
                raise RedisConnectionError("the server has closed the connection")
            return quiet

    class AsyncFastConnection(_Careful, redis_asyncio.Connection):
        """:class:`FastConnection` for redis.asyncio; name look-up and connect never block the event loop."""

        keepalive: Optional[Keepalive] = None

        def __init__(
            self,
            *args: Any,
            socket_keepalive: Optional[bool] = True,
            socket_keepalive_options: Optional[Given] = None,
            **kwargs: Any,
        ) -> None:
            self._asked = _asked(socket_keepalive, socket_keepalive_options)
            kwargs["socket_keepalive"] = self._asked.enabled
            super().__init__(*args, **kwargs)

        async def _connect(self) -> None:
            async with async_timeout(self.socket_connect_timeout):
                sock = await self._dial()
                tls = getattr(self, "ssl_context", None)
                try:
                    self._reader, self._writer = await asyncio.open_connection(
                        sock=sock, **({"ssl": tls.get(), "server_hostname": self.host} if tls else {})
                    )
                except BaseException:
                    sock.close()
                    raise
                self._own_socket = sock

        def _error_message(self, exception: BaseException) -> str:
            # redis-py before 5 gives the number twice, and the reason not at all.
            return f"Error connecting to {self.host}:{self.port}. {exception or type(exception).__name__}"

        async def _dial(self) -> socket.socket:
            loop = asyncio.get_running_loop()
            failure: OSError = OSError(f"the name {self.host!r} has no address")
            for address in await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
                try:
                    sock = _new_socket(address, self._asked)
                    try:
                        sock.setblocking(False)
                        await loop.sock_connect(sock, address[4])
                        self.keepalive = _held(sock, self._asked)
                    except BaseException:
                        sock.close()
                        raise
                except OSError as error:
                    failure = error
                    continue
                return sock
            raise failure

    class AsyncFastSSLConnection(redis_asyncio.SSLConnection, AsyncFastConnection):
        """:class:`AsyncFastConnection` under TLS."""

    class AsyncFastUnixConnection(_Careful, redis_asyncio.UnixDomainSocketConnection):
        """:class:`FastUnixConnection` for redis.asyncio."""

        def __init__(
            self,
            *args: Any,
            socket_keepalive: Optional[bool] = None,
            socket_keepalive_options: Optional[Given] = None,
            **kwargs: Any,
        ) -> None:
            _warn_unix(socket_keepalive, socket_keepalive_options)
            super().__init__(*args, **kwargs)
            if not hasattr(self, "host"):  # redis-py 4.5.3 names both in its error after a timeout
                self.host, self.port = self.path, 0

        async def _connect(self) -> None:
            async with async_timeout(self.socket_connect_timeout):
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    sock.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(sock, self.path)
                    self._reader, self._writer = await asyncio.open_unix_connection(sock=sock)
                except BaseException:
                    sock.close()
                    raise
                self._own_socket = sock
