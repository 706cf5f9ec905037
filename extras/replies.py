"""The side of a shared connection that sends what is asked and hands out the replies, one slot after the other.

What the tasks of one turn of the event loop ask goes out in one write. A reply that does not come is noticed by its
silence: when something is asked and no byte has arrived for ``socket_timeout`` seconds, all who wait are told so and
the connection is given up. Redis answers each connection's commands in their order (RESP specification, "pipelining"),
so the oldest waiting slot is whose reply comes next; that of a cancelled task keeps its place.
"""

import asyncio
import socket
from collections import deque
from time import monotonic
from typing import Any, Deque, List, Optional, Set

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras import fastsock
from extras._redis import error_parser
from extras.budget import ClosedError

_BUFFER_BYTES = 65536
_UNSENT_BYTES = 65536
"""What may be collected for one write; asyncio's transports have the same high-water mark."""
_GATHERS = hasattr(socket.socket, "sendmsg")
_GATHERED = 16
"""Most pieces of one sendmsg(2): as many as any system takes (POSIX, _XOPEN_IOV_MAX)."""
_LAST_LOOK_S = 0.05
_NOTHING = object()
_PushNotification = getattr(hiredis, "PushNotification", None)


def _joined(pieces: List[bytes]) -> List[bytes]:
    """Return the same bytes in fewer pieces: what is large is to be sent from where it is."""
    joined: List[bytes] = []
    small: List[bytes] = []
    for piece in pieces:
        if len(piece) > _UNSENT_BYTES:
            joined += [b"".join(small), piece] if small else [piece]
            small = []
        else:
            small.append(piece)
    return [*joined, b"".join(small)] if small else joined


class _Batch:
    """The slot of several commands whose replies are wanted together."""

    __slots__ = ("answer", "count", "has_errors", "replies")

    def __init__(self, answer: "asyncio.Future[Any]", count: int) -> None:
        self.answer = answer
        self.count = count
        self.replies: List[Any] = []
        self.has_errors = False


class Replies(asyncio.BufferedProtocol):
    """Hands each reply that arrives on a transport to whoever asked for it."""

    def __init__(self, connection: Any, timeout_s: Optional[float], peer: str) -> None:
        self.loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._peer = peer
        encoder = connection.encoder
        decoding = {"encoding": encoder.encoding, "errors": encoder.encoding_errors} if encoder.decode_responses else {}
        hiredis_reader: Any = hiredis.Reader(
            protocolError=InvalidResponse, replyError=error_parser(connection), notEnoughData=_NOTHING, **decoding
        )
        self._reader = fastsock.Reader(
            hiredis_reader, _NOTHING, _BUFFER_BYTES, decoding.get("encoding"), decoding.get("errors")
        )
        self.get_buffer = self._reader.room  # type: ignore[method-assign, assignment]
        self._handle_push = getattr(connection._parser, "handle_push_response", None)
        self._pushes: Set[asyncio.Task[Any]] = set()
        self._waiting: Deque[Any] = deque()
        """Slots: the future of a command, or a batch."""
        self._unsent: List[bytes] = []
        self._unsent_bytes = 0
        self._silent_since = 0.0
        self._watch: Optional[asyncio.TimerHandle] = None
        self.writable: Optional[asyncio.Future[None]] = None
        """Set while no more is to be asked than is under way; done when that has changed."""
        self._transport: Any = None
        self._sock: Any = None
        """The transport's own, where what has nothing to wait for can be sent past it."""
        self._error: Optional[Exception] = None
        self._ended: asyncio.Future[None] = self.loop.create_future()
        self.was_closed = False
        """Whether the end was asked for, rather than met."""

    def take(self, transport: Any, sock: Any) -> None:
        """Read from and write to an open transport from now on; ``sock``: its socket."""
        self._transport = transport
        if fastsock.transfers(type(sock)) and transport.get_extra_info("ssl_object") is None:
            self._sock = sock
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

    def ask(self, pieces: List[bytes], count: int = 0) -> "asyncio.Future[Any]":
        """Send a packed command, and return what will be its reply, or raise it if it is an error.

        ``count``: of the commands of a batch, whose replies come as a list, with whether errors are among them.
        """
        if self._error is not None or self._transport.is_closing():
            raise copied(self._error or self._lost("its transport is closing"))
        return self.put(pieces, count)

    def put(self, pieces: List[bytes], count: int = 0) -> "asyncio.Future[Any]":
        """Do what :meth:`ask` does on a connection that :attr:`is_open`."""
        answer = self.loop.create_future()
        waiting = self._waiting
        if not waiting:  # then there is nothing to wait for either
            waiting.append(_Batch(answer, count) if count else answer)
            self._silent_since = monotonic()
            if self._watch is None and self._timeout_s is not None:
                self._watch = self.loop.call_later(self._timeout_s, self._check_silence)
            if len(pieces) > 1:
                self._send(pieces)
            else:
                self._send_at_once(pieces[0])
        else:
            waiting.append(_Batch(answer, count) if count else answer)
            if not self._unsent:
                self.loop.call_soon(self._flush)
            self._unsent += pieces
            for piece in pieces:
                self._unsent_bytes += len(piece)
            if self._unsent_bytes > _UNSENT_BYTES:
                self._flush()
        return answer

    def _flush(self) -> None:
        """Send what was asked since the last write."""
        if self._unsent:
            pieces, self._unsent, self._unsent_bytes = self._unsent, [], 0
            if self._error is None:
                self._send(pieces)

    def _send_at_once(self, data: bytes) -> None:
        """Send by the shortest way; what the socket does not take is the transport's to send, or to fail with."""
        if self._sock is not None and self._transport.get_write_buffer_size() == 0:
            sent = fastsock.send_some(self._sock, data)
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)

    def _send(self, pieces: List[bytes]) -> None:
        left = _joined(pieces)
        if len(left) > 1 and _GATHERS and self._sock is not None and self._transport.get_write_buffer_size() == 0:
            left = self._sent_together(left)
        for piece in left:
            self._transport.write(piece)

    def _sent_together(self, pieces: List[Any]) -> List[Any]:
        """Send as much as goes out at once, so that no server wakes up for the head of a value; return what is left."""
        try:
            sent = self._sock.sendmsg(pieces[:_GATHERED])
        except OSError:
            return pieces  # it is the transport's to wait, or to fail
        for at, piece in enumerate(pieces):
            if sent < len(piece):
                return [memoryview(piece)[sent:], *pieces[at + 1 :]]
            sent -= len(piece)
        return []

    def buffer_updated(self, nbytes: int) -> None:
        self._silent_since = monotonic()
        try:
            self._reader.received(nbytes)
            self._hand_out()
        except InvalidResponse as error:
            self._give_up(error)

    def _hand_out(self) -> None:
        """Give all whole replies to whose they are."""
        waiting, gets = self._waiting, self._reader.gets
        while True:
            try:
                reply = gets()
            except UnicodeDecodeError as error:  # hiredis has passed over what it could not decode
                reply = error
            if reply is _NOTHING:
                return
            if type(reply) is _PushNotification:
                self._push(reply)
                continue
            if not waiting:
                raise InvalidResponse(f"{self._peer} sent a reply that nobody asked for")
            slot = waiting[0]
            if type(slot) is _Batch:
                replies = slot.replies
                replies.append(reply)
                if type(reply) is not bytes and isinstance(reply, Exception):
                    slot.has_errors = True
                if len(replies) < slot.count:
                    continue
                reply, answer = (replies, slot.has_errors), slot.answer
            else:
                answer = slot
            waiting.popleft()
            if answer.done():
                continue  # its task was cancelled
            if type(reply) is not bytes and isinstance(reply, Exception):
                _raise_in(answer, reply)
            else:
                answer.set_result(reply)

    def _push(self, message: Any) -> None:
        if self._handle_push is not None:
            task = self.loop.create_task(self._handle_push(message))
            self._pushes.add(task)
            task.add_done_callback(self._pushes.discard)

    def _check_silence(self, looked_at: Optional[float] = None) -> None:
        self._watch = None
        if self._timeout_s is None or (not self._waiting and self.writable is None):
            return
        left_s = self._silent_since + self._timeout_s - monotonic()
        if left_s > 0:
            self._watch = self.loop.call_later(left_s, self._check_silence)
        elif looked_at != self._silent_since:
            # The loop itself may have been held up, and some loops send only at the end of a turn, just before this.
            self._watch = self.loop.call_later(_LAST_LOOK_S, self._check_silence, self._silent_since)
        else:
            self._give_up(RedisTimeoutError(f"Timeout reading from {self._peer}: no answer for {self._timeout_s:g} s"))

    def _give_up(self, error: Exception) -> None:
        """Fail all who wait, and those who come later with the error of the first call."""
        if self._error is None:
            self._error = error
        while self._waiting:
            slot = self._waiting.popleft()
            answer = slot.answer if isinstance(slot, _Batch) else slot
            if not answer.done():
                _raise_in(answer, copied(self._error))
        # Also what is lost already: before Python 3.11 a TLS transport counts as unclosed otherwise.
        self._transport.abort()

    def pause_writing(self) -> None:
        self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        writable, self.writable = self.writable, None
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

    def lose(self, why: str) -> None:
        """Fail all who wait as a lost connection does, and close the transport."""
        self._give_up(self._lost(why))

    def end(self) -> None:
        """Fail all who wait, and close the transport in a turn of the loop to come."""
        self.was_closed = True
        # Not the transport's close(), which waits for as long as the server takes nothing.
        self._give_up(ClosedError(f"the connection to {self._peer} was closed"))

    async def close(self) -> None:
        """Fail all who wait, close the transport, and return when that is done."""
        self.end()
        await self._ended


def copied(error: Exception) -> Exception:
    """Make one for each who is told, because a traceback is written into it."""
    return type(error)(*error.args)


def _raise_in(answer: "asyncio.Future[Any]", error: Exception) -> None:
    answer.set_exception(error)
    answer.exception()  # so that it counts as retrieved if the task is cancelled before it runs again
