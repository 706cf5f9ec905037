"""The group that compares tracker stores, in the Rasa that is installed."""

import importlib
import os
from contextlib import ExitStack
from typing import Any, Dict, Optional

from extras.bench import machine, results
from extras.bench.loop import run_on_server_loop
from extras.bench.missing import Missing
from extras.bench.progress import Teller
from extras.bench.run import Extent
from extras.bench.run import measure as measure_stores
from extras.bench.server import running_server
from extras.silence import quiet_structlog


def measure(url: Optional[str], extent: Extent, like_server: bool, again: bool, teller: Teller) -> Dict[str, Any]:
    """Measure on the server of ``url``, or on one of its own that is stopped at the end.

    ``like_server``: load Rasa's server first. ``again``: ours against itself. Raises :class:`Missing`, ``OptionError``,
    redis-py's errors, or ``DifferentResults`` before a history is timed.
    """
    teller.say("loading Rasa")
    host = load(like_server)
    with ExitStack() as stack:
        url = url or stack.enter_context(running_server())
        return run_on_server_loop(_run(host, url, extent, like_server, again, teller))


def load(like_server: bool) -> Any:
    """Import what needs Rasa. Raises :class:`Missing`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        if like_server:
            importlib.import_module("rasa.core.agent")
        return importlib.import_module("extras.bench.trackers")
    except Exception as error:  # a half-installed Rasa fails in many ways, and all mean the same here
        raise Missing(
            f"this measures the tracker stores of an installed Rasa, and here there is none that can be loaded "
            f"({type(error).__name__}: {error}); run it with the Python that Rasa runs in"
        ) from error


async def _run(host: Any, url: str, extent: Extent, like_server: bool, again: bool, teller: Teller) -> Dict[str, Any]:
    with quiet_structlog():
        trackers = host.Trackers(host.server_options(url), again)
        try:
            header = machine.describe_host(trackers.client.info(), like_server)
            measured, flat = await measure_stores(trackers, extent, teller)
            return results.as_data(measured, flat, header)
        finally:
            await trackers.close()
