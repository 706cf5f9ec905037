"""Stores with equal options use one client: made again and again they open nothing new, and leave nothing behind."""

import asyncio
import gc
import importlib.util
import os
import threading
import time
from typing import Any, Callable, List

import pytest
import redis
from leaks import PATIENCE_S, none_left, open_descriptors
from scripted import LOOPS, run_on

from extras import shared as sharing
from extras.bench.server import RedisServer
from extras.configured import AsyncClient, SyncClient, sync_client
from extras.keepalive import Keepalive
from extras.options import Options, parse
from extras.steps import Steps, arun, run

HAS_ASYNCIO = importlib.util.find_spec("redis.asyncio") is not None
RECREATIONS = 1000


@pytest.fixture
def options(raw: "redis.Redis", server: RedisServer) -> Callable[..., Options]:
    """Make options for the emptied server."""

    def made(**given: Any) -> Options:
        return parse({"url": "127.0.0.1", "port": server.port, "client_name": "shared", **given})

    return made


def echo(value: str) -> "Steps[Any]":
    return (yield ("ECHO", value))


async def nothing() -> None:
    pass


def connections(raw: "redis.Redis", expected: int = 1) -> int:
    """Return how many there are, at the latest when the server has had time to notice those that were closed."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        count = [entry["name"] for entry in raw.client_list()].count("shared")
        if count == expected or time.monotonic() > deadline:
            return count
        time.sleep(0.01)


def test_equal_options_share_and_others_do_not(options: Callable[..., Options]) -> None:
    one = SyncClient(options())
    assert SyncClient(options()).current() is one.current()
    for other in ({"db": 1}, {"password": "x"}, {"retries": 1}, {"socket_keepalive_options": {"TCP_KEEPIDLE": 9}}):
        assert SyncClient(options(**other)).current() is not one.current()


def test_who_comes_later_knows_where_the_others_have_found_the_servers() -> None:
    """A client is shared while it is made, and so is what it is made of."""
    endpoints = {"deployment_mode": "sentinel", "endpoints": ["127.0.0.1:1"]}
    store = SyncClient(parse(endpoints)).current()
    for same in ({}, {"db": 1}, {"password": "of the servers"}):
        assert sync_client(parse({**endpoints, **same})).topology is store.topology
    for other in ({"sentinel_service": "another"}, {"sentinel_password": "x"}, {"endpoints": ["127.0.0.1:2"]}):
        assert sync_client(parse({**endpoints, **other})).topology is not store.topology


def test_nothing_shows_a_password(options: Callable[..., Options]) -> None:
    kept = SyncClient(options(password="very secret"))
    shown = [repr(sharing._clients), repr(dict(sharing._clients)), repr(vars(sharing)), repr(kept), repr(vars(kept))]
    assert not [text for text in shown if "very secret" in text]


def test_what_nobody_uses_is_forgotten(options: Callable[..., Options]) -> None:
    gc.collect()
    before = len(sharing._clients)
    kept = SyncClient(options())
    assert len(sharing._clients) == before + 1
    del kept
    gc.collect()
    assert len(sharing._clients) == before


def test_the_last_to_close_closes(options: Callable[..., Options], raw: "redis.Redis") -> None:
    first, second, never = SyncClient(options()), SyncClient(options()), SyncClient(options())
    for client in (first, second):
        assert run(client.current(), echo("value")) == b"value"
    assert connections(raw) == 1
    first.close()
    assert run(second.current(), echo("value")) == b"value"
    assert connections(raw) == 1
    second.close()
    assert connections(raw, 0) == 0
    assert run(first.current(), echo("again")) == b"again"
    never.close()
    assert connections(raw) == 1
    first.close()
    assert connections(raw, 0) == 0


def test_a_child_process_shares_nothing_with_its_parent(options: Callable[..., Options]) -> None:
    parents = SyncClient(options())
    assert run(parents.current(), echo("parent")) == b"parent"
    child = os.fork()
    if child == 0:
        try:
            own = SyncClient(options())
            replies = [run(client.current(), echo("child")) for client in (own, parents)]
            os._exit(0 if replies == [b"child"] * 2 and own.current() is not parents.current() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert run(parents.current(), echo("parent")) == b"parent"
    parents.close()


def test_made_again_and_again_it_opens_one_connection(options: Callable[..., Options], raw: "redis.Redis") -> None:
    before = open_descriptors(), threading.active_count()
    client = SyncClient(options())
    for number in range(RECREATIONS):
        client = SyncClient(options())
        assert run(client.current(), echo(str(number))) == str(number).encode()
    assert connections(raw) == 1
    client.close()
    assert none_left(before[0])
    assert threading.active_count() == before[1]


@pytest.mark.parametrize("loop_class", list(LOOPS.values()), ids=list(LOOPS))
class TestAsync:
    """Collected only where redis-py has asyncio."""

    __test__ = HAS_ASYNCIO

    def test_made_again_and_again_it_opens_one_connection(
        self, loop_class: Any, options: Callable[..., Options], raw: "redis.Redis"
    ) -> None:
        async def work() -> None:
            tasks = asyncio.all_tasks()
            client = AsyncClient(options())
            for number in range(RECREATIONS):
                client = AsyncClient(options())
                assert await arun(client.current(), echo(str(number))) == str(number).encode()
            assert connections(raw) == 1
            assert asyncio.all_tasks() == tasks
            await client.close()

        run_on(loop_class, nothing)  # what a loop opens once in a process
        before = open_descriptors(), threading.active_count()
        run_on(loop_class, work)
        assert none_left(before[0])
        assert threading.active_count() == before[1]

    def test_also_while_redis_is_down(self, loop_class: Any, own_server: RedisServer) -> None:
        def made() -> AsyncClient:
            return AsyncClient(parse({"url": "127.0.0.1", "port": own_server.port, "retries": 0}))

        async def work() -> None:
            client = made()
            for is_up in (True, False, True):
                own_server.start() if is_up else own_server.stop()
                failed = 0
                for _ in range(100):
                    client = made()
                    try:
                        assert await arun(client.current(), echo("value")) == b"value"
                    except redis.ConnectionError:
                        failed += 1
                assert failed == (0 if is_up else 100)
            await client.close()

        own_server.stop()
        before = open_descriptors(), threading.active_count()
        run_on(loop_class, work)
        assert none_left(before[0])
        assert threading.active_count() == before[1]

    def test_the_last_to_close_in_a_loop_closes_there(
        self, loop_class: Any, options: Callable[..., Options], raw: "redis.Redis"
    ) -> None:
        elsewhere = AsyncClient(options())

        async def use_and_close(expected: List[int], *clients: AsyncClient) -> List[int]:
            counts: List[int] = []
            for client in clients:
                assert await arun(client.current(), echo("value")) == b"value"
            for client, count in zip(clients, expected):
                await client.close()
                counts.append(connections(raw, count))
            return counts

        async def work() -> None:
            assert await use_and_close([0], elsewhere) == [0]
            assert await use_and_close([1, 0], AsyncClient(options()), AsyncClient(options())) == [1, 0]
            assert await arun(elsewhere.current(), echo("value")) == b"value"

            def in_another_loop() -> None:
                async def other_work() -> None:
                    assert await use_and_close([1], AsyncClient(options())) == [1]

                run_on(loop_class, other_work)

            await asyncio.get_running_loop().run_in_executor(None, in_another_loop)
            await elsewhere.close()
            assert connections(raw, 0) == 0

        run_on(loop_class, work)


@pytest.mark.parametrize(
    ("held", "socket_timeout_s", "expected"),
    [
        (Keepalive(True, 30, 5, 3, 45_000), 2.0, "after 45 s idle, 45 s in flight, 2 s frozen"),
        (
            Keepalive(True, 30, 5, 3, 0),
            None,
            "after 45 s idle, in flight when the kernel's own retries end, never when frozen (socket_timeout is null)",
        ),
        (Keepalive(False, user_timeout_ms=1500), 0.5, "after 1.5 s in flight, 0.5 s frozen, never while idle"),
    ],
)
def test_how_soon_a_dead_peer_is_noticed_in_words(held: Keepalive, socket_timeout_s: Any, expected: str) -> None:
    assert held.noticed_after(socket_timeout_s) == f"a dead peer is noticed {expected}"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, []),
        ({"socket_timeout": None, "socket_connect_timeout": None}, []),
        ({"socket_timeout": 60, "call_timeout": None, "socket_connect_timeout": 60}, []),
        ({"socket_timeout": 6}, ["socket_timeout is 6 s, but call_timeout ends a call after 5 s"]),
        (
            {"call_timeout": 1},
            ["socket_timeout is 2 s, but call_timeout ends a call after 1 s", "socket_connect_timeout is 2 s"],
        ),
        (
            {"socket_keepalive_options": {"TCP_USER_TIMEOUT": 60_000}},
            ["the user timeout, 60000 ms, is above idle + interval x count = 30 + 5 x 3 = 45 s"],
        ),
        ({"socket_keepalive_options": {"TCP_USER_TIMEOUT": 45_000}}, []),
        ({"socket_keepalive": False, "socket_keepalive_options": {"TCP_USER_TIMEOUT": 60_000}}, []),
        ({"url": "unix:///redis.sock", "socket_keepalive_options": {"TCP_USER_TIMEOUT": 60_000}}, []),
    ],
)
def test_options_that_contradict_each_other_are_named(given: Any, named: List[str]) -> None:
    found = parse(given).contradictions()
    assert len(found) == len(named)
    for text, part in zip(found, named):
        assert part in text
