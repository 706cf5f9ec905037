"""A real server for the whole run, emptied before each test, and every test answers for what it left unclosed."""

import gc
from pathlib import Path
from typing import Iterator

import pytest
import redis

from extras.bench.server import RedisServer


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """Let the collector, which runs after every test, pass over what was there before the file's first one."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def charged_with_leaks(quick_collections: None) -> Iterator[None]:
    """Collect what a test left in cycles while it can still be blamed for it, and its filters of warnings hold."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server; tests that stop or freeze it start one of their own."""
    folder: Path = tmp_path_factory.mktemp("redis")
    with RedisServer(folder) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may stop, restart or freeze."""
    with RedisServer(tmp_path / "server") as running:
        yield running


@pytest.fixture
def raw(server: RedisServer) -> Iterator["redis.Redis"]:
    """Stock redis-py client on an emptied server: what a test looks at Redis with."""
    client = redis.Redis(port=server.port)
    client.flushall()
    yield client
    client.connection_pool.disconnect()
