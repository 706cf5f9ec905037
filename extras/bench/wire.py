"""Blocking clients: which there are, and how they are timed, also from several threads."""

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from itertools import repeat
from typing import Any, Dict, Optional

import redis

from extras import _redis
from extras.bench.cases import Case
from extras.bench.floor import Floor, open_floor
from extras.bench.interleaved import Contender, Cost, Stopwatch
from extras.bench.peers import (
    BASELINE,
    Address,
    Glide,
    Opener,
    Operation,
    Peer,
    RedisPy,
    connected_by,
    glide_configuration,
)
from extras.bench.pure import without_hiredis
from extras.connection import FastConnection


def _client(kind: Any, address: Address, stack: AsyncExitStack) -> Any:
    """Make a client of a class with redis-py's constructor, which the stack closes; RESP2 where it can be chosen."""
    protocol = _redis.accepted(redis.Redis, {"protocol": 2})
    client = kind(host=address.host, port=address.port, db=address.db, **protocol)
    stack.callback(client.connection_pool.disconnect)
    return client


async def _stock(address: Address, stack: AsyncExitStack) -> Peer:
    return RedisPy(_client(redis.Redis, address, stack))


async def _pure(address: Address, stack: AsyncExitStack) -> Peer:
    return RedisPy(without_hiredis(_client(redis.Redis, address, stack)))


async def _fast_connection(address: Address, stack: AsyncExitStack) -> Peer:
    return RedisPy(connected_by(FastConnection, _client(redis.Redis, address, stack)))


async def _fast_redis(address: Address, stack: AsyncExitStack) -> Peer:
    package: Any = importlib.import_module("extras.client")
    return RedisPy(_client(package.FastRedis, address, stack))


async def _glide(address: Address, stack: AsyncExitStack) -> Peer:
    package: Any = importlib.import_module("glide_sync")
    client = package.GlideClient.create(glide_configuration(package, address))
    stack.callback(client.close)
    return Glide(package, client)


OPENERS: Dict[str, Opener] = {
    BASELINE: _stock,
    "redis-py, no hiredis": _pure,
    "FastConnection": _fast_connection,
    "FastRedis": _fast_redis,
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
        return operation()

    async def many(operations: int) -> Cost:
        if case.workers > 1:
            return _in_threads(operation, operations, case.workers)
        watch = Stopwatch()
        _repeat(operation, operations)
        return watch.cost()

    return Contender(side, once, many)


def _repeat(operation: Operation, times: int) -> None:
    for _ in repeat(None, times):
        operation()


def _in_threads(operation: Operation, operations: int, threads: int) -> Cost:
    """Share operations out among threads that are there before the clock starts."""
    there = threading.Barrier(threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: there.wait(), range(threads)))
        watch = Stopwatch()
        list(pool.map(lambda _: _repeat(operation, operations // threads), range(threads)))
        return watch.cost()
