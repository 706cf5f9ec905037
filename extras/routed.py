"""A blocking client for a cluster, or for the master that Sentinels watch: each command goes where it belongs.

Where that is, :mod:`extras.topology` says; what travels there is a :class:`~extras.client.FastRedis`'s of that server.
"""

import time
from contextlib import suppress
from typing import Any, Callable, Dict, List, Sequence

import redis

from extras import budget
from extras.budget import Limits, UnsettledError
from extras.layout import Address
from extras.slots import Next, next_attempt
from extras.topology import Sending, Topology, carried_out

_ATTEMPTS = 10
_PAUSE_S = 0.1
_LOOK_S = 1.0
"""How often a subscription asks whether its server is still a master."""


class RoutedRedis(redis.Redis):
    """``redis.Redis`` for a store's commands, and those of the command line, on more than one server.

    ``make_node``: makes the client of a server with conversations. ``make_seed``: of one that knows where those are, a
    Sentinel; a cluster's nodes are both. Commands without a key go to any master, ``SCAN`` goes over all of them.
    """

    connection: Any = None  # this and the next are for redis-py's __del__
    auto_close_connection_pool = False
    limits = Limits()

    def __init__(
        self,
        topology: Topology,
        make_node: Callable[[Address], Any],
        make_seed: Callable[[Address], Any],
    ) -> None:
        self.topology = topology
        self._make_node = make_node
        self._make_seed = make_seed
        self._nodes: Dict[Address, Any] = {}
        self._seeds: Dict[Address, Any] = self._nodes if make_seed is make_node else {}
        self.connection_pool: Any = _Pools(self)

    def node(self, address: Address) -> Any:
        """Return the client of one server."""
        return self._nodes.get(address) or self._nodes.setdefault(address, self._make_node(address))

    def seed(self, address: Address) -> Any:
        """Return the client of a server that knows where conversations are."""
        return self._seeds.get(address) or self._seeds.setdefault(address, self._make_seed(address))

    def masters(self) -> List[Address]:
        """Return the addresses of all masters, which are found out first if need be."""
        if self.topology.needs_discovery or not self.topology.masters:
            self.discover()
        return list(self.topology.masters)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command where it belongs, also after a server has sent it on. See redis-py's method."""
        if args[0] == "MGET":
            return [self._text_at(key) for key in args[1:]]
        return self._carried_out((args,), options)[0]

    def together(self, commands: Sequence[Sequence[Any]]) -> List[Any]:
        """Carry out commands that belong to the first one on its connection; see :meth:`StoreRedis.together`."""
        return self._carried_out(commands, {})

    def _text_at(self, key: Any) -> Any:
        try:
            return self.execute_command("GET", key)
        except redis.ResponseError as error:
            if "WRONGTYPE" in str(error):
                return None
            raise

    def _carried_out(self, commands: Sequence[Sequence[Any]], options: Dict[str, Any]) -> List[Any]:
        steps = carried_out(self.topology, *commands)
        try:
            sending = next(steps)
            while True:
                try:
                    replies = self.discover() if sending is None else self._send(sending, options)
                except redis.RedisError as error:
                    sending = steps.throw(error)
                else:
                    sending = steps.send(replies)
        except StopIteration as done:
            return list(done.value)
        finally:
            steps.close()

    def _send(self, sending: Sending, options: Dict[str, Any]) -> List[Any]:
        node = self.node(sending.address)
        if len(sending.commands) == 1:
            return [node.execute_command(*sending.commands[0], **options)]
        return list(node.together(sending.commands))

    def discover(self) -> List[Any]:
        """Find out where commands go; there is nothing to return."""
        steps = self.topology.discovery()
        try:
            question = next(steps)
            while True:
                host, port = question.address
                budget.waiting_for(f"{host}:{port} to say where conversations are")
                try:
                    reply = self.seed(question.address).execute_command(*question.command)
                except redis.RedisError as error:
                    question = steps.throw(error)
                else:
                    question = steps.send(reply)
        except StopIteration:
            budget.waiting_for_a_reply()
            return []
        finally:
            steps.close()

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Return what takes commands of any keys and carries them out server by server; a transaction has one key."""
        return _Batch(self, transaction)

    def pubsub(self, **kwargs: Any) -> Any:
        """Return a subscription at a master; every server of a cluster passes on what is published at another."""
        return _Subscription(self, kwargs)

    def clients(self) -> List[Any]:
        """Return the clients of all servers that were asked for anything."""
        return [*self._nodes.values(), *(self._seeds.values() if self._seeds is not self._nodes else ())]


class _Subscription:
    """A subscription that is given up when its server is no master any more.

    One that is frozen, or cut off from the others, says nothing, and keeps the connection.
    """

    def __init__(self, client: RoutedRedis, kwargs: Dict[str, Any]) -> None:
        self._client = client
        self._address = client.masters()[0]
        self._subscription = client.node(self._address).pubsub(**kwargs)
        self._looked_at = time.monotonic()
        self.subscribe = self._subscription.subscribe
        self.close = self._subscription.close

    def get_message(self, *args: Any, **kwargs: Any) -> Any:
        """See redis-py's method. Raises :class:`~extras.budget.UnsettledError` where another one has taken over."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            with suppress(redis.RedisError):  # nobody knows better, then
                self._client.discover()
            self._looked_at = time.monotonic()
            if self._address not in self._client.topology.masters:
                raise UnsettledError(f"{self._address[0]}:{self._address[1]} is no master any more")
        return self._subscription.get_message(*args, **kwargs)


class _Pools:
    """Stands for a connection pool where those of all servers are meant."""

    def __init__(self, client: RoutedRedis) -> None:
        self._client = client

    def disconnect(self) -> None:
        for client in self._client.clients():
            client.connection_pool.disconnect()

    def make_connection(self) -> Any:
        return self._client.node(self._client.masters()[0]).connection_pool.make_connection()


class _Batch:
    def __init__(self, client: RoutedRedis, transaction: bool) -> None:
        self._client = client
        self._transaction = transaction
        self._commands: List[Sequence[Any]] = []

    def __enter__(self) -> "_Batch":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._commands = []

    def execute_command(self, *command: Any) -> "_Batch":
        self._commands.append(command)
        return self

    def execute(self, raise_on_error: bool = True) -> List[Any]:
        replies: List[Any] = [None] * len(self._commands)
        places = list(range(len(replies)))
        for attempt in range(1, _ATTEMPTS + 1):
            places = self._attempt(places, replies)
            if not places or attempt == _ATTEMPTS:
                break
            time.sleep(_PAUSE_S)
        failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if failed is not None and (raise_on_error or places):
            raise failed
        return replies

    def _attempt(self, places: List[int], replies: List[Any]) -> List[int]:
        """Carry out the commands at some places; return those to carry out again, for what servers said of them."""
        by_server: Dict[Address, List[int]] = {}
        for place in places:
            by_server.setdefault(self._server_of(self._commands[place]), []).append(place)
        again: List[int] = []
        for address, here in by_server.items():
            found = self._sent(address, [self._commands[place] for place in here])
            for place, reply in zip(here, found):
                replies[place] = reply
                meaning = next_attempt(reply) if isinstance(reply, Exception) else Next.NONE
                if meaning is Next.NONE:
                    continue
                self._client.topology.noted(reply, address)
                if meaning is Next.ASK and not self._transaction:
                    replies[place] = self._client.execute_command(*self._commands[place])
                elif meaning is not Next.LOST or not self._transaction:
                    again.append(place)
        return again

    def _server_of(self, command: Sequence[Any]) -> Address:
        if self._client.topology.needs_discovery:
            self._client.masters()
        route = self._client.topology.route(command)
        if route is None:
            raise UnsettledError("nobody has the slot of the key at present")
        return route.address

    def _sent(self, address: Address, commands: List[Sequence[Any]]) -> List[Any]:
        try:
            with self._client.node(address).pipeline(transaction=self._transaction) as batch:
                for command in commands:
                    batch.execute_command(*command)
                return list(batch.execute(raise_on_error=False))
        except redis.RedisError as error:
            return [error] * len(commands)
