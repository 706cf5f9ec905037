"""Redis clients made from :class:`~extras.options.Options`."""

import asyncio
import socket
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union
from weakref import WeakSet

from extras import _redis, budget, tls
from extras.acknowledged import Acks
from extras.budget import Limits, UnsettledError
from extras.client import FastRedis
from extras.cluster import Cluster
from extras.connection import FastConnection, FastSSLConnection, FastUnixConnection
from extras.credentials import login_kwargs
from extras.errors import OptionError
from extras.layout import CLUSTER, STANDARD, Address
from extras.options import Options
from extras.per_loop import PerLoop
from extras.pool import FastPool
from extras.routed import RoutedRedis
from extras.sentinel import Sentinels
from extras.shared import shared
from extras.slots import is_demoted
from extras.topology import Topology

if TYPE_CHECKING:
    from extras.async_routed import AsyncRoutedRedis
    from extras.async_store import AsyncStoreRedis

    AsyncStoreClient = Union[AsyncStoreRedis, AsyncRoutedRedis]

FAILOVER_PAUSE_S = 0.25
"""Longest pause between attempts where somebody else may take over."""


def connection_kwargs(options: Options) -> Dict[str, Any]:
    """Return the keyword arguments of a connection, in redis-py's names, that ``options`` ask for.

    Raises ``OptionError`` where a TLS file cannot be read.
    """
    kwargs: Dict[str, Any] = {
        "db": options.db,
        **login_kwargs(options),
        "socket_timeout": options.socket_timeout,
        "socket_connect_timeout": options.socket_connect_timeout,
        "health_check_interval": options.health_check_interval,
        "client_name": options.client_name,
    }
    if options.unix_path:
        return {**kwargs, "path": options.unix_path, "socket_keepalive_options": options.socket_keepalive_options}
    kwargs.update(
        host=options.url,
        port=options.port,
        socket_keepalive=options.socket_keepalive,
        socket_keepalive_options=options.socket_keepalive_options,
    )
    if options.use_ssl:
        kwargs.update(tls_kwargs(options))
    return kwargs


def tls_kwargs(options: Options) -> Dict[str, Any]:
    """Return those keyword arguments of a connection that are about TLS. Raises ``OptionError`` for a file."""
    names = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path")
    kwargs: Dict[str, Any] = {name: getattr(options, name) for name in names}
    problem = tls.unreadable(kwargs)
    if problem:
        raise OptionError(problem)
    # redis-py 3.5 passes over a certificate without a key, though one file may hold both.
    kwargs["ssl_keyfile"] = kwargs["ssl_keyfile"] or kwargs["ssl_certfile"]
    kwargs.update(
        ssl_cert_reqs="required",
        ssl_check_hostname=options.ssl_check_hostname,
        ssl_min_version=tls.version(options.ssl_min_version),
    )
    try:
        tls.Tls(**kwargs).context()
    except tls.TlsFileError as error:
        raise OptionError(str(error)) from error
    return kwargs


def sentinel_kwargs(options: Options) -> Dict[str, Any]:
    """Return the keyword arguments of a connection to a Sentinel, which has users, passwords and TLS of its own."""
    login: Dict[str, Any] = {"username": options.sentinel_username, "password": options.sentinel_password}
    return connection_kwargs(
        replace(options, use_ssl=options.asks_with_ssl, db=0, credential_provider=None, iam=None, **login)
    )


def layout_kwargs(options: Options) -> Dict[str, Any]:
    """Return what a client of more than one server is made of, empty for that of one server. Raises ``OptionError``."""
    if options.deployment_mode == STANDARD:
        return {}
    if options.deployment_mode == CLUSTER:
        _redis.needs_cluster()
        return {"seeds": options.nodes}
    return {"seeds": options.nodes, "service": options.service, "sentinel": sentinel_kwargs(options)}


def limits(options: Options) -> Limits:
    """Return what a call of the store may take.

    A fail-over takes as long as the servers take for it: on more than one, attempts go on while there is time.
    """
    if options.deployment_mode == STANDARD:
        return Limits(options.call_timeout, options.retries, options.retry_on_timeout)
    retries = options.retries if options.call_timeout is None else bool(options.retries) * sys.maxsize
    return Limits(options.call_timeout, retries, True, FAILOVER_PAUSE_S)


def acks(options: Options) -> Optional[Acks]:
    """Return how a save is acknowledged, within half the time of any wait for a reply; ``None``: it need not be."""
    if not options.min_replicas_ack:
        return None
    timeouts_s = [timeout_s for timeout_s in (options.socket_timeout, options.call_timeout) if timeout_s is not None]
    return Acks(options.min_replicas_ack, max(1, round(min(timeouts_s) * 500)) if timeouts_s else 0)


def topology(made_of: Mapping[str, Any]) -> Topology:
    """Return what knows where commands go, which all clients with an equal layout use together.

    One that is made later, to replay a journal or to listen, knows then what others have found out: where the cluster
    is, though the only node that the options name is gone.
    """
    # Nodes name other ports, and perhaps other hosts, to those who ask with TLS.
    return shared(_topology, {**made_of["layout"], "over_tls": "ssl_cert_reqs" in made_of["connection"]})


def _topology(layout: Mapping[str, Any]) -> Topology:
    if "service" in layout:
        return Sentinels(layout["seeds"], layout["service"])
    return Cluster(layout["seeds"])


class StoreRedis(FastRedis):
    """:class:`FastRedis` for a store's commands, which :func:`extras.steps.run` carries out within ``limits``."""

    limits = Limits()

    def noted(self, error: Exception) -> Optional[Exception]:
        """Leave a server that has become a replica, so that its name is looked up anew; return the error of that.

        ``None`` for another error, which is for the caller.
        """
        if not is_demoted(error):
            return None
        self.connection_pool.disconnect()
        return UnsettledError(str(error), error)

    def together(self, commands: Sequence[Sequence[Any]]) -> List[Any]:
        """Carry out commands, of which all but the first belong to it, on one connection, one right behind the other.

        Raises the error of the first that failed.
        """
        with self.pipeline(transaction=False) as batch:
            for command in commands:
                batch.execute_command(*command)
            replies: List[Any] = batch.execute(raise_on_error=False)
        failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if failed is not None:
            raise failed
        return replies


class WaitingPool(_redis.BlockingConnectionPool):
    """redis-py's pool, in which nobody waits for a free connection for longer than the running call may take."""

    _timeout_s: Optional[float] = None

    @property
    def timeout(self) -> Optional[float]:
        """Longest wait, in seconds."""
        try:
            return budget.within(self._timeout_s)
        except socket.timeout:
            return 0.0

    @timeout.setter
    def timeout(self, timeout_s: Optional[float]) -> None:
        self._timeout_s = timeout_s

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection that is open and ready. See redis-py's ``get_connection``."""
        budget.waiting_for(budget.FREE_CONNECTION)
        connection = super().get_connection(*args, **kwargs)  # type: ignore[no-untyped-call]
        budget.waiting_for_a_reply()
        return connection


def sync_client(options: Options) -> Any:
    """Make a blocking client; it connects at its first command. Raises ``OptionError``."""
    return _sync_client(_made_of(options), options.max_connections, limits(options))


def _made_of(options: Options) -> Dict[str, Any]:
    return {"connection": connection_kwargs(options), "layout": layout_kwargs(options)}


def _sync_client(made_of: Mapping[str, Any], max_connections: Optional[int], limits_: Limits) -> Any:
    kwargs, layout = made_of["connection"], made_of["layout"]
    if not layout:
        return _client_of_one(kwargs, max_connections, limits_)

    def make_node(address: Address) -> StoreRedis:
        return _client_of_one(_at(kwargs, address), max_connections, limits_)

    def make_sentinel(address: Address) -> StoreRedis:
        return _client_of_one(_at(layout["sentinel"], address), None, limits_)

    client = RoutedRedis(topology(made_of), make_node, make_sentinel if "sentinel" in layout else make_node)
    client.limits = limits_
    return client


def _at(kwargs: Mapping[str, Any], address: Address) -> Dict[str, Any]:
    return {**kwargs, "host": address[0], "port": address[1]}


def _client_of_one(kwargs: Dict[str, Any], max_connections: Optional[int], limits_: Limits) -> StoreRedis:
    connection_class: Any = FastConnection
    if "path" in kwargs:
        connection_class = FastUnixConnection
    elif "ssl_cert_reqs" in kwargs:
        connection_class = FastSSLConnection
    # As on the async side: nothing may come that was not asked for, such as push messages, which RESP3 has.
    kwargs = {**kwargs, **_redis.accepted(connection_class, {"protocol": 2})}
    pool_class: Any = FastPool
    if max_connections is not None:
        pool_class = WaitingPool
        kwargs.update(max_connections=max_connections, timeout=kwargs["socket_timeout"])
    pool = pool_class(connection_class=connection_class, **kwargs)
    client = StoreRedis(connection_pool=pool)
    client.limits = limits_
    return client


class SyncClient:
    """A store's blocking client, shared with all stores that have equal options. Raises ``OptionError``."""

    def __init__(self, options: Options) -> None:
        self._shared = shared(_SharedSync, _made_of(options), options.max_connections, limits(options))

    def current(self) -> Any:
        """Return the client, which connects at its first command."""
        return self._shared.used_by(self)

    def close(self) -> None:
        """Close the connections if nobody else uses them; the next command opens new ones."""
        self._shared.left_by(self)


class _SharedSync:
    def __init__(self, *made_of: Any) -> None:
        self._client = _sync_client(*made_of)
        self._users: WeakSet[SyncClient] = WeakSet()

    def used_by(self, user: SyncClient) -> Any:
        if user not in self._users:
            self._users.add(user)
        return self._client

    def left_by(self, user: SyncClient) -> None:
        self._users.discard(user)
        if not self._users:
            self._client.connection_pool.disconnect()


class AsyncClient:
    """A store's async client, shared with all stores that have equal options. Raises ``OptionError``."""

    def __init__(self, options: Options) -> None:
        _redis.needs_asyncio()
        self._shared = shared(_SharedAsync, _made_of(options), limits(options))
        self._known: Optional[Tuple[asyncio.AbstractEventLoop, AsyncStoreClient]] = None

    def current(self) -> Any:
        """Return the client, which has a connection for each event loop and connects at its first command there."""
        known = self._known  # read once: another thread may replace it
        loop = asyncio.get_running_loop()
        if known is None or known[0] is not loop:
            known = self._known = loop, self._shared.used_by(self)
        return known[1]

    async def close(self) -> None:
        """Close the running loop's connection if nobody else uses it there; the next command opens a new one."""
        self._known = None
        await self._shared.left_by(self)


def _async_client(made_of: Mapping[str, Any], limits_: Limits) -> "AsyncStoreClient":
    from extras.async_store import store_client

    kwargs, layout = made_of["connection"], made_of["layout"]
    if not layout:
        return store_client(kwargs, limits_)
    from extras.async_routed import AsyncRoutedRedis

    def make_node(address: Address) -> "AsyncStoreRedis":
        return store_client(_at(kwargs, address), limits_)

    def make_sentinel(address: Address) -> "AsyncStoreRedis":
        return store_client(_at(layout["sentinel"], address), limits_)

    client = AsyncRoutedRedis(topology(made_of), make_node, make_sentinel if "sentinel" in layout else make_node)
    client.limits = limits_
    return client


class _SharedAsync:
    """The client is made in the first event loop that asks: before Python 3.10 asyncio's locks need one."""

    def __init__(self, *made_of: Any) -> None:
        self._made_of = made_of
        self._client: Optional[AsyncStoreClient] = None
        self._making = threading.Lock()
        self._users: PerLoop[WeakSet[AsyncClient]] = PerLoop(WeakSet.clear)

    def used_by(self, user: AsyncClient) -> "AsyncStoreClient":
        users = self._users.current(WeakSet)
        if user not in users:
            users.add(user)
        if self._client is None:
            with self._making:
                if self._client is None:
                    self._client = _async_client(*self._made_of)
        return self._client

    async def left_by(self, user: AsyncClient) -> None:
        users = self._users.current(WeakSet)
        users.discard(user)
        if not users and self._client is not None:
            await self._client.aclose()
