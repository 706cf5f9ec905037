"""Times clients side by side, round by round, once it is shown that they do the same. Knows no client.

Each round has clients of its own, made and timed in an order drawn for it: where a client lies in memory makes it some
per cent faster or slower for as long as it lives, and who comes first, or after whom, does too. So this differs from
round to round, and is in the intervals; the rounds of one client would all be off by the same. Curtsinger and Berger,
"STABILIZER: Statistically Sound Performance Evaluation" (2013), say how much places matter, and draw them too.
"""

import gc
import math
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, AsyncIterator, Callable, Coroutine, Dict, List, NamedTuple, Optional, Sequence

from extras.bench.cases import Case, Values
from extras.bench.counters import Counters
from extras.bench.progress import Teller
from extras.bench.rounds import DifferentResults, where

SAMPLE_S = 0.03
"""How long the operations of one sample take together: far above the clocks' steps, short enough for many rounds."""

_WARM_UP_PART = 4
"""The part of a sample's operations that a new client does before it: the first connect."""


class Cost(NamedTuple):
    """What operations cost: seconds that passed, seconds of CPU time of the client, all its threads, and the server.

    ``server_cpu_s``: ``None`` where the server does not tell.
    """

    wall_s: float
    cpu_s: float
    server_cpu_s: Optional[float] = None


class Stopwatch:
    """Measures what this process does from now on, the threads of a client's own included."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._wall_s = time.perf_counter()

    def cost(self) -> Cost:
        """Return what was done so far."""
        wall_s = time.perf_counter() - self._wall_s
        return Cost(wall_s, time.process_time() - self._cpu_s)


class Contender(NamedTuple):
    """How one side carries out one case: once for its result, and many times for their cost."""

    side: str
    once: Callable[[], Coroutine[Any, Any, Any]]
    many: Callable[[int], Coroutine[Any, Any, Cost]]


Maker = Callable[[AsyncExitStack], Coroutine[Any, Any, Contender]]
"""Makes one side anew for a case, with a client of its own, which the stack closes."""


@asynccontextmanager
async def closing() -> AsyncIterator[AsyncExitStack]:
    """Close what is on the stack. An error stays itself; coredis would make a group of it, which nobody expects."""
    failure: Optional[BaseException] = None
    async with AsyncExitStack() as stack:
        try:
            yield stack
        except BaseException as error:
            failure = error
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class Samples:
    """What one side's operations cost in each round, and how many there were in each."""

    operations: int
    costs: List[Cost]

    def wall_us(self) -> List[float]:
        """Return microseconds that passed for an operation, by round."""
        return [cost.wall_s * 1e6 / self.operations for cost in self.costs]

    def cpu_us(self) -> List[float]:
        """Return microseconds of the client's CPU time for an operation, by round."""
        return [cost.cpu_s * 1e6 / self.operations for cost in self.costs]

    def server_cpu_us(self) -> Optional[List[float]]:
        """Return microseconds of the server's CPU time for an operation, by round; ``None`` where it does not tell."""
        spent_s = [cost.server_cpu_s for cost in self.costs if cost.server_cpu_s is not None]
        return [each * 1e6 / self.operations for each in spent_s] if len(spent_s) == len(self.costs) else None


@dataclass(frozen=True)
class Compared:
    """One case's samples, by the name of the side."""

    case: Case
    samples: Dict[str, Samples]


async def compare(
    makers: Dict[Case, Dict[str, Maker]], values: Values, rounds: int, teller: Teller, draw: random.Random
) -> List[Compared]:
    """Time all cases, each with these sides. ``draw``: what orders and places are drawn from.

    Raises :class:`DifferentResults` before anything is timed if a side's results differ.
    """
    teller.say("are the results of all clients the same?")
    for case, sides in makers.items():
        async with closing() as stack:
            await check(case, [await make(stack) for make in sides.values()], values)
    compared = []
    for case, sides in makers.items():
        teller.begin(f"{case.name}: {rounds} rounds")
        compared.append(Compared(case, await _measure(case, sides, values, rounds, teller, draw)))
    return compared


async def check(case: Case, contenders: Sequence[Contender], values: Values) -> None:
    """Carry out a case once on each side.

    Raises :class:`DifferentResults` if a reply, or what was written, is not that of the first side.
    """
    expected: Dict[str, Any] = {}
    for contender in contenders:
        values.forget(case)
        reply = _comparable(await contender.once())
        found = {"reply": reply, **values.written(case)}
        expected = expected or found
        for what, seen in found.items():
            if seen != expected[what]:
                raise DifferentResults(
                    f"{case.name}, {what}: {contenders[0].side} and {contender.side} differ"
                    f"{where(expected[what], seen)}"
                )


def _comparable(reply: Any) -> Any:
    """Return a reply in the one form: clients call Redis's OK by different names."""
    if isinstance(reply, (list, tuple)):
        return [_comparable(item) for item in reply]
    return "OK" if reply is True or reply in ("OK", b"OK") else reply


async def _measure(
    case: Case, makers: Dict[str, Maker], values: Values, rounds: int, teller: Teller, draw: random.Random
) -> Dict[str, Samples]:
    samples: Dict[str, Samples] = {}
    for side, make in makers.items():
        async with closing() as stack:
            samples[side] = Samples(await _calibrated(case, await make(stack)), [])
    counters = Counters(values.client)
    own = counters.own()
    for number in range(rounds):
        teller.within(f"{case.name}: round {number + 1} of {rounds}", number / rounds)
        async with closing() as stack:
            gc.collect()  # the clients of the round before
            contenders = [await makers[side](stack) for side in shuffled(list(makers), draw)]
            for contender in shuffled(contenders, draw):
                measured = samples[contender.side]
                gc.collect(1)  # what the one before has left young
                await contender.many(max(1, measured.operations // case.workers // _WARM_UP_PART) * case.workers)
                before = counters.used()
                cost = await contender.many(measured.operations)
                measured.costs.append(cost._replace(server_cpu_s=counters.used().since(before).since(own).cpu_s))
    return samples


def shuffled(sides: Sequence[Any], draw: random.Random) -> List[Any]:
    """Return sides in an order that is drawn."""
    return draw.sample(sides, len(sides))


async def _calibrated(case: Case, contender: Contender) -> int:
    """Warm a side up, and return how many operations make a sample: a multiple of the workers."""
    each = 1
    while True:
        # The faster of two, so that one pause of the machine does not make all samples short.
        took_s = min([(await contender.many(each * case.workers)).wall_s for _ in range(2)])
        if took_s >= SAMPLE_S / 4:
            return max(1, math.ceil(each * SAMPLE_S / took_s)) * case.workers
        each *= 2
