"""One connection to Redis for all tasks of an event loop: commands go out as they come, replies come back in order.

No task waits for a free connection, and a command costs one write and one future. A reply that does not come is
noticed by its silence: when something is asked and no byte has arrived for ``socket_timeout`` seconds, all who wait are
told so and the connection is given up. Redis answers each connection's commands in their order (RESP specification,
"pipelining"), so the oldest waiting future is whose reply comes next; that of a cancelled task keeps its place.
"""

import asyncio
from collections import deque
from typing import Any, Callable, Deque, Optional

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras._redis import error_parser

_BUFFER_BYTES = 65536
_NOTHING = object()
_PING = hiredis.pack_command(("PING",))


class _Replies(asyncio.BufferedProtocol):
    """Hands each reply that arrives on a transport to whoever asked for it."""

    def __init__(self, parse_error: Callable[[str], Exception], timeout_s: Optional[float], peer: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._peer = peer
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=parse_error, notEnoughData=_NOTHING
        )
        self._buffer = bytearray(_BUFFER_BYTES)
        self._waiting: Deque[asyncio.Future[Any]] = deque()
        self._silent_since = 0.0
        self._watch: Optional[asyncio.TimerHandle] = None
        self._writable: Optional[asyncio.Future[None]] = None
        self._transport: Any = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def take(self, transport: Any) -> None:
        """Read from and write to an open transport from now on."""
        self._transport = transport
        self._silent_since = self._loop.time()
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return not self._transport.is_closing()

    @property
    def idle_s(self) -> float:
        """Seconds since anything was sent or received."""
        return self._loop.time() - self._silent_since

    async def ask(self, packed: bytes) -> Any:
        """Send a command and return its reply, or raise it if it is an error."""
        while self._writable is not None:
            await asyncio.shield(self._writable)
        if self._transport.is_closing():
            raise RedisConnectionError(f"the connection to {self._peer} is closed")
        if not self._waiting:
            self._silent_since = self._loop.time()
            if self._watch is None and self._timeout_s is not None:
                self._watch = self._loop.call_later(self._timeout_s, self._check_silence)
        answer = self._loop.create_future()
        self._waiting.append(answer)
        self._transport.write(packed)
        return await answer

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._silent_since = self._loop.time()
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

    def _check_silence(self) -> None:
        self._watch = None
        if not self._waiting or self._timeout_s is None:
            return
        left_s = self._silent_since + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._check_silence)
        else:
            self._give_up(RedisTimeoutError(f"Timeout reading from {self._peer}: no answer for {self._timeout_s:g} s"))

    def _give_up(self, error: Exception) -> None:
        self._fail(error)
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                _raise_in(answer, type(error)(*error.args))  # one each: a traceback is written into it

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._fail(RedisConnectionError(f"the connection to {self._peer} was lost: {exc or 'closed by the server'}"))
        self.resume_writing()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if not self.ended.done():
            self.ended.set_result(None)

    async def close(self) -> None:
        """Close the transport, and return when that is done."""
        self._transport.close()
        await self.ended


def _raise_in(answer: "asyncio.Future[Any]", error: Exception) -> None:
    answer.set_exception(error)
    answer.exception()  # so that it counts as retrieved if the task is cancelled before it runs again


class MultiplexedConnection:
    """Carries out commands of any number of tasks of one event loop on one connection, which it opens when needed.

    ``make_connection``: makes a redis.asyncio connection of ours that connects, authenticates and selects as its
    arguments say. ``timeout_s``: longest silence while a reply is due. ``health_check_interval_s``: ``PING`` before use
    when idle for longer, 0 for never.

    A command that was under way when a connection was lost is sent again, once, on a new one, and after a timeout if
    ``retry_on_timeout``: it must be one that may be carried out twice, such as every command of the tracker store.
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
        self._replies: Optional[_Replies] = None
        self.connection: Any = None
        """The connection that was made; its socket is read and written here."""
        self._stream: Optional[asyncio.StreamWriter] = None

    async def execute(self, *command: Any) -> Any:
        """Send a command, and return its reply.

        Raises redis-py's ``ConnectionError``, ``TimeoutError``, or the error that Redis replied.
        """
        packed = hiredis.pack_command(command)
        may_be_stale, may_time_out = True, self._retry_on_timeout
        while True:
            replies = self._replies
            if replies is None or not replies.is_open:
                replies, may_be_stale = await self._open(), False
            elif 0 < self._health_check_interval_s < replies.idle_s:
                replies = await self._checked(replies)
            try:
                return await replies.ask(packed)
            except RedisTimeoutError:
                if not may_time_out:
                    raise
                may_time_out = False
            except RedisConnectionError:
                if not may_be_stale:
                    raise
                may_be_stale = False

    async def _checked(self, replies: _Replies) -> _Replies:
        try:
            await replies.ask(_PING)
        except (RedisTimeoutError, RedisConnectionError):
            return await self._open()
        return replies

    async def _open(self) -> _Replies:
        async with self._opening:
            if self._replies is None or not self._replies.is_open:
                connection = self._make_connection()
                await connection.connect()
                replies = _Replies(error_parser(connection), self._timeout_s, self._peer)
                self.connection, self._stream = connection, connection.detach()
                replies.take(self._stream.transport)
                self._replies = replies
            return self._replies

    async def close(self) -> None:
        """Close the connection; the next command opens a new one."""
        replies, self._replies = self._replies, None
        if replies is not None:
            await replies.close()

    def abandon(self) -> None:
        """Close the socket of a connection whose event loop is closed, and can do it no more."""
        if self.connection is not None:
            self.connection.abandon()
        self._replies = self._stream = self.connection = None
