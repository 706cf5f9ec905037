"""Sending on a redis.asyncio connection, and whether it is still there. No connection class: a mixin for those."""

import asyncio
import socket
from typing import Any, Optional

from redis.exceptions import ConnectionError as RedisConnectionError

from extras import fastsock
from extras._redis import DISCONNECTS_WHEN_INTERRUPTED
from extras.packing import Packing
from extras.transfer import not_written

_UNSENT_BYTES = 64 * 1024
"""From where on asyncio's transports have those who write wait."""
_last_sender = 0
"""Which connection has sent last: a number, which keeps none alive."""


def _unsent_bytes(transport: Any) -> int:
    try:
        unsent: int = transport.get_write_buffer_size()
    except AttributeError:  # TLS's before Python 3.11, of a connection that is lost: what is read next says why
        return 0
    return unsent


class AsyncTransfer(Packing):
    """Put before a connection class of redis.asyncio, sends what goes out at once past its streams' own waiting.

    And never takes a closed connection for an open one, nor one caller's reply for another's.

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
