"""A blocking client for tasks of an event loop, where redis-py has no asyncio: a thread waits, the loop does not."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import redis

from extras.client import FastRedis
from extras.steps import Result, Steps, run


class ThreadedClient:
    """Carries out steps on a blocking client in a thread of its own, in the order in which they come.

    ``limit_s``: seconds within which an operation is done, the time that it waits for others among them, or fails with
    redis-py's ``TimeoutError``; ``None`` for no limit.
    """

    def __init__(self, client: FastRedis, limit_s: Optional[float]) -> None:
        self._client = client
        self._limit_s = limit_s
        self._process = 0
        self._pool: Optional[ThreadPoolExecutor] = None

    async def run(self, steps: "Steps[Result]") -> Result:
        """Carry out ``steps``; see :func:`extras.steps.run`. What is cancelled may be carried out all the same."""
        if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
            self._process = os.getpid()
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="extras-redis")
        future = asyncio.get_running_loop().run_in_executor(self._pool, run, self._client, steps)
        try:
            await asyncio.wait([future], timeout=self._limit_s)  # wait_for() may lose a cancellation before 3.12
            if future.done():
                return future.result()
        finally:
            future.cancel()
        raise redis.TimeoutError(f"Redis did not answer within {self._limit_s:g} seconds")

    def close(self) -> None:
        """End the thread as soon as it is idle; the next operation starts a new one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
