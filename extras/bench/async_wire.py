"""Clients for asyncio: which there are, and how they are timed, also from many tasks."""

import asyncio
import importlib
from contextlib import AsyncExitStack
from itertools import repeat
from typing import Any, Dict, Optional

from extras import _redis
from extras.bench.cases import Case
from extras.bench.floor import Floor, open_floor
from extras.bench.interleaved import Contender, Cost, Stopwatch
from extras.bench.peers import (
    BASELINE,
    Address,
    Coredis,
    Glide,
    Opener,
    Operation,
    Peer,
    RedisPy,
    connected_by,
    glide_configuration,
)
from extras.bench.pure import async_without_hiredis


def _client(kind: Any, address: Address, stack: AsyncExitStack) -> Any:
    """Make a client of a class with redis.asyncio's constructor, which the stack closes; RESP2 where it can be so."""
    protocol = _redis.accepted(_redis.redis_asyncio.Redis, {"protocol": 2})
    client = kind(host=address.host, port=address.port, db=address.db, **protocol)

    async def close() -> None:
        await (client.aclose if hasattr(client, "aclose") else client.close)()  # the latter before redis-py 5.0.1
        await client.connection_pool.disconnect()

    stack.push_async_callback(close)
    return client


async def _stock(address: Address, stack: AsyncExitStack) -> Peer:
    return RedisPy(_client(_redis.redis_asyncio.Redis, address, stack))


async def _pure(address: Address, stack: AsyncExitStack) -> Peer:
    return RedisPy(async_without_hiredis(_client(_redis.redis_asyncio.Redis, address, stack)))


async def _fast_connection(address: Address, stack: AsyncExitStack) -> Peer:
    package: Any = importlib.import_module("extras.connection")
    return RedisPy(connected_by(package.AsyncFastConnection, _client(_redis.redis_asyncio.Redis, address, stack)))


async def _fast_redis(address: Address, stack: AsyncExitStack) -> Peer:
    package: Any = importlib.import_module("extras.client")
    return RedisPy(_client(package.AsyncFastRedis, address, stack))


async def _coredis(address: Address, stack: AsyncExitStack) -> Peer:
    package: Any = importlib.import_module("coredis")
    client = package.Redis(host=address.host, port=address.port, db=address.db)
    return Coredis(await stack.enter_async_context(client))


async def _glide(address: Address, stack: AsyncExitStack) -> Peer:
    package: Any = importlib.import_module("glide")
    client = await package.GlideClient.create(glide_configuration(package, address))
    stack.push_async_callback(client.close)
    return Glide(package, client)


OPENERS: Dict[str, Opener] = {
    BASELINE: _stock,
    "redis-py, no hiredis": _pure,
    "AsyncFastConnection": _fast_connection,
    "AsyncFastRedis": _fast_redis,
    "coredis": _coredis,
    "valkey-glide": _glide,
    "C hiredis": open_floor,
}


def contender(side: str, peer: Any, case: Case) -> Optional[Contender]:
    """Return how a client does a case, ``None`` if it cannot."""
    if isinstance(peer, Floor):
        return peer.contender(side, case)
    operation = peer.operation(case)
    if operation is None:
        return None

    async def once() -> Any:
        return await operation()

    async def many(operations: int) -> Cost:
        watch = Stopwatch()
        if case.workers == 1:
            await _repeat(operation, operations)
        else:
            each = operations // case.workers
            await asyncio.gather(*(_repeat(operation, each) for _ in range(case.workers)))
        return watch.cost()

    return Contender(side, once, many)


async def _repeat(operation: Operation, times: int) -> None:
    for _ in repeat(None, times):
        await operation()
