"""redis.asyncio's pipeline on the connection that all tasks share: one write, one wake-up, redis-py's results.

Where nothing failed the replies are turned into results here; where anything did, they are handed to redis-py's own
code one after the other, as if it read them from a connection, so that its errors are the ones raised.
"""

import inspect
from operator import itemgetter
from typing import Any, Callable, Iterable, List, Optional, Sequence

from redis.asyncio import client as _client
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from extras._redis import FOR_CACHE, callback_of, is_redis_pys
from extras.multiplexed import MultiplexedConnection
from extras.quick import QuickCommands
from extras.routing import is_name_shared, is_shared

PLAIN = frozenset({type(None), bool, int, float, str, bytes, list, dict, set, tuple})
"""Results that nobody has to await."""
_options_of = itemgetter(1)
_TEXT = frozenset({str, bytes})
_LASTING = frozenset({bool, bytes, str, int, float, type(None)})
"""Results of which one object may be given several times."""


class _Replayed:
    """A connection, as far as redis-py's pipeline uses one, on which the replies have come already."""

    def __init__(self, replies: Sequence[Any]) -> None:
        self._replies = iter(replies)

    def pack_commands(self, commands: Iterable[Any]) -> None:
        """Do nothing: they were sent."""

    async def send_packed_command(self, commands: None) -> None:
        """Do nothing: they were sent."""

    async def read_response(self) -> Any:
        """Return the next reply, or raise it."""
        reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        return reply


class AsyncFastPipeline(QuickCommands, _client.Pipeline):  # type: ignore[misc]  # of redis-py's own bases
    """``redis.asyncio.client.Pipeline`` that sends its batch on the shared connection, unless it watches keys.

    ``shared_connection``: returns the running loop's, ``None`` where the batch is to take redis-py's way.
    """

    def __init__(
        self,
        connection_pool: Any,
        response_callbacks: Any,
        transaction: bool,
        shard_hint: Optional[str],
        shared_connection: Callable[[], Optional[MultiplexedConnection]],
    ) -> None:
        super().__init__(connection_pool, response_callbacks, transaction, shard_hint)
        self._shared_connection = shared_connection

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Queue a command and return the pipeline; carry it out at once, as redis-py does, while keys are watched."""
        if (self.watching or args[0] == "WATCH") and not self.explicit_transaction:
            return self.immediate_execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.command_stack.append((args, kwargs))
        return self

    async def execute(self, raise_on_error: bool = True) -> List[Any]:
        """Carry out what is queued and return the results. Raises what redis-py raises."""
        connection = None
        if not (self.watching or self.connection or self.scripts) and self._may_be_shared():
            connection = self._shared_connection()
        if connection is None:
            results: List[Any] = await super().execute(raise_on_error)
            return results
        try:
            return await self._execute_on(connection, raise_on_error) if self.command_stack else []
        finally:
            await self.reset()  # type: ignore[no-untyped-call]

    def _may_be_shared(self) -> bool:
        known: Any = None
        for args, options in self.command_stack:
            if args[0] is not known:
                if not is_shared(args):
                    return False
                known = args[0] if is_name_shared(args[0]) else None
            if options and (NEVER_DECODE in options or EMPTY_RESPONSE in options):
                return False
        return True

    async def _execute_on(self, connection: MultiplexedConnection, raise_on_error: bool) -> List[Any]:
        stack: Any = self.command_stack
        commands = [args for args, _ in stack]
        is_transaction = self.is_transaction or self.explicit_transaction
        wire = [("MULTI",), *commands, ("EXEC",)] if is_transaction else commands
        replies, has_errors = await connection.execute_batch(wire, commands)
        results = replies
        if is_transaction:
            results = replies[-1]
            if type(results) is not list or len(results) != len(commands):
                has_errors = True
            elif not has_errors:
                has_errors = any(isinstance(result, Exception) for result in results)
        if has_errors:
            carry_out: Any = self._execute_transaction if is_transaction else self._execute_pipeline
            replayed: List[Any] = await carry_out(_Replayed(replies), stack, raise_on_error)
            return replayed
        return await self._called_back(stack, results)

    async def _called_back(self, stack: Any, replies: List[Any]) -> List[Any]:
        """Return what redis-py makes of the replies, none of which is an error."""
        callbacks = self.response_callbacks
        callback: Any = None
        result: Any = None
        first = replies[0]
        if type(first) in _TEXT and replies.count(first) == len(replies):
            names = {args[0] for args, _ in stack}
            if len(names) == 1 and not any(map(_options_of, stack)):  # "OK" throughout, for the most part
                callback = callback_of(callbacks, names.pop())
                if is_redis_pys(callback):
                    result = callback(first)
                    if type(result) in _LASTING:
                        return [result] * len(replies)
        name: Any = None
        is_pure = False
        known: Any = None
        for index, (args, options) in enumerate(stack):
            if args[0] is not name:
                name, known = args[0], None
                callback = callback_of(callbacks, name)
                is_pure = is_redis_pys(callback)
            if callback is None:
                continue
            reply = replies[index]
            if known is None or reply != known or options:
                options.pop(FOR_CACHE, None)
                result = callback(reply, **options)
                if type(result) not in PLAIN and inspect.isawaitable(result):
                    result = await result
                # Most are "OK" once more, of which redis-py's own makes what it made of the last.
                known = reply if is_pure and not options and type(result) is bool else None
            replies[index] = result
        return replies
