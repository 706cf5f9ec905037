"""A drop-in ``redis.asyncio.Redis`` whose tasks share one connection per event loop.

Ordinary commands and pipelines of all tasks of a loop go out on one multiplexed connection (:mod:`extras.multiplexed`);
what needs a connection of its own (:mod:`extras.routing`) takes redis-py's way, as does everything on a client that the
shared connection cannot serve. Replies, errors and arguments are redis-py's.
"""

import inspect
from types import MethodType
from typing import Any, Dict, Optional, Sequence
from weakref import WeakMethod

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras import _redis
from extras._redis import OBSERVABILITY, callback_of
from extras.multiplexed import MultiplexedConnection
from extras.per_loop import PerLoop
from extras.quick import QuickCommands
from extras.routing import is_repeatable, is_shared

_redis.needs_asyncio()

from redis.asyncio import client as _client  # noqa: E402
from redis.asyncio import connection as _connection  # noqa: E402
from redis.client import EMPTY_RESPONSE, NEVER_DECODE  # noqa: E402

from extras.async_connection import AsyncFastConnection, AsyncFastSSLConnection, AsyncFastUnixConnection  # noqa: E402
from extras.async_pipeline import PLAIN, AsyncFastPipeline  # noqa: E402

_OURS_FOR: Dict[Any, Any] = {
    _connection.Connection: AsyncFastConnection,
    _connection.UnixDomainSocketConnection: AsyncFastUnixConnection,
    _connection.SSLConnection: AsyncFastSSLConnection,
}
_POOLS = (_connection.ConnectionPool, _connection.BlockingConnectionPool)
_OF_THE_POOL = (
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler",
)
"""What tells a connection of a pool to announce maintenance to that pool."""


class AsyncFastRedis(QuickCommands, _client.Redis):  # type: ignore[misc]  # of redis-py's own bases
    """``redis.asyncio.Redis``, with redis-py's arguments, faster by what its tasks need not wait for.

    A pool of redis-py's stock connections that the client makes itself gets this package's; one that is given is used
    as it is, and without the shared connection unless its connections are this package's. ``socket_timeout``: seconds
    of silence, while anything is asked, after which all who wait get ``TimeoutError``. What a lost connection had under
    way fails with ``ConnectionError``, except for commands that change nothing, which are sent again as ``retry`` says,
    or once. With redis-py's default for maintenance notifications, "auto", the shared connection does not ask for them.
    """

    _shared: Optional[PerLoop[MultiplexedConnection]] = None
    """``None`` where every command takes redis-py's way."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if kwargs.get("connection_pool") is None:
            self._take_over_pool()
        self._share()

    __init__.__signature__ = inspect.signature(_client.Redis.__init__)  # type: ignore[attr-defined]

    @classmethod
    def from_url(cls, url: str, *args: Any, **kwargs: Any) -> "AsyncFastRedis":
        """Return a client for a URL; the arguments are redis-py's."""
        client: Any = super().from_url(url, *args, **kwargs)
        client._take_over_pool()
        client._share()
        made: AsyncFastRedis = client
        return made

    def _take_over_pool(self) -> None:
        pool: Any = self.connection_pool
        pool.connection_class = _OURS_FOR.get(pool.connection_class, pool.connection_class)

    def _share(self) -> None:
        if not self.single_connection_client and _can_be_shared(self.connection_pool):
            self._shared = PerLoop(MultiplexedConnection.abandon)

    def _make_multiplexed(self) -> MultiplexedConnection:
        pool: Any = self.connection_pool

        def make_connection() -> Any:
            kwargs = {name: value for name, value in pool.connection_kwargs.items() if name not in _OF_THE_POOL}
            # Nothing may come that was not asked for: not the replies to its own PINGs either.
            return pool.connection_class(**{**kwargs, "health_check_interval": 0})

        def retry() -> Any:
            # As one of the pool's connections would have it, with the errors of retry_on_error.
            return make_connection().retry if pool.connection_kwargs.get("retry") is not None else None

        # Not the client itself, which would wait for the collector then to be closed when it is dropped.
        own_rule: Any = WeakMethod(self._may_be_repeated)
        interval_s = pool.connection_kwargs.get("health_check_interval") or 0
        return MultiplexedConnection(make_connection, interval_s, lambda command: bool(own_rule()(command)), retry)

    def _may_be_repeated(self, command: Sequence[Any]) -> bool:
        """Return whether a command may be sent again although it may have been carried out already."""
        return is_repeatable(command)

    def shared_connection(self) -> Optional[MultiplexedConnection]:
        """Return the running loop's connection, ``None`` where all commands take redis-py's way at present."""
        if self._shared is None or self.connection is not None or OBSERVABILITY._provider_manager is not None:
            return None
        return self._shared.current(self._make_multiplexed)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, and return its reply as redis-py would."""
        connection = self.shared_connection() if is_shared(args) and NEVER_DECODE not in options else None
        if connection is None:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        try:
            replies = connection.ready()
            if replies is None:
                reply = await connection.execute(*args)
            else:
                try:
                    reply = await replies.put(connection.packed((args,)))
                except (RedisConnectionError, RedisTimeoutError) as error:
                    reply = await connection.execute_again(error, replies, args)
        except ResponseError:
            if EMPTY_RESPONSE in options:
                return options[EMPTY_RESPONSE]
            raise
        if options:
            options.pop(EMPTY_RESPONSE, None)
            options.pop(_redis.FOR_CACHE, None)  # type: ignore[arg-type]
        callback = callback_of(self.response_callbacks, args[0])
        if callback is None:
            return reply
        result = callback(reply, **options)
        return await result if type(result) not in PLAIN and inspect.isawaitable(result) else result

    def get(self, name: Any) -> Any:
        """Return the value at ``name``, ``None`` if there is none. See redis-py's ``get``."""
        execute = self.execute_command
        if type(execute) is not MethodType or execute.__func__ is not _EXECUTE:
            return super().get(name)
        if callback_of(self.response_callbacks, "GET") is not None:
            return execute("GET", name)  # redis-py's cache, for which the key is an option, is for blocking clients
        return self._get(name)

    # In one piece, because it is what is called most.
    async def _get(self, name: Any) -> Any:
        command = ("GET", name)
        connection = self.shared_connection()
        replies = None if connection is None else connection.ready()
        if connection is None or replies is None:
            return await self.execute_command(*command)
        try:
            return await replies.put(connection.packed((command,)))
        except (RedisConnectionError, RedisTimeoutError) as error:
            return await connection.execute_again(error, replies, command)

    def pipeline(self, transaction: bool = True, shard_hint: Optional[str] = None) -> AsyncFastPipeline:
        """Return a pipeline whose commands go out in one write, between those of other tasks."""
        return AsyncFastPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint, self.shared_connection
        )

    async def aclose(self, close_connection_pool: Optional[bool] = None) -> None:
        """Close the running loop's shared connection, and what redis-py would close."""
        connection = None if self._shared is None else self._shared.pop()
        if connection is not None:
            await connection.close()
        await _close(self, close_connection_pool)

    if not hasattr(_client.Redis, "aclose"):
        close = aclose


_EXECUTE = AsyncFastRedis.execute_command
_close: Any = getattr(_client.Redis, "aclose", _client.Redis.close)  # since redis-py 5.0.1


def _can_be_shared(pool: Any) -> bool:
    """Return whether connections of a pool do nothing that one connection for all would not do."""
    if type(pool) not in _POOLS or pool.connection_class not in _OURS_FOR.values():
        return False
    kwargs = pool.connection_kwargs
    notifications = kwargs.get("maint_notifications_config")
    handler = getattr(pool, "_maint_notifications_pool_handler", None)
    if handler is not None:
        notifications = handler.config
    if getattr(notifications, "enabled", False) is True or getattr(
        pool, "_oss_cluster_maint_notifications_handler", None
    ):
        return False
    return (
        kwargs.get("parser_class") in (None, _connection.DefaultParser)
        and kwargs.get("encoder_class") in (None, vars(_connection)["Encoder"])
        and not hasattr(kwargs.get("credential_provider"), "on_next")  # which sends tokens as they are renewed
        and not set(kwargs.get("retry_on_error") or ()) - _redis.LOST
        and (_redis.PUSH_IS_KNOWN or int(kwargs.get("protocol") or _redis.DEFAULT_RESP) == 2)
    )
