"""Tickets that nobody is left to give back: those of calls that failed, perhaps after Redis had carried them out.

A ticket that stays behind holds up a conversation until it expires; so it is tried, until then, to give it back.
"""

import asyncio
import time
from typing import Any, Awaitable, Callable, Dict, NamedTuple, Optional

_PAUSE_S = 1.0


class _Ticket(NamedTuple):
    conversation_id: str
    expired_at: float
    missed: bool


class Owed:
    """Gives tickets back in the background, one after the other, in one task of one event loop.

    ``give_back``: takes a conversation id and an owner, returns whether the ticket was there. ``is_outage``: whether an
    error says that Redis cannot do it for now. A ticket that is not there is looked for once more a second later: what
    was sent before, on a connection that is closed by now, may be carried out after what is sent now.
    """

    def __init__(
        self, give_back: Callable[[str, str], Awaitable[bool]], is_outage: Callable[[BaseException], bool]
    ) -> None:
        self._give_back = give_back
        self._is_outage = is_outage
        self._tickets: Dict[str, _Ticket] = {}
        self._task: Optional[asyncio.Task[Any]] = None

    def add(self, conversation_id: str, owner: str, lifetime_s: float) -> None:
        """Give back the ticket of an owner, which expires within so many seconds, as soon as Redis is there."""
        self._tickets[owner] = _Ticket(conversation_id, time.monotonic() + lifetime_s, False)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._give_all_back())

    async def close(self) -> None:
        """Give up what is owed."""
        self._tickets.clear()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _give_all_back(self) -> None:
        while True:
            await self._try_all()
            if not self._tickets:
                return
            await asyncio.sleep(_PAUSE_S)

    async def _try_all(self) -> None:
        for owner, ticket in list(self._tickets.items()):
            if time.monotonic() < ticket.expired_at:
                try:
                    if not await self._give_back(ticket.conversation_id, owner) and not ticket.missed:
                        self._tickets[owner] = ticket._replace(missed=True)
                        continue
                except Exception as error:
                    if self._is_outage(error):
                        return
                    # Redis will not have it, now or later.
            self._tickets.pop(owner, None)
