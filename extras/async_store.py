"""The async client of a store: replies as Redis sends them, and limits that :func:`extras.steps.arun` keeps."""

import asyncio
from typing import Any, Dict, List, Optional, Sequence

from extras import _redis
from extras.async_client import AsyncFastRedis
from extras.async_connection import AsyncFastConnection, AsyncFastSSLConnection, AsyncFastUnixConnection
from extras.budget import Limits, UnsettledError
from extras.multiplexed import MultiplexedConnection
from extras.per_loop import PerLoop
from extras.routing import is_shared
from extras.slots import is_demoted


def _abandon(spare: List[MultiplexedConnection]) -> None:
    for connection in spare:
        connection.abandon()


class AsyncStoreRedis(AsyncFastRedis):
    """:class:`AsyncFastRedis` for a store's commands, each of which may be carried out twice.

    It is ``arun`` that repeats them, as often as ``limits`` say, and not what is below, too.
    """

    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._spare: PerLoop[List[MultiplexedConnection]] = PerLoop(_abandon)

    def ask(self, command: Sequence[Any]) -> "Optional[asyncio.Future[Any]]":
        """Send a command on the loop's connection, and return its reply to come.

        ``None`` if that is not open and free, or if the command needs a connection of its own.
        Raises redis-py's ``ConnectionError`` if it was lost just now.
        """
        connection = self.shared_connection() if is_shared(command) else None
        replies = None if connection is None else connection.ready()
        if connection is None or replies is None:
            return None
        return replies.put(connection.packed((command,)))

    def noted(self, error: Exception, asked: Optional[Sequence[Any]]) -> Exception:
        """Return what an error is to whoever has asked.

        A server that has become a replica is left: where its name leads is looked up for the next attempt.
        """
        if not is_demoted(error):
            return error
        connection = self.shared_connection()
        if connection is not None:
            connection.lose(str(error))
        return UnsettledError(str(error), error)

    async def together(self, commands: Sequence[Sequence[Any]]) -> List[Any]:
        """Carry out commands, of which all but the first belong to it, on a connection that nobody else uses meanwhile.

        Raises the error of the first that failed.
        """
        spare = self._spare.current(list)
        connection = spare.pop() if spare else self._make_multiplexed()
        try:
            replies, has_errors = await connection.execute_batch(commands, commands)
        finally:
            spare.append(connection)
        if has_errors:
            raise next(reply for reply in replies if isinstance(reply, Exception))
        return replies

    async def aclose(self, close_connection_pool: Optional[bool] = None) -> None:
        """Close the running loop's connections, and what redis-py would close."""
        for connection in self._spare.pop() or ():
            await connection.close()
        await super().aclose(close_connection_pool)

    def _may_be_repeated(self, command: Sequence[Any]) -> bool:
        return False


def store_client(kwargs: Dict[str, Any], limits: Limits) -> AsyncStoreRedis:
    """Make the client from a connection's keyword arguments, in redis-py's names; it connects at its first command."""
    connection_class: Any = AsyncFastConnection
    if "path" in kwargs:
        connection_class = AsyncFastUnixConnection
    elif "ssl_cert_reqs" in kwargs:
        connection_class = AsyncFastSSLConnection
    # Nothing may come that was not asked for, such as push messages, which RESP3 has.
    kwargs = {**kwargs, **_redis.accepted(connection_class, {"protocol": 2})}
    pool = _redis.redis_asyncio.ConnectionPool(connection_class=connection_class, **kwargs)
    client = AsyncStoreRedis(connection_pool=pool)
    client.limits = limits
    client.response_callbacks.clear()
    client.auto_close_connection_pool = True
    return client
