"""Times turns of several stores, round by round, once it is shown that they do the same. Knows no Rasa.

Each round has stores of its own, and takes them in an order drawn for it; :mod:`extras.bench.interleaved` says why.
"""

import gc
import random
import time
from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable, Dict, List, NamedTuple, Optional, Protocol, Sequence

from extras.bench.counters import Counters, Used

CASES = ("retrieve", "save", "turn")
"""What is timed of a turn: reading the tracker, storing it, and both with the turn's events put on in between."""


class Side(Protocol):
    """One store, on one conversation. ``is_quick``: whether it can do the untimed turns before a timed one itself."""

    name: str
    is_quick: bool

    def events(self, number: int = 0) -> List[Any]:
        """Return the events of a turn, as new objects; those of turn 1 come after those of turn 0."""

    async def retrieve(self) -> Any:
        """Return the tracker."""

    def add(self, tracker: Any, events: List[Any]) -> None:
        """Put events on a tracker."""

    async def save(self, tracker: Any) -> None:
        """Store a tracker."""

    def contents(self, tracker: Any) -> Dict[str, Any]:
        """Return what a tracker holds, in a form that can be compared."""


class Stored(Protocol):
    """The document of the conversation that is measured."""

    key: str

    def reset(self) -> None:
        """Put the document back to what it was before the first turn."""

    def read(self) -> Optional[bytes]:
        """Return the document as it is now."""


class DifferentResults(Exception):
    """Two stores do not do the same, so that a comparison of their times would mean nothing."""


class Lane(NamedTuple):
    """A store and the document that it is measured on.

    ``primer``: the store that does ``untimed`` turns before the timed one, the same ones in all lanes that are
    compared, so that the timed one is one of many, as on a live server: a string that Redis has just copied has no
    spare room yet, and copying a long one leaves all CPU caches cold.
    """

    name: str
    side: Side
    stored: Stored
    primer: Side
    untimed: int


async def prime(lane: Lane) -> None:
    """Put the document back, and do the untimed turns."""
    lane.stored.reset()
    for number in range(lane.untimed):
        tracker = await lane.primer.retrieve()
        lane.primer.add(tracker, lane.primer.events(number))
        await lane.primer.save(tracker)


@dataclass
class Samples:
    """What was measured of one store on one conversation: seconds of each case, and what each turn used.

    ``cpu_s``: seconds of CPU time of this process. ``used``: what the server has used.
    """

    times_s: Dict[str, List[float]] = field(default_factory=lambda: {case: [] for case in CASES})
    cpu_s: List[float] = field(default_factory=list)
    used: List[Used] = field(default_factory=list)
    commands: List[str] = field(default_factory=list)


async def check(sides: Sequence[Side], stored: Stored, counters: Counters) -> Dict[str, List[str]]:
    """Carry out a turn on each side and return the commands each has sent.

    Raises :class:`DifferentResults` if a retrieved tracker, or the document after the save, is not that of the first.
    """
    seen: List[Dict[str, Any]] = []
    commands = {}
    for side in sides:
        stored.reset()
        await side.retrieve()  # what is remembered of another document is no part of a turn
        with counters.commands(stored.key) as commands[side.name]:
            tracker = await side.retrieve()
            contents = side.contents(tracker)
            side.add(tracker, side.events())
            await side.save(tracker)
        seen.append({**contents, "document after a save": stored.read()})
    for side, found in zip(sides[1:], seen[1:]):
        for what, expected in seen[0].items():
            if found[what] != expected:
                raise DifferentResults(f"{what}: {sides[0].name} and {side.name} differ{where(expected, found[what])}")
    return commands


def where(expected: Any, found: Any) -> str:
    """Show the first place where two lists or texts differ."""
    if not isinstance(expected, (list, bytes)) or not isinstance(found, type(expected)):
        return f": {str(expected)[:200]} and {str(found)[:200]}"
    at = next((n for n, (one, other) in enumerate(zip(expected, found)) if one != other), None)
    if at is None:
        return f": their lengths are {len(expected):,} and {len(found):,}"
    span = 1 if isinstance(expected, list) else 100
    return f" at {at:,}: {str(expected[at : at + span])[:300]} and {str(found[at : at + span])[:300]}"


async def measure(
    renewed: Callable[[], Awaitable[Sequence[Lane]]],
    counters: Counters,
    rounds: int,
    progress: Callable[[float], None],
    draw: random.Random,
) -> Dict[str, Samples]:
    """Time a turn in each lane, ``rounds`` times, the document put back before each.

    ``renewed``: returns the lanes, with new stores. ``draw``: what the order of the lanes in a round is drawn from.
    """
    samples: Dict[str, Samples] = {}
    own = counters.own()
    for number in range(rounds):
        progress(number / rounds)
        lanes = list(await renewed())
        samples = samples or {lane.name: Samples() for lane in lanes}
        gc.collect()  # the stores of the round before
        draw.shuffle(lanes)
        for lane in lanes:
            lane.stored.reset()
            await lane.side.retrieve()  # connects
            await prime(lane)
            await _turn(lane, counters, own, samples[lane.name])
    return samples


async def _turn(lane: Lane, counters: Counters, own: Used, samples: Samples) -> None:
    side = lane.side
    events = side.events(lane.untimed)
    gc.collect(1)  # what others have left young; all generations would take longer than most turns
    before = counters.used()
    start_cpu_s = time.process_time()
    start = time.perf_counter()
    tracker = await side.retrieve()
    retrieved = time.perf_counter()
    side.add(tracker, events)
    added = time.perf_counter()
    await side.save(tracker)
    saved = time.perf_counter()
    samples.cpu_s.append(time.process_time() - start_cpu_s)
    samples.used.append(counters.used().since(before).since(own))
    for case, took_s in zip(CASES, (retrieved - start, saved - added, saved - start)):
        samples.times_s[case].append(took_s)
