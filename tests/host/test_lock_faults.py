"""The lock holds between processes, and goes on when holders die, connections are lost and Redis is away."""

import asyncio
import logging
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
import redis
from lock_worker import CONVERSATION, LOG
from proxy import Proxy
from rasa.core.lock_store import LockError
from rasa.utils.endpoints import EndpointConfig

from extras.bench.server import RedisServer
from extras.lockstore import ExtraRedisLockStore

Call = Callable[[Any], Any]
Make = Callable[..., Any]

PROCESSES = 3
TASKS = 50
PATIENCE_S = 120.0


@pytest.fixture
def locks(call: Call) -> Iterator[Make]:
    """Make our lock store for a port."""
    made: List[Any] = []

    def make(port: int, **options: Any) -> Any:
        made.append(ExtraRedisLockStore(EndpointConfig(url="127.0.0.1", port=port, db=0, **options)))
        return made[-1]

    yield make
    for store in made:
        call(store.close())


@contextmanager
def worker(port: int, *what: str) -> Iterator["subprocess.Popen[str]"]:
    """Run ``lock_worker.py``; killed at the end, if it is still there."""
    command = [sys.executable, str(Path(__file__).with_name("lock_worker.py")), str(port), *what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


def tickets(store: Any) -> int:
    """Return how many tickets the conversation's lock has."""
    lock = store.get_lock(CONVERSATION)
    return len(lock.tickets) if lock else 0


async def turn(store: Any, wait_time_s: float = 60) -> float:
    """Take a turn, and return when it came."""
    async with store.lock(CONVERSATION, wait_time_in_seconds=wait_time_s):
        return time.monotonic()


def test_tasks_of_many_processes_exclude_each_other_in_the_order_of_their_tickets(
    server: RedisServer, raw: Any, locks: Make, call: Call
) -> None:
    store = locks(server.port)

    async def all_at_once() -> None:
        async with store.lock(CONVERSATION, lock_lifetime=600) as lock:
            assert lock.now_serving == 0
            await until(lambda: tickets(store) == PROCESSES * TASKS + 1, "not all have asked")

    workers = [worker(server.port, "many", str(TASKS)) for _ in range(PROCESSES)]
    with workers[0] as one, workers[1] as two, workers[2] as three:
        call(all_at_once())
        assert [process.wait(PATIENCE_S) for process in (one, two, three)] == [0, 0, 0]
    expected = [f"{what} {number}" for number in range(1, PROCESSES * TASKS + 1) for what in ("in", "out")]
    assert [line.decode() for line in raw.lrange(LOG, 0, -1)] == expected
    assert raw.keys() == [LOG.encode()]


def test_after_a_killed_holder_the_next_one_goes_on_when_its_ticket_has_expired(
    server: RedisServer, raw: Any, locks: Make, call: Call
) -> None:
    store = locks(server.port)
    with worker(server.port, "hold") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        assert tickets(store) == 1
        start = time.monotonic()
        assert call(turn(store)) - start < 10
    assert raw.keys() == []


def test_a_child_process_waits_by_itself(server: RedisServer, raw: Any) -> None:
    with worker(server.port, "fork") as process:
        assert process.communicate(timeout=PATIENCE_S)[0] == "both\n"
    assert raw.keys() == []


def test_a_waiter_whose_connections_are_killed_is_called_all_the_same(
    server: RedisServer, raw: Any, locks: Make, call: Call
) -> None:
    store = locks(server.port)

    async def killed() -> None:
        async with store.lock(CONVERSATION):
            waiting = asyncio.ensure_future(turn(store))
            for _ in range(3):
                await until(lambda: raw.pubsub_numsub(store._queues.channel)[0][1] == 1, "nobody listens")
                own = raw.client_id()
                for client in raw.client_list():
                    if int(client["id"]) != own:
                        raw.client_kill_filter(_id=client["id"])
            await until(lambda: raw.pubsub_numsub(store._queues.channel)[0][1] == 1, "nobody listens")
            await until(lambda: tickets(store) == 2, "the waiter's ticket is lost")
            left = time.monotonic()
        assert await waiting - left < 10

    call(killed())


def test_waiters_go_on_after_a_restart_of_redis_that_keeps_its_data(tmp_path: Path, locks: Make, call: Call) -> None:
    with RedisServer(tmp_path / "server", ["--appendonly", "yes", "--appendfsync", "always"]) as server:
        store = locks(server.port)

        async def restarted() -> None:
            async with store.lock(CONVERSATION):
                waiting = [asyncio.ensure_future(turn(store)) for _ in range(3)]
                await until(lambda: tickets(store) == 4, "not all have asked")
                await asyncio.sleep(0.3)
                server.stop()
                await asyncio.sleep(0.7)
                server.start()
                left = time.monotonic()
            assert all(at - left < 10 for at in await asyncio.gather(*waiting))
            assert tickets(store) == 0

        call(restarted())
        call(store.close())


def test_a_redis_that_is_away_is_the_hosts_error_within_the_limits(
    own_server: RedisServer, locks: Make, call: Call, caplog: Any
) -> None:
    store = locks(own_server.port, socket_timeout=0.5, socket_connect_timeout=0.5)

    async def away() -> str:
        async with store.lock(CONVERSATION):
            waiting = asyncio.ensure_future(turn(store))
            await until(lambda: tickets(store) == 2, "the waiter has not asked")
            own_server.stop()
            start = time.monotonic()
            for refused in (waiting, turn(store)):
                with pytest.raises(LockError, match="Error while acquiring lock"):
                    await refused
            assert time.monotonic() - start < 10
            result = "the turn's own"
        return result

    async def away_and_raising() -> None:
        own_server.start()
        async with store.lock(CONVERSATION):
            own_server.stop()
            raise KeyError("the turn's own")

    with caplog.at_level(logging.ERROR, logger="extras"):
        assert call(away()) == "the turn's own"
        with pytest.raises(KeyError, match="the turn's own"):
            call(away_and_raising())
    assert caplog.text.count("could not be given back") == 2


def test_a_frozen_redis_freezes_no_event_loop_and_leaves_no_ticket_behind(
    own_server: RedisServer, locks: Make, call: Call
) -> None:
    store = locks(own_server.port, socket_timeout=2, socket_connect_timeout=2)

    async def longest_pause(until_s: float) -> float:
        longest, last = 0.0, time.monotonic()
        while last < until_s:
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest

    async def frozen() -> None:
        await turn(store)
        async with store.lock(CONVERSATION):
            waiting = [asyncio.ensure_future(turn(store)) for _ in range(3)]
            await until(lambda: tickets(store) == 4, "not all have asked")
            own_server.freeze()
            try:
                watching = asyncio.ensure_future(longest_pause(time.monotonic() + 3))
                start = time.monotonic()
                for _ in range(2):
                    waiting.append(asyncio.ensure_future(turn(store)))
                with pytest.raises(LockError):
                    await waiting[-1]
                assert time.monotonic() - start < 20
                pause_s = await watching
                print(f"longest pause of the event loop while Redis was frozen: {pause_s * 1000:.0f} ms")
                assert pause_s < 1.5
            finally:
                own_server.thaw()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: tickets(store) == 0, "a ticket was left behind")

    call(frozen())


def test_an_issue_whose_reply_was_lost_leaves_one_ticket_or_none(
    server: RedisServer, raw: Any, locks: Make, call: Call
) -> None:
    with Proxy(server.port) as proxy:
        store = locks(proxy.port, socket_timeout=1, socket_connect_timeout=1)
        looking = locks(server.port)

        async def lost() -> None:
            await turn(store)
            proxy.lose = "close"
            with pytest.raises(LockError):
                await turn(store)
            assert tickets(looking) <= 1
            proxy.lose = ""
            await until(lambda: tickets(looking) == 0, "a ticket was left behind")
            assert proxy.lost

        call(lost())
        call(store.close())


def test_a_user_without_a_right_to_channels_looks_for_its_turn(server: RedisServer, locks: Make, call: Call) -> None:
    client: Any = redis.Redis(port=server.port)
    client.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-subscribe", "-publish")
    try:
        store = locks(server.port, username="narrow", password="pw")

        async def both() -> None:
            async with store.lock(CONVERSATION):
                waiting = asyncio.ensure_future(turn(store, wait_time_s=0.2))
                await until(lambda: tickets(store) == 2, "the waiter has not asked")
                await asyncio.sleep(0.5)
            await waiting

        call(both())
        assert tickets(store) == 0
    finally:
        client.execute_command("ACL", "DELUSER", "narrow")
        client.connection_pool.disconnect()
