"""A fail-over that moves a name to another address is followed: at a lost connection, and at a READONLY."""

import asyncio
import socket
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
import redis
from topologies import until

from extras._redis import HAS_ASYNCIO
from extras.bench.server import RedisServer
from extras.configured import AsyncClient, sync_client
from extras.options import parse
from extras.steps import arun, run

NAME = "redis.moving.internal"
HERE, THERE = "127.0.0.1", "127.0.0.2"


def one(*command: Any) -> Any:
    """Carry out one command."""
    return (yield command)


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Dict[str, str]:
    """Where the name leads: ``name[NAME]`` may be changed."""
    leads = {NAME: HERE}
    look_up = socket.getaddrinfo

    def looked_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up(leads.get(host, host), *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return leads


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Tuple[RedisServer, RedisServer]]:
    """A master and its replica, on one port of two addresses."""
    with RedisServer(tmp_path / "here", ["--repl-diskless-sync-delay", "0"]) as master:
        replica = RedisServer(tmp_path / "there", ["--bind", THERE, "--replicaof", HERE, str(master.port)])
        replica.port = master.port
        replica.launch()
        try:
            client: Any = redis.Redis(THERE, replica.port)
            until("replication", lambda: client.info("replication").get("master_link_status") == "up")
            client.connection_pool.disconnect()
            yield master, replica
        finally:
            replica.stop()


Call = Callable[..., Any]


@pytest.fixture(params=["blocking", *(["asyncio"] if HAS_ASYNCIO else [])])
def call(request: pytest.FixtureRequest, pair: Any, name: Any) -> Iterator[Call]:
    """Carry out a command on a store's client that was given the name."""
    options = parse({"url": NAME, "port": pair[0].port, "retries": 20, "call_timeout": 20})
    if request.param == "blocking":
        client = sync_client(options)
        yield lambda *command: run(client, one(*command))
        client.connection_pool.disconnect()
        return
    loop = asyncio.new_event_loop()
    clients = AsyncClient(options)

    async def carried_out(*command: Any) -> Any:
        return await arun(clients.current(), one(*command))

    yield lambda *command: loop.run_until_complete(carried_out(*command))
    loop.run_until_complete(clients.close())
    loop.close()


def swap(pair: Tuple[RedisServer, RedisServer]) -> None:
    """Make the replica the master, and the master its replica."""
    clients: List[Any] = [redis.Redis(host, pair[0].port) for host in (HERE, THERE)]
    clients[1].execute_command("REPLICAOF", "NO", "ONE")
    clients[0].execute_command("REPLICAOF", THERE, pair[0].port)
    until("the new replica knows", lambda: clients[0].info("replication")["role"] == "slave")
    for client in clients:
        client.connection_pool.disconnect()


def test_a_master_that_became_a_replica_is_left(call: Call, pair: Any, name: Dict[str, str]) -> None:
    assert call("SET", "key", "1") in (True, b"OK")
    swap(pair)
    name[NAME] = THERE
    assert call("SET", "key", "2") in (True, b"OK")
    assert call("CONFIG", "GET", "bind")[1] == THERE.encode()


def test_the_name_is_looked_up_at_each_new_connection(call: Call, pair: Any, name: Dict[str, str]) -> None:
    assert call("SET", "key", "1") in (True, b"OK")
    client: Any = redis.Redis(THERE, pair[0].port)
    client.execute_command("REPLICAOF", "NO", "ONE")
    client.connection_pool.disconnect()
    pair[0].kill()
    name[NAME] = THERE
    assert call("SET", "key", "2") in (True, b"OK")
