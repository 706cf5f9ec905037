"""The connections of :mod:`extras.connection` for redis.asyncio; not to be imported where redis-py has none."""

import asyncio
import socket
import ssl
from typing import Any, Optional

from extras import budget, tls
from extras._redis import (
    ASKS_FOR_CREDENTIALS_ASYNC,
    NAMES_ERRORS,
    async_timeout,
    checks_hostname,
    redis_asyncio,
    with_known_tls,
)
from extras.async_transfer import AsyncTransfer
from extras.credentials import Known, asked_async
from extras.dialling import aconnect
from extras.keepalive import Given
from extras.liveness import Lively, held, new_socket, warn_unix
from extras.resolver import alook_up

_STREAM_BYTES = 1024 * 1024
"""Of twice as much that was received and not read asyncio's streams stop reading; by default of an eighth."""


class AsyncFastConnection(Lively, AsyncTransfer, redis_asyncio.Connection):
    """:class:`FastConnection` for redis.asyncio; name look-up and connect never block the event loop."""

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
        sock = await aconnect(addresses, lambda address: new_socket(address, self._asked))
        try:
            self.keepalive = held(sock, self._asked, self.socket_timeout)
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


class AsyncFastUnixConnection(AsyncTransfer, redis_asyncio.UnixDomainSocketConnection):
    """:class:`FastUnixConnection` for redis.asyncio."""

    def __init__(
        self,
        *args: Any,
        socket_keepalive: Optional[bool] = None,
        socket_keepalive_options: Optional[Given] = None,
        **kwargs: Any,
    ) -> None:
        warn_unix(socket_keepalive, socket_keepalive_options)
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
