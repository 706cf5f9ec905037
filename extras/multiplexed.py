"""One connection to Redis for all tasks of an event loop: commands go out as they come, replies come back in order.

No task waits for a free connection, and a command costs one write and one future. A reply that does not come is
noticed by its silence: when something is asked and no byte has arrived for ``socket_timeout`` seconds, all who wait are
told so and the connection is given up. Redis answers each connection's commands in their order (RESP specification,
"pipelining"), so the oldest waiting future is whose reply comes next; that of a cancelled task keeps its place.
"""

import asyncio
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Any, Callable, Deque, Optional

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras._redis import error_parser

_BUFFER_BYTES = 65536
_LAST_LOOK_S = 0.05
_NOTHING = object()
_PING = hiredis.pack_command(("PING",))


class _Replies(asyncio.BufferedProtocol):
    """Hands each reply that arrives on a transport to whoever asked for it."""

    def __init__(self, parse_error: Callable[[str], Exception], timeout_s: Optional[float], peer: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._peer = peer
        self._reader: Any = hiredis.Reader(
            protocolError=InvalidResponse, replyError=parse_error, notEnoughData=_NOTHING
        )
        # TLS since Python 3.11 reads into slices of what it is given; those of a bytearray are copies.
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._waiting: Deque[asyncio.Future[Any]] = deque()
        self._silent_since = 0.0
        self._watch: Optional[asyncio.TimerHandle] = None
        self._writable: Optional[asyncio.Future[None]] = None
        self._transport: Any = None
        self._error: Optional[Exception] = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.was_closed = False
        """Whether the end was asked for, rather than met."""

    def take(self, transport: Any) -> None:
        """Read from and write to an open transport from now on."""
        self._transport = transport
        self._silent_since = monotonic()
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        # Before Python 3.11 a TLS transport that the server has closed says that it is open.
        return self._error is None and not self._transport.is_closing()

    @property
    def idle_s(self) -> float:
        """Seconds since anything was sent or received, 0 while a reply is due."""
        return 0.0 if self._waiting else monotonic() - self._silent_since

    async def ask(self, packed: bytes) -> Any:
        """Send a command and return its reply, or raise it if it is an error."""
        while self._writable is not None:
            await asyncio.shield(self._writable)
        if not self.is_open:
            raise _copied(self._error or self._lost("its transport is closing"))
        if not self._waiting:
            self._silent_since = monotonic()
            if self._watch is None and self._timeout_s is not None:
                self._watch = self._loop.call_later(self._timeout_s, self._check_silence)
        answer = self._loop.create_future()
        self._waiting.append(answer)
        self._transport.write(packed)
        return await answer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._silent_since = monotonic()
        self._reader.feed(self._buffer, 0, nbytes)
        try:
            while True:
                reply = self._reader.gets()
                if reply is _NOTHING:
                    return
                if not self._waiting:
                    raise InvalidResponse(f"{self._peer} sent a reply that nobody asked for")
                answer = self._waiting.popleft()
                if answer.done():
                    continue  # its task was cancelled
                if isinstance(reply, Exception):
                    _raise_in(answer, reply)
                else:
                    answer.set_result(reply)
        except InvalidResponse as error:
            self._give_up(error)

    def _check_silence(self, looked_at: Optional[float] = None) -> None:
        self._watch = None
        if self._timeout_s is None or (not self._waiting and self._writable is None):
            return
        left_s = self._silent_since + self._timeout_s - monotonic()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._check_silence)
        elif looked_at != self._silent_since:
            # The loop itself may have been held up, and some loops send only at the end of a turn, just before this.
            self._watch = self._loop.call_later(_LAST_LOOK_S, self._check_silence, self._silent_since)
        else:
            self._give_up(RedisTimeoutError(f"Timeout reading from {self._peer}: no answer for {self._timeout_s:g} s"))

    def _give_up(self, error: Exception) -> None:
        """Fail all who wait, and those who come later with the error of the first call."""
        if self._error is None:
            self._error = error
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                _raise_in(answer, _copied(self._error))
        # Also what is lost already: before Python 3.11 a TLS transport counts as unclosed otherwise.
        self._transport.abort()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def eof_received(self) -> None:
        self._give_up(self._lost("closed by the server"))

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._give_up(self._lost(exc or "closed by the server"))
        self.resume_writing()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if not self._ended.done():
            self._ended.set_result(None)

    def _lost(self, why: object) -> RedisConnectionError:
        return RedisConnectionError(f"the connection to {self._peer} was lost: {why}")

    async def close(self) -> None:
        """Fail all who wait, close the transport, and return when that is done."""
        self.was_closed = True
        # Not the transport's close(), which waits for as long as the server takes nothing.
        self._give_up(RedisConnectionError(f"the connection to {self._peer} was closed"))
        await self._ended


def _copied(error: Exception) -> Exception:
    """Make one for each who is told, because a traceback is written into it."""
    return type(error)(*error.args)


def _raise_in(answer: "asyncio.Future[Any]", error: Exception) -> None:
    answer.set_exception(error)
    answer.exception()  # so that it counts as retrieved if the task is cancelled before it runs again


class MultiplexedConnection:
    """Carries out commands of any number of tasks of one event loop on one connection, which it opens when needed.

    ``make_connection``: makes a redis.asyncio connection of ours that connects, authenticates and selects as its
    arguments say. ``timeout_s``: longest silence while a reply is due. ``health_check_interval_s``: ``PING`` before use
    when idle for longer, 0 for never.

    A command that was under way when a connection was lost is sent again on a new one, after a timeout only if
    ``retry_on_timeout``, and never more than once: it must be one that may be carried out twice, such as every command
    of the tracker store.
    """

    def __init__(
        self,
        make_connection: Callable[[], Any],
        timeout_s: Optional[float],
        retry_on_timeout: bool,
        health_check_interval_s: float,
        peer: str,
    ) -> None:
        self._make_connection = make_connection
        self._timeout_s = timeout_s
        self._retry_on_timeout = retry_on_timeout
        self._health_check_interval_s = health_check_interval_s
        self._peer = peer
        self._opening = asyncio.Lock()
        self._failure: Optional[Exception] = None
        self._replies: Optional[_Replies] = None
        self.connection: Any = None
        """The connection that was made; its socket is read and written here."""
        self._stream: Optional[asyncio.StreamWriter] = None

    async def execute(self, *command: Any) -> Any:
        """Send a command, and return its reply.

        Raises redis-py's ``ConnectionError``, ``TimeoutError``, or the error that Redis replied.
        """
        packed = hiredis.pack_command(command)
        was_sent = False
        while True:
            replies, is_new = self._replies, False
            if replies is not None and 0 < self._health_check_interval_s < replies.idle_s and replies.is_open:
                with suppress(RedisError):  # whatever Redis answers, it answers
                    await replies.ask(_PING)
            if replies is None or not replies.is_open:
                replies, is_new = await self._open(), True
            try:
                return await replies.ask(packed)
            except RedisTimeoutError:
                if was_sent or not self._retry_on_timeout:
                    raise
            except RedisConnectionError:
                # Some error replies are ConnectionErrors too; the connection is open after them.
                if was_sent or is_new or replies.is_open or replies.was_closed:
                    raise
            was_sent = True

    async def _open(self) -> _Replies:
        known = self._failure
        async with self._opening:
            if self._replies is not None and self._replies.is_open:
                return self._replies
            if self._failure is not None and self._failure is not known:
                raise _copied(self._failure)  # of the attempt that this one waited for, not another after it
            try:
                self._replies = await self._connected()
            except RedisError as error:
                self._failure = _copied(error)  # without the traceback, which holds on to everything
                raise
            return self._replies

    async def _connected(self) -> _Replies:
        connection = self._make_connection()
        await connection.connect()
        replies = _Replies(error_parser(connection), self._timeout_s, self._peer)
        stream = connection.detach()
        if stream.transport.is_closing():  # it may have told its protocol already, and tells no other
            raise RedisConnectionError(f"the connection to {self._peer} was lost")
        self.connection, self._stream = connection, stream
        replies.take(stream.transport)
        return replies

    async def close(self) -> None:
        """Close the connection; the next command opens a new one. Commands that wait for their reply fail."""
        async with self._opening:  # so that what is being opened is closed too
            replies, self._replies = self._replies, None
        if replies is not None:
            await replies.close()

    def abandon(self) -> None:
        """Close the socket of a connection whose event loop is closed, and can do it no more."""
        if self.connection is not None:
            self.connection.abandon()
        self._replies = self._stream = self.connection = None
