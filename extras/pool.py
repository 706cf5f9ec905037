"""A connection pool from which an idle connection is taken, and to which it is returned, without a lock."""

import os
from typing import Any, List, Optional
from weakref import WeakSet

from extras._redis import ConnectionPool
from extras.transfer import FastTransfer

_pools: "WeakSet[FastPool]" = WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.parked = []  # so that nobody has to ask for each command whose process this is


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class FastPool(ConnectionPool):
    """redis-py's pool, some of whose idle connections are parked, where :class:`~extras.client.FastRedis` takes them.

    To redis-py a parked connection is in use, so that its own bookkeeping, two locks and two moves between collections
    for each command, has nothing to do. Whoever asks redis-py's way for a connection gets the parked ones, too.
    ``parked``: its ``pop()`` and ``append()`` are atomic, and threads need no more.
    """

    parked: List[Any]

    @classmethod
    def adopt(cls, pool: Any) -> None:
        """Make one of these of a pool that redis-py's constructor has made, which takes no class for it."""
        pool.__class__ = cls
        pool.parked = []
        _pools.add(pool)

    def reset(self) -> None:
        """Forget all connections, those of the parent process in a child. See redis-py's ``reset``."""
        self.parked = []  # before other threads are let in, which is the last that redis-py does
        super().reset()
        _pools.add(self)

    def take(self) -> Optional[FastTransfer]:
        """Return an idle connection for use without redis-py's checks, ``None`` if there is none that suits."""
        self._checkpid()
        with self._lock:
            idle = self._available_connections
            if not idle or not isinstance(idle[-1], FastTransfer):
                return None
            connection: FastTransfer = idle.pop()
            self._in_use_connections.add(connection)
            return connection

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection that is open and ready. See redis-py's ``get_connection``."""
        self._checkpid()  # another thread of the parent process may have the lock, in a child for ever
        self._unpark()
        return super().get_connection(*args, **kwargs)

    def make_connection(self) -> Any:
        """Return one that was parked since it was looked for, else a new one. See redis-py's ``make_connection``."""
        try:
            return self.parked.pop()
        except IndexError:
            return super().make_connection()

    def re_auth_callback(self, *args: Any, **kwargs: Any) -> None:
        """Let idle connections authenticate anew. See redis-py's ``re_auth_callback``, since 5.3."""
        self._unpark()
        super().re_auth_callback(*args, **kwargs)

    def _get_free_connections(self) -> Any:  # for maintenance notifications, since redis-py 7
        self._unpark()
        return super()._get_free_connections()  # type: ignore[no-untyped-call]

    def _get_in_use_connections(self) -> Any:
        self._unpark()
        return super()._get_in_use_connections()  # type: ignore[no-untyped-call]

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close connections. See redis-py's ``disconnect``."""
        self._checkpid()
        self._unpark()
        super().disconnect(*args, **kwargs)

    def _unpark(self) -> None:
        """Let redis-py know which connections are idle."""
        if not self.parked:
            return
        with self._lock:
            while self.parked:
                try:
                    connection = self.parked.pop()
                except IndexError:  # another thread has taken the last one
                    return
                self._in_use_connections.discard(connection)
                self._available_connections.append(connection)
