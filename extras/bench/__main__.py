"""Compare the tracker store of the installed Rasa for Redis with ours: time, bytes and commands of a turn.

A turn is one retrieve, the events of a recorded turn put on the tracker, one save. Both stores work on the same
document, which is put back before each turn, in the same process, round by round in turn. Before anything is timed
it is checked that both return the same tracker and write the same bytes.

Exit codes: 0 measured, 1 the stores' results differ, 2 something is missing or the command line is wrong.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, Optional

import redis

from extras.bench import machine, results
from extras.bench.loop import run_on_server_loop
from extras.bench.progress import Progress
from extras.bench.quiet import quiet, quiet_structlog
from extras.bench.rounds import DifferentResults
from extras.bench.run import LEAST_ROUNDS, measure
from extras.bench.server import RedisServer
from extras.bench.shapes import Shape
from extras.errors import OptionError

HISTORIES = "17,100,1000,10000,100000,1000/1000,2000/1000"


class Missing(Exception):
    """What the benchmark needs is not there; the message says how to get it."""


def _arguments(argv: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m extras.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        default=100,
        metavar="N",
        help=f"most rounds for each history (default 100); slow ones get fewer, but {LEAST_ROUNDS}",
    )
    parser.add_argument(
        "--history",
        type=_shapes,
        default=HISTORIES,
        metavar="N,...",
        help="lengths in events, with sessions of 60 events; N/M: with sessions of M (default %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--url",
        help="measure on this server, below a key prefix of its own that is deleted at the end, not on a new one",
    )
    parser.add_argument(
        "--like-server",
        action="store_true",
        help="load rasa.core.agent (and TensorFlow with it) first: as much for Python's gc to look at as in rasa run",
    )
    arguments = parser.parse_args(argv)
    if arguments.json is not None and not arguments.json.parent.is_dir():
        parser.error(f"--json: there is no folder {str(arguments.json.parent)!r}")
    return arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _shapes(text: str) -> List[Shape]:
    try:
        return list(dict.fromkeys(map(Shape.parse, text.split(","))))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _host(like_server: bool) -> Any:
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


def _own_server(stack: ExitStack) -> str:
    """Start a server that ``stack`` stops; return its URL. Raises :class:`Missing`."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="extras-bench-")))
    try:
        server = stack.enter_context(RedisServer(folder))
    except (FileNotFoundError, RuntimeError) as error:
        raise Missing(str(error)) from error
    return f"redis://127.0.0.1:{server.port}"


async def _run(host: Any, url: str, arguments: argparse.Namespace, progress: Progress) -> Dict[str, Any]:
    with quiet_structlog():
        trackers = host.Trackers(host.server_options(url))
        try:
            header = machine.describe(trackers.client.info(), arguments.like_server)
            measured, flat = await measure(trackers, arguments.history, arguments.rounds, progress.say)
            progress.end()
            return results.as_data(measured, flat, header)
        finally:
            await trackers.close()


def main(argv: Optional[List[str]] = None) -> int:
    """Measure and print; return the exit code."""
    arguments = _arguments(argv)
    progress = Progress()
    try:
        with ExitStack() as stack:
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, progress.stop))
            stack.enter_context(quiet())
            progress.say("loading Rasa")
            host = _host(arguments.like_server)
            url = arguments.url or _own_server(stack)
            data = run_on_server_loop(_run(host, url, arguments, progress))
    except (Missing, OptionError, redis.RedisError) as error:
        return _failed(2, str(error))
    except DifferentResults as error:
        return _failed(1, f"the stores' results differ, so their times are not compared: {error}")
    print(results.as_text(data))
    if arguments.json:
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return 0


def _failed(code: int, why: str) -> int:
    print(f"\npython -m extras.bench: {why}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
