"""The groups that compare Redis clients: what each has of its own, and the run that they share. Needs no Rasa."""

import random
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any, Callable, Coroutine, Dict, List, NamedTuple, Optional, Tuple

import redis

from extras import _redis
from extras.bench import async_wire, cases, comparison, machine, wire
from extras.bench.cases import Case, Values
from extras.bench.interleaved import Contender, Maker, closing, compare
from extras.bench.loop import name_of_running, run_on_asyncio, run_on_fastest
from extras.bench.missing import Missing
from extras.bench.peers import BASELINE, Address, Opener, open_all
from extras.bench.pinning import Plan, pinned
from extras.bench.progress import Teller
from extras.bench.server import running_server
from extras.errors import OptionError
from extras.options import parse

ROUNDS = 15


class Group(NamedTuple):
    """Clients of one kind, of these packages. ``shows_loop``: whether the event loop has a part in what is measured."""

    title: str
    packages: Tuple[str, ...]
    cases: Callable[[str], List[Case]]
    openers: Dict[str, Opener]
    contender: Callable[[str, Any, Case], Optional[Contender]]
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    shows_loop: bool


GROUPS = {
    "wire": Group(
        title="blocking clients",
        packages=("valkey-glide-sync",),
        cases=cases.blocking,
        openers=wire.OPENERS,
        contender=wire.contender,
        run=run_on_asyncio,
        shows_loop=False,
    ),
    "async": Group(
        title="clients for asyncio",
        packages=("uvloop", "coredis", "valkey-glide"),
        cases=cases.asynchronous,
        openers=async_wire.OPENERS,
        contender=async_wire.contender,
        run=run_on_fastest,
        shows_loop=True,
    ),
}


class Extent(NamedTuple):
    """How much is measured. ``rounds``: for each case. ``headline``: only the cases that say most."""

    rounds: int
    headline: bool

    def cases(self, name: str, prefix: str = "") -> List[Case]:
        """Return the cases of a group."""
        found = GROUPS[name].cases(prefix)
        return [case for case in found if case.name in cases.HEADLINE] if self.headline else found


def measure(name: str, url: Optional[str], pin: Plan, extent: Extent, again: bool, teller: Teller) -> Dict[str, Any]:
    """Measure a group on the server of ``url``, or on one of its own that is stopped at the end.

    ``again``: redis-py against itself. Raises :class:`Missing`, ``OptionError``, redis-py's errors, or
    ``DifferentResults`` before anything is timed.
    """
    group = GROUPS[name]
    if name == "async" and not _redis.HAS_ASYNCIO:
        raise Missing(f"--async: redis-py {_redis.VERSION} has no asyncio support; pip install 'redis>=4.5.3'")
    openers = group.openers
    if again:
        openers = {BASELINE: group.openers[BASELINE], f"{BASELINE} again": group.openers[BASELINE]}
    with ExitStack() as stack:
        if url is None:
            with pinned(pin.server):
                url = stack.enter_context(running_server())
        stack.enter_context(pinned(pin.client))
        address = address_of(url)
        client: Any = redis.Redis(host=address.host, port=address.port, db=address.db)
        stack.callback(client.connection_pool.disconnect)
        values = stack.enter_context(Values(client, extent.cases(name, cases.new_prefix())))
        header = {"pinning": str(pin)}
        return dict(group.run(_run(group._replace(openers=openers), address, values, header, extent.rounds, teller)))


def address_of(url: str) -> Address:
    """Return the server of a URL. Raises ``OptionError`` for what clients are not compared on."""
    options = parse({"url": url})
    if options.unix_path or options.use_ssl or options.password or options.username:
        raise OptionError("url: clients are compared over TCP, without TLS or a password; use redis://host:port/db")
    return Address(options.url, options.port, options.db)


async def _run(
    group: Group, address: Address, values: Values, header: Dict[str, Any], rounds: int, teller: Teller
) -> Dict[str, Any]:
    teller.say(f"{group.title}: connecting")
    header = {**machine.describe(values.client.info()), **machine.versions(*group.packages), **header}
    if group.shows_loop:
        header["event loop"] = name_of_running()
    async with closing() as stack:
        peers, skipped = await open_all(group.openers, address, stack)
        able = {
            case: [side for side, peer in peers.items() if group.contender(side, peer, case) is not None]
            for case in values.cases
        }
    makers: Dict[Case, Dict[str, Maker]] = {
        case: {side: partial(_made, group, address, side, case) for side in sides} for case, sides in able.items()
    }
    compared = await compare(makers, values, rounds, teller, random.Random())
    return comparison.as_data(group.title, header, skipped, compared)


async def _made(group: Group, address: Address, side: str, case: Case, stack: AsyncExitStack) -> Contender:
    contender = group.contender(side, await group.openers[side](address, stack), case)
    assert contender is not None, f"{side} could do {case.name} before"
    return contender
