"""A client for tasks of event loops, for a cluster, or for the master that Sentinels watch.

Where a command goes, :mod:`extras.topology` says; each server has a multiplexed connection for each event loop, an
:class:`~extras.async_store.AsyncStoreRedis`.
"""

import asyncio
from typing import Any, Callable, Dict, List, Optional, Sequence

from redis.exceptions import RedisError, ResponseError

from extras import budget
from extras.async_store import AsyncStoreRedis
from extras.budget import Limits, UnsettledError
from extras.layout import Address
from extras.per_loop import PerLoop
from extras.replies import copied
from extras.topology import Sending, Topology, carried_out


class _Discoveries:
    """One at a time for each event loop; who has waited for another's takes part in what came of it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.failure: Optional[Exception] = None


class AsyncRoutedRedis:
    """What a store uses of :class:`~extras.async_store.AsyncStoreRedis`, on more than one server.

    ``make_node`` and ``make_seed``: as :class:`extras.routed.RoutedRedis` has them.
    """

    limits = Limits()

    def __init__(
        self,
        topology: Topology,
        make_node: Callable[[Address], AsyncStoreRedis],
        make_seed: Callable[[Address], AsyncStoreRedis],
    ) -> None:
        self.topology = topology
        self._make_node = make_node
        self._make_seed = make_seed
        self._nodes: Dict[Address, AsyncStoreRedis] = {}
        self._seeds: Dict[Address, AsyncStoreRedis] = self._nodes if make_seed is make_node else {}
        self._discoveries: PerLoop[_Discoveries] = PerLoop(lambda discoveries: None)

    def ask(self, command: Sequence[Any]) -> "Optional[asyncio.Future[Any]]":
        """Send a command to its server at once, and return its reply to come; see :meth:`AsyncStoreRedis.ask`."""
        if self.topology.needs_discovery or command[0] in ("MGET", "SCAN"):
            return None
        route = self.topology.route(command)
        node = None if route is None else self._nodes.get(route.address)
        return None if node is None else node.ask(command)

    def noted(self, error: Exception, asked: Optional[Sequence[Any]]) -> Exception:
        """Note what an error says about where commands go; return what it is to whoever has asked.

        ``asked``: the command of :meth:`ask`; errors of the other methods are noted already.
        """
        route = None if asked is None else self.topology.route(asked)
        found = None if route is None else self.topology.noted(error, route.address)
        if found is None:
            return error
        if isinstance(found, UnsettledError):
            return found
        return UnsettledError(f"sent on to {found.address[0]}:{found.address[1]}", error)

    async def execute_command(self, *args: Any) -> Any:
        """Carry out a command where it belongs, also after a server has sent it on."""
        if args[0] == "MGET":
            return list(await asyncio.gather(*map(self._text_at, args[1:])))
        return (await self._carried_out((args,)))[0]

    async def together(self, commands: Sequence[Sequence[Any]]) -> List[Any]:
        """Carry out commands that belong to the first one on one connection; see :meth:`AsyncStoreRedis.together`."""
        return await self._carried_out(commands)

    async def _text_at(self, key: Any) -> Any:
        try:
            return await self.execute_command("GET", key)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                return None
            raise

    async def _carried_out(self, commands: Sequence[Sequence[Any]]) -> List[Any]:
        steps = carried_out(self.topology, *commands)
        try:
            sending = next(steps)
            while True:
                try:
                    replies = await (self._discover() if sending is None else self._send(sending))
                except RedisError as error:
                    sending = steps.throw(error)
                else:
                    sending = steps.send(replies)
        except StopIteration as done:
            return list(done.value)
        finally:
            steps.close()

    async def _send(self, sending: Sending) -> List[Any]:
        node = self._nodes.get(sending.address)
        if node is None:
            node = self._nodes.setdefault(sending.address, self._make_node(sending.address))
        if len(sending.commands) == 1:
            return [await node.execute_command(*sending.commands[0])]
        return await node.together(sending.commands)

    async def _discover(self) -> None:
        mine = self._discoveries.current(_Discoveries)
        version, failure = self.topology.version, mine.failure
        budget.waiting_for("somebody to say where conversations are")
        async with mine.lock:
            if self.topology.version == version:
                if mine.failure is not None and mine.failure is not failure:
                    raise copied(mine.failure)  # of the one that this waited for
                try:
                    await self._ask_seeds()
                except RedisError as error:
                    mine.failure = copied(error)
                    raise
        budget.waiting_for_a_reply()

    async def _ask_seeds(self) -> None:
        steps = self.topology.discovery()
        try:
            question = next(steps)
            while True:
                host, port = question.address
                budget.waiting_for(f"{host}:{port} to say where conversations are")
                seed = self._seeds.get(question.address)
                if seed is None:
                    seed = self._seeds.setdefault(question.address, self._make_seed(question.address))
                try:
                    reply = await seed.execute_command(*question.command)
                except RedisError as error:
                    question = steps.throw(error)
                else:
                    question = steps.send(reply)
        except StopIteration:
            return
        finally:
            steps.close()

    async def aclose(self) -> None:
        """Close the running loop's connections to all servers; the next command opens new ones."""
        self._discoveries.pop()
        for client in {id(client): client for client in (*self._nodes.values(), *self._seeds.values())}.values():
            await client.aclose()
