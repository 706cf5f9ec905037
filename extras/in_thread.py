"""Waits on a thread for what blocks, so that an event loop does not."""

import asyncio
import threading
from contextlib import suppress
from typing import Any, Callable, TypeVar

Answer = TypeVar("Answer")


async def in_thread(ask: Callable[[], Answer]) -> Answer:
    """Return what ``ask`` returns on a thread that, unlike asyncio's own, lets the interpreter end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Answer] = loop.create_future()

    def end(found: Any, error: Any) -> None:
        if not answer.done():
            answer.set_result(found) if error is None else answer.set_exception(error)

    def work() -> None:
        found = failure = None
        try:
            found = ask()
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end, found, failure)

    threading.Thread(target=work, name="extras-credentials", daemon=True).start()
    return await answer
