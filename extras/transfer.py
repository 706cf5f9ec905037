"""How the bytes of blocking connections go: packed, sent, received and parsed below redis-py's own methods.

What those methods promise stays redis-py's: timeouts, errors and their texts, health checks, push messages. Whatever
is not taken here (TLS, a parser or packer of the user's, a socket that gevent has replaced) goes redis-py's own way.
"""

import socket
from functools import lru_cache
from typing import Any, FrozenSet, List, Optional

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras import fastsock
from extras._redis import (
    DISCONNECTS_WHEN_INTERRUPTED,
    NONBLOCKING_EXCEPTIONS,
    NOT_ENOUGH_DATA,
    SENTINEL,
    SERVER_CLOSED,
    HiredisParser,
    packed_buffers,
)
from extras.packing import pack_command

_JOIN_BYTES = 64 * 1024


class FastParser(HiredisParser):
    """redis-py's parser, on sockets that are read natively."""

    _fast: Optional["fastsock.Reader"] = None

    def on_connect(self, connection: Any, **kwargs: Any) -> None:
        """Begin with a new connection."""
        super().on_connect(connection, **kwargs)  # type: ignore[no-untyped-call]
        self._fast = None
        if fastsock.transfers(type(self._sock)):
            encoder = connection.encoder
            encoding = encoder.encoding if encoder.decode_responses else None
            fast: Any = fastsock.Reader(
                self._reader, NOT_ENOUGH_DATA, self.socket_read_size, encoding, encoder.encoding_errors
            )
            self._reader = self._fast = fast

    def on_disconnect(self) -> None:
        """Forget the connection and what was read of it."""
        super().on_disconnect()  # type: ignore[no-untyped-call]
        self._fast = None

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
        if reader is None or sock is None:
            if self._reader is None:  # another thread has disconnected
                raise RedisConnectionError(SERVER_CLOSED)
            return bool(super().read_from_socket(timeout, raise_on_timeout))  # type: ignore[no-untyped-call]
        # redis-py 8 changes the socket's timeout during maintenance: it holds from the next call on.
        timeout_s = sock.gettimeout() if timeout is SENTINEL else timeout
        try:
            if reader.receive(sock, timeout_s):
                return True
        except socket.timeout:
            if raise_on_timeout:
                raise RedisTimeoutError("Timeout reading from socket")  # noqa: B904 - as redis-py does
            return False
        except NONBLOCKING_EXCEPTIONS as error:
            if isinstance(error, BlockingIOError):
                if not raise_on_timeout:
                    return False
                if timeout == 0:
                    raise RedisTimeoutError("Timeout reading from socket")  # noqa: B904
            raise RedisConnectionError(f"Error while reading from socket: {error.args}")  # noqa: B904
        raise RedisConnectionError(SERVER_CLOSED)


class _Packer:
    """Packs what it can, and leaves the rest to ``stock``, redis-py's own packer."""

    def __init__(self, stock: Any, buffers: FrozenSet[type]) -> None:
        self._stock = stock
        self._buffers = buffers

    def pack(self, *args: Any) -> List[Any]:
        packed = pack_command(args, self._buffers)
        return self._stock.pack(*args) if packed is None else packed


_buffers = lru_cache(maxsize=1)(packed_buffers)


def _joined(command: Any) -> Any:
    """Make one piece of small ones for redis-py, to which each is a send, and to the server a wake-up."""
    try:
        small = type(command) is list and sum(map(len, command)) <= _JOIN_BYTES
        return [b"".join(command)] if small else command
    except TypeError:  # redis-py's to refuse
        return command


class FastTransfer:
    """Put before a connection class of redis-py, makes its connections send and receive natively."""

    _sock: Any
    _parser: Any
    _packs = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if type(self._parser) is HiredisParser:  # redis-py 3.5 has no set_parser()
            self._parser = FastParser(socket_read_size=self._parser.socket_read_size)  # type: ignore[no-untyped-call]
        encoder: Any = self.encoder  # type: ignore[attr-defined]
        if encoder.encoding.lower() in ("utf-8", "utf8") and kwargs.get("command_packer") is None:
            stock: Any = getattr(self, "_command_packer", None)
            self._packs = stock is None  # redis-py before 4.5
            if stock is not None:
                self._command_packer = _Packer(stock, _buffers())

    def set_parser(self, parser_class: Any) -> None:
        """Take a parser of that class; its native equal where there is one."""
        parser_class = FastParser if parser_class is HiredisParser else parser_class
        super().set_parser(parser_class)  # type: ignore[misc]

    def connect(self) -> None:
        """Connect, unless that is done."""
        if self._sock is None:  # redis-py 8 finds out below its retries, for each command
            super().connect()  # type: ignore[misc]

    if not DISCONNECTS_WHEN_INTERRUPTED:

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            """Return the next reply."""
            try:
                return super().read_response(*args, **kwargs)  # type: ignore[misc]
            except Exception:
                raise
            except BaseException:
                self.disconnect()  # type: ignore[attr-defined]
                raise

    def pack_command(self, *args: Any) -> Any:
        """Return what :meth:`send_packed_command` takes, with the caller's own bytes where they are large."""
        packed = pack_command(args, _buffers()) if self._packs else None
        return super().pack_command(*args) if packed is None else packed  # type: ignore[misc]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send what :meth:`pack_command` has made; after an error the connection is closed."""
        if type(command) is not list or not fastsock.transfers(type(self._sock)):  # of NoneType neither
            super().send_packed_command(_joined(command), check_health)  # type: ignore[misc]
            return
        if check_health:
            self.check_health()  # type: ignore[attr-defined]
        sock = self._sock
        try:
            fastsock.send_all(sock, command, sock.gettimeout())
        except socket.timeout:
            self.disconnect()  # type: ignore[attr-defined]
            raise RedisTimeoutError("Timeout writing to socket")  # noqa: B904 - as redis-py does
        except OSError as error:
            self.disconnect()  # type: ignore[attr-defined]
            number, text = error.args if len(error.args) == 2 else ("UNKNOWN", error.args[0])
            raise RedisConnectionError(f"Error {number} while writing to socket. {text}.")  # noqa: B904
        except BaseException:
            self.disconnect()  # type: ignore[attr-defined]
            raise
