"""Saves that count only when replicas have them, too: ``WAIT`` behind each change, on the connection that made it."""

from typing import Any, Dict, NamedTuple

from extras._redis import RedisError
from extras.routing import is_repeatable
from extras.slots import key_of
from extras.steps import Result, Steps, Together


class Acks(NamedTuple):
    """How many replicas must have a change, and how long to wait for them; 0 ms: for ever."""

    replicas: int
    timeout_ms: int


class NotAcknowledgedError(RedisError):
    """What was stored is stored at the master, but fewer replicas than ``min_replicas_ack`` said in time to have it."""


def acknowledged(steps: "Steps[Result]", acks: Acks) -> "Steps[Result]":
    """Carry out steps whose changes must be at so many replicas.

    Raises :class:`NotAcknowledgedError` at the end, when all is stored at the master; storing it again changes nothing.
    Of changes to one key the last one counts: who has that has those before it. Source: WAIT of the Redis commands.
    """
    acknowledgements: Dict[Any, int] = {}
    try:
        command = next(steps)
        while True:
            try:
                if isinstance(command, Together) or is_repeatable(command):
                    reply = yield command
                else:
                    reply, count = yield Together((command, ("WAIT", acks.replicas, acks.timeout_ms)))
                    acknowledgements[key_of(command)] = int(count)
            except Exception as error:
                command = steps.throw(error)
            else:
                command = steps.send(reply)
    except StopIteration as done:
        result: Result = done.value
    finally:
        steps.close()
    fewest = min(acknowledgements.values(), default=acks.replicas)
    if fewest < acks.replicas:
        raise NotAcknowledgedError(
            f"stored, but {fewest} of the {acks.replicas} replicas that min_replicas_ack asks for said so within "
            f"{acks.timeout_ms / 1000:g} s; to save it again adds nothing twice"
        )
    return result
