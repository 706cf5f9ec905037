"""``conversations tail``: a conversation, or all of them, as people talk.

The lengths are looked at, at a bounded rate, and only what is new is read.
"""

import argparse
import time
from typing import Any, Dict, List, Optional

from extras.cli.chat import Chat
from extras.cli.conversations_list import matching
from extras.cli.conversations_show import load
from extras.cli.output import DONE, positive, printable, remark, say, say_json
from extras.cli.redis_store import RedisStore, failed
from extras.document import NOTHING, Known, known_end, parse, parse_addition
from extras.steps import run

EXAMPLES = (
    "rasa-extras conversations tail endpoints.yml alice",
    "rasa-extras conversations tail endpoints.yml --all --match 'web-*' --json",
)
_TAIL_BYTES = 1024
_ANCHOR_BYTES = 32
_SHOWN_BEFORE = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this action takes."""
    parser.add_argument("sender_id", metavar="SENDER", nargs="?", help="the sender id; or --all")
    parser.add_argument("--all", action="store_true", help="follow all conversations")
    parser.add_argument("--match", default="*", metavar="PATTERN", help="with --all: sender ids like this one only")
    parser.add_argument("--events", action="store_true", help="the events as they are stored, one a line")
    parser.add_argument("--interval", type=positive, default=1.0, metavar="S", help="look every S seconds (1)")
    parser.add_argument("--rate", type=positive, default=5000.0, metavar="N", help="at most N lengths a second (5000)")


def run_action(store: RedisStore, arguments: argparse.Namespace) -> int:
    """Follow until Ctrl-C."""
    follower = Follower(store, arguments)
    try:
        while True:
            started_s = time.monotonic()
            looked_at = follower.look()
            pause_s = max(arguments.interval, looked_at / arguments.rate) - (time.monotonic() - started_s)
            time.sleep(max(pause_s, 0.01))
    except KeyboardInterrupt:
        return DONE


class Follower:
    """Remembers where each conversation ended, and prints what came after."""

    def __init__(self, store: RedisStore, arguments: argparse.Namespace) -> None:
        self._store = store
        self._one: Optional[str] = arguments.sender_id
        self._match: str = arguments.match
        self._raw: bool = arguments.events or arguments.json
        self._rate: float = arguments.rate
        self._ends: Dict[str, Optional[Known]] = {}
        """``None``: a document in another spelling, which is read whole when it has grown."""
        self._sizes: Dict[str, int] = {}
        self._chats: Dict[str, Chat] = {}
        self._is_first_look = True

    def look(self) -> int:
        """Print what is new since the last look; return how many lengths were looked at."""
        looked_at = 0
        batches = [[self._one]] if self._one is not None else matching(self._store, self._match)
        for sender_ids in batches:
            started_s = time.monotonic()
            self._look_at(sender_ids)
            looked_at += len(sender_ids)
            if self._one is None:
                time.sleep(max(0.0, len(sender_ids) / self._rate - (time.monotonic() - started_s)))
        if self._is_first_look:
            self._is_first_look = False
            remark("... following; Ctrl-C ends it")
        return looked_at

    def _look_at(self, sender_ids: List[str]) -> None:
        keys = [self._store.key(sender_id) for sender_id in sender_ids]
        with self._store.client.pipeline(transaction=False) as batch:
            for key in keys:
                batch.execute_command("STRLEN", key)
            sizes = batch.execute(raise_on_error=False)
        for sender_id, key, size_bytes in zip(sender_ids, keys, sizes):
            if failed(size_bytes) or size_bytes == self._sizes.get(sender_id, 0):
                continue
            if self._is_first_look:
                self._begin(sender_id, key, size_bytes)
            else:
                self._go_on(sender_id, key)

    def _begin(self, sender_id: str, key: bytes, size_bytes: int) -> None:
        if self._one is not None:
            try:
                parsed = load(self._store, sender_id, False)
            except ValueError:
                parsed = None
            for event in parsed.events[-_SHOWN_BEFORE:] if parsed else []:
                self._show(sender_id, event)
        tail = self._store.client.execute_command("GETRANGE", key, max(0, size_bytes - _TAIL_BYTES), -1)
        self._keep(sender_id, size_bytes, known_end(tail, size_bytes))

    def _go_on(self, sender_id: str, key: bytes) -> None:
        """Show what came after the known end, or all of a conversation that has begun since or was replaced."""
        known = self._ends.get(sender_id, NOTHING)
        if known is not None and not known.empty:
            start = known.end_of_events - len(known.anchor)
            text = self._store.client.execute_command("GETRANGE", key, start, -1)
            added = parse_addition(known, text, start + len(text))
            if added is not None:
                self._show_all(sender_id, added.events)
                self._keep(sender_id, start + len(text), added.known)
                return
        document = run(self._store.client, self._store.conversations.load(sender_id))
        if document is None:
            self._ends.pop(sender_id, None)
            self._sizes.pop(sender_id, None)
            return
        if sender_id in self._ends and not (known is not None and known.empty):
            remark(f"... {printable(sender_id)}: was written anew, or in another spelling; only what follows is shown")
        else:
            try:
                self._show_all(sender_id, parse(document).events)
            except ValueError:
                remark(f"... {printable(sender_id)}: holds no conversation's document")
        self._keep(sender_id, len(document), known_end(document, len(document)))

    def _keep(self, sender_id: str, size_bytes: int, known: Optional[Known]) -> None:
        if known is not None:
            known = Known(known.size_bytes, known.closing, known.anchor[-_ANCHOR_BYTES:], known.empty)
        self._ends[sender_id], self._sizes[sender_id] = known, size_bytes

    def _show_all(self, sender_id: str, events: List[Any]) -> None:
        for event in events:
            self._show(sender_id, event)

    def _show(self, sender_id: str, event: Any) -> None:
        if self._raw:
            say_json({"sender_id": sender_id, "event": event} if self._one is None else event)
            return
        chat = self._chats.setdefault(sender_id if self._one is not None else "", Chat())
        for line in chat.lines(event):
            say(line if self._one is not None else f"{printable(sender_id)}  {line}")
