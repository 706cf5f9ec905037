"""The blocking client and the async one behind one face, so that a test is written once."""

import asyncio
from typing import Any, List, Type

from extras import _redis
from extras.configured import AsyncClient, sync_client
from extras.options import Options
from extras.steps import Steps, arun, run


class Face:
    """A client of a store, made from options; ``with`` closes it."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def run(self, steps: "Steps[Any]") -> Any:
        """Carry out steps."""
        raise NotImplementedError

    def ask(self, *command: Any) -> Any:
        """Carry out one command; its reply as Redis sent it."""

        def steps() -> "Steps[Any]":
            return (yield command)

        return self.run(steps())

    def socket(self) -> Any:
        """Return the socket of its open connection."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        raise NotImplementedError


class Blocking(Face):
    def __init__(self, options: Options) -> None:
        self._client: Any = sync_client(options)

    def run(self, steps: "Steps[Any]") -> Any:
        return run(self._client, steps)

    def socket(self) -> Any:
        (connection,) = self._client.connection_pool._available_connections
        return connection._sock

    def __exit__(self, *exc_info: Any) -> None:
        self._client.connection_pool.disconnect()


class OnALoop(Face):
    def __init__(self, options: Options) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._clients = AsyncClient(options)
        except BaseException:
            self._loop.close()
            raise

    def run(self, steps: "Steps[Any]") -> Any:
        async def work() -> Any:
            return await arun(self._clients.current(), steps)

        return self._loop.run_until_complete(work())

    def socket(self) -> Any:
        async def found() -> Any:
            shared: Any = self._clients.current().shared_connection()
            return shared.connection._own_socket

        return self._loop.run_until_complete(found())

    def __exit__(self, *exc_info: Any) -> None:
        self._loop.run_until_complete(self._clients.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


FACES: List[Type[Face]] = [Blocking, *([OnALoop] if _redis.HAS_ASYNCIO else [])]
