"""Compare the tracker store of the installed Rasa for Redis with ours, and Redis clients with redis-py.

Without arguments: the figures that say most, of all for which there is something installed, in a minute or so.

--tracker: time, CPU time, bytes and commands of a turn with the installed Rasa. A turn is one retrieve, the events
of a recorded turn put on the tracker, one save. Both stores work on the same document, which is put back before each
turn, in the same process, round by round in turn. Before anything is timed it is checked that both return the same
tracker and write the same bytes.

--wire, --async: time and CPU time of an operation with blocking clients, and with clients for asyncio (on uvloop where
it is installed). They need no Rasa; a client that is not installed is left out, and a C program on hiredis is compiled
where that can be done. Round by round in turn too, each sample some 30 ms, with results that are compared before. CPU
time is that of the client's whole process, so that threads of a client's own count. All speak RESP2 but coredis, which
knows RESP3 only. valkey-glide's wait of at most 250 ms for a reply is made longer; nothing else is tuned.

--faults: what a caller sees of faults of the network and of Redis, each injected and healed on a server of its own,
with the installed Rasa's store, redis-py alone and ours. Those of the network need Linux, and user namespaces.
--schedules: random faults, while two writers use our store; a seed repeats a schedule.

Each round has clients and stores of its own, in an order that is drawn. Medians are given with the interval they lie in
with 95 % confidence, by bootstrap; docs/benchmark.md has the method.

Exit codes: 0 measured, 1 the results differ, or our store broke a promise under a fault, 2 something is missing or the
command line is wrong, 3 --compare found something slower, 4 --selfcheck found a difference.
"""

import argparse
import signal
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import redis

from extras.bench import (
    chart,
    comparison,
    endpoints,
    faults_stores,
    faults_suite,
    faults_table,
    groups,
    headline,
    instructions,
    markdown,
    pinning,
    plot,
    recorded,
    regression,
    results,
    selfcheck,
    tracker,
)
from extras.bench.missing import Missing
from extras.bench.progress import Progress, Teller
from extras.bench.rounds import DifferentResults
from extras.bench.run import LEAST_ROUNDS, Extent
from extras.bench.shapes import Shape
from extras.errors import OptionError
from extras.silence import quiet

HISTORIES = "17,100,1000,10000,100000,1000/1000,2000/1000"
HEADLINE_HISTORIES = "17,1000,10000"
ROUNDS = 100
SECONDS_PER_HISTORY, HEADLINE_SECONDS_PER_HISTORY = 6.0, 3.0
HEADLINE_ROUNDS = 9

GROUPS = ("tracker", "wire", "async", "faults")
HEADLINE = ("tracker", "wire", "async")
CLIENTS = ("wire", "async")
SHOWN = {
    "tracker": results.as_text,
    "wire": comparison.as_text,
    "async": comparison.as_text,
    "faults": faults_table.as_text,
    "schedules": faults_table.schedules_as_text,
    "instructions": instructions.as_text,
    "endpoints": endpoints.as_text,
}
"""What may be measured, and how it is shown."""


def _arguments(argv: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m extras.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what to measure; the most telling figures of all, if nothing is named")
    what.add_argument("--tracker", action="store_true", help="tracker stores")
    what.add_argument("--wire", action="store_true", help="blocking clients")
    what.add_argument("--async", action="store_true", dest="asyncio", help="clients for asyncio")
    what.add_argument("--faults", action="store_true", help="faults of the network and of Redis; in some minutes")
    what.add_argument("--all", action="store_true", help="all of these")
    what.add_argument("--schedules", type=_positive, metavar="N", help="so many random schedules of faults")
    what.add_argument(
        "--instructions",
        action="store_true",
        help="instructions of an operation of the clients, by valgrind; in some minutes",
    )
    what.add_argument(
        "--endpoints",
        type=Path,
        metavar="FILE",
        help="the Redis that an endpoints.yml names, with its options; safe in production: some hundred small commands",
    )
    what.add_argument(
        "--from",
        type=Path,
        dest="measured",
        metavar="FILE",
        help="show what --json or --append has written instead, of the groups that are named, or all",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--rounds",
        type=_positive,
        metavar="N",
        help=f"most rounds for each history (default {ROUNDS}); slow ones get fewer, but {LEAST_ROUNDS}; rounds for "
        f"each case of clients (default {groups.ROUNDS})",
    )
    how.add_argument(
        "--pin",
        choices=pinning.CHOICES,
        help="clients: hold them and the server to one core, or to one each (default same-core on a server of its own)",
    )
    how.add_argument(
        "--history",
        type=_shapes,
        metavar="N,...",
        help="lengths in events, with sessions of 60 events; N/M: with sessions of M (default "
        f"{HISTORIES}, or {HEADLINE_HISTORIES} if nothing is named)",
    )
    how.add_argument(
        "--url",
        help="measure on this server, below a key prefix of its own that is deleted at the end, not on a new one",
    )
    how.add_argument(
        "--like-server",
        action="store_true",
        help="load rasa.core.agent (and TensorFlow with it) first: as much for Python's gc to look at as in rasa run",
    )
    how.add_argument("--rows", type=_texts, metavar="TEXT,...", help="of the faults, those whose names hold a text")
    how.add_argument(
        "--contenders",
        type=_contenders,
        default=",".join(faults_stores.NAMES),
        metavar="NAME,...",
        help="who meets the faults (default %(default)s)",
    )
    how.add_argument("--seed", default="0", help="what the schedules are drawn from (default %(default)s)")
    how.add_argument(
        "--at-once",
        type=_positive,
        default=faults_suite.AT_ONCE,
        metavar="N",
        help="faults, or schedules, at a time (default %(default)s); they mostly wait",
    )
    how.add_argument(
        "--selfcheck",
        action="store_true",
        help="measure ours, and redis-py, against themselves: no difference may be found",
    )
    then = parser.add_argument_group("what to do with the figures")
    kept = then.add_mutually_exclusive_group()
    kept.add_argument("--json", type=Path, metavar="FILE", help="write all of them there")
    kept.add_argument(
        "--append",
        type=Path,
        metavar="FILE",
        help="add them to the runs that are there; one that measured the same group is an error, and never replaced",
    )
    then.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="say which ratios differ from those of an older --json or --append",
    )
    then.add_argument("--plot", type=_picture, metavar="FILE", help="draw them there, .svg or .png (needs matplotlib)")
    then.add_argument("--chart", action="store_true", help="show bars of text, too")
    then.add_argument("--markdown", action="store_true", help="print the tables of the documentation instead")
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return arguments


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Complete the command line, and end with a message where it contradicts itself."""
    asked = {"tracker": arguments.tracker, "wire": arguments.wire, "async": arguments.asyncio}
    asked["faults"] = arguments.faults
    named = [name for name in GROUPS if asked[name]]
    special = [
        option
        for option, value in (
            ("--from", arguments.measured),
            ("--endpoints", arguments.endpoints),
            ("--instructions", arguments.instructions),
            ("--schedules", arguments.schedules),
        )
        if value
    ]
    of_groups = special == ["--from"] or (special == ["--instructions"] and set(named) <= set(CLIENTS))
    if len(special) > 1 or (special and (arguments.all or (named and not of_groups))):
        parser.error(f"{special[0]}: measures, or shows, something of its own; leave the others out")
    if arguments.selfcheck and (special or arguments.faults):
        parser.error("--selfcheck: goes with --tracker, --wire and --async only")
    if arguments.url is not None and (arguments.faults or arguments.schedules):
        parser.error("--url: faults are injected into servers of their own")
    arguments.required = named
    arguments.headline = not (named or special or arguments.all)
    arguments.groups = named or list(HEADLINE if arguments.headline or arguments.selfcheck else GROUPS)
    if arguments.pin is not None and (special or not set(arguments.groups) & set(CLIENTS)):
        parser.error(
            "--pin: holds clients, for --wire and --async; tracker stores run on the cores that the system chooses"
        )
    for option, path in (("--json", arguments.json), ("--append", arguments.append)):
        if path is not None and not path.parent.is_dir():
            parser.error(f"{option}: there is no folder {str(path.parent)!r}")


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in plot.FORMATS or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file .svg or .png in a folder that is there")
    return path


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _texts(text: str) -> List[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _contenders(text: str) -> List[str]:
    unknown = set(_texts(text)) - set(faults_stores.NAMES)
    if unknown or not _texts(text):
        raise argparse.ArgumentTypeError(f"one or more of {', '.join(faults_stores.NAMES)}")
    return [name for name in faults_stores.NAMES if name in _texts(text)]


def _shapes(text: str) -> List[Shape]:
    try:
        return list(dict.fromkeys(map(Shape.parse, text.split(","))))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _measured(arguments: argparse.Namespace) -> Tuple[List[recorded.Run], Dict[str, str]]:
    """Return the runs with all figures, and why some groups are missing, by their names."""
    if arguments.measured is not None:
        return recorded.only(arguments.measured, arguments.required), {}
    measurements = _measurements(arguments)
    if arguments.append is not None:
        recorded.may_append(arguments.append, measurements)
    progress = Progress(sum(steps for steps, _ in measurements.values()))
    data: recorded.Run = {}
    skipped: Dict[str, str] = {}
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, progress.stop))
        stack.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = progress.unraisable
        stack.callback(progress.end)
        stack.enter_context(quiet())
        for name, (_, measure) in measurements.items():
            try:
                data[name] = measure(progress)
            except Missing as error:
                if name not in GROUPS or name in arguments.required:
                    raise
                skipped[name] = str(error)
            except DifferentResults as error:
                whose = "stores" if name == "tracker" else "clients"
                raise DifferentResults(
                    f"the {whose}' results differ, so their times are not compared: {error}"
                ) from error
    if len(skipped) == len(measurements):
        raise Missing("; ".join(skipped.values()))
    return [data], skipped


def _measurements(arguments: argparse.Namespace) -> Dict[str, Tuple[int, Callable[[Teller], Dict[str, Any]]]]:
    """Return how many steps each measurement has, and what does it, by its name."""
    if arguments.endpoints is not None:
        return {"endpoints": (endpoints.STEPS, partial(endpoints.measure, arguments.endpoints))}
    if arguments.instructions:
        names = arguments.required or list(CLIENTS)
        return {"instructions": (instructions.steps(names), partial(instructions.measure, names))}
    if arguments.schedules:
        count, at_once = arguments.schedules, arguments.at_once
        return {"schedules": (count, partial(faults_suite.measure_schedules, count, arguments.seed, at_once))}
    is_short, again = arguments.headline, arguments.selfcheck
    found: Dict[str, Tuple[int, Callable[[Teller], Dict[str, Any]]]] = {}
    for name in arguments.groups:
        if name == "tracker":
            stores = Extent(
                arguments.history or _shapes(HEADLINE_HISTORIES if is_short else HISTORIES),
                arguments.rounds or ROUNDS,
                HEADLINE_SECONDS_PER_HISTORY if is_short else SECONDS_PER_HISTORY,
            )
            found[name] = stores.steps, partial(tracker.measure, arguments.url, stores, arguments.like_server, again)
        elif name == "faults":
            asked = arguments.rows, arguments.contenders, arguments.at_once
            found[name] = faults_suite.steps(*asked), partial(faults_suite.measure, *asked)
        else:
            pin = pinning.plan(arguments.pin, own_server=arguments.url is None)
            few = is_short and not again  # too few for intervals that all hold together
            clients = groups.Extent(arguments.rounds or (HEADLINE_ROUNDS if few else groups.ROUNDS), is_short)
            found[name] = (
                len(clients.cases(name)),
                partial(groups.measure, name, arguments.url, pin, clients, again),
            )
    return found


def _as_text(data: Dict[str, Any], skipped: Dict[str, str], arguments: argparse.Namespace) -> str:
    if arguments.markdown:
        return "\n\n".join(markdown.tables(data).values())
    if arguments.headline:
        return headline.as_text(data, skipped)
    texts = [f"skipped: {name}: {why}" for name, why in skipped.items()]
    texts += [show(data[name]) for name, show in SHOWN.items() if name in data]
    return "\n\n".join([*texts, *([chart.as_text(data)] if arguments.chart else [])])


def main(argv: Optional[List[str]] = None) -> int:
    """Measure and print; return the exit code."""
    arguments = _arguments(argv)
    try:
        before = recorded.as_one(recorded.read(arguments.compare)) if arguments.compare else None
        runs, skipped = _measured(arguments)
        data = recorded.as_one(runs)
        print(_as_text(data, skipped, arguments), flush=True)
        if arguments.json:
            recorded.write(arguments.json, runs)
        if arguments.append:
            recorded.append(arguments.append, runs)
        if arguments.plot:
            plot.draw(data, arguments.plot)
    except (Missing, OptionError, redis.RedisError) as error:
        return _failed(2, str(error))
    except DifferentResults as error:
        return _failed(1, str(error))
    if before is not None:
        compared = regression.compare(before, data)
        print(f"\n{regression.as_text(compared)}")
        if compared.regressions:
            return 3
    if arguments.selfcheck:
        print(f"\n{selfcheck.as_text(data)}")
        if selfcheck.differences(data):
            return 4
    return 0 if all(faults_suite.is_right(data[name]) for name in ("faults", "schedules") if name in data) else 1


def _failed(code: int, why: str) -> int:
    print(f"\npython -m extras.bench: {why}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
