"""Redis clients made from :class:`~extras.options.Options`, and the drivers that carry out a store's steps on them.

A store's operation is a generator that yields Redis commands and is sent their replies, so that its logic is written
once and does no I/O; :func:`run` and :func:`arun` are all that differs between a blocking host and an async one.
"""

import asyncio
import hashlib
import os
from typing import Any, Dict, Generator, Tuple, TypeVar, Union
from weakref import WeakKeyDictionary

import redis

from extras import _redis
from extras.connection import FastConnection, FastSSLConnection, FastUnixConnection
from extras.errors import OptionError
from extras.multiplexed import MultiplexedConnection
from extras.options import Options

Argument = Union[bytes, str, int, float]
Command = Tuple[Argument, ...]
Result = TypeVar("Result")
Steps = Generator[Command, Any, Result]
"""An operation as steps: yields a command, is sent its reply, returns the result."""


class Script:
    """A Lua script that Redis keeps: sent once to each server, called by its SHA-1 from then on."""

    def __init__(self, source: str) -> None:
        self._source = source.encode()
        self._sha = hashlib.sha1(self._source).hexdigest()

    def call(self, key: bytes, *arguments: Argument) -> "Steps[Any]":
        """Run the script on one key; return its reply."""
        try:
            return (yield ("EVALSHA", self._sha, 1, key, *arguments))
        except redis.exceptions.NoScriptError:
            return (yield ("EVAL", self._source, 1, key, *arguments))


def connection_kwargs(options: Options) -> Dict[str, Any]:
    """Return the keyword arguments of a connection, in redis-py's names, that ``options`` ask for.

    Raises ``OptionError`` where a TLS file cannot be read.
    """
    kwargs: Dict[str, Any] = {
        "db": options.db,
        "username": options.username,
        "password": options.password,
        "socket_timeout": options.socket_timeout,
        "socket_connect_timeout": options.socket_connect_timeout,
        "retry_on_timeout": options.retry_on_timeout,
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
        for name in ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs"):
            path = getattr(options, name)
            if path is not None and not (os.path.isfile(path) and os.access(path, os.R_OK)):
                raise OptionError(f"{name}: there is no readable file {path!r}")
            kwargs[name] = path
        # redis-py 3.5 passes over a certificate without a key, though one file may hold both.
        kwargs["ssl_keyfile"] = kwargs["ssl_keyfile"] or kwargs["ssl_certfile"]
        kwargs.update(ssl_cert_reqs="required", ssl_check_hostname=options.ssl_check_hostname)
    return kwargs


def _pool_kwargs(options: Options) -> Dict[str, Any]:
    if options.max_connections is None:
        return {}
    return {"max_connections": options.max_connections, "timeout": options.socket_timeout}


def sync_client(options: Options) -> "redis.Redis":
    """Make a blocking client; it connects at its first command. Raises ``OptionError``."""
    connection_class: Any = FastConnection
    if options.unix_path:
        connection_class = FastUnixConnection
    elif options.use_ssl:
        connection_class = FastSSLConnection
    pool_class = _redis.ConnectionPool if options.max_connections is None else _redis.BlockingConnectionPool
    pool = pool_class(connection_class=connection_class, **_pool_kwargs(options), **connection_kwargs(options))
    return redis.Redis(connection_pool=pool)


def run(client: "redis.Redis", steps: "Steps[Result]") -> Result:
    """Carry out ``steps`` on a blocking client. An error from Redis is raised at the step that caused it."""
    try:
        command = next(steps)
        while True:
            try:
                reply = client.execute_command(*command)
            except redis.RedisError as error:
                command = steps.throw(error)
            else:
                command = steps.send(reply)
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        steps.close()


class LoopClients:
    """Async clients, one for each event loop that asks, because a connection belongs to the loop that made it."""

    def __init__(self, options: Options) -> None:
        if not _redis.HAS_ASYNCIO:
            raise OptionError(
                f"redis-py {_redis.VERSION} has no asyncio support, which this Rasa version needs; "
                f"pip install 'redis>=4.5.3'"
            )
        self._options = options
        self._kwargs = connection_kwargs(options)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, MultiplexedConnection] = WeakKeyDictionary()

    def current(self) -> MultiplexedConnection:
        """Return the running loop's client; it connects at its first command."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # An open connection holds on to its loop, so that the weak keys alone would keep both for ever.
            for known in list(self._clients):
                if known.is_closed():
                    self._clients.pop(known).abandon()
            client = self._clients[loop] = self._make()
        return client

    def _make(self) -> MultiplexedConnection:
        from extras.connection import AsyncFastConnection, AsyncFastSSLConnection, AsyncFastUnixConnection

        options = self._options
        connection_class: Any = AsyncFastConnection
        if options.unix_path:
            connection_class = AsyncFastUnixConnection
        elif options.use_ssl:
            connection_class = AsyncFastSSLConnection
        # Nothing may come that was not asked for: neither push messages, which RESP3 has, nor replies to its own PINGs.
        kwargs = {**self._kwargs, **_redis.accepted(connection_class, {"protocol": 2}), "health_check_interval": 0}
        return MultiplexedConnection(
            lambda: connection_class(**kwargs),
            timeout_s=options.socket_timeout,
            retry_on_timeout=options.retry_on_timeout,
            health_check_interval_s=options.health_check_interval,
            peer=options.unix_path or f"{options.url}:{options.port}",
        )

    async def close(self) -> None:
        """Close the running loop's connection; the next call opens a new one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()


async def arun(client: MultiplexedConnection, steps: "Steps[Result]") -> Result:
    """Carry out ``steps`` on an event loop's client; see :func:`run`."""
    try:
        command = next(steps)
        while True:
            try:
                reply = await client.execute(*command)
            except redis.RedisError as error:
                command = steps.throw(error)
            else:
                command = steps.send(reply)
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        steps.close()
