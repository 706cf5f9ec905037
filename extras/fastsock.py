"""Socket calls, RESP and JSON at native speed: the compiled ``_fastsock`` where it is there, else its Python twin.

``IMPL`` says which of the two runs. The environment variable ``EXTRAS_FASTSOCK`` forces one: ``native`` (an error
if it is not built) or ``python``; unset, the native one is preferred.
"""

import _socket
import os
import select
import socket
from typing import TYPE_CHECKING, Any, Callable, Dict, Tuple

from extras._version import VERSION
from extras.errors import OptionError
from extras.keepalive import Keepalive

_forced = os.environ.get("EXTRAS_FASTSOCK", "")
if _forced not in ("", "native", "python"):
    raise OptionError(f"EXTRAS_FASTSOCK is {_forced!r}; set it to 'native' or 'python', or unset it")

if TYPE_CHECKING:
    from extras import _fastsock as _impl
elif _forced == "python":
    from extras import _fastsock_py as _impl
else:
    try:
        from extras import _fastsock as _impl
    except ImportError as error:
        if _forced == "native":
            raise ImportError(
                f"EXTRAS_FASTSOCK=native, but the compiled module extras._fastsock cannot be loaded ({error}); "
                f"install a rasa-extras wheel made for this Python and system, or unset EXTRAS_FASTSOCK"
            ) from error
        from extras import _fastsock_py as _impl

_made_from = getattr(_impl, "VERSION", "another version")
if _made_from != VERSION:
    raise ImportError(
        f"the compiled module {_impl.__file__} is of rasa-extras {_made_from}, the Python files beside it are of "
        f"{VERSION}: two versions lie over each other. Remove that folder and install again; until then "
        f"EXTRAS_FASTSOCK=python does without the compiled module"
    )

IMPL: str = _impl.IMPL
SPELLING: Dict[str, Tuple[str, int]] = _impl.SPELLING
CUTOFF_BYTES: int = _impl.CUTOFF_BYTES
PUSH: Any = _impl.PUSH
Reader = _impl.Reader
pack_commands = _impl.pack_commands
send_all = _impl.send_all
send_command = _impl.send_command
send_some = _impl.send_some
wait_readable = _impl.wait_readable


def _has_plain_calls(socket_class: type) -> bool:
    calls = ("recv", "recv_into", "send", "sendall", "settimeout")
    return (
        hasattr(select, "poll")
        and hasattr(socket, "MSG_DONTWAIT")
        and issubclass(socket_class, _socket.socket)
        and all(getattr(socket_class, call) is getattr(_socket.socket, call) for call in calls)
    )


def _never(socket_class: type) -> bool:
    return False


# The twin is slower than redis-py's own calls on small replies.
transfers: Callable[[type], bool] = _has_plain_calls if IMPL == "native" else _never
"""Whether bytes go to and from sockets of a class by this module: not under TLS, gevent or Windows, nor by the twin."""


def apply_keepalive(fd: int, keepalive: Keepalive) -> None:
    """Apply ``keepalive`` to the socket ``fd``, best before ``connect()`` so that it also covers the connect.

    Raises ``OSError`` with ``errno`` and the option's name (setsockopt(2), tcp(7)).
    """
    _impl.set_keepalive(
        fd,
        keepalive.enabled,
        keepalive.idle_s,
        keepalive.interval_s,
        keepalive.count,
        keepalive.user_timeout_ms,
    )


def read_keepalive(fd: int) -> Keepalive:
    """Return what the kernel really holds for the socket ``fd``; ``None`` in a field it cannot tell."""
    return Keepalive(*_impl.get_keepalive(fd))


def decode_json(data: bytes, start: int, in_array: bool = False) -> Tuple[Any, int]:
    """Decode the JSON value at byte ``start`` as ``json`` would, faster, and return it with the byte offset after it.

    ``in_array``: decode the rest of an array, whose opening bracket is not in ``data[start:]``. Raises ``ValueError``
    for all that ``json`` refuses, or that nests too deeply.
    """
    return _impl.decode_json(data, start, in_array)
