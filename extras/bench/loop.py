"""The event loop that Rasa's server runs on, for what is measured outside of it."""

import asyncio
import importlib
import importlib.util
from typing import Any, Coroutine, TypeVar

Result = TypeVar("Result")


def run_on_server_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` as ``asyncio.run`` does, on uvloop where Rasa's server, Sanic, would take it: if both are there."""
    server: Any = asyncio
    if importlib.util.find_spec("sanic") is not None and importlib.util.find_spec("uvloop") is not None:
        server = importlib.import_module("uvloop")
    loop: asyncio.AbstractEventLoop = server.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def name_of_running() -> str:
    """Return the package and class of the running loop."""
    kind = type(asyncio.get_running_loop())
    return f"{kind.__module__}.{kind.__qualname__}"
