"""What the native module and its Python twin ``_fastsock_py`` both provide."""

import socket
from typing import AbstractSet, Any, Dict, List, Optional, Sequence, Tuple, final

IMPL: str
"""``"native"`` or ``"python"``."""

VERSION: str
"""The version of rasa-extras that it was made from."""

BULK_MAX_BYTES: int
"""Longest bulk string that is given its memory at once: Redis' default ``proto-max-bulk-len``."""

CUTOFF_BYTES: int
"""An argument above so many bytes is sent from where it is. redis-py's packer has the same."""

LARGE_BYTES: int
"""A bulk string above so many bytes is received straight into its ``bytes``."""

PUSH: Any
"""Class of the push messages of RESP3, ``None`` where hiredis, before 3.0, does not tell them from other replies."""

SPELLING: Dict[str, Tuple[str, int]]
"""The options this system has: field of ``Keepalive`` to its name here and the integer ``setsockopt`` takes."""

def set_keepalive(
    fd: int,
    enabled: bool,
    idle_s: Optional[int],
    interval_s: Optional[int],
    count: Optional[int],
    user_timeout_ms: Optional[int],
) -> None:
    """Apply TCP liveness options to a socket's descriptor; ``None`` leaves an option as it is.

    Raises ``OSError`` with the kernel's ``errno`` and a message that names option and value (``ENOPROTOOPT`` for
    one that this system does not have), ``OverflowError`` for a value that is no C int. setsockopt(2), tcp(7).
    """

def get_keepalive(fd: int) -> Tuple[bool, Optional[int], Optional[int], Optional[int], Optional[int]]:
    """Read back what the kernel holds: enabled, idle_s, interval_s, count, user_timeout_ms.

    ``None`` stands for an option that this system does not have or cannot read. Raises ``OSError`` with ``errno``.
    """

def decode_json(data: bytes, start: int, in_array: bool = False) -> Tuple[Any, int]:
    """Decode the JSON value that begins at byte ``start``, natively in half of the time of ``json``.

    Returns the value and the offset of the byte after it. The value is what ``json.JSONDecoder().raw_decode`` makes of
    ``data[start:].decode("utf-8")``, equal in types, signs, order and rounding, and what that refuses is refused: white
    space before the value, bytes that are no UTF-8 anywhere after ``start``. ``in_array``: decode an array whose
    opening bracket would stand right before ``start``, to its end.

    Raises ``ValueError`` for what is no JSON, nests more deeply than ``json`` can, or begins outside of ``data``;
    ``TypeError`` for anything but ``bytes``. RFC 8259; Modules/_json.c of CPython.
    """

def pack_commands(commands: Sequence[Sequence[Any]], buffers: AbstractSet[type]) -> Optional[List[Any]]:
    """Return the pieces to send for some commands, a large argument among them as the caller's own object, not a copy.

    ``None``: one of the commands is redis-py's to pack or to refuse. An argument is ``bytes``, ``str`` (sent as UTF-8),
    ``int``, ``float``, or of ``buffers``: which of ``bytearray`` and ``memoryview`` are taken. RESP specification,
    "Sending commands to a Redis server".
    """

def wait_readable(sock: socket.socket, timeout_s: Optional[float]) -> Optional[bool]:
    """Tell whether ``sock`` has bytes, and leave them there: ``None`` if not in time, ``False`` if the peer closed it.

    ``timeout_s``: seconds, ``None`` for ever. Raises ``OSError`` with ``errno``. poll(2), recv(2) with MSG_PEEK.
    """

def send_all(sock: socket.socket, pieces: Sequence[Any], timeout_s: Optional[float]) -> None:
    """Send bytes-like objects one after the other, without a copy of any.

    They belong to the caller, who leaves them unchanged meanwhile. ``timeout_s``: seconds for each piece, ``None`` for
    ever. Raises ``socket.timeout`` past it, ``BlockingIOError`` if it is 0, else ``OSError`` with ``errno``, and what
    a signal handler raises; how much is sent by then cannot be told. sendmsg(2).
    """

def send_some(sock: socket.socket, data: bytes) -> int:
    """Send what goes out at once, and return how many bytes that are: 0 if none, or if the connection is broken.

    ``sock``: a non-blocking one. Raises ``OSError`` if it is closed. send(2).
    """

def send_command(
    sock: socket.socket, args: Sequence[Any], buffers: AbstractSet[type], timeout_s: Optional[float]
) -> bool:
    """Pack one command and send it; ``False``, and nothing is sent, where :func:`pack_commands` declines.

    Raises what :func:`send_all` does.
    """

@final
class Reader:
    """Replies of one connection, by ``hiredis.Reader``; a large bulk string is never copied on its way to the caller.

    Its memory is one buffer of ``buffer_bytes`` at the beginning of a page, and the large reply under way.
    """

    was_sent: bool
    """Whether :meth:`ask` has sent the whole command."""

    def __init__(
        self, reader: Any, not_enough: Any, buffer_bytes: int, encoding: Optional[str], errors: Optional[str]
    ) -> None:
        """Feed ``reader``, a new ``hiredis.Reader`` with the same ``encoding`` and ``errors``.

        ``not_enough``: what that returns while a reply is incomplete.
        """

    def has_data(self) -> bool:
        """Return whether some bytes were received that belong to a reply not yet returned."""

    def gets(self, decode: bool = True) -> Any:
        """Return the next reply, or ``not_enough``; with ``decode`` false, strings as ``bytes``.

        Raises what ``hiredis.Reader.gets`` does.
        """

    def receive(self, sock: socket.socket, timeout_s: Optional[float]) -> bool:
        """Wait for bytes and take what is there; ``False``: the peer has closed the connection.

        After an error all that came before is still there, and a later call goes on. ``timeout_s``: seconds, ``None``
        for ever. Raises ``socket.timeout`` past it, ``BlockingIOError`` if it is 0, else ``OSError`` with ``errno``,
        what a signal handler raises, and ``RuntimeError`` while another call is under way. poll(2), recvmsg(2).
        """

    def room(self, size_hint: int = -1) -> memoryview:
        """Return where somebody else may put bytes that he received, until the next call of another method.

        ``size_hint``: is not looked at, but asyncio's transports give it. Raises ``RuntimeError`` as :meth:`receive`.
        """

    def received(self, size: int) -> None:
        """Take ``size`` bytes that were put at the beginning of :meth:`room`.

        Raises ``ValueError`` for more than there is room for, and ``RuntimeError`` as :meth:`receive`.
        """

    def reply(self, sock: socket.socket, timeout_s: Optional[float]) -> Any:
        """Wait for the next reply, or push message, and return it; see :meth:`replies`."""

    def replies(self, sock: socket.socket, count: int, timeout_s: Optional[float]) -> List[Any]:
        """Wait for the next ``count`` replies and return them, errors that Redis replied among them as exceptions.

        There are fewer if one is a push message (``hiredis.PushNotification``), which is the last of them then.
        ``timeout_s``: longest silence in seconds, ``None`` for ever. Raises ``ConnectionAbortedError`` without an
        ``errno`` when the peer closes the connection, and what :meth:`receive` and :meth:`gets` do; the replies that
        came before are lost then.
        """

    def is_quiet(self, sock: socket.socket) -> bool:
        """Return whether nothing was received that is not returned yet, nothing waits to be, and the peer is there.

        Raises ``OSError`` for a closed socket. recv(2) with MSG_PEEK.
        """

    def ask(self, sock: socket.socket, args: Sequence[Any], buffers: AbstractSet[type]) -> Any:
        """Send one command, and wait for its reply, at most for the socket's own timeout each.

        ``NotImplemented``, and nothing is sent, where :func:`pack_commands` declines, something waits to be read, or
        the peer has closed the connection. Raises what :func:`send_all` and :meth:`replies` do; :attr:`was_sent` tells
        which of them.
        """
