"""What is wrong when a store cannot use its Redis, told once, in terms of its options.

A server that is spoken to without TLS, or that does not speak it, says nothing: it closes the connection, or waits.
Until a store has been answered once, such a loss is worth a look at what the peer speaks.
"""

import socket
import ssl
import time
from contextlib import suppress
from functools import partial
from typing import Optional

from extras import _redis, refusals
from extras.budget import CallTimeoutError
from extras.in_thread import in_thread
from extras.options import Options
from extras.resolver import look_up

_PATIENCE_S = 1.0
_LEAST_S = 0.01
_AFTER_ALL_S = 0.5
"""For a look, once, at one of several servers that have taken up all the time of a call."""
_TOO_LONG_A_LINE = 66_000
_LOST = (_redis.ConnectionError, _redis.TimeoutError)


class Diagnosis:
    """Explains the errors of one store. ``has_worked``: whether Redis has answered it, so that its options fit."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.has_worked = False

    def of(self, error: Exception, began_at: float) -> Optional[str]:
        """Return the text of the error that a refusal becomes, ``None`` for other errors.

        ``began_at``: when the call began, by ``time.monotonic``; a look at the peer takes no longer than it has left.
        """
        return refusals.explained(error, self._options) or (
            refusals.misfit(error, self._options, self._peer_speaks(began_at)) if self._is_unclear(error) else None
        )

    async def aof(self, error: Exception, began_at: float) -> Optional[str]:
        """Do the same without holding up the event loop."""
        return refusals.explained(error, self._options) or (
            refusals.misfit(error, self._options, await in_thread(partial(self._peer_speaks, began_at)))
            if self._is_unclear(error)
            else None
        )

    def _is_unclear(self, error: Exception) -> bool:
        # On more than one server a lost connection is tried again for as long as there is time.
        is_lost = isinstance(error, _LOST) and not (isinstance(error, CallTimeoutError) and not self._options.nodes)
        return not self.has_worked and self._options.unix_path is None and is_lost

    def _peer_speaks(self, began_at: float) -> Optional[str]:
        left_s = _PATIENCE_S
        if self._options.call_timeout is not None:
            left_s = min(left_s, began_at + self._options.call_timeout - time.monotonic())
        if self._options.nodes:
            left_s = max(left_s, _AFTER_ALL_S)
        host, port = (*self._options.nodes, (self._options.url, self._options.port))[0]
        return speaks(host, port, left_s) if left_s > 0 else None


def speaks(host: str, port: int, timeout_s: float) -> Optional[str]:
    """Return ``"TLS"`` or ``"plain"``, whichever a server answers in, ``None`` where it does not within the time.

    It is sent the beginning of a TLS handshake. A Redis without TLS takes that for a line, and waits for its end until
    it is more than 64 KiB (``PROTO_INLINE_MAX_SIZE``). Nothing is verified, and nothing is said in plain text.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=host).do_handshake()
    first = b""
    until = time.monotonic() + timeout_s
    try:
        address = look_up(host, port, 0, timeout_s)[0][4]
        with socket.create_connection(address[:2], max(_LEAST_S, (until - time.monotonic()) / 2)) as sock:
            for piece in (sent.read(), bytes(_TOO_LONG_A_LINE) + b"\r\n"):
                sock.settimeout(max(_LEAST_S, (until - time.monotonic()) / 2))
                sock.sendall(piece)
                with suppress(socket.timeout):
                    first = sock.recv(1)
                    break
    except OSError:
        return None
    # An alert or a handshake of TLS (RFC 8446, section 5.1), an error or a status of Redis.
    return {b"\x15": "TLS", b"\x16": "TLS", b"-": "plain", b"+": "plain"}.get(first)
