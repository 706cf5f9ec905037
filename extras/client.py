"""A blocking Redis client with redis-py's interface, whose commands take the shortest way to the wire.

What redis-py does around each command is done only where there is something to do: a connection that is open, idle and
undisturbed is handed out as it is, its command packed, sent, and its reply read natively. Everything else goes
redis-py's own way, which is inherited: connecting, a closed socket, an error and its retries, tracing, metrics.
"""

import inspect
from operator import itemgetter
from types import MethodType
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

from redis import Redis
from redis.client import CaseInsensitiveDict, Pipeline
from redis.exceptions import ResponseError

from extras import _redis
from extras._redis import (
    FOR_CACHE,
    HAS_ASYNCIO,
    NEED_PREPARATION,
    OBSERVABILITY,
    STOCK_EXECUTE,
    STOCK_PIPELINE_EXECUTE,
    ConnectionPool,
)
from extras.connection import FastConnection, FastSSLConnection, FastUnixConnection
from extras.pool import FastPool
from extras.quick import QuickCommands
from extras.transfer import FastTransfer

if HAS_ASYNCIO:
    from extras.async_client import AsyncFastRedis

    __all__ = ["AsyncFastRedis", "FastPipeline", "FastPool", "FastRedis"]
else:
    __all__ = ["FastPipeline", "FastPool", "FastRedis"]

_FAST_CLASSES = {
    _redis.Connection: FastConnection,
    _redis.SSLConnection: FastSSLConnection,
    _redis.UnixDomainSocketConnection: FastUnixConnection,
}
_FOR_REDIS_PY = frozenset({"NEVER_DECODE", "EMPTY_RESPONSE"})
"""Options with which redis-py reads a reply in another way."""

_TEXT = frozenset({str, bytes})
_parameters = inspect.signature(Redis.__init__)
_callback_of = dict.get  # CaseInsensitiveDict's own methods are Python, and two of them would be needed
_options_of = itemgetter(1)
_LASTING = frozenset({bool, bytes, str, int, float, type(None)})
"""Results of which one object may be given several times."""


class FastRedis(QuickCommands, Redis):
    """``redis.Redis``, several times as fast, on connections that notice a dead peer.

    Takes redis-py's arguments and raises its errors. A pool that is not given is a :class:`FastPool` of the connections
    of :mod:`extras.connection`; one that is given stays as it is, and gains as much if it is such a one. Threads may
    share a client, and processes that fork.
    """

    connection: Any = None  # this and the next are for redis-py's __del__ after arguments that are refused
    auto_close_connection_pool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(_parameters.bind(self, *args, **kwargs).arguments)
        del given["self"]
        if given.get("connection_pool") is None:
            is_single = bool(given.pop("single_connection_client", False))
            super().__init__(**given)
            self._own_pool(is_single, {name: given[name] for name in ("event_dispatcher",) if name in given})
        else:
            super().__init__(**given)

    __init__.__signature__ = _parameters  # type: ignore[attr-defined]

    def _own_pool(self, is_single: bool, options: Dict[str, Any]) -> None:
        """Take the fast classes for redis-py's in a pool that only this client has."""
        pool: Any = self.connection_pool
        pool.connection_class = _FAST_CLASSES.get(pool.connection_class, pool.connection_class)
        if type(pool) is ConnectionPool:
            FastPool.adopt(pool)
        if is_single:
            super().__init__(connection_pool=pool, single_connection_client=True, **options)
            self.auto_close_connection_pool = True

    @classmethod
    def from_url(cls, url: str, *args: Any, **kwargs: Any) -> Any:
        """Make a client of a URL. See redis-py's ``from_url``."""
        is_single = bool(kwargs.pop("single_connection_client", False))
        client: Any = super().from_url(url, *args, **kwargs)
        client._own_pool(is_single, {})
        return client

    # In one piece, because a call of Python's is what it saves.
    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command and return its reply as redis-py does, with its errors and its retries."""
        pool: Any = self.connection_pool
        callbacks = self.response_callbacks
        if (
            type(pool) is not FastPool
            or type(callbacks) is not CaseInsensitiveDict
            or self.connection is not None
            or (options and not _FOR_REDIS_PY.isdisjoint(options))
            or (type(args[0]) in _TEXT and args[0] in NEED_PREPARATION)
            or Redis.execute_command is not STOCK_EXECUTE
            or OBSERVABILITY._provider_manager is not None
        ):
            return self._execute_by_redis_py(args, options)
        try:
            connection = pool.parked.pop()
        except IndexError:
            connection = pool.take()
            if connection is None:
                return self._execute_by_redis_py(args, options)
        try:
            reply = connection.ask(args)
            if type(reply) is not bytes and isinstance(reply, ResponseError):
                raise reply  # perhaps one of those upon which the user wants another attempt
        except Exception as failure:
            reply = None  # the traceback holds this frame
            return _redis.carried_out(self, connection, failure, args, options)
        finally:
            if connection._re_auth_token is None and not connection._should_reconnect:
                pool.parked.append(connection)
            else:
                pool.release(connection)
        if reply is NotImplemented:
            return self._execute_by_redis_py(args, options)
        callback = _callback_of(callbacks, args[0].upper())
        if callback is None:
            return reply
        options.pop(FOR_CACHE, None)  # type: ignore[arg-type]
        return callback(reply, **options)

    def _execute_by_redis_py(self, args: Any, options: Dict[str, Any]) -> Any:
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    # In one piece again: it is what is called most.
    def get(self, name: Any) -> Any:
        """Return the value at ``name``, ``None`` if there is none. See redis-py's ``get``."""
        pool: Any = self.connection_pool
        callbacks = self.response_callbacks
        execute = self.execute_command
        if (
            type(pool) is not FastPool
            or type(callbacks) is not CaseInsensitiveDict
            or _callback_of(callbacks, "GET") is not None
            or self.connection is not None
            or type(execute) is not MethodType
            or execute.__func__ is not _EXECUTE
            or Redis.execute_command is not STOCK_EXECUTE
            or OBSERVABILITY._provider_manager is not None
        ):
            return super().get(name)
        try:
            connection = pool.parked.pop()
        except IndexError:  # there may be one that is not parked
            return super().get(name)
        args = ("GET", name)
        try:
            reply = connection.ask(args)
            if type(reply) is not bytes and isinstance(reply, ResponseError):
                raise reply
        except Exception as failure:
            reply = None  # the traceback holds this frame
            return _redis.carried_out(self, connection, failure, args, {})
        finally:
            if connection._re_auth_token is None and not connection._should_reconnect:
                pool.parked.append(connection)
            else:
                pool.release(connection)
        return super().get(name) if reply is NotImplemented else reply

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "FastPipeline":
        """Return a pipeline. See redis-py's ``pipeline``."""
        return FastPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


_EXECUTE = FastRedis.execute_command


class FastPipeline(QuickCommands, Pipeline):
    """redis-py's pipeline, whose batch is packed, sent and received at once."""

    _failure: Optional[Exception] = None
    """What the first attempt ended with, where it was not redis-py's."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Put a command on the stack, or carry it out if the pipeline watches. See redis-py's method."""
        if self.watching or args[0] == "WATCH":
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.command_stack.append((args, options))
        return self

    def execute(self, raise_on_error: bool = True) -> List[Any]:
        """Carry out what is on the stack and return the replies. See redis-py's ``execute``."""
        pool: Any = self.connection_pool
        stack = self.command_stack
        transaction: Any = self.transaction  # a method of redis.Redis, but not here
        if (
            not stack
            or type(pool) is not FastPool
            or transaction
            or self.explicit_transaction
            or self.watching
            or self.scripts
            or self.connection is not None
            or type(self)._execute_pipeline is not _EXECUTE_PIPELINE
            or Pipeline.execute is not STOCK_PIPELINE_EXECUTE
            or OBSERVABILITY._provider_manager is not None
        ):
            return super().execute(raise_on_error)
        try:
            connection = pool.parked.pop()
        except IndexError:
            connection = pool.take()
            if connection is None:
                return super().execute(raise_on_error)
        replies = None
        try:
            if connection.is_undisturbed():
                replies = self._execute_natively(connection, stack, raise_on_error)
        except Exception as failure:
            self._failure, self.connection = failure, connection
        except BaseException:
            self.reset()
            raise
        finally:
            if self.connection is not None:
                pass  # which is redis-py's to go on with, and to give back
            elif connection._re_auth_token is None and not connection._should_reconnect:
                pool.parked.append(connection)
            else:
                pool.release(connection)
        if replies is None:
            return super().execute(raise_on_error)
        self.reset()
        return replies

    def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: bool) -> List[Any]:
        if self._failure is not None:
            failures, self._failure = [self._failure], None
            raise failures.pop()  # whose traceback will hold this frame
        replies = None
        if isinstance(connection, FastTransfer):
            replies = self._execute_natively(connection, commands, raise_on_error)
        if replies is None:
            execute: Callable[..., List[Any]] = super()._execute_pipeline
            return execute(connection, commands, raise_on_error)
        return replies

    def _execute_natively(self, connection: Any, commands: Any, raise_on_error: bool) -> Optional[List[Any]]:
        """Return the replies; ``None``, and nothing is sent, if redis-py's own methods are to see a command."""
        batch = [args for args, _ in commands]
        has_options = any(map(_options_of, commands))
        if has_options and not all(_FOR_REDIS_PY.isdisjoint(options) for _, options in commands):
            return None
        try:
            names = {args[0] for args in batch}
        except TypeError:  # redis-py's to refuse
            return None
        replies: Optional[List[Any]] = connection.exchange(batch) if NEED_PREPARATION.isdisjoint(names) else None
        if replies is None:
            return None
        first = replies[0]
        if len(names) == 1 and not has_options and type(first) in _TEXT and replies.count(first) == len(replies):
            callback = self.response_callbacks.get(batch[0][0])
            if callback is None:
                return replies
            if _redis.is_redis_pys(callback):
                result = callback(first)
                if type(result) in _LASTING:
                    return [result] * len(replies)
        return self._called_back(commands, names, replies, raise_on_error)

    def _called_back(self, commands: Any, names: Set[Any], replies: List[Any], raise_on_error: bool) -> List[Any]:
        callbacks = self.response_callbacks
        known = {name: callbacks.get(name) for name in names}
        of_ok: Dict[Any, Any] = {}
        failed = False
        for at, (args, options) in enumerate(commands):
            reply, callback = replies[at], known[args[0]]
            if type(reply) not in _LASTING and isinstance(reply, ResponseError):
                failed = True
            elif callback is None:
                pass
            elif args[0] in of_ok and not options and reply == b"OK":
                replies[at] = of_ok[args[0]]
            else:
                try:
                    given = (
                        {name: value for name, value in options.items() if name != FOR_CACHE} if options else options
                    )
                    replies[at] = callback(reply, **given)
                except ResponseError as error:
                    replies[at], failed = error, True
                if not options and reply == b"OK" and _redis.is_redis_pys(callback):
                    of_ok[args[0]] = replies[at]
        if failed and raise_on_error:
            self.raise_first_error(commands, replies)  # type: ignore[no-untyped-call]
        return replies

    def _execute_transaction(self, connection: Any, commands: Any, raise_on_error: bool) -> List[Any]:
        stand_in: Any = _Batch(connection) if isinstance(connection, FastTransfer) else connection
        return super()._execute_transaction(stand_in, commands, raise_on_error)

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Return the next reply. See redis-py's method."""
        if type(connection) is _Batch and command_name == "_":
            return connection.read_response()
        return super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]


_EXECUTE_PIPELINE = FastPipeline._execute_pipeline


class _Batch:
    """Stands for a connection where redis-py executes a transaction: all replies are there as soon as all is sent."""

    def __init__(self, connection: FastTransfer) -> None:
        self._connection: Any = connection
        self._replies: Optional[Iterator[Any]] = None

    def pack_commands(self, commands: Any) -> Any:
        return list(commands)

    def send_packed_command(self, commands: Any) -> None:
        replies = self._connection.exchange(commands)
        if replies is None:
            self._connection.send_packed_command(self._connection.pack_commands(commands))
        else:
            self._replies = iter(replies)

    def read_response(self) -> Any:
        if self._replies is None:
            return self._connection.read_response()
        reply = next(self._replies)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
