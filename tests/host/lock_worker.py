"""A process that takes part in the lock of one conversation, started by the tests as ``lock_worker.py port what``.

``many N``: asks for the lock N times at once, and logs in Redis who comes in and who goes out. ``hold``: takes the lock
with a lifetime of two seconds and keeps it until it is killed. ``fork``: has the lock wanted in a child process, too.
"""

import asyncio
import os
import sys
import warnings
from typing import Any

import redis

warnings.simplefilter("ignore")

from rasa.utils.endpoints import EndpointConfig  # noqa: E402

from extras.lockstore import ExtraRedisLockStore  # noqa: E402

CONVERSATION = "alice"
LOG = "log"


def lock_store(port: int) -> Any:
    """Make our lock store on database 0, which all hosts have for others by default."""
    return ExtraRedisLockStore(EndpointConfig(url="127.0.0.1", port=port, db=0))


async def many(port: int, count: int) -> None:
    """Ask so many times at once."""
    store, log = lock_store(port), redis.Redis(port=port)

    async def turn() -> None:
        # Whoever has to look for it by itself comes too late for the test.
        async with store.lock(CONVERSATION, lock_lifetime=600, wait_time_in_seconds=60) as lock:
            log.rpush(LOG, f"in {lock.now_serving}")
            await asyncio.sleep(0.001)
            log.rpush(LOG, f"out {lock.now_serving}")

    await asyncio.gather(*(turn() for _ in range(count)))
    await store.close()
    log.connection_pool.disconnect()


async def hold(port: int) -> None:
    """Hold the lock for good."""
    async with lock_store(port).lock(CONVERSATION, lock_lifetime=2):
        print("held", flush=True)
        await asyncio.sleep(60)


async def contend(store: Any) -> None:
    """Have three tasks wait for the lock."""

    async def turn() -> None:
        async with store.lock(CONVERSATION, wait_time_in_seconds=60):
            await asyncio.sleep(0.05)

    await asyncio.gather(turn(), turn(), turn())


def fork(port: int) -> None:
    """Have it waited for before a fork, and in the child after it."""
    store = lock_store(port)
    asyncio.run(contend(store))
    child = os.fork()
    asyncio.run(asyncio.wait_for(contend(store), 30))
    if child:
        assert os.waitpid(child, 0)[1] == 0
        print("both", flush=True)
    os._exit(0)


if __name__ == "__main__":
    its_port, what = int(sys.argv[1]), sys.argv[2]
    if what == "fork":
        fork(its_port)
    asyncio.run(hold(its_port) if what == "hold" else many(its_port, int(sys.argv[3])))
