"""How the bytes of blocking connections go: packed, sent, received and parsed below redis-py's own methods.

What those methods promise stays redis-py's: timeouts, errors and their texts, health checks, push messages. Whatever
is not taken here (TLS, a parser or packer of the user's, a socket that gevent has replaced) goes redis-py's own way.
"""

import socket
from typing import Any, List, Optional, Sequence

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras import budget, fastsock
from extras._redis import (
    CLOSES_RESET_SOCKETS,
    DISCONNECTS_WHEN_INTERRUPTED,
    HANDLES_PUSHES,
    NONBLOCKING_EXCEPTIONS,
    NOT_ENOUGH_DATA,
    READ_TIMEOUT,
    SENTINEL,
    SERVER_CLOSED,
    HiredisParser,
    clock,
    peer,
)
from extras.packing import BUFFERS, Packer, Packing

_BUFFER_BYTES = 128 * 1024
_JOIN_BYTES = 64 * 1024
_RESP3 = (3, "3")


_PLAIN = frozenset({bytes, str, int, type(None)})


def _not_read(connection: Any, error: OSError) -> Exception:
    """Return what redis-py makes of an error at receiving."""
    if isinstance(error, socket.timeout):
        place = "socket" if READ_TIMEOUT is RedisTimeoutError else peer(connection)
        return RedisTimeoutError(f"Timeout reading from {place}")
    if isinstance(error, ConnectionAbortedError) and not error.args:
        return RedisConnectionError(SERVER_CLOSED)
    if isinstance(error, NONBLOCKING_EXCEPTIONS):
        return RedisConnectionError(f"Error while reading from socket: {error.args}")
    return RedisConnectionError(f"Error while reading from {peer(connection)} : {error.args}")


def not_written(error: OSError) -> Exception:
    """Return what redis-py makes of an error at sending."""
    if isinstance(error, socket.timeout):
        return RedisTimeoutError("Timeout writing to socket")
    number, text = error.args if len(error.args) == 2 else ("UNKNOWN", error.args[0] if error.args else error)
    return RedisConnectionError(f"Error {number} while writing to socket. {text}.")


class FastParser(HiredisParser):
    """redis-py's parser, on sockets that are read natively."""

    _fast: Optional["fastsock.Reader"] = None
    _fast_sock: Any = None
    _slow_reader: Any = None
    wire: Optional["fastsock.Reader"] = None
    """What whole commands go through: the reader, unless they are packed by other means, or push messages unknown."""

    def on_connect(self, connection: Any, **kwargs: Any) -> None:
        """Begin with a new connection."""
        super().on_connect(connection, **kwargs)  # type: ignore[no-untyped-call]
        self._fast = self.wire = None
        if fastsock.transfers(type(self._sock)):
            self._fast_sock, self._slow_reader = self._sock, self._reader
            encoder = connection.encoder
            encoding = encoder.encoding if encoder.decode_responses else None
            fast: Any = fastsock.Reader(
                self._reader,
                NOT_ENOUGH_DATA,
                max(self.socket_read_size, _BUFFER_BYTES),
                encoding,
                encoder.encoding_errors,
            )
            self._reader = self._fast = fast
            knows_pushes = HANDLES_PUSHES or getattr(connection, "protocol", 2) not in _RESP3
            self.wire = fast if knows_pushes and getattr(connection, "packs", False) else None

    def on_disconnect(self) -> None:
        """Forget the connection and what was read of it."""
        super().on_disconnect()  # type: ignore[no-untyped-call]
        self._fast = self.wire = self._fast_sock = self._slow_reader = None

    def can_read(self, timeout: Any = 0) -> bool:
        """Return whether something waits to be read, and leave it there."""
        sock, reader = self._sock, self._fast
        if reader is None or sock is None:
            return bool(super().can_read(timeout))
        if reader.has_data():
            return True
        try:
            waits = fastsock.wait_readable(sock, timeout)
        except OSError as error:
            raise RedisConnectionError(SERVER_CLOSED) from error
        if waits is False:
            raise RedisConnectionError(SERVER_CLOSED)
        return bool(waits)

    def read_from_socket(self, timeout: Any = SENTINEL, raise_on_timeout: bool = True) -> bool:
        """Receive once; ``False`` if nothing came in time and ``raise_on_timeout`` is off."""
        sock, reader = self._sock, self._fast
        if reader is not None and sock is not None and sock is not self._fast_sock:  # it was replaced by hand
            self._reader, self._fast = self._slow_reader, None
            self.wire = reader = None
        if reader is None or sock is None:
            if self._reader is None:  # another thread has disconnected
                raise RedisConnectionError(SERVER_CLOSED)
            if timeout is SENTINEL and sock is not None and budget.current() is not None:
                try:
                    timeout = budget.within(sock.gettimeout())
                except socket.timeout:
                    raise READ_TIMEOUT("Timeout reading from socket")  # noqa: B904
            return bool(super().read_from_socket(timeout, raise_on_timeout))  # type: ignore[no-untyped-call]
        # redis-py 8 changes the socket's timeout during maintenance: it holds from the next call on.
        timeout_s = sock.gettimeout() if timeout is SENTINEL else timeout
        try:
            if reader.receive(sock, budget.within(timeout_s) if timeout_s != 0 else timeout_s):
                return True
        except socket.timeout:
            if raise_on_timeout:
                raise READ_TIMEOUT("Timeout reading from socket")  # noqa: B904 - as redis-py does
            return False
        except NONBLOCKING_EXCEPTIONS as error:
            if isinstance(error, BlockingIOError):
                if not raise_on_timeout:
                    return False
                if timeout == 0:
                    raise RedisTimeoutError("Timeout reading from socket")  # noqa: B904
            raise RedisConnectionError(f"Error while reading from socket: {error.args}")  # noqa: B904
        raise RedisConnectionError(SERVER_CLOSED)

    def read_replies(self, count: int) -> List[Any]:
        """Return the next ``count`` replies; errors that Redis replied are among them, but not push messages.

        Raises an error reply that says the connection is of no use, and what ``Reader.replies`` does.
        """
        sock, reader = self._sock, self._fast
        if sock is None or reader is None:  # another thread has disconnected
            raise RedisConnectionError(SERVER_CLOSED)
        replies: List[Any] = []
        while len(replies) < count:
            replies += reader.replies(sock, count - len(replies), budget.within(sock.gettimeout()))
            if type(replies[-1]) is fastsock.PUSH:
                self.handle_push_response(replies.pop())  # type: ignore[no-untyped-call]
        for reply in replies:
            if type(reply) not in _PLAIN:
                self.checked(reply)
        return replies

    def checked(self, reply: Any) -> Any:
        """Return a reply, the next one after a push message; raise one that says the connection is of no use."""
        if type(reply) is fastsock.PUSH:
            self.handle_push_response(reply)  # type: ignore[no-untyped-call]
            return self.read_replies(1)[0]
        first = reply[0] if type(reply) is list and reply else reply
        if isinstance(first, RedisConnectionError):
            raise first
        return reply


def _joined(command: Any) -> Any:
    """Make one piece of small ones for redis-py, to which each is a send, and to the server a wake-up."""
    try:
        small = type(command) is list and sum(map(len, command)) <= _JOIN_BYTES
        return [b"".join(command)] if small else command
    except TypeError:  # redis-py's to refuse
        return command


def _send_within(current: "budget.Budget", sock: Any, pieces: Sequence[Any], is_native: bool) -> None:
    """Send pieces one after the other, none of them past the end of the running call."""
    own_s = sock.gettimeout()
    if is_native:
        for piece in pieces:
            fastsock.send_all(sock, (piece,), current.within(own_s))
        return
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                sock.settimeout(current.within(own_s))
                rest = rest[sock.send(rest) :]
    finally:
        sock.settimeout(own_s)


def _asked_within(current: "budget.Budget", wire: "fastsock.Reader", sock: Any, args: Sequence[Any]) -> Any:
    """Do what ``Reader.ask`` does, which knows a limit for each silence, but none for all of them."""
    try:
        if not wire.is_quiet(sock):
            return NotImplemented
    except OSError:
        return NotImplemented
    pieces = fastsock.pack_commands((args,), BUFFERS)
    if pieces is None:
        return NotImplemented
    try:
        _send_within(current, sock, pieces, True)
    except OSError as error:
        raise not_written(error) from None
    own_s = sock.gettimeout()
    while True:
        if not wire.receive(sock, current.within(own_s)):
            raise ConnectionAbortedError()
        reply = wire.gets()
        if reply is not NOT_ENOUGH_DATA:
            return reply


class FastTransfer(Packing):
    """Put before a connection class of redis-py, makes its connections send and receive natively."""

    _sock: Any
    _parser: Any
    health_check_interval: Any
    next_health_check: Any
    _re_auth_token: Any = None  # redis-py's own since 5.3
    _should_reconnect = False  # since 7.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if type(self._parser) is HiredisParser:  # redis-py 3.5 has no set_parser()
            self._parser = FastParser(socket_read_size=self._parser.socket_read_size)  # type: ignore[no-untyped-call]
        if kwargs.get("command_packer") is not None:
            self.packs = False
        elif self.packs:
            stock: Any = getattr(self, "_command_packer", None)
            if stock is not None:
                self._command_packer = Packer(stock)

    def set_parser(self, parser_class: Any) -> None:
        """Take a parser of that class; its native equal where there is one."""
        parser_class = FastParser if parser_class is HiredisParser else parser_class
        super().set_parser(parser_class)  # type: ignore[misc]

    def connect(self) -> None:
        """Connect, unless that is done."""
        if self._sock is None:  # redis-py 8 finds out below its retries, for each command
            budget.waiting_for(f"a connection to {getattr(self, 'path', None) or peer(self)}")
            super().connect()  # type: ignore[misc]
            budget.waiting_for_a_reply()

    if not CLOSES_RESET_SOCKETS:

        def disconnect(self) -> None:
            """Close the socket, whatever the server has done to it."""
            sock = self._sock
            super().disconnect()  # type: ignore[misc]
            if sock is not None:
                sock.close()

    def can_read(self, timeout: Any = 0) -> bool:
        """Return whether something waits to be read, and leave it there."""
        parser, sock = self._parser, self._sock
        if timeout == 0 and type(parser) is FastParser and sock is not None and sock is parser._fast_sock:
            try:
                if parser.wire is not None and parser.wire.is_quiet(sock):
                    return False
            except OSError:
                pass  # which redis-py has words for
        return bool(super().can_read(timeout))  # type: ignore[misc]

    # This and the next in one piece, because calls of Python's are what they save.
    def send_command(self, *args: Any, **kwargs: Any) -> None:
        """Pack and send a command; after an error the connection is closed."""
        parser, sock = self._parser, self._sock
        wire = parser.wire if type(parser) is FastParser else None
        interval_s = self.health_check_interval
        if (
            wire is None
            or sock is None
            or budget.current() is not None
            or (interval_s and clock() > self.next_health_check)
        ):
            super().send_command(*args, **kwargs)  # type: ignore[misc]
            return
        try:
            if fastsock.send_command(sock, args, BUFFERS, sock.gettimeout()):
                return
        except BaseException as error:
            self._end_sending(error)
            raise
        super().send_command(*args, **kwargs)  # type: ignore[misc]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Return the next reply, or raise it if it is an error."""
        parser, sock = self._parser, self._sock
        wire = parser.wire if type(parser) is FastParser else None
        if wire is None or args or kwargs or sock is not parser._fast_sock or budget.current() is not None:
            return self._read_by_redis_py(args, kwargs)
        try:
            reply = wire.reply(sock, sock.gettimeout())
            if type(reply) not in _PLAIN:
                reply = parser.checked(reply)
        except BaseException as error:
            self._end_reading(error)
            raise
        if self.health_check_interval:
            self.next_health_check = clock() + self.health_check_interval
        if type(reply) not in _PLAIN and isinstance(reply, ResponseError):
            try:
                raise reply
            finally:
                del reply  # whose traceback holds this frame
        return reply

    def _read_by_redis_py(self, args: Any, kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except Exception:
            raise
        except BaseException:
            if not DISCONNECTS_WHEN_INTERRUPTED:
                self.disconnect()
            raise

    def ask(self, args: Sequence[Any]) -> Any:
        """Send a command and return its reply; an error that Redis replied is returned, as an exception.

        ``NotImplemented``: redis-py has something to do first, and nothing is sent. Raises what
        :meth:`send_packed_command` and :meth:`read_response` do; the connection is closed then.
        """
        parser = self._parser
        wire = parser.wire if type(parser) is FastParser else None
        interval_s = self.health_check_interval
        sock = self._sock
        if wire is None or sock is None or (interval_s and clock() > self.next_health_check):
            return NotImplemented
        current = budget.current()
        try:
            reply = wire.ask(sock, args, BUFFERS) if current is None else _asked_within(current, wire, sock, args)
            if type(reply) not in _PLAIN:
                reply = parser.checked(reply)
        except BaseException as error:
            self.disconnect()
            if isinstance(error, OSError):  # socket.timeout, too
                was_sent = wire.was_sent or current is not None
                raise (_not_read(self, error) if was_sent else not_written(error)) from None
            raise
        if interval_s:
            self.next_health_check = clock() + interval_s
        return reply

    def is_undisturbed(self) -> bool:
        """Return whether the connection is open, nothing waits to be read, and commands go through :meth:`exchange`."""
        parser, sock = self._parser, self._sock
        if type(parser) is not FastParser or parser.wire is None or sock is None:
            return False
        try:
            return parser.wire.is_quiet(sock)
        except OSError:
            return False

    def exchange(self, commands: Sequence[Sequence[Any]]) -> Optional[List[Any]]:
        """Send commands at once and return their replies, errors that Redis replied among them as exceptions.

        ``None``: they are redis-py's to pack or to refuse, or to send, and nothing is sent. Raises what
        :meth:`send_packed_command` and :meth:`read_response` do; the connection is closed then.
        """
        if not commands or type(self._parser) is not FastParser or self._parser.wire is None:
            return None
        packed = fastsock.pack_commands(commands, BUFFERS)
        if packed is None:
            return None
        self.send_packed_command(packed)
        try:
            replies: List[Any] = self._parser.read_replies(len(commands))
        except BaseException as error:
            self._end_reading(error)
            raise
        if self.health_check_interval:
            self.next_health_check = clock() + self.health_check_interval
        return replies

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send what :meth:`pack_command` has made; after an error the connection is closed."""
        parser = self._parser
        is_native = type(command) is list and type(parser) is FastParser and parser._fast is not None
        current = budget.current()
        if self._sock is None or (current is None and not is_native):
            super().send_packed_command(_joined(command), check_health)  # type: ignore[misc]
            return
        if check_health:
            self.check_health()  # type: ignore[attr-defined]
        sock = self._sock
        try:
            if current is None:
                fastsock.send_all(sock, command, sock.gettimeout())
            else:
                _send_within(current, sock, command if is_native else _joined(command), is_native)
        except BaseException as error:
            self._end_sending(error)
            raise

    def _end_sending(self, error: BaseException) -> None:
        """Close the connection; raise what redis-py makes of an error of the socket, in its context."""
        self.disconnect()
        if isinstance(error, OSError):
            raise not_written(error)

    def _end_reading(self, error: BaseException) -> None:
        """The same, without the context."""
        self.disconnect()
        if isinstance(error, OSError):
            raise _not_read(self, error) from None
