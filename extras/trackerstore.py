"""Rasa's tracker store on Redis: ``type: extras.trackerstore.ExtraRedisTrackerStore`` in ``endpoints.yml``.

Rasa takes an ``ImportError`` or ``AttributeError`` from a custom store for "not found", and goes on with an in-memory
store that forgets every conversation at the next restart. Neither may leave this module: they become errors of ours.
"""

import asyncio
import json
import logging
import time
from functools import lru_cache, partial
from typing import Any, Dict, List, Optional

try:
    from extras.loading import RasaException, nothing_swallowed, refuse_misspelt
except (ImportError, AttributeError) as error:
    raise RuntimeError(
        f"{__file__}: modules of rasa-extras beside it are missing or not its own ({error}): another folder or package "
        f"named extras is in the way; run rasa-extras doctor, and pip install --force-reinstall rasa-extras"
    ) from error


class TrackerStoreError(RasaException):  # type: ignore[misc]
    """The store cannot start or do what it was asked to; the message says what to do."""


_nothing_swallowed = partial(nothing_swallowed, "ExtraRedisTrackerStore", TrackerStoreError)

with _nothing_swallowed("loading"):
    from extras import _rasa, _rasa_logs, telemetry
    from extras import outage as outages
    from extras import relay as relays
    from extras.acknowledged import NotAcknowledgedError
    from extras.backlog import State
    from extras.budget import CallTimeoutError
    from extras.configured import AsyncClient, SyncClient, acks
    from extras.conversation import TRACKER_INFIX, Conversations, UserIndex, load_many
    from extras.diagnosis import Diagnosis
    from extras.endpoint import parse_without
    from extras.lastknown import RememberingConversations
    from extras.outage import Outage
    from extras.outbox import erase_outbox
    from extras.refusals import RefusedError
    from extras.relay import Relay
    from extras.steps import Steps, arun, run
    from extras.turns import Tracker, Turns

logger = logging.getLogger(__name__)

_OF_BROKER = ("stream", "maxlen")


class DocumentError(TrackerStoreError, _rasa.DocumentErrorBase):  # type: ignore[misc]
    """A stored conversation cannot be read. The message names its key; it is never overwritten."""


class StoreTimeoutError(TrackerStoreError, CallTimeoutError):
    """A call took longer than ``call_timeout``. The message says for what it waited, ``__cause__`` what failed last."""


class StoreNotAcknowledgedError(TrackerStoreError, NotAcknowledgedError):
    """A save is stored at the master, but not at as many replicas as ``min_replicas_ack`` asks for; save it again."""


class StoreRefusedError(TrackerStoreError, RefusedError):
    """Redis refuses the store, or is not to be trusted; the message names option and way out, the cause is redis-py's.

    Of a certificate, a version of TLS, a user, a password, a right, a database: what asking again does not mend.
    """


@lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
    """Log a warning; the host may make its store again and again."""
    logger.warning("ExtraRedisTrackerStore: %s", text)


class _Store(_rasa.TrackerStore, _rasa.SerializedTrackerAsText):  # type: ignore[misc]
    """What both kinds of host share: options, and each operation as steps without I/O."""

    def __init__(
        self,
        domain: Optional[Any] = None,
        host: Optional[str] = None,
        event_broker: Optional[Any] = None,
        **options: Any,
    ) -> None:
        """Check the options; nothing connects before the first conversation.

        ``host`` is what Rasa calls the ``url`` of ``endpoints.yml``; ``options`` are described in
        :mod:`extras.options`. Raises :class:`TrackerStoreError`, which names the option and the way out.
        """
        with _nothing_swallowed("the start of the store"):
            if host is not None:
                options.setdefault("url", host)
            parsed = parse_without(options, _OF_BROKER, "is about the stream of the event broker")
            self.options = _rasa.with_iam(parsed, "tracker_store")
            for warning in self.options.contradictions():
                _warn_once(warning)
            self._diagnosis = Diagnosis(self.options)
            _rasa_logs.begin()
            telemetry.begin()
            self._open()
            super().__init__(domain, event_broker)
            self.record_exp = self.options.record_exp
            own = self.options.key_prefix
            self.key_prefix = f"{own}:{TRACKER_INFIX}" if own else _rasa.STOCK_PREFIX
            self._outage: Optional[Outage] = None
            self._user_index = UserIndex(self.key_prefix)
            self._conversations = self._documents()
            self._relay: Optional[Relay] = None
            if self.options.publish == "outbox" and event_broker is not None:
                self._relay = relays.shared(self.options, self.key_prefix, event_broker)
            filled = None if self._relay is None else self._relay.filled
            acks_ = acks(self.options)
            self._turns = Turns(self, self._conversations, self._conversations, self._user_index, acks_, filled)
            if self._outage is not None:
                self._outage.serve(self, self._turns)
            elif isinstance(self._conversations, RememberingConversations):
                self._outage = Outage(self, self.options, self._conversations, self._turns)

    def _open(self) -> None:
        raise NotImplementedError

    def _documents(self) -> Conversations:
        arguments = self.key_prefix, self.options.scan_count, self.options.read_unprefixed_keys
        if self.options.on_outage != "journal":
            return Conversations(*arguments)
        self._outage = outages.shared(self.options)
        return RememberingConversations(*arguments) if self._outage is None else self._outage.conversations

    def init_tracker(self, *args: Any, **kwargs: Any) -> Tracker:
        """Make a tracker as the host does; when it is saved, nothing that others have stored is overwritten."""
        tracker = super().init_tracker(*args, **kwargs)
        tracker._extras_maker = self._conversations
        return tracker

    def refuse(self, sender_id: str, error: Exception) -> DocumentError:
        """Return the error of a stored conversation that cannot be read."""
        key = self._conversations.key(sender_id).decode("utf-8", "replace")
        return DocumentError(
            f"the conversation stored under the Redis key {key!r} cannot be read and is left as it is: "
            f"{type(error).__name__}: {error}"
        )

    def _retrieve_steps(self, sender_id: str, whole: bool) -> Steps[Optional[Tracker]]:
        return self._turns.retrieve(sender_id, whole)

    def _save_steps(self, tracker: Tracker, expires_after_s: Optional[float]) -> Steps[List[Any]]:
        """Store what is new of a tracker and return those events."""
        return self._turns.save(tracker, expires_after_s or self.record_exp)

    def _replace_steps(self, sender_id: str, tracker: Tracker) -> Steps[None]:
        document = _rasa.serialise(self, tracker)
        yield from self._turns.kept(self._conversations.replace(sender_id, document, self.record_exp))
        yield from self._turns.kept(self._turns.index(sender_id, tracker, self.record_exp))

    def outage_journal(self) -> Optional[State]:
        """Return what the journal holds that Redis does not have yet, ``None`` without ``on_outage: journal``."""
        return None if self._outage is None else self._outage.state()

    def unpublished_events(self) -> Optional[int]:
        """Return how many events wait for the event broker as far as this process knows, ``None`` without an outbox."""
        return None if self._relay is None else self._relay.depth()

    def _refuse_waiting(self, sender_id: str) -> None:
        if self._outage is not None and self._outage.is_waiting(sender_id):
            raise TrackerStoreError(
                f"the journal holds turns of {sender_id!r} that Redis does not have yet, and would bring back what is "
                f"deleted or replaced now; ask again when Redis has them"
            )

    def _delete_steps(self, sender_id: str) -> Steps[bool]:
        """Delete a conversation and its entry in the user index; return whether there was one."""
        sender_id = self._conversations.bare(sender_id)
        document = yield from self._conversations.load(sender_id)
        if document is None:
            return False
        parsed = _parsed(document)
        if parsed is None:
            logger.error("The document of %r cannot be read; it is deleted, the user index not looked at.", sender_id)
        elif parsed.get("user_id"):
            yield from self._user_index.remove(parsed["user_id"], [sender_id])
        yield from self._conversations.erase(sender_id)
        if self.options.publish == "outbox":
            yield from erase_outbox(self._conversations.key(sender_id))
        return True

    def _of_user_steps(self, user_id: str) -> Steps[List[Dict[str, Any]]]:
        """Return a user's conversations in the five fields of Rasa Pro's endpoint, oldest first."""
        sender_ids = yield from self._user_index.sender_ids(user_id, time.time())
        documents = yield from load_many(self._conversations, sender_ids)
        found: List[Dict[str, Any]] = []
        orphans: List[str] = []
        for sender_id, document in zip(sender_ids, documents):
            if document is None:
                orphans.append(sender_id)
                continue
            parsed = _parsed(document)
            if parsed is None:
                logger.error("The document of %r cannot be read and is left out.", sender_id)
            elif parsed.get("user_id") == user_id:
                found.append(self._endpoint_fields(sender_id, parsed))
        yield from self._user_index.remove(user_id, orphans)
        return sorted(found, key=self._sort_key_serialized)

    def _endpoint_fields(self, sender_id: str, document: Dict[str, Any]) -> Dict[str, Any]:
        started = document.get("conversation_started_timestamp")
        events = document.get("events") or []
        return {
            "sender_id": sender_id,
            "events": events,
            "user_id": document.get("user_id"),
            "conversation_started_timestamp": None if started is None else float(started),
            "current_session_id": self._current_session_id_from_events(events),
        }

    def _log_unpublished(self, tracker: Tracker, events: List[Any]) -> None:
        logger.exception(
            "The turn of %r is stored, but the event broker did not take all of its %d new events.",
            tracker.sender_id,
            len(events),
        )


def _parsed(document: bytes) -> Optional[Dict[str, Any]]:
    try:
        parsed = json.loads(document)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


class _AsyncStore(_Store):
    """The store on hosts whose tracker stores are coroutines (Rasa 3.3 and later): Redis never blocks the loop."""

    def _open(self) -> None:
        self._async = AsyncClient(self.options)

    async def _run(self, steps: "Steps[Any]", per_command: bool = False) -> Any:
        if telemetry.hooks is None:
            return await self._carried_out(steps, per_command)
        with telemetry.hooks.call(steps) as measured:
            return await self._carried_out(measured, per_command)

    async def _carried_out(self, steps: "Steps[Any]", per_command: bool) -> Any:
        began_at = time.monotonic()
        try:
            result = await arun(self._async.current(), steps, per_command)
        except CallTimeoutError as error:
            raise StoreTimeoutError(*error.args) from error.__cause__
        except NotAcknowledgedError as error:
            raise StoreNotAcknowledgedError(*error.args) from None
        except Exception as error:
            refusal = await self._diagnosis.aof(error, began_at)
            if refusal is None:
                raise
            raise StoreRefusedError(refusal) from error
        self._diagnosis.has_worked = True
        return result

    async def save(self, tracker: Tracker, timeout: Optional[float] = None) -> None:
        """Store the conversation, then publish its new events once.

        ``timeout``: seconds after which the conversation expires, instead of ``record_exp``. Raises redis-py's
        errors and :class:`DocumentError`, or ``OSError`` of a journal that cannot take it; then nothing was published.
        """
        events = await self._stored(tracker, timeout)
        if events and self.event_broker is not None and self._relay is None:
            try:
                await _rasa.publish_async(self, tracker, events)
            except Exception:
                self._log_unpublished(tracker, events)

    async def _stored(self, tracker: Tracker, timeout: Optional[float]) -> List[Any]:
        outage = self._outage
        if outage is None or not outage.takes(tracker.sender_id):
            try:
                new_events: List[Any] = await self._run(self._save_steps(tracker, timeout))
                return new_events
            except Exception as error:
                if outage is None or not outage.failed(error):
                    raise
        with outage.taking(tracker, timeout or self.record_exp) as taking:
            if taking.stored is not None:
                await asyncio.wrap_future(taking.stored)
        return taking.events

    async def _retrieved(self, sender_id: str, whole: bool) -> Optional[Tracker]:
        outage = self._outage
        if outage is None or not outage.serves(sender_id, whole):
            try:
                return await self._run(self._retrieve_steps(sender_id, whole))
            except Exception as error:
                if outage is None or not outage.failed(error) or not outage.knows(sender_id, whole):
                    raise
        return outage.retrieve(sender_id, whole)

    async def retrieve(self, sender_id: str) -> Optional[Tracker]:
        """Return the latest session of a conversation, or ``None``."""
        return await self._retrieved(sender_id, whole=False)

    async def retrieve_full_tracker(self, sender_id: str) -> Optional[Tracker]:
        """Return all sessions of a conversation, or ``None``."""
        return await self._retrieved(sender_id, whole=True)

    async def exists(self, conversation_id: str) -> bool:
        """Return whether a conversation is stored, without reading it."""
        if self._outage is not None and self._outage.is_waiting(conversation_id):
            return True
        return bool(await self._run(self._conversations.exists(conversation_id)))

    async def keys(self) -> List[str]:
        """Return the bare sender ids of all conversations, each once; ``call_timeout`` is for each step of the scan."""
        found: List[str] = await self._run(self._conversations.sender_ids(), per_command=True)
        return found

    async def delete(self, sender_id: str) -> None:
        """Delete a conversation and its entry in the user index (Rasa Pro)."""
        self._refuse_waiting(sender_id)
        deleted = await self._run(self._delete_steps(sender_id))
        logger.info("Deleted conversation %r." if deleted else "There is no conversation %r to delete.", sender_id)

    async def update(self, tracker: Tracker, apply_deletion_only: bool = True) -> None:
        """Replace the stored conversation by ``tracker`` as it is (Rasa Pro); nothing is published."""
        sender_id = self._conversations.bare(tracker.sender_id)
        self._refuse_waiting(sender_id)
        await self._run(self._replace_steps(sender_id, tracker))

    async def get_serialized_trackers_by_user_id(
        self, user_id: str, limit: Optional[int] = None, skip: Optional[int] = None
    ) -> List[Dict[str, Any]]:
        """Return a user's conversations (Rasa Pro), oldest first, without replaying them."""
        found = await self._run(self._of_user_steps(user_id))
        page: List[Dict[str, Any]] = self._apply_pagination_serialized(found, skip, limit)
        return page

    async def close(self) -> None:
        """Close this loop's connection, unless another store uses it; the store stays usable and opens a new one."""
        await self._async.close()
        if self._relay is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._relay.close)
        if self._outage is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._outage.close)


class _SyncStore(_Store):
    """The store on hosts whose tracker stores are plain functions (before Rasa 3.3)."""

    def _open(self) -> None:
        self._sync = SyncClient(self.options)

    def _run(self, steps: "Steps[Any]", per_command: bool = False) -> Any:
        if telemetry.hooks is None:
            return self._carried_out(steps, per_command)
        with telemetry.hooks.call(steps) as measured:
            return self._carried_out(measured, per_command)

    def _carried_out(self, steps: "Steps[Any]", per_command: bool) -> Any:
        began_at = time.monotonic()
        try:
            result = run(self._sync.current(), steps, per_command)
        except CallTimeoutError as error:
            raise StoreTimeoutError(*error.args) from error.__cause__
        except NotAcknowledgedError as error:
            raise StoreNotAcknowledgedError(*error.args) from None
        except Exception as error:
            refusal = self._diagnosis.of(error, began_at)
            if refusal is None:
                raise
            raise StoreRefusedError(refusal) from error
        self._diagnosis.has_worked = True
        return result

    def save(self, tracker: Tracker, timeout: Optional[float] = None) -> None:
        """Store the conversation, then publish its new events once; see :meth:`_AsyncStore.save`."""
        events = self._stored(tracker, timeout)
        if events and self.event_broker is not None and self._relay is None:
            try:
                _rasa.publish(self, tracker, events)
            except Exception:
                self._log_unpublished(tracker, events)

    def _stored(self, tracker: Tracker, timeout: Optional[float]) -> List[Any]:
        outage = self._outage
        if outage is None or not outage.takes(tracker.sender_id):
            try:
                new_events: List[Any] = self._run(self._save_steps(tracker, timeout))
                return new_events
            except Exception as error:
                if outage is None or not outage.failed(error):
                    raise
        with outage.taking(tracker, timeout or self.record_exp) as taking:
            if taking.stored is not None:
                taking.stored.result()
        return taking.events

    def _retrieved(self, sender_id: str, whole: bool) -> Optional[Tracker]:
        outage = self._outage
        if outage is None or not outage.serves(sender_id, whole):
            try:
                return self._run(self._retrieve_steps(sender_id, whole))
            except Exception as error:
                if outage is None or not outage.failed(error) or not outage.knows(sender_id, whole):
                    raise
        return outage.retrieve(sender_id, whole)

    def retrieve(self, sender_id: str) -> Optional[Tracker]:
        """Return the conversation as the host's stock store would, or ``None``."""
        return self._retrieved(sender_id, whole=False)

    def retrieve_full_tracker(self, sender_id: str) -> Optional[Tracker]:
        """Return all sessions of a conversation, or ``None``."""
        return self._retrieved(sender_id, whole=True)

    def exists(self, conversation_id: str) -> bool:
        """Return whether a conversation is stored, without reading it."""
        if self._outage is not None and self._outage.is_waiting(conversation_id):
            return True
        return bool(self._run(self._conversations.exists(conversation_id)))

    def keys(self) -> List[str]:
        """Return the bare sender ids of all conversations, each once; ``call_timeout`` is for each step of the scan."""
        found: List[str] = self._run(self._conversations.sender_ids(), per_command=True)
        return found

    def close(self) -> None:
        """Close the connections that no other store uses; the store stays usable and opens new ones when needed."""
        self._sync.close()
        if self._relay is not None:
            self._relay.close()
        if self._outage is not None:
            self._outage.close()


class ExtraRedisTrackerStore(_AsyncStore if _rasa.IS_ASYNC else _SyncStore):  # type: ignore[misc]  # the host decides
    """Conversations in Redis, in the stock store's format, over connections that notice a dead server.

    Named in ``endpoints.yml``; the options are those of :class:`extras.options.Options`.
    """


def __getattr__(name: str) -> Any:
    """Refuse a misspelt class name: Rasa would go on in memory after the usual ``AttributeError``."""
    refuse_misspelt(__name__, name, "ExtraRedisTrackerStore", TrackerStoreError)
