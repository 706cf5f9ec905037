"""Rasa's lock store on Redis: ``type: extras.lockstore.ExtraRedisLockStore`` in ``endpoints.yml``.

One turn of a conversation at a time, in the order in which they were asked for. Rasa asks through ``lock()`` alone,
which never blocks the event loop; the other methods of its lock stores are plain functions, and wait for Redis.
"""

import asyncio
import json
import logging
import time
import uuid
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, AsyncGenerator, Optional

try:
    from extras.errors import OptionError
    from extras.loading import RasaException, nothing_swallowed, refuse_misspelt
except (ImportError, AttributeError) as error:
    raise RuntimeError(
        f"{__file__}: modules of rasa-extras beside it are missing or not its own ({error}): another folder or package "
        f"named extras is in the way; run rasa-extras doctor, and pip install --force-reinstall rasa-extras"
    ) from error


class LockStoreError(RasaException):  # type: ignore[misc]
    """The lock store cannot start; the message says what to do."""


_nothing_swallowed = partial(nothing_swallowed, "ExtraRedisLockStore", LockStoreError)

with _nothing_swallowed("loading"):
    from extras import _rasa_locks, _rasa_logs, _redis
    from extras._rasa_locks import LOCK_LIFETIME, LockError, TicketLock
    from extras.configured import AsyncClient, sync_client
    from extras.diagnosis import Diagnosis
    from extras.endpoint import NO_LOCKS, OF_LOCKS, given_in, parse_without
    from extras.failures import is_outage
    from extras.listener import Listener
    from extras.options import Options, parse
    from extras.owed import Owed
    from extras.per_loop import PerLoop
    from extras.steps import Steps, arun, run
    from extras.threaded import ThreadedClient
    from extras.tickets import LOCK_INFIX, Place, Queues

logger = logging.getLogger(__name__)

_SOONEST_S = 0.1
_PAUSE_S = 0.5
_NOT_YET_ISSUED = -1


class ExtraRedisLockStore(_rasa_locks.LockStore):  # type: ignore[misc]
    """Ticket locks in Redis, in the stock store's format, that never block the event loop.

    Named in ``endpoints.yml``; the options are those of :class:`extras.options.Options` that are about the connection,
    and ``key_prefix``.
    """

    def __init__(self, endpoint_config: Any) -> None:
        """Check the options; nothing connects before the first lock.

        Raises :class:`LockStoreError`, which names the option and the way out.
        """
        with _nothing_swallowed("the start of the lock store"):
            _rasa_logs.begin()
            options = self.options = _rasa_locks.with_iam(_parse(endpoint_config), "lock_store")
            self._diagnosis = Diagnosis(options)
            self._client = sync_client(options)
            self._async = AsyncClient(options) if _redis.HAS_ASYNCIO else None
            self._thread = ThreadedClient(self._client, options.call_timeout)
            self.key_prefix = f"{options.key_prefix}:{LOCK_INFIX}" if options.key_prefix else _rasa_locks.STOCK_PREFIX
            self._queues = Queues(self.key_prefix)
            self._listener = Listener(self._queues.channel, lambda: sync_client(options))
            self._owed: PerLoop[Owed] = PerLoop(lambda owed: None)
            super().__init__()

    async def _carry_out(self, steps: "Steps[Any]") -> Any:
        if self._async is None:
            result = await self._thread.run(steps)
        else:
            result = await arun(self._async.current(), steps)
        self._diagnosis.has_worked = True
        return result

    def _run(self, steps: "Steps[Any]") -> Any:
        began_at = time.monotonic()
        try:
            return run(self._client, steps)
        except Exception as error:
            refusal = self._diagnosis.of(error, began_at)
            if refusal is None:
                raise
            raise LockStoreError(f"ExtraRedisLockStore: {refusal}") from error

    @asynccontextmanager
    async def lock(
        self, conversation_id: str, lock_lifetime: float = LOCK_LIFETIME, wait_time_in_seconds: float = 1
    ) -> AsyncGenerator[TicketLock, None]:
        """Hold the lock of a conversation, once everybody who asked for it before has given it back or has expired.

        ``lock_lifetime``: seconds, from now on, after which others go on in any case. ``wait_time_in_seconds``: a
        waiter is called when its turn comes; beside that it looks so often, less often the more others are before it.
        Raises the host's ``LockError`` where Redis does not answer, or where the lifetime is over before the turn has
        come.
        """
        owner = uuid.uuid4().hex
        place = await self._acquire(conversation_id, owner, lock_lifetime, wait_time_in_seconds)
        try:
            yield TicketLock.from_dict(json.loads(place.queue))
        finally:
            # Shielded, so that a second cancellation does not leave the ticket where it is.
            await asyncio.shield(self._give_back(conversation_id, owner, place.number, lock_lifetime))

    async def _acquire(self, conversation_id: str, owner: str, lifetime_s: float, wait_time_s: float) -> Place:
        logger.debug("Acquiring lock for conversation %r.", conversation_id)
        began_at = time.monotonic()
        number = _NOT_YET_ISSUED
        try:
            place: Place = await self._carry_out(self._queues.issue(conversation_id, owner, lifetime_s))
            number = place.number
            if place.ahead:
                place = await self._turn(conversation_id, owner, place, time.monotonic() + lifetime_s, wait_time_s)
        except LockError:
            raise
        except Exception as error:
            self._owe(conversation_id, owner, lifetime_s)
            why = await self._diagnosis.aof(error, began_at) or error
            raise LockError(f"Error while acquiring lock. Error:\n{why}") from error
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(conversation_id, owner, number, lifetime_s, waited=True))
            raise
        logger.debug("Acquired lock for conversation %r.", conversation_id)
        return place

    async def _turn(
        self, conversation_id: str, owner: str, place: Place, expires_at: float, wait_time_s: float
    ) -> Place:
        """Return when nobody is before a ticket any more. Redis may be away meanwhile for ``call_timeout``.

        What is before a ticket changes when the one right before it expires or is given back, and in the latter case
        its owner is called.
        """
        lost_at: Optional[float] = None
        patience_s = self.options.call_timeout
        with self._listener.waiting(owner) as waiter:
            while True:
                looked_at = time.monotonic()
                try:
                    steps = self._queues.look(conversation_id, owner, place.number)
                    found: Optional[Place] = await self._carry_out(steps)
                except Exception as error:
                    if not is_outage(error):
                        raise
                    now = time.monotonic()
                    lost_at = lost_at or looked_at
                    if now > expires_at or (patience_s is not None and now >= lost_at + patience_s):
                        raise
                    pause_s = _PAUSE_S
                else:
                    if found is None:  # expired, or deleted
                        raise LockError(f"Could not acquire lock for conversation_id '{conversation_id}'.")
                    if not found.ahead:
                        return found
                    lost_at = None
                    pause_s = min(max(wait_time_s, _SOONEST_S) * found.ahead, found.expires_in_s)
                    logger.debug("%d before this ticket for conversation %r.", found.ahead, conversation_id)
                await waiter.wait(min(pause_s, max(expires_at - time.monotonic(), _SOONEST_S)))

    async def _give_back(
        self, conversation_id: str, owner: str, number: int, lifetime_s: float, waited: bool = False
    ) -> None:
        """Give a ticket back, and let no error of that get in the way of the turn's own result or error."""
        try:
            found = await self._carry_out(self._queues.give_back(conversation_id, owner, number))
        except Exception as error:
            self._owe(conversation_id, owner, lifetime_s)
            logger.error(
                "The lock of conversation %r could not be given back, which is tried again until it expires: %s",
                conversation_id,
                error,
            )
        else:
            if not found and number == _NOT_YET_ISSUED:
                self._owe(conversation_id, owner, lifetime_s)
            elif not found and not waited:
                logger.warning(
                    "The lock of conversation %r was gone before its turn was over: it lasts %g s, as "
                    "TICKET_LOCK_LIFETIME says. Another turn may have begun meanwhile.",
                    conversation_id,
                    lifetime_s,
                )

    def _owe(self, conversation_id: str, owner: str, lifetime_s: float) -> None:
        async def give_back(conversation_id: str, owner: str) -> bool:
            return bool(await self._carry_out(self._queues.give_back(conversation_id, owner)))

        self._owed.current(lambda: Owed(give_back, is_outage)).add(conversation_id, owner, lifetime_s)

    def issue_ticket(self, conversation_id: str, lock_lifetime: float = LOCK_LIFETIME) -> int:
        """Issue a ticket and return its number. Blocks. Raises ``LockError``."""
        try:
            place = self._run(self._queues.issue(conversation_id, uuid.uuid4().hex, lock_lifetime))
        except Exception as error:
            raise LockError(f"Error while acquiring lock. Error:\n{error}") from error
        return int(place.number)

    def get_lock(self, conversation_id: str) -> Optional[TicketLock]:
        """Return the lock of a conversation, or ``None``. Blocks."""
        queue = self._run(self._queues.load(conversation_id))
        return None if queue is None else TicketLock.from_dict(json.loads(queue))

    def save_lock(self, lock: TicketLock) -> None:
        """Store a lock as it is, in place of what is there. Blocks; :meth:`lock` does not need it."""
        self._run(self._queues.replace(lock.conversation_id, lock.dumps(), LOCK_LIFETIME))

    def delete_lock(self, conversation_id: str) -> None:
        """Delete the lock of a conversation with all tickets; those who wait get ``LockError``. Blocks."""
        self._log_deletion(conversation_id, self._run(self._queues.erase(conversation_id)))

    def update_lock(self, conversation_id: str) -> None:
        """Remove expired tickets. Blocks."""
        self.finish_serving(conversation_id, _NOT_YET_ISSUED)

    def finish_serving(self, conversation_id: str, ticket_number: int) -> None:
        """Remove the ticket of a number, and the lock with the last one. Blocks."""
        self._run(self._queues.give_back(conversation_id, "", ticket_number))

    def cleanup(self, conversation_id: str, ticket_number: int) -> None:
        """Remove the ticket of a number, and the lock with the last one, whoever comes in between. Blocks."""
        self.finish_serving(conversation_id, ticket_number)

    async def close(self) -> None:
        """Close this event loop's connections; the lock store stays usable and opens new ones when needed."""
        owed = self._owed.pop()
        if owed is not None:
            await owed.close()
        await asyncio.get_running_loop().run_in_executor(None, self._listener.close)
        self._thread.close()
        self._client.connection_pool.disconnect()
        if self._async is not None:
            await self._async.close()


def _parse(endpoint_config: Any) -> Options:
    given = given_in(endpoint_config)
    options = parse_without(given, NO_LOCKS, OF_LOCKS)
    if given.get("db") in (None, ""):
        with suppress(OptionError):  # the url names another
            options = parse({**given, "db": _rasa_locks.STOCK_DB})
    return options


def __getattr__(name: str) -> Any:
    """Refuse a misspelt class name: Rasa would say that the module's path is wrong."""
    refuse_misspelt(__name__, name, "ExtraRedisLockStore", LockStoreError)
