"""A real server for the whole run, emptied before each test, and a fresh options namespace."""

from pathlib import Path
from typing import Iterator

import pytest
import redis

from extras.bench.server import RedisServer


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
