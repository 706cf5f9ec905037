"""The lock store on a cluster and behind Sentinels: what a fail-over does not lose, it keeps, in order.

Each lock is one key, and each of its scripts names that one only, so that all of a lock is in one slot.
"""

import asyncio
import logging
import time
from typing import Any, Callable, Iterator, List, Union

import pytest
from rasa.utils.endpoints import EndpointConfig
from topologies import RedisCluster, until
from watched import Watched

from extras._rasa_locks import STOCK_PREFIX
from extras.lockstore import ExtraRedisLockStore

Call = Callable[[Any], Any]
Make = Callable[..., Any]
Laid = Union[RedisCluster, Watched]

CONVERSATION = "alice"
KEY = f"{STOCK_PREFIX}{CONVERSATION}"
SOON_S = 10.0
"""Who waits looks by itself after a minute only in these tests, so whoever goes on sooner was called."""


@pytest.fixture
def locks(laid_out: Laid, call: Call) -> Iterator[Make]:
    """Make our lock store; each has connections of its own."""
    made: List[Any] = []

    def make(**options: Any) -> Any:
        given = {"call_timeout": 15, "socket_timeout": 1, "client_name": f"store-{len(made)}", **options}
        made.append(ExtraRedisLockStore(EndpointConfig(**{**laid_out.options, **given})))
        return made[-1]

    yield make
    for store in made:
        call(store.close())


async def in_thread(work: Callable[[], Any]) -> Any:
    """Let the event loop go on meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


async def asked(store: Any, tickets: int) -> None:
    """Wait until so many have a ticket."""

    def has_all() -> bool:
        lock = store.get_lock(CONVERSATION)
        return lock is not None and len(lock.tickets) >= tickets

    await in_thread(lambda: until("all have asked", has_all))


class Turns:
    """Turns of one conversation, by several stores, which never overlap."""

    def __init__(self, stores: List[Any]) -> None:
        self._stores = stores
        self._inside = 0
        self.served: List[int] = []
        self.came_at: List[float] = []

    async def take(self, number: int, pause_s: float = 0.0) -> None:
        """Take one."""
        store = self._stores[number % len(self._stores)]
        async with store.lock(CONVERSATION, wait_time_in_seconds=60):
            self._inside += 1
            assert self._inside == 1
            self.served.append(number)
            self.came_at.append(time.monotonic())
            await asyncio.sleep(pause_s)
            self._inside -= 1


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_who_waits_when_the_master_goes_is_served_in_order_by_the_next_one(
    how: str, laid_out: Laid, locks: Make, call: Call
) -> None:
    """The holder leaves after the fail-over; the next one is called by the new master, whoever the listener was at."""
    stores = [locks() for _ in range(2)]
    lost = laid_out.master_of(KEY)

    async def work() -> float:
        turns = Turns(stores)
        async with stores[0].lock(CONVERSATION):
            waiting = []
            for number in range(5):
                waiting.append(asyncio.ensure_future(turns.take(number)))
                await asked(stores[0], number + 2)
            await in_thread(lambda: laid_out.until_copied(lost))
            await in_thread(getattr(laid_out.servers[lost], how))
            await in_thread(lambda: laid_out.taken_over(lost, KEY))
            await asyncio.sleep(2.5)  # who has lost the master looks for it, and listeners look for a new one
            assert turns.served == []
            left_at = time.monotonic()
        await asyncio.gather(*waiting)
        assert turns.served == [0, 1, 2, 3, 4]
        assert stores[0].get_lock(CONVERSATION) is None
        return max(turns.came_at) - left_at

    try:
        took_s = call(work())
    finally:
        laid_out.servers[lost].thaw() if how == "freeze" else laid_out.revive(lost)
    print(f"five turns within {took_s:.2f} s of the holder's leaving")
    assert took_s < SOON_S


@pytest.mark.parametrize("laid_out", ["cluster"], indirect=True)
def test_turns_never_overlap_while_the_slot_moves_and_a_replica_takes_over_by_hand(
    laid_out: RedisCluster, locks: Make, call: Call
) -> None:
    stores, slot = [locks() for _ in range(2)], laid_out.slot_of(KEY)
    home = laid_out.master_of(KEY)
    other = next(port for port in set(laid_out.owners(home).values()) if port != home)

    async def work() -> None:
        turns = Turns(stores)
        async with stores[0].lock(CONVERSATION):
            waiting = []
            for number in range(30):
                waiting.append(asyncio.ensure_future(turns.take(number, 0.1)))
                await asyncio.sleep(0)
            await asked(stores[0], 31)
        await in_thread(lambda: laid_out.move(slot, other))
        await asyncio.sleep(0.2)
        await in_thread(lambda: laid_out.move(slot, home))
        await in_thread(lambda: laid_out.fail_over(home))
        assert len(turns.served) < 30, "too early to tell"
        await asyncio.gather(*waiting)
        assert sorted(turns.served) == list(range(30))
        assert stores[0].get_lock(CONVERSATION) is None

    call(work())


def test_a_lock_that_cannot_be_given_back_during_a_failover_is_given_back_after_it(
    laid_out: Laid, locks: Make, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    store, looking = locks(call_timeout=0.5, socket_timeout=0.25), locks()
    lost = laid_out.master_of(KEY)

    async def work() -> Any:
        async with store.lock(CONVERSATION, lock_lifetime=120):
            await in_thread(lambda: laid_out.until_copied(lost))
            await in_thread(laid_out.servers[lost].kill)
        _, taken_over_at = await in_thread(lambda: laid_out.taken_over(lost, KEY))
        await in_thread(lambda: until("it is given back", lambda: looking.get_lock(CONVERSATION) is None))
        return time.monotonic() - taken_over_at

    with caplog.at_level(logging.ERROR, logger="extras"):
        took_s = call(work())
    laid_out.revive(lost)
    assert took_s < SOON_S
    assert "could not be given back" in caplog.text
