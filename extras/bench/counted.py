"""A client by itself in a process, whose instructions are counted; run by :mod:`extras.bench.instructions`.

``python -m extras.bench.counted GROUP SIDE URL`` prints ``ready``, then takes lines of a case and a number of
operations, tab between them, and prints ``done`` after each, or ``none`` where the client cannot do that.
"""

import sys
from contextlib import AsyncExitStack
from typing import Any

import redis

from extras.bench import cases, groups
from extras.bench.cases import Values
from extras.silence import quiet

WARM_UP = 5


async def _serve(group: groups.Group, side: str, url: str) -> None:
    address = groups.address_of(url)
    client: Any = redis.Redis(host=address.host, port=address.port, db=address.db)
    async with AsyncExitStack() as stack:
        stack.callback(client.connection_pool.disconnect)
        values = stack.enter_context(Values(client, group.cases(cases.new_prefix())))
        peer = await group.openers[side](address, stack)
        print("ready", flush=True)
        known = {case.name: case for case in values.cases}
        for line in sys.stdin:
            name, operations = line.split("\t")
            contender = group.contender(side, peer, known[name]) if name in known else None
            if contender is None:
                print("none", flush=True)
                continue
            await contender.many(WARM_UP)
            await contender.many(int(operations))
            print("done", flush=True)


def main() -> None:
    """Serve until standard input ends."""
    name, side, url = sys.argv[1:]
    group = groups.GROUPS[name]
    with quiet():
        group.run(_serve(group, side, url))


if __name__ == "__main__":
    main()
