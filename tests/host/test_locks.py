"""The lock store does what the host's own ones do, which are the oracle, in the same documents, and loses no ticket."""

import asyncio
import json
import logging
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest
import redis
from leaks import PATIENCE_S, none_left, open_descriptors
from rasa.core.lock_store import InMemoryLockStore, LockError, LockStore, RedisLockStore
from rasa.utils.endpoints import EndpointConfig

from extras.bench.server import RedisServer
from extras.lockstore import ExtraRedisLockStore
from extras.steps import run

Call = Callable[[Any], Any]
Make = Callable[..., Any]

ID = "alice 'ünï\" \\ %s"
"""A conversation id with what JSON, Lua and Redis patterns have to be careful of."""

DB = 3


@pytest.fixture
def locks(server: RedisServer, raw: Any, call: Call) -> Iterator[Make]:
    """Make our lock store."""
    made: List[Any] = []

    def make(**options: Any) -> Any:
        given = {"url": "127.0.0.1", "port": server.port, "db": DB, **options}
        made.append(ExtraRedisLockStore(EndpointConfig(**given)))
        return made[-1]

    yield make
    for store in made:
        call(store.close())


@pytest.fixture
def queue(server: RedisServer) -> Iterator[Any]:
    """A client on the database of the locks."""
    client = redis.Redis(port=server.port, db=DB)
    yield client
    client.connection_pool.disconnect()


def stock_store(server: RedisServer, **options: Any) -> Any:
    """Make the host's own lock store on the same database."""
    endpoint = EndpointConfig(type="redis", url="127.0.0.1", port=server.port, db=DB, **options)
    store = LockStore.create(endpoint)
    assert type(store) is RedisLockStore
    return store


@pytest.fixture(params=["ours", "redis", "memory"])
def any_store(request: Any, server: RedisServer, locks: Make) -> Iterator[Any]:
    """Ours, and both of the host's own."""
    if request.param == "ours":
        yield locks()
        return
    store = InMemoryLockStore() if request.param == "memory" else stock_store(server)
    yield store
    if request.param == "redis":
        store.red.connection_pool.disconnect()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def tickets(store: Any) -> int:
    """Return how many tickets the conversation's lock has."""
    return len(store.get_lock(ID).tickets)


def key(store: Any) -> str:
    """Return the key of the conversation's lock, as the host's own store names it."""
    return f"{getattr(store, 'key_prefix', '')}{ID}"


def test_tickets_are_served_in_order(any_store: Any) -> None:
    first, second = any_store.issue_ticket(ID, 10), any_store.issue_ticket(ID, 10)
    assert (first, second) == (0, 1)
    lock = any_store.get_lock(ID)
    assert (lock.conversation_id, lock.now_serving, lock.last_issued) == (ID, 0, 1)
    assert (lock.is_locked(first), lock.is_locked(second)) == (False, True)
    assert any_store.is_someone_waiting(ID)
    any_store.cleanup(ID, first)
    assert any_store.get_lock(ID).now_serving == second
    assert any_store.is_someone_waiting(ID)
    any_store.cleanup(ID, second)
    assert not any_store.is_someone_waiting(ID)
    assert any_store.get_lock(ID) is None
    any_store.cleanup(ID, second)


def test_a_lock_is_saved_loaded_updated_and_deleted(any_store: Any) -> None:
    assert any_store.get_lock(ID) is None
    lock = any_store.get_or_create_lock(ID)
    any_store.save_lock(lock)
    assert list(any_store.get_lock(ID).tickets) == []
    assert not any_store.is_someone_waiting(ID)
    lock.issue_ticket(0.01)
    lock.issue_ticket(10)
    any_store.save_lock(lock)
    assert any_store.get_lock(ID).dumps() == lock.dumps()
    time.sleep(0.02)
    any_store.update_lock(ID)
    assert [ticket.number for ticket in any_store.get_lock(ID).tickets] == [1]
    any_store.delete_lock(ID)
    any_store.delete_lock(ID)
    assert any_store.get_lock(ID) is None


def test_turns_of_a_conversation_follow_each_other_and_those_of_others_do_not_wait(any_store: Any, call: Call) -> None:
    log: List[str] = []

    async def turn(name: str, conversation_id: str, may_end: Callable[[], bool] = lambda: True) -> None:
        async with any_store.lock(conversation_id, wait_time_in_seconds=0.01) as lock:
            assert lock.conversation_id == conversation_id
            log.append(f"{name} in")
            await until(may_end)
            log.append(f"{name} out")

    async def all_turns() -> None:
        turns = [asyncio.ensure_future(turn("a", ID, lambda: "other out" in log))]
        await until(lambda: log)
        turns.append(asyncio.ensure_future(turn("b", ID)))
        await until(lambda: tickets(any_store) == 2)
        await asyncio.sleep(0.1)  # in which b would come in
        turns.append(asyncio.ensure_future(turn("other", "bob")))
        await asyncio.gather(*turns)

    call(all_turns())
    assert log == ["a in", "other in", "other out", "a out", "b in", "b out"]
    assert any_store.get_lock(ID) is None


def test_the_bodys_error_comes_through_and_the_lock_is_free(any_store: Any, call: Call) -> None:
    async def turn() -> None:
        async with any_store.lock(ID):
            assert any_store.is_someone_waiting(ID)
            raise KeyError("the body's own")

    with pytest.raises(KeyError, match="the body's own"):
        call(turn())
    assert not any_store.is_someone_waiting(ID)


def test_a_holder_is_passed_over_when_its_ticket_has_expired(any_store: Any, call: Call) -> None:
    start = time.monotonic()
    any_store.issue_ticket(ID, 0.5)  # and its holder dies

    async def turn() -> float:
        async with any_store.lock(ID, wait_time_in_seconds=0.05):
            return time.monotonic() - start

    assert 0.4 < call(turn()) < 10


def test_who_waits_for_a_lock_that_is_deleted_gets_the_hosts_error(any_store: Any, call: Call) -> None:
    any_store.issue_ticket(ID, 10)

    async def turn() -> None:
        async with any_store.lock(ID, wait_time_in_seconds=0.05):
            raise AssertionError("the lock was not held")

    async def deleted() -> None:
        waiting = asyncio.ensure_future(turn())
        await until(lambda: tickets(any_store) == 2)
        any_store.delete_lock(ID)
        await waiting

    with pytest.raises(LockError, match="Could not acquire lock for conversation_id"):
        call(deleted())


def test_who_waits_longer_than_its_ticket_lives_gets_the_hosts_error(locks: Make, call: Call) -> None:
    store = locks()
    store.issue_ticket(ID, 60)

    async def turn() -> None:
        async with store.lock(ID, lock_lifetime=0.3, wait_time_in_seconds=60):
            raise AssertionError("the lock was not held")

    start = time.monotonic()
    with pytest.raises(LockError, match="Could not acquire lock for conversation_id"):
        call(turn())
    assert time.monotonic() - start < 10
    store.update_lock(ID)
    assert [ticket.number for ticket in store.get_lock(ID).tickets] == [0]


def test_the_stored_lock_is_the_stock_stores_and_each_takes_the_others_turns(
    server: RedisServer, locks: Make, queue: Any, call: Call
) -> None:
    ours, stock = locks(), stock_store(server)
    assert key(ours) == key(stock)
    assert (ours.issue_ticket(ID, 10), stock.issue_ticket(ID, 10), ours.issue_ticket(ID, 10)) == (0, 1, 2)
    assert stock.get_lock(ID).dumps() == ours.get_lock(ID).dumps()
    stock.finish_serving(ID, 0)
    assert ours.get_lock(ID).now_serving == 1
    ours.finish_serving(ID, 1)
    assert stock.get_lock(ID).now_serving == 2
    stock.cleanup(ID, 2)
    assert queue.keys() == []

    async def number(store: Any) -> int:
        async with store.lock(ID, wait_time_in_seconds=0.05) as lock:
            found: int = lock.now_serving
            return found

    async def turn(store: Any, before: Any, its_number: int) -> None:
        # Nothing of ours is under way while a stock store writes, which takes no heed of others.
        waiting = asyncio.ensure_future(number(store))
        await until(lambda: tickets(store) == 2)
        await asyncio.sleep(0.3)
        assert not waiting.done()
        before.cleanup(ID, its_number)
        assert await waiting == its_number + 1

    for store, before in ((ours, stock), (stock, ours)):
        call(turn(store, before, before.issue_ticket(ID, 60)))
    assert queue.keys() == []
    stock.red.connection_pool.disconnect()


def test_what_is_issued_is_stored_until_it_expires_and_byte_for_byte_in_the_stock_form(
    locks: Make, queue: Any, call: Call
) -> None:
    store = locks(key_prefix="my-bot")

    async def turn() -> bytes:
        async with store.lock(ID, lock_lifetime=30):
            assert 25_000 < queue.pttl(f"my-bot:lock:{ID}") <= 30_001
            found: bytes = queue.get(f"my-bot:lock:{ID}")
            return found

    stored = call(turn())
    lock = json.loads(stored)
    assert stored.decode() == json.dumps(lock)
    tickets = [json.loads(ticket) for ticket in lock["tickets"]]
    assert lock["tickets"] == [json.dumps(ticket) for ticket in tickets]
    assert list(tickets[0]) == ["number", "expires", "owner"]
    assert abs(tickets[0]["expires"] - 30 - time.time()) < 10
    assert queue.keys() == []


def test_what_is_repeated_changes_nothing(locks: Make) -> None:
    store = locks()
    queues = store._queues
    places = [run(store._client, queues.issue(ID, owner, 10)) for owner in ("a", "a", "b", "b", "a")]
    assert [(place.number, place.ahead) for place in places] == [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)]
    assert [run(store._client, queues.give_back(ID, owner, 0)) for owner in ("a", "a")] == [True, False]
    assert store.get_lock(ID).now_serving == 1


def test_who_is_too_late_takes_away_nobody_elses_ticket(locks: Make, call: Call, caplog: Any) -> None:
    store = locks()

    async def late() -> None:
        async with store.lock(ID, lock_lifetime=0.5):
            await asyncio.sleep(0.6)
            assert store.issue_ticket(ID, 10) == 0  # the same number
        assert store.get_lock(ID).now_serving == 0
        assert len(store.get_lock(ID).tickets) == 1

    with caplog.at_level(logging.WARNING, logger="extras"):
        call(late())
    assert "was gone before its turn was over: it lasts 0.5 s" in caplog.text


def test_a_cancelled_waiter_gives_its_ticket_back(locks: Make, call: Call) -> None:
    store = locks()
    store.issue_ticket(ID, 60)

    async def turn() -> None:
        async with store.lock(ID):
            raise AssertionError("the lock was not held")

    async def cancelled() -> None:
        for pause_s in (0, 0.001, 0.3):
            waiting = asyncio.ensure_future(turn())
            await asyncio.sleep(pause_s)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        deadline = time.monotonic() + 10
        while len(store.get_lock(ID).tickets) > 1 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    call(cancelled())
    assert [ticket.number for ticket in store.get_lock(ID).tickets] == [0]


def test_what_is_no_lock_is_refused_and_left_as_it_is(locks: Make, queue: Any, call: Call) -> None:
    store = locks()

    async def turn() -> None:
        async with store.lock(ID):
            raise AssertionError("the lock was not held")

    for text in ('{"events": [], "name": "alice"}', "no JSON", '{"conversation_id": "alice", "tickets": ["{}"]}'):
        queue.set(key(store), text)
        with pytest.raises(LockError, match="the key holds something else than a lock"):
            call(turn())
        with pytest.raises(LockError, match="the key holds something else than a lock"):
            store.issue_ticket(ID)
        assert queue.get(key(store)).decode() == text
    assert queue.delete(key(store)) == 1
    queue.rpush(key(store), "a list")
    with pytest.raises(LockError, match="WRONGTYPE"):
        store.issue_ticket(ID)


def test_a_hundred_waiters_ask_redis_a_few_times_a_second_only(locks: Make, raw: Any, call: Call) -> None:
    store = locks()

    def scripts() -> int:
        return int(raw.info("commandstats")["cmdstat_evalsha"]["calls"])

    async def turn(log: List[int]) -> None:
        async with store.lock(ID) as lock:
            log.append(lock.now_serving)

    async def crowd() -> None:
        log: List[int] = []
        async with store.lock(ID):
            waiting = [asyncio.ensure_future(turn(log)) for _ in range(100)]
            await until(lambda: tickets(store) == 101)
            await asyncio.sleep(1)
            before, start = scripts(), time.monotonic()
            await asyncio.sleep(2)
            a_second = (scripts() - before) / (time.monotonic() - start)
        await asyncio.gather(*waiting)
        print(f"100 waiters: {a_second:.1f} commands a second")
        assert a_second < 30
        assert log == list(range(1, 101))

    call(crowd())


def no_more_clients(raw: Any, most: int) -> bool:
    """Whether the server has no more connections, at the latest when it has had time to notice those closed."""
    deadline = time.monotonic() + PATIENCE_S
    while len(raw.client_list()) > most and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(raw.client_list()) <= most


def test_nothing_is_left_open_by_locks_and_lock_stores(server: RedisServer, locks: Make, raw: Any, call: Call) -> None:
    async def pair(store: Any) -> None:
        async def turn() -> None:
            async with store.lock(ID):
                await asyncio.sleep(0.001)

        await asyncio.gather(turn(), turn())

    async def many() -> None:
        store = locks()
        await pair(store)
        tasks, connections, threads = len(asyncio.all_tasks()), len(raw.client_list()), threading.active_count()
        for _ in range(1000):
            async with store.lock(ID):
                pass
        for _ in range(20):
            await pair(store)
        assert len(asyncio.all_tasks()) == tasks
        assert no_more_clients(raw, connections)
        assert threading.active_count() <= threads
        await store.close()

    async def again() -> None:
        for number in range(100):
            store = ExtraRedisLockStore(EndpointConfig(url="127.0.0.1", port=server.port, db=DB))
            async with store.lock(ID):
                pass
            if number % 10 == 0:
                await pair(store)
            await store.close()

    call(many())
    connections, descriptors = len(raw.client_list()), open_descriptors()
    call(again())
    assert none_left(descriptors)
    assert no_more_clients(raw, connections)
    assert not [thread for thread in threading.enumerate() if thread.name == "extras-listener"]
