"""One connection to Redis for all tasks of an event loop: nobody waits for a free one, and lost ones are replaced.

What it sends and receives is :mod:`extras.replies`; here is when a connection is opened, checked and closed, and what
is sent again after a loss.
"""

import asyncio
import warnings
from contextlib import suppress
from typing import Any, Callable, Coroutine, List, Optional, Sequence, Tuple

import hiredis
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras import budget, telemetry
from extras.fastsock import pack_commands
from extras.packing import BUFFERS, is_utf8
from extras.replies import Replies, copied

_PING = [hiredis.pack_command(("PING",))]

Command = Sequence[Any]
"""A command's name and its arguments."""


class MultiplexedConnection:
    """Carries out commands of any number of tasks of one event loop on one connection, which it opens when needed.

    ``make_connection``: makes a redis.asyncio connection of ours that connects, authenticates and selects as its
    arguments say, and is not checked by redis-py itself. ``health_check_interval_s``: ``PING`` before use when idle for
    longer, 0 for never. ``may_be_repeated``: whether a command may be carried out twice. ``retry``: returns redis-py's
    retry object where the user gave one.

    What was under way when a connection was lost is sent again only if all of it may be repeated: as often and for the
    errors that the retry object says; without one, once on a new connection in place of a kept one, and after a timeout
    only if the connection's ``retry_on_timeout`` says so.
    """

    def __init__(
        self,
        make_connection: Callable[[], Any],
        health_check_interval_s: float,
        may_be_repeated: Callable[[Command], bool],
        retry: Callable[[], Any],
    ) -> None:
        self._make_connection = make_connection
        self._health_check_interval_s = health_check_interval_s
        self._may_be_repeated = may_be_repeated
        self._retry = retry
        self._packer = make_connection()
        encoder = self._packer.encoder
        self._is_utf8 = is_utf8(encoder) and encoder.encoding_errors == "strict"
        self._opening = asyncio.Lock()
        self._failure: Optional[Exception] = None
        self._replies: Optional[Replies] = None
        self.connection: Any = None
        """The connection that was made; its socket is read and written here."""
        self._stream: Optional[asyncio.StreamWriter] = None

    def execute(self, *command: Any) -> Coroutine[Any, Any, Any]:
        """Send a command, and return its reply as it was parsed.

        Raises redis-py's ``ConnectionError``, ``TimeoutError``, ``DataError`` for an argument that cannot be sent, or
        the error that Redis replied.
        """
        commands = (command,)
        return self._carry_out(self.packed(commands), commands, 0)

    def ready(self) -> Optional[Replies]:
        """Return what takes a packed command at once, ``None`` where :meth:`execute` has something to do first."""
        replies = self._replies
        if replies is None or self._health_check_interval_s or replies.writable is not None or not replies.is_open:
            return None
        return replies

    async def execute_again(self, error: Exception, replies: Replies, command: Command) -> Any:
        """Go on as :meth:`execute` does after what :meth:`ready` returned has failed to carry out a command."""
        commands, failures = (command,), [error]
        del error  # whose traceback will hold this frame
        backoff_s = self._backoff_s(failures[0], 1, replies, False, commands)
        if backoff_s is None:
            raise failures.pop()
        if backoff_s > 0:
            await asyncio.sleep(backoff_s)
        return await self._carry_out(self.packed(commands), commands, 0, 1)

    def execute_batch(
        self, wire: Sequence[Command], commands: Sequence[Command]
    ) -> Coroutine[Any, Any, Tuple[List[Any], bool]]:
        """Send commands in one piece, and return their replies, errors among them, and whether there are any.

        ``wire``: what is sent. ``commands``: those of them that must be repeatable for the whole to be. Raises as
        :meth:`execute` does, but no error that Redis replied.
        """
        return self._carry_out(self.packed(wire), commands, len(wire))

    def packed(self, commands: Sequence[Command]) -> List[bytes]:
        """Return what :meth:`Replies.ask` takes."""
        pieces = pack_commands(commands, BUFFERS) if self._is_utf8 else None
        if pieces is None:
            pieces = self._packer.pack_commands(commands)
        # What its owner could change while it waits to be sent is sent as a copy.
        return pieces if len(pieces) == 1 else [piece if type(piece) is bytes else bytes(piece) for piece in pieces]

    async def _carry_out(self, pieces: List[bytes], commands: Sequence[Command], count: int, failures: int = 0) -> Any:
        while True:
            replies, is_new = self._replies, False
            if replies is not None and 0 < self._health_check_interval_s < replies.idle_s and replies.is_open:
                with suppress(RedisError):  # whatever Redis answers, it answers
                    await replies.ask(_PING)
            if replies is None or not replies.is_open:
                replies, is_new = await self._open(), True
            try:
                while replies.writable is not None:
                    await asyncio.shield(replies.writable)
                return await replies.ask(pieces, count)
            except (RedisConnectionError, RedisTimeoutError) as error:
                failures += 1
                backoff_s = self._backoff_s(error, failures, replies, is_new, commands)
                if backoff_s is None:
                    raise
            if backoff_s > 0:
                await asyncio.sleep(backoff_s)

    def _backoff_s(
        self, error: Exception, failures: int, replies: Replies, is_new: bool, commands: Sequence[Command]
    ) -> Optional[float]:
        """Return how long to wait before the command is sent again, ``None`` if it is not to be."""
        # Some error replies are ConnectionErrors too; the connection is open after them.
        was_refused = replies.is_open
        if replies.was_closed or not (was_refused or all(map(self._may_be_repeated, commands))):
            return None
        retry = self._retry()
        if retry is not None:
            is_meant = isinstance(error, retry._supported_errors) and (
                isinstance(error, BusyLoadingError) if was_refused else True
            )
            if not is_meant or 0 <= retry._retries < failures:
                return None
            return float(retry._backoff.compute(failures))
        if failures > 1 or was_refused:
            return None
        if isinstance(error, RedisTimeoutError):
            return 0.0 if self._packer.retry_on_timeout else None
        return None if is_new else 0.0

    async def _open(self) -> Replies:
        known = self._failure
        budget.waiting_for(f"a connection to {self._peer}")
        async with self._opening:
            if self._replies is not None and self._replies.is_open:
                budget.waiting_for_a_reply()
                return self._replies
            if self._failure is not None and self._failure is not known:
                raise copied(self._failure)  # of the attempt that this one waited for, not another after it
            was_open = self._replies is not None
            try:
                self._replies = await self._connected()
            except RedisError as error:
                self._failure = copied(error)  # without the traceback, which holds on to everything
                raise
            if was_open and telemetry.hooks is not None:
                telemetry.hooks.reconnected()
            budget.waiting_for_a_reply()
            return self._replies

    async def _connected(self) -> Replies:
        connection = self._make_connection()
        await connection.connect()
        replies = Replies(connection, connection.socket_timeout, self._peer)
        stream = connection.detach()
        if stream.transport.is_closing():  # it may have told its protocol already, and tells no other
            raise RedisConnectionError(f"the connection to {self._peer} was lost")
        self.connection, self._stream = connection, stream
        replies.take(stream.transport, connection._own_socket)
        return replies

    @property
    def _peer(self) -> str:
        return getattr(self._packer, "path", None) or f"{self._packer.host}:{self._packer.port}"

    async def close(self) -> None:
        """Close the connection; the next command opens a new one. Commands that wait for their reply fail."""
        async with self._opening:  # so that what is being opened is closed too
            replies, self._replies = self._replies, None
        if replies is not None:
            await replies.close()

    def lose(self, why: str) -> None:
        """Give up a connection that leads to the wrong server; those who wait on it fail as if it had been lost."""
        if self._replies is not None:
            self._replies.lose(why)

    def abandon(self) -> None:
        """Close the socket of a connection whose event loop is closed, and can do it no more."""
        if self.connection is not None:
            self.connection.abandon()
        self._replies = self._stream = self.connection = None

    def __del__(self) -> None:
        replies = self.__dict__.get("_replies")
        if replies is not None and replies.is_open:
            warnings.warn(f"unclosed connection to {self._peer}", ResourceWarning, stacklevel=2, source=self)
            with suppress(RuntimeError):  # its loop is closed, or runs in another thread
                if asyncio.get_running_loop() is replies.loop:
                    replies.end()
