"""What is measured, in which order, and how often, so that a default run ends within a minute and a half or so."""

import gc
import random
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from extras.bench import rounds
from extras.bench.counters import Counters
from extras.bench.progress import Teller
from extras.bench.results import Measured
from extras.bench.rounds import Lane
from extras.bench.shapes import FLAT_FROM, FLAT_TO, Shape

LEAST_ROUNDS = 5

ByLane = Dict[str, rounds.Samples]
"""Samples by the name of their lane: a store's, or a number of events."""

_WARM_UP = Shape(17)
_FLATNESS_ROUND_S = 0.1


class Extent(NamedTuple):
    """How much is measured. ``rounds``: at most, for each history. ``seconds``: about how long a history may take."""

    histories: List[Shape]
    rounds: int
    seconds: float

    @property
    def steps(self) -> int:
        """How many steps its progress has."""
        return len(self.histories) + self.shows_flatness

    @property
    def shows_flatness(self) -> bool:
        """Whether the shortest and the longest history are compared, too."""
        return {FLAT_FROM, FLAT_TO} <= set(self.histories)


async def measure(trackers: Any, extent: Extent, teller: Teller) -> Tuple[List[Measured], Optional[ByLane]]:
    """Measure all histories, and ours on the shortest against the longest if both are asked for.

    ``trackers``: an ``extras.bench.trackers.Trackers``. Raises ``DifferentResults`` before a history is timed.
    """
    run = _Run(trackers, extent, teller)
    await run.warm_up()
    measured = [await run.history(shape) for shape in extent.histories]
    return measured, await run.flatness() if extent.shows_flatness else None


class _Run:
    """Measures on one server, and says how far it is."""

    def __init__(self, trackers: Any, extent: Extent, teller: Teller) -> None:
        self._trackers = trackers
        self._counters = Counters(trackers.client)
        self._extent = extent
        self._teller = teller
        self._draw = random.Random()

    async def warm_up(self) -> None:
        """Let both stores connect, and ours load its scripts."""
        await rounds.check(self._trackers.sides(_WARM_UP), self._trackers.document(_WARM_UP), self._counters)

    async def history(self, shape: Shape) -> Measured:
        """Measure the stores on one conversation. Raises ``DifferentResults`` before anything is timed."""
        self._teller.begin(f"{shape}: are the results the same?")
        sides, document = self._trackers.sides(shape), self._trackers.document(shape)
        start = time.monotonic()
        commands = await rounds.check(sides, document, self._counters)
        gc.collect()  # as in each round; where a host is loaded, it takes longer than a turn
        untimed = self._trackers.untimed_turns(shape)

        def lanes() -> List[Lane]:
            now = self._trackers.sides(shape)
            return [Lane(one.name, one, document, one if one.is_quick else now[-1], untimed) for one in now]

        samples = await self._rounds(str(shape), lanes, time.monotonic() - start)
        for name, names in commands.items():
            samples[name].commands = names
        await rounds.prime(lanes()[0])
        return Measured(shape, len(document.read() or b""), samples)

    async def flatness(self) -> ByLane:
        """Measure ours on the shortest and the longest history in turn, so that a machine's moods hit both."""
        self._teller.begin("flatness")
        documents = {shape: self._trackers.document(shape) for shape in (FLAT_FROM, FLAT_TO)}

        def lanes() -> List[Lane]:
            found = []
            for shape, document in documents.items():
                ours = self._trackers.sides(shape)[-1]
                untimed = self._trackers.untimed_turns(shape)
                found.append(Lane(str(shape.events), ours, document, ours, untimed))
            return found

        return await self._rounds("flatness", lanes, _FLATNESS_ROUND_S)

    async def _rounds(self, what: str, lanes: Callable[[], List[Lane]], round_s: float) -> ByLane:
        count = min(self._extent.rounds, max(LEAST_ROUNDS, int(self._extent.seconds / round_s)))
        self._teller.say(f"{what}: {count} rounds")

        def tell(part: float) -> None:
            self._teller.within(f"{what}: {count} rounds", part)

        async def renewed() -> List[Lane]:
            await self._trackers.renew(self._draw)
            return lanes()

        return await rounds.measure(renewed, self._counters, count, tell, self._draw)
