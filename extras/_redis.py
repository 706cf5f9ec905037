"""The one place that knows how redis-py's versions, 3.5 to 8, differ."""

import inspect
from typing import TYPE_CHECKING, Any, Callable, Dict, Set

import redis
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

    HAS_ASYNCIO = True
else:
    try:
        import redis.asyncio as redis_asyncio  # since redis-py 4.2
        from redis.asyncio.connection import async_timeout  # asyncio.timeout, or its backport before Python 3.11
    except ImportError:
        redis_asyncio = async_timeout = None
    HAS_ASYNCIO = callable(async_timeout)  # a module in redis-py 4.2, which is too old

VERSION = str(redis.__version__)

__all__ = [
    "HAS_ASYNCIO",
    "VERSION",
    "BlockingConnectionPool",
    "Connection",
    "ConnectionPool",
    "SSLConnection",
    "UnixDomainSocketConnection",
    "accepted",
    "async_timeout",
    "error_parser",
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
