"""A blocking client for tasks: in the order in which they come, within a limit, and the event loop goes on."""

import asyncio
import time
from typing import Any, List

import pytest
import redis

from extras.bench.server import RedisServer
from extras.configured import sync_client
from extras.options import parse
from extras.steps import Steps
from extras.threaded import ThreadedClient


def ask(*command: Any) -> "Steps[Any]":
    """Ask one thing."""
    return (yield command)


def client_of(server: RedisServer) -> Any:
    """Make a blocking client."""
    return sync_client(parse({"url": "127.0.0.1", "port": server.port, "socket_timeout": 5}))


def test_steps_are_carried_out_in_the_order_in_which_they_come(server: RedisServer, raw: Any) -> None:
    async def many() -> None:
        threaded = ThreadedClient(client, 30)
        lengths = await asyncio.gather(*(threaded.run(ask("RPUSH", "list", number)) for number in range(200)))
        assert lengths == list(range(1, 201))
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await threaded.run(ask("GET", "list"))
        threaded.close()
        assert await threaded.run(ask("LLEN", "list")) == 200
        threaded.close()

    client = client_of(server)
    asyncio.run(many())
    client.connection_pool.disconnect()


def test_a_frozen_redis_holds_up_nobody_longer_than_the_limit(own_server: RedisServer) -> None:
    client = client_of(own_server)

    async def frozen() -> List[Any]:
        threaded = ThreadedClient(client, 0.3)
        await threaded.run(ask("PING"))
        own_server.freeze()
        start = time.monotonic()
        try:
            cancelled = asyncio.ensure_future(threaded.run(ask("PING")))
            await asyncio.sleep(0.05)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            results = await asyncio.gather(*(threaded.run(ask("PING")) for _ in range(20)), return_exceptions=True)
        finally:
            own_server.thaw()
        assert time.monotonic() - start < 4
        while True:
            try:
                assert await threaded.run(ask("ECHO", "again")) == b"again"
                break
            except redis.TimeoutError:
                assert time.monotonic() - start < 30
        threaded.close()
        return results

    assert {type(result) for result in asyncio.run(frozen())} == {redis.TimeoutError}
    client.connection_pool.disconnect()
