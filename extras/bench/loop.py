"""The event loops that what is measured runs on."""

import asyncio
import importlib
import importlib.util
from typing import Any, Coroutine, TypeVar

Result = TypeVar("Result")


def run_on_server_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` as ``asyncio.run`` does, on uvloop where Rasa's server, Sanic, would take it: if both are there."""
    return run_on_fastest(work) if importlib.util.find_spec("sanic") is not None else run_on_asyncio(work)


def run_on_fastest(work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` on uvloop where it is there, else on asyncio's own loop."""
    uvloop: Any = importlib.import_module("uvloop") if importlib.util.find_spec("uvloop") is not None else asyncio
    return _run(uvloop.new_event_loop(), work)


def run_on_asyncio(work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` on asyncio's own loop."""
    return _run(asyncio.new_event_loop(), work)


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Result]) -> Result:
    task = loop.create_task(work)
    try:
        return loop.run_until_complete(task)
    finally:
        if not task.done():  # a signal's exception has gone past it: let it clean up
            task.cancel()
            loop.run_until_complete(asyncio.wait({task}))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def name_of_running() -> str:
    """Return the package and class of the running loop."""
    kind = type(asyncio.get_running_loop())
    return f"{kind.__module__}.{kind.__qualname__}"
