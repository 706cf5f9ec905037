"""A store's operations as steps without I/O, and the drivers that carry them out on a client.

An operation is a generator that yields Redis commands and is sent their replies, so that its logic is written once;
:func:`run` and :func:`arun` are all that differs between a blocking host and an async one.
"""

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any, Generator, NamedTuple, Optional, Tuple, TypeVar, Union

import redis

from extras import budget
from extras.bounded import AsyncBudget
from extras.budget import OUTAGES, Budget, CallTimeoutError, Limits, UnsettledError

if TYPE_CHECKING:
    from extras.async_routed import AsyncRoutedRedis
    from extras.async_store import AsyncStoreRedis

Argument = Union[bytes, str, int, float]


class Together(NamedTuple):
    """Commands that one connection carries out, one right behind the other; the reply is the list of theirs."""

    commands: Tuple[Tuple[Argument, ...], ...]


Command = Union[Tuple[Argument, ...], Together]
Result = TypeVar("Result")
Steps = Generator[Command, Any, Result]
"""An operation as steps: yields a command, is sent its reply, returns the result."""

_NO_LIMITS = Limits()


class Script:
    """A Lua script that Redis keeps: sent once to each server, called by its SHA-1 from then on."""

    def __init__(self, source: str) -> None:
        self._source = source.encode()
        self._sha = hashlib.sha1(self._source).hexdigest()

    def call(self, key: bytes, *arguments: Argument, another: Optional[bytes] = None) -> "Steps[Any]":
        """Run the script on one key, or on two that are in the same slot of a cluster; return its reply."""
        keys = (1, key) if another is None else (2, key, another)
        try:
            return (yield ("EVALSHA", self._sha, *keys, *arguments))
        except redis.exceptions.NoScriptError:
            return (yield ("EVAL", self._source, *keys, *arguments))


def run(client: "redis.Redis", steps: "Steps[Result]", per_command: bool = False) -> Result:
    """Carry out ``steps`` on a blocking client, within the client's ``limits`` if it has any.

    ``per_command``: ``call_timeout`` is for each command, not for all of them: of what takes as long as there are
    conversations. An error that Redis replied is raised at the step that caused it, one of an outage when repeating has
    not helped. Raises :class:`~extras.budget.CallTimeoutError` when the time is over.
    """
    current = Budget(getattr(client, "limits", _NO_LIMITS))
    budget.enter(current)
    try:
        command = next(steps)
        while True:
            if per_command:
                current.renew()
            try:
                reply = _carried_out(client, command, current)
            except CallTimeoutError:
                raise
            except redis.RedisError as error:
                command = steps.throw(error)
            else:
                command = steps.send(reply)
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        budget.leave(current)
        steps.close()


def _carried_out(client: "redis.Redis", command: Command, current: Budget) -> Any:
    failures = 0
    while True:
        try:
            if type(command) is Together:
                current.begin(command.commands[0])
                return client.together(command.commands)  # type: ignore[attr-defined]
            current.begin(command)
            return client.execute_command(*command)
        except OUTAGES as error:
            failures += 1
            pause_s = current.pause_s(error, failures)
            if pause_s is None:
                if _replied(error) is not error:
                    raise _replied(error) from None
                raise
        except redis.ResponseError as error:
            noted = getattr(client, "noted", None)
            outage = None if noted is None else noted(error)
            if outage is None:
                raise
            failures += 1
            pause_s = current.pause_s(outage, failures)
            if pause_s is None:
                raise
        time.sleep(pause_s)


def _replied(error: Exception) -> Exception:
    """Return what the caller is to see of an error that repeating has not helped."""
    return error.replied or error if isinstance(error, UnsettledError) else error


async def arun(
    client: "Union[AsyncStoreRedis, AsyncRoutedRedis]", steps: "Steps[Result]", per_command: bool = False
) -> Result:
    """Carry out ``steps`` on an async client; see :func:`run`."""
    current = AsyncBudget(client.limits, asyncio.get_running_loop())
    budget.enter(current)
    try:
        command, failures = next(steps), 0
        while True:
            asked: Any = None
            try:
                if type(command) is Together:
                    current.begin(command.commands[0])
                    reply = await current.bounded(client.together(command.commands))
                else:
                    current.begin(command)
                    answer = None
                    if failures == 0:
                        asked = command
                        answer = client.ask(command)
                    if answer is None:
                        asked = None
                        reply = await current.bounded(client.execute_command(*command))
                    else:
                        current.answer = answer
                        reply = await answer
            except CallTimeoutError:
                raise
            except redis.RedisError as error:
                noted = client.noted(error, asked)
                pause_s = current.pause_s(noted, failures + 1) if isinstance(noted, OUTAGES) else None
                if pause_s is None:
                    command, failures = steps.throw(_replied(noted)), 0
                    continue
            else:
                command, failures = steps.send(reply), 0
                if per_command:
                    current.renew()
                continue
            failures += 1
            await asyncio.sleep(pause_s)
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        current.end()
        budget.leave(current)
        steps.close()
