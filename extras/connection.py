"""Connections for redis-py whose TCP liveness options the kernel has accepted, usable as ``connection_class=``.

Each takes redis-py's own arguments. ``socket_keepalive`` is on unless it is ``False``, and
``socket_keepalive_options`` may hold any system's option names (see :mod:`extras.keepalive`). The options are applied
before ``connect()``, so that they cover the connect too, and read back after it: ``connection.keepalive`` is what the
kernel holds. Everything else is redis-py's.
"""

import logging
import socket
import ssl
from functools import lru_cache
from time import monotonic
from typing import Any, Optional, Tuple

from redis.exceptions import ConnectionError as RedisConnectionError

from extras import budget, fastsock, telemetry, tls
from extras._redis import (
    ASKS_FOR_CREDENTIALS_ASYNC,
    DISCONNECTS_WHEN_INTERRUPTED,
    HAS_ASYNCIO,
    KEEPALIVE_DEFAULT,
    NAMES_ERRORS,
    SENTINEL,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    accepted,
    async_timeout,
    checks_hostname,
    redis_asyncio,
    with_known_tls,
)
from extras.credentials import Known, asked_async
from extras.dialling import aconnect, connect
from extras.keepalive import Given, Keepalive, parse
from extras.packing import Packing
from extras.resolver import AddressInfo, alook_up, look_up
from extras.transfer import FastTransfer, not_written

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


def _new_socket(address: AddressInfo, keepalive: Keepalive) -> socket.socket:
    sock = socket.socket(*address[:3])
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fastsock.apply_keepalive(sock.fileno(), keepalive)
    except BaseException:
        sock.close()
        raise
    return sock


def _held(sock: socket.socket, asked: Keepalive, socket_timeout_s: Optional[float]) -> Keepalive:
    held = fastsock.read_keepalive(sock.fileno())
    if telemetry.hooks is not None:
        telemetry.hooks.connected()
    _report(asked, held, socket_timeout_s)
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
        socket_keepalive_options: Any = KEEPALIVE_DEFAULT,
        **kwargs: Any,
    ) -> None:
        self._asked = _asked(socket_keepalive, socket_keepalive_options)
        kwargs["socket_keepalive"] = self._asked.enabled
        super().__init__(*args, socket_keepalive_options=socket_keepalive_options, **kwargs)

    def _connect(self) -> socket.socket:
        timeout_s = budget.within(self.socket_connect_timeout)
        deadline = None if timeout_s is None else monotonic() + timeout_s
        addresses = look_up(self.host, self.port, self.socket_type, timeout_s)
        budget.waiting_for(f"a connection to {self.host}:{self.port}")
        sock = connect(addresses, lambda address: _new_socket(address, self._asked), _left(deadline))
        try:
            sock.settimeout(self._handshake_timeout_s())
            was_open = self.keepalive is not None
            self.keepalive = _held(sock, self._asked, self.socket_timeout)
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
        _warn_unix(socket_keepalive, socket_keepalive_options)
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


def _warn_unix(enabled: Optional[bool], options: Any) -> None:
    if enabled or (options and options is not SENTINEL):
        _warn_no_meaning_on_unix()


@lru_cache(maxsize=1)
def _warn_no_meaning_on_unix() -> None:
    logger.warning("socket_keepalive and socket_keepalive_options have no meaning on a Unix socket and are ignored")


if HAS_ASYNCIO:
    import asyncio

    _UNSENT_BYTES = 64 * 1024
    """From where on asyncio's transports have those who write wait."""
    _last_sender = 0
    """Which connection has sent last: a number, which keeps none alive."""
    _STREAM_BYTES = 1024 * 1024
    """Of twice as much that was received and not read asyncio's streams stop reading; by default of an eighth."""

    def _unsent_bytes(transport: Any) -> int:
        try:
            unsent: int = transport.get_write_buffer_size()
        except AttributeError:  # TLS's before Python 3.11, of a connection that is lost: what is read next says why
            return 0
        return unsent

    class _Careful(Packing):
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

        async def disconnect(self, nowait: bool = False, *args: Any, **kwargs: Any) -> None:
            """See redis-py's method. Where nobody waits for it the socket is closed, without TLS's goodbye before it.

            That would be waited for in the background, for half a minute at most, and for ever if the loop ends first.
            """
            stream = self._writer if nowait else None
            try:
                await super().disconnect(nowait, *args, **kwargs)  # type: ignore[misc]
            finally:
                if stream is not None:
                    stream.transport.abort()

        if not DISCONNECTS_WHEN_INTERRUPTED:

            async def read_response(self, *args: Any, **kwargs: Any) -> Any:
                try:
                    return await super().read_response(*args, **kwargs)  # type: ignore[misc]
                except asyncio.CancelledError:
                    await self.disconnect(nowait=True)
                    raise

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if _last_sender != id(self):
                await self._let_others_first()
            if self._writer is not None and self._reader is not None and type(command) is list:
                if check_health:
                    await self.check_health()  # type: ignore[attr-defined]
                    check_health = False
                stream, reader = self._writer, self._reader
                if stream is not None and reader is not None and reader.exception() is None:
                    transport = stream.transport
                    if not transport.is_closing():
                        try:
                            stream.writelines(command)
                        except BaseException as error:
                            transport.abort()  # a uvloop transport waits for ever for what it has taken of it
                            await self.disconnect(nowait=True)
                            if isinstance(error, OSError):
                                raise not_written(error) from error
                            raise
                        if _unsent_bytes(transport) <= _UNSENT_BYTES:
                            return  # with nothing to wait for redis-py would wait for it, with a timer
                        command = []
            try:
                await super().send_packed_command(command, check_health)  # type: ignore[misc]
            except asyncio.CancelledError:
                await self.disconnect(nowait=True)
                raise

        async def _let_others_first(self) -> None:
            """Hand out what has come for other connections, so that more is sent together and wakes the server once."""
            global _last_sender
            _last_sender = id(self)
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                await self.disconnect(nowait=True)  # it may be half connected
                raise

        def detach(self) -> asyncio.StreamWriter:
            """Hand the open stream to somebody who goes on with its transport, and forget it."""
            stream, reader = self._writer, self._reader
            self._reader = self._writer = None
            unasked = b"" if reader is None else bytes(vars(reader).get("_buffer") or b"")
            if stream is None or reader is None or reader.at_eof() or unasked:
                if stream is not None:
                    stream.transport.abort()
                if unasked.startswith(b"-"):  # such as: max number of clients reached
                    raise RedisConnectionError(unasked[1:].partition(b"\r\n")[0].decode("utf-8", "replace"))
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
                    waits = fastsock.wait_readable(self._own_socket, 0)
                except OSError:
                    waits = False
                closed = waits is False
                quiet = waits is None and getattr(self._reader, "_buffer", None) == b""
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
            socket_keepalive_options: Any = KEEPALIVE_DEFAULT,
            **kwargs: Any,
        ) -> None:
            self._asked = _asked(socket_keepalive, socket_keepalive_options)
            kwargs["socket_keepalive"] = self._asked.enabled
            super().__init__(*args, socket_keepalive_options=socket_keepalive_options, **kwargs)

        async def _connect(self) -> None:
            async with async_timeout(self.socket_connect_timeout):
                context = self._context()
                sock = await self._dial()
                try:
                    self._reader, self._writer = await asyncio.open_connection(
                        sock=sock,
                        limit=_STREAM_BYTES,
                        ssl=context,
                        server_hostname=self.host if context else None,
                    )
                except BaseException:
                    sock.close()
                    raise
                self._own_socket = sock

        def _context(self) -> "Optional[ssl.SSLContext]":
            return None

        if not ASKS_FOR_CREDENTIALS_ASYNC:

            async def on_connect(self) -> None:
                provider: Any = self.credential_provider
                if provider is not None:
                    self.credential_provider = Known(await asked_async(provider))  # type: ignore[assignment]
                try:
                    await super().on_connect()
                finally:
                    self.credential_provider = provider

        if not NAMES_ERRORS:

            def _error_message(self, exception: BaseException) -> str:
                # The number is given twice, and the reason not at all.
                return f"Error connecting to {self.host}:{self.port}. {exception or type(exception).__name__}"

        async def _dial(self) -> socket.socket:
            addresses = await alook_up(self.host, self.port)
            budget.waiting_for(f"a connection to {self.host}:{self.port}")
            sock = await aconnect(addresses, lambda address: _new_socket(address, self._asked))
            try:
                self.keepalive = _held(sock, self._asked, self.socket_timeout)
            except BaseException:
                sock.close()
                raise
            return sock

    _AsyncSSLConnection = redis_asyncio.SSLConnection  # whatever somebody puts in its place there

    class AsyncFastSSLConnection(_AsyncSSLConnection, AsyncFastConnection):
        """:class:`AsyncFastConnection` under TLS; see :class:`FastSSLConnection`."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._tls = tls.asked(kwargs, checks_hostname(_AsyncSSLConnection))
            super().__init__(*args, **with_known_tls(_AsyncSSLConnection, kwargs))

        def _context(self) -> ssl.SSLContext:
            context: ssl.SSLContext = self.ssl_context.get() if self._tls is None else self._tls.context()
            return context

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
                    self._reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=_STREAM_BYTES)
                except BaseException:
                    sock.close()
                    raise
                self._own_socket = sock
