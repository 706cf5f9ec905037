"""Writers of conversations on a store's clients, blocking and asyncio, while something happens to the servers."""

import asyncio
import json
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from extras.acknowledged import NotAcknowledgedError, acknowledged
from extras.configured import AsyncClient, acks, sync_client
from extras.conversation import Conversations
from extras.document import SEPARATOR, Known, parse
from extras.options import parse as parsed_options
from extras.steps import Steps, arun, run

CALL_TIMEOUT_S = 15.0
GRACE_S = 3.0
"""How much later than its end a call may be seen to end, on a machine that is busy."""
SENDERS = ("alice", "bob", "carol", "dave")
"""Whose slots are those of three masters."""


def one(*command: Any) -> "Steps[Any]":
    """Carry out one command."""
    return (yield command)


def turn(conversations: Conversations, sender_id: str, text: str) -> "Steps[None]":
    """Append an event to a conversation, whoever else writes to it; a repeated one adds nothing."""
    event = json.dumps({"event": "user", "text": text, "timestamp": 1.0})
    closing = f'], "name": "{sender_id}"}}'
    while True:
        document = yield from conversations.load(sender_id)
        if document is None:
            first = f'{{"events": [{event}{closing}'.encode()
            if (yield from conversations.replace_if(sender_id, None, first, None)):
                return
            continue
        known = parse(document).known
        assert known is not None
        missing = b"" if json.dumps(text).encode() in document else f"{SEPARATOR}{event}".encode()
        if isinstance((yield from conversations.append(sender_id, known, missing, closing.encode(), None)), Known):
            return


class Save(NamedTuple):
    """One save: which text of whom, when it ended, how long it took, and its error."""

    sender_id: str
    text: str
    ended_at: float
    took_s: float
    error: Optional[Exception]


class Writers:
    """Writers, each of whom talks with all senders in turn until :meth:`stop`."""

    def __init__(self, side: str, conversations: Conversations, number: int = 4, **given: Any) -> None:
        self._numbers = range(number)
        self.options = parsed_options({"call_timeout": CALL_TIMEOUT_S, **given})
        self._conversations = conversations
        self._side = side
        self._stopping = threading.Event()
        self.saves: List[Save] = []
        self._sync: Any = sync_client(self.options) if side == "blocking" else None
        if side == "blocking":
            self._threads = [threading.Thread(target=self._write, args=(each,)) for each in self._numbers]
        else:
            self._threads = [threading.Thread(target=lambda: asyncio.run(self._write_all()))]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        self.wait_for(len(SENDERS) * 2)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.stop()

    def wait_for(self, saves: int, since: int = 0) -> None:
        """Wait until so many more saves were made without an error."""
        deadline = time.monotonic() + CALL_TIMEOUT_S * 2
        while sum(save.error is None for save in self.saves[since:]) < saves:
            assert time.monotonic() < deadline, self.saves[-8:]
            time.sleep(0.02)

    def stop(self) -> None:
        """Wait for the last saves."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._sync is not None:
            self._sync.connection_pool.disconnect()

    def _steps(self, sender_id: str, text: str) -> "Steps[None]":
        steps = turn(self._conversations, sender_id, text)
        asked = acks(self.options)
        return steps if asked is None else acknowledged(steps, asked)

    def _note(self, sender_id: str, text: str, started_at: float, error: Optional[Exception]) -> None:
        ended_at = time.monotonic()
        self.saves.append(Save(sender_id, text, ended_at, ended_at - started_at, error))

    def _write(self, number: int) -> None:
        count = 0
        while not self._stopping.wait(0.005):
            count += 1
            sender_id, text = SENDERS[count % len(SENDERS)], f"{number}-{count}"
            started_at, failure = time.monotonic(), None
            try:
                run(self._sync, self._steps(sender_id, text))
            except Exception as error:
                failure = error
            self._note(sender_id, text, started_at, failure)

    async def _write_all(self) -> None:
        clients = AsyncClient(self.options)
        await asyncio.gather(*(self._write_async(clients, each) for each in self._numbers))
        await clients.close()

    async def _write_async(self, clients: AsyncClient, number: int) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            sender_id, text = SENDERS[count % len(SENDERS)], f"{number}-{count}"
            started_at, failure = time.monotonic(), None
            try:
                await arun(clients.current(), self._steps(sender_id, text))
            except Exception as error:
                failure = error
            self._note(sender_id, text, started_at, failure)
            await asyncio.sleep(0.005)

    def wait_until_stored(self, since: int) -> None:
        """Wait until a save is stored after so many others, be it at the master alone."""
        deadline = time.monotonic() + CALL_TIMEOUT_S * 2
        while not any(
            save.error is None or isinstance(save.error, NotAcknowledgedError) for save in self.saves[since:]
        ):
            assert time.monotonic() < deadline, self.saves[-8:]
            time.sleep(0.02)

    def _stored(self, get: Callable[[bytes], Any]) -> Dict[str, List[str]]:
        """Return the texts that are stored of each sender; ``get`` returns what is stored at a key."""
        documents = {sender_id: get(self._conversations.key(sender_id)) for sender_id in SENDERS}
        return {
            sender_id: [event["text"] for event in json.loads(document)["events"]] if document else []
            for sender_id, document in documents.items()
        }

    def judge(self, get: Callable[[bytes], Any], may_lack_replicas: bool = False) -> None:
        """Hold every save to what it promised; ``get`` returns what is stored at a key."""
        stored = self._stored(get)
        for texts in stored.values():
            assert len(set(texts)) == len(texts)
        for save in self.saves:
            assert save.took_s < CALL_TIMEOUT_S + GRACE_S, save
            if save.error is None:
                assert save.text in stored[save.sender_id], save
            else:
                assert may_lack_replicas, save
                assert isinstance(save.error, NotAcknowledgedError), save

    def wait_until_back(self, moment: float, get: Callable[[bytes], Any]) -> float:
        """Wait for the first save after a moment that is stored, as ``get`` sees it; return how many seconds after."""
        deadline = time.monotonic() + CALL_TIMEOUT_S * 2
        while True:
            saves = [save for save in self.saves if save.error is None and save.ended_at > moment]
            stored = self._stored(get)
            ends = [save.ended_at for save in saves if save.text in stored[save.sender_id]]
            if ends:
                return min(ends) - moment
            assert time.monotonic() < deadline, self.saves[-8:]
            time.sleep(0.1)
