"""The one place that knows how redis-py's versions, 3.5 to 8, differ."""

import asyncio
import inspect
import socket
import sys
import threading
from itertools import product
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, List, Optional, Set, Tuple, Type

import hiredis
import redis
import redis.client
import redis.connection
import redis.utils
from redis.connection import (
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError, TimeoutError
from redis.sentinel import MasterNotFoundError, Sentinel

from extras.errors import OptionError
from extras.tls import Tls

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

try:
    from redis.cluster import ClusterNode, NodesManager  # since redis-py 4.1
    from redis.crc import key_slot
except ImportError:
    ClusterNode, NodesManager, key_slot = None, object, None  # type: ignore[assignment,misc]

HAS_CLUSTER = ClusterNode is not None

VERSION = str(redis.__version__)

_parsers = sys.modules[HiredisParser.__module__]
NOT_ENOUGH_DATA: Any = getattr(_parsers, "NOT_ENOUGH_DATA", False)  # since redis-py 5
"""What its ``hiredis.Reader`` returns while a reply is incomplete."""

SENTINEL: Any = getattr(_parsers, "SENTINEL", object())
"""What it takes for an argument that is not given."""

NONBLOCKING_EXCEPTIONS: Tuple[Type[OSError], ...] = getattr(_parsers, "NONBLOCKING_EXCEPTIONS", (BlockingIOError,))
"""What its parser reports as an error of the socket: every ``OSError`` in redis-py 3.5."""

READ_TIMEOUT: Type[Exception] = (
    redis.TimeoutError if getattr(_parsers, "TimeoutError", None) is redis.TimeoutError else socket.timeout
)
"""What its parser raises past the time: in redis-py 5 Python's own, so that its connections name the peer instead."""

_reads = inspect.signature(Connection.read_response).parameters
DISCONNECTS_WHEN_INTERRUPTED = "disconnect_on_error" in _reads
"""Whether its connections close when a signal handler ends a read. redis-py 4.5.3 gives the late reply to the next."""

CLOSES_RESET_SOCKETS = not VERSION.startswith("3.")
"""Whether disconnecting closes the socket also where shutdown(2) fails: redis-py 3.5 leaves it to the collector."""

DEFAULT_RESP = int(getattr(redis.utils, "DEFAULT_RESP_VERSION", getattr(redis.connection, "DEFAULT_RESP_VERSION", 2)))
"""The protocol of connections that are not told one: 3 in redis-py 8."""

PUSH_IS_KNOWN = hasattr(hiredis, "PushNotification")
"""Whether hiredis (since 3.2) tells what RESP3 sends unasked from a reply."""

LOST: FrozenSet[Type[BaseException]] = frozenset(
    {redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, socket.timeout, asyncio.TimeoutError}
)
"""The errors of a connection, as opposed to those of a command, that redis-py can be told to retry on."""

AUTHORIZATION_ERRORS: Tuple[Type[Exception], ...] = tuple(
    getattr(redis.exceptions, name)
    for name in ("AuthorizationError", "ExternalAuthProviderError")
    if hasattr(redis.exceptions, name)
)
"""Connection errors, to redis-py, of a connection that is refused for who asks."""

CredentialProvider: Any = getattr(redis, "CredentialProvider", None)
"""What gives user and password at each connect: since redis-py 4.5."""

ASKS_FOR_CREDENTIALS_ASYNC = hasattr(CredentialProvider, "get_credentials_async")
"""Whether its asyncio connections (since redis-py 5) await it. Before, they would block the event loop."""

KEEPALIVE_DEFAULT: Any = inspect.signature(Connection.__init__).parameters["socket_keepalive_options"].default
"""Its connections' default for ``socket_keepalive_options``: ``SENTINEL`` since redis-py 8, else ``None``."""

NAMES_ERRORS = hasattr(redis.utils, "format_error_message")
"""Whether its asyncio connections (since 5.0.2) say why they could not connect."""

_time: Any = redis.connection.time  # type: ignore[attr-defined]
clock: Callable[[], float] = _time if callable(_time) else _time.monotonic
"""What tells when a health check is due: until redis-py 5 the time of day."""

SERVER_CLOSED: str = getattr(_parsers, "SERVER_CLOSED_CONNECTION_ERROR", "Connection closed by server.")

HANDLES_PUSHES = hasattr(HiredisParser, "handle_push_response")
"""Whether its hiredis parser knows push messages. Before redis-py 5.1 it takes them for replies."""


class _Recorder:
    def execute_command(self, *args: Any, **options: Any) -> Any:
        return options


_get: Any = redis.Redis.get
_options_of_get: Any = _get(_Recorder(), "name")
FOR_CACHE: Optional[str] = "keys" if "keys" in _options_of_get else None
"""The option by which commands tell its cache their keys, since redis-py 5.1; never passed on to callbacks."""

_spellings = ["".join(letters) for letters in product(*zip("himport", "HIMPORT"))]
NEED_PREPARATION = frozenset([*_spellings, *(spelling.encode() for spelling in _spellings)])
"""Commands before which redis-py 8.1 sends something else, depending on what a connection was told before."""

STOCK_EXECUTE: Any = redis.Redis.execute_command
"""redis-py's own method, unless a tracer has been put there already, which is to see every command then."""

if type(STOCK_EXECUTE) is not FunctionType or STOCK_EXECUTE.__globals__ is not vars(redis.client):
    STOCK_EXECUTE = None

STOCK_PIPELINE_EXECUTE: Any = redis.client.Pipeline.execute
"""As the one before, of a pipeline."""

if type(STOCK_PIPELINE_EXECUTE) is not FunctionType or STOCK_PIPELINE_EXECUTE.__globals__ is not vars(redis.client):
    STOCK_PIPELINE_EXECUTE = None

try:
    from redis.observability.providers import get_observability_instance  # since redis-py 7.2

    OBSERVABILITY: Any = get_observability_instance()
except ImportError:
    OBSERVABILITY = SimpleNamespace(_provider_manager=None)
"""Whose ``_provider_manager`` is there where redis-py collects metrics of its commands."""

__all__ = [
    "ASKS_FOR_CREDENTIALS_ASYNC",
    "AUTHORIZATION_ERRORS",
    "HANDLES_PUSHES",
    "HAS_ASYNCIO",
    "HAS_CLUSTER",
    "VERSION",
    "AuthenticationError",
    "BlockingConnectionPool",
    "Connection",
    "ConnectionError",
    "ConnectionPool",
    "CredentialProvider",
    "DEFAULT_RESP",
    "DISCONNECTS_WHEN_INTERRUPTED",
    "FOR_CACHE",
    "HiredisParser",
    "KEEPALIVE_DEFAULT",
    "LOST",
    "NAMES_ERRORS",
    "NONBLOCKING_EXCEPTIONS",
    "NEED_PREPARATION",
    "NOT_ENOUGH_DATA",
    "OBSERVABILITY",
    "PUSH_IS_KNOWN",
    "READ_TIMEOUT",
    "RedisError",
    "ResponseError",
    "SENTINEL",
    "SERVER_CLOSED",
    "SSLConnection",
    "STOCK_EXECUTE",
    "STOCK_PIPELINE_EXECUTE",
    "TimeoutError",
    "UnixDomainSocketConnection",
    "accepted",
    "async_timeout",
    "callback_of",
    "cluster_table",
    "key_slot",
    "needs_cluster",
    "sentinel_master",
    "carried_out",
    "checks_hostname",
    "clock",
    "error_parser",
    "is_redis_pys",
    "needs_asyncio",
    "packed_buffers",
    "peer",
    "redis_asyncio",
    "with_known_tls",
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


def with_known_tls(connection_class: type, kwargs: Dict[str, Any]) -> Dict[str, Any]:
    """Leave out TLS options that a redis-py does not know, and that our connections see to themselves."""
    ours = {name: value for name, value in kwargs.items() if name in Tls._fields}
    others = {name: value for name, value in kwargs.items() if name not in ours}
    return {**others, **accepted(connection_class, ours)}


def checks_hostname(connection_class: Any) -> bool:
    """Whether a redis-py's TLS connections check the host name where they are not told: since redis-py 6."""
    return bool(inspect.signature(connection_class.__init__).parameters["ssl_check_hostname"].default)


def error_parser(connection: Any) -> Callable[[str], Exception]:
    """Return what makes an exception of an error reply's text, as ``connection`` itself would."""
    parse_error: Callable[[str], Exception] = connection._parser.parse_error
    return parse_error


def peer(connection: Any) -> str:
    """Return how redis-py names the peer of a connection in its errors."""
    if hasattr(connection, "_host_error"):  # since redis-py 4.6
        return str(connection._host_error())
    return f"{connection.host}:{connection.port}" if hasattr(connection, "host") else "connection"


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


def carried_out(
    client: Any, connection: Any, failure: Exception, args: Tuple[Any, ...], options: Dict[str, Any]
) -> Any:
    """Go on as redis-py does after the first attempt at a command has failed on a connection: raise, or try again."""
    failures = [failure]
    del failure  # whose traceback will hold this frame
    if not hasattr(connection, "retry"):  # redis-py 3.5
        return _carried_out_by_3_5(client, connection, failures, args, options)

    def attempt() -> Any:
        if failures:
            raise failures.pop()
        return client._send_command_parse_response(connection, args[0], *args, **options)

    def failed(error: Exception) -> None:
        connection.disconnect()
        if hasattr(client, "_disconnect_raise"):  # before redis-py 6
            client._disconnect_raise(connection, error)

    return connection.retry.call_with_retry(attempt, failed)


def _carried_out_by_3_5(
    client: Any, connection: Any, failures: List[Exception], args: Tuple[Any, ...], options: Dict[str, Any]
) -> Any:
    try:
        raise failures.pop()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        connection.disconnect()
        if not (connection.retry_on_timeout and isinstance(error, redis.TimeoutError)):
            raise
    connection.send_command(*args)
    return client.parse_response(connection, args[0], **options)


def needs_asyncio() -> None:
    """Raise ``OptionError`` where redis-py has no asyncio support."""
    if not HAS_ASYNCIO:
        raise OptionError(
            f"redis-py {VERSION} has no asyncio support, which an async client and Rasa since 3.3 need; "
            f"pip install 'redis>=4.5.3'"
        )


def needs_cluster() -> None:
    """Raise ``OptionError`` where redis-py knows nothing of clusters."""
    if not HAS_CLUSTER:
        raise OptionError(
            f"deployment_mode is 'cluster', which redis-py {VERSION} does not know; pip install 'redis>=4.1' if this "
            f"Rasa can live with it, or point url at one Redis server, or use Sentinels"
        )


class _Answer:
    """Stands for a client of a cluster's node, and for its pool, where redis-py reads a reply that is there already."""

    def __init__(self, reply: Any = None) -> None:
        self._reply = reply
        self._lock = threading.Lock()
        self.connection_pool = self

    def execute_command(self, name: str) -> Any:
        return {"cluster_enabled": 1} if name == "INFO" else self._reply

    def info(self) -> Any:  # redis-py 4.1
        return {"cluster_enabled": 1}

    def _nothing(self) -> None:
        """There is no connection."""

    close = disconnect = update_active_connections_for_reconnect = disconnect_free_connections = _nothing


class _Slots(NodesManager):
    def create_redis_node(self, host: Any, port: Any, **kwargs: Any) -> Any:
        return _Answer()


def cluster_table(reply: Any, asked: Tuple[str, int]) -> Tuple[Dict[int, Tuple[str, int]], Tuple[Tuple[str, int], ...]]:
    """Return the master of each slot, and all nodes, as redis-py's slot table has them after ``CLUSTER SLOTS``.

    ``asked``: who has answered; a host that is not named is that one's. Source: "CLUSTER SLOTS" of the Redis commands.
    """
    ranges: List[Any] = []
    for first, last, *nodes in reply:
        named = [[_RENAMED.get(host, host), int(node[1])] for node in nodes for host in [_host(node[0], asked[0])]]
        ranges.append([int(first), int(last), *named])
    if not ranges:
        return {}, ()
    manager: Any = _Slots([ClusterNode("asked", 0, redis_connection=_Answer(ranges))])
    slots = {slot: _address(nodes[0]) for slot, nodes in manager.slots_cache.items()}
    return slots, tuple(map(_address, manager.nodes_cache.values()))


_RENAMED = {"localhost": "its localhost"}
"""What redis-py would look up, and replace by its address, which need not be in the certificate."""
_NAMES = {renamed: name for name, renamed in _RENAMED.items()}


def _address(node: Any) -> Tuple[str, int]:
    return _NAMES.get(node.host, node.host), int(node.port)


def _host(named: Any, asked: str) -> str:
    host = named.decode() if isinstance(named, bytes) else named
    return asked if host in (None, "", "?") else str(host)


class _Masters:
    """Stands for a client of a Sentinel that has answered already."""

    def __init__(self, masters: Any) -> None:
        self._masters = masters

    def sentinel_masters(self) -> Any:
        return self._masters


_in_resp2: Dict[str, Any] = {"protocol": 2} if DEFAULT_RESP != 2 else {}
_parse_masters: Callable[[Any], Any] = redis.Redis(**_in_resp2).response_callbacks["SENTINEL MASTERS"]


def sentinel_master(reply: Any, service: str) -> Optional[Tuple[str, int]]:
    """Return where a master is by a ``SENTINEL MASTERS`` in RESP2, ``None`` if it is down or not known there.

    Nor is it told by the Sentinel that replaces it, who names the old one until all replicas follow the new one, which
    the other Sentinels know as soon as it is one. Source: "Sentinel client spec", and sentinel.c of Redis.
    """
    masters: Any = _parse_masters(reply)
    if "failover_in_progress" in masters.get(service, {}).get("flags", ""):
        return None
    asking: Any = Sentinel([])
    asking.sentinels = [_Masters(masters)]
    try:
        host, port = asking.discover_master(service)
    except MasterNotFoundError:
        return None
    return str(host), int(port)


def callback_of(callbacks: Any, name: Any) -> Any:
    """Return what makes a command's reply what redis-py returns, ``None`` where it is returned as it is."""
    if type(callbacks) is redis.client.CaseInsensitiveDict:
        return dict.get(callbacks, name.upper())  # its own methods are Python, and two are needed
    return callbacks.get(name)


def is_redis_pys(callback: Any) -> bool:
    """Whether a response callback is redis-py's own, which makes the same of the same reply."""
    return str(getattr(callback, "__module__", "")).startswith("redis.")
