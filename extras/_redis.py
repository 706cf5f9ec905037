"""The one place that knows how redis-py's versions, 3.5 to 8, differ."""

import inspect
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, Set, Tuple, Type

import redis
import redis.connection
from redis.connection import (
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)

if TYPE_CHECKING:
    import redis.asyncio as redis_asyncio
    from async_timeout import timeout as async_timeout
    from redis._parsers import _HiredisParser as HiredisParser

    HAS_ASYNCIO = True
else:
    # Named with an underscore since redis-py 5.
    HiredisParser = getattr(redis.connection, "_HiredisParser", None) or redis.connection.HiredisParser
    try:
        import redis.asyncio as redis_asyncio  # since redis-py 4.2
        from redis.asyncio.connection import async_timeout  # asyncio.timeout, or its backport before Python 3.11
    except ImportError:
        redis_asyncio = async_timeout = None
    HAS_ASYNCIO = callable(async_timeout)  # a module in redis-py 4.2, which is too old

VERSION = str(redis.__version__)

_parsers = sys.modules[HiredisParser.__module__]
NOT_ENOUGH_DATA: Any = getattr(_parsers, "NOT_ENOUGH_DATA", False)  # since redis-py 5
"""What its ``hiredis.Reader`` returns while a reply is incomplete."""

SENTINEL: Any = getattr(_parsers, "SENTINEL", object())
"""Its default for a timeout that is not given."""

NONBLOCKING_EXCEPTIONS: Tuple[Type[OSError], ...] = getattr(_parsers, "NONBLOCKING_EXCEPTIONS", (BlockingIOError,))
"""What its parser reports as an error of the socket: every ``OSError`` in redis-py 3.5."""

_reads = inspect.signature(Connection.read_response).parameters
DISCONNECTS_WHEN_INTERRUPTED = "disconnect_on_error" in _reads
"""Whether its connections close when a signal handler ends a read. redis-py 4.5.3 gives the late reply to the next."""

SERVER_CLOSED: str = getattr(_parsers, "SERVER_CLOSED_CONNECTION_ERROR", "Connection closed by server.")

__all__ = [
    "HAS_ASYNCIO",
    "VERSION",
    "BlockingConnectionPool",
    "Connection",
    "ConnectionPool",
    "DISCONNECTS_WHEN_INTERRUPTED",
    "HiredisParser",
    "NONBLOCKING_EXCEPTIONS",
    "NOT_ENOUGH_DATA",
    "SENTINEL",
    "SERVER_CLOSED",
    "SSLConnection",
    "UnixDomainSocketConnection",
    "accepted",
    "async_timeout",
    "error_parser",
    "packed_buffers",
    "redis_asyncio",
]


def accepted(connection_class: type, kwargs: Dict[str, Any]) -> Dict[str, Any]:
    """Leave out what ``connection_class`` does not take: Unix connections lack timeouts in 3.5 and 4.5.3."""
    names: Set[str] = set()
    for base in connection_class.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names.update(parameter.name for parameter in parameters)
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return {name: value for name, value in kwargs.items() if name in names}


def error_parser(connection: Any) -> Callable[[str], Exception]:
    """Return what makes an exception of an error reply's text, as ``connection`` itself would."""
    parse_error: Callable[[str], Exception] = connection._parser.parse_error
    return parse_error


def packed_buffers() -> FrozenSet[type]:
    """Return which of ``bytearray`` and ``memoryview`` redis-py takes as arguments: neither in 4.6, both in 8."""
    taken = set()
    for value in (bytearray(b"v"), memoryview(b"v")):
        try:
            packed = b"".join(Connection().pack_command("N", value))
        except (redis.DataError, TypeError):
            continue
        if packed == b"*2\r\n$1\r\nN\r\n$1\r\nv\r\n":
            taken.add(type(value))
    return frozenset(taken)
