"""A process that talks in many conversations, whatever becomes of Redis.

For each line of its input, which is a life's orders in JSON, it forks a child, which may be killed. A turn retrieves a
conversation, says something and saves it, as a Rasa server does; its ids are told on standard output when the store has
acknowledged it. ``said`` is how many turns of each conversation there are already, ``turns`` how many there are to be.
"""

import asyncio
import inspect
import json
import os
import random
import sys
import time
from typing import Any, Dict, List

from rasa.shared.core.domain import Domain
from rasa.shared.core.events import Event
from writer import DOMAIN, Broker, event_id, session_start, turn

from extras.trackerstore import ExtraRedisTrackerStore

TOLD = os.fdopen(os.dup(1), "w", buffering=1)
"""What this process tells; its standard output is the host's log."""


class Talker:
    """A store, and conversations with so many turns each."""

    def __init__(self, orders: Dict[str, Any]) -> None:
        self.life: str = orders["life"]
        self.said: Dict[str, int] = orders["said"]
        self.turns: int = orders["turns"]
        self.random = random.Random(orders["seed"])
        self.pause_s: float = orders["pause_s"]
        self.longest_block_s = 0.0
        self.store = ExtraRedisTrackerStore(Domain.from_dict(DOMAIN), "127.0.0.1", Broker(), **orders["options"])

    async def _wait(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async def say(self, sender_id: str) -> None:
        """Say the next turn of a conversation, again until it is acknowledged."""
        number = self.said[sender_id]
        name = f"{sender_id}-{self.life}.{number}"
        events: List[Dict[str, Any]] = (session_start(name) if number % 10 == 0 else []) + turn(name)
        while True:
            try:
                tracker = await self._wait(self.store.retrieve(sender_id)) or self.store.init_tracker(sender_id)
                for event in events:
                    tracker.update(Event.from_parameters(event))
                await self._wait(self.store.save(tracker))
            except Exception as error:
                print("failed", type(error).__name__, error, file=sys.stderr)
                await asyncio.sleep(0.1)
                continue
            break
        self.said[sender_id] += 1
        print("turn", sender_id, *map(event_id, events), file=TOLD)
        await asyncio.sleep(self.random.uniform(0, 2 * self.pause_s))

    async def talk(self, sender_id: str) -> None:
        """Say all turns of a conversation."""
        while self.said[sender_id] < self.turns:
            await self.say(sender_id)

    async def watch(self) -> None:
        """Note for how long the loop does not come round."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.longest_block_s = max(self.longest_block_s, time.monotonic() - before - 0.005)

    async def main(self) -> None:
        """Say all that there is to say, and wait until Redis has it."""
        print("ready", self.store.outage_journal().records, file=TOLD)
        watching = asyncio.ensure_future(self.watch())
        await asyncio.gather(*map(self.talk, self.said))
        print("said", file=TOLD)
        deadline = time.monotonic() + 60
        while self.store.outage_journal().records and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        watching.cancel()
        print("blocked", f"{self.longest_block_s * 1000:.0f}", file=TOLD)
        print("stored", file=TOLD)
        await self._wait(self.store.close())


def main() -> None:
    """Live as often as the input says."""
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.new_event_loop().run_until_complete(Talker(json.loads(line)).main())
            os._exit(0)
        print("pid", child, file=TOLD)
        os.waitpid(child, 0)
        print("ended", file=TOLD)


if __name__ == "__main__":
    main()
