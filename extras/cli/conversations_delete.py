"""``conversations delete``: erases all that Redis has of a person's conversation, and leaves a receipt."""

import argparse
import hashlib
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from extras._redis import RedisError
from extras.cli.journal_records import erase_records
from extras.cli.locks import Locks, open_locks
from extras.cli.output import DONE, NOT_ALL, moment, printable, remark, say_json, told
from extras.cli.redis_store import RedisStore
from extras.document import parse
from extras.outbox import outbox_keys
from extras.steps import run

EXAMPLES = (
    "rasa-extras conversations delete endpoints.yml alice --dry-run",
    "rasa-extras conversations delete endpoints.yml alice --yes > receipt.json",
)
ELSEWHERE = (
    "journal files on other machines, and what a Rasa that runs remembers of the conversation for an outage",
    "events that the event broker was given",
    "log files, and Redis' own files and backups until they are written anew",
)
"""What this command does not reach."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this action takes."""
    parser.add_argument("sender_ids", metavar="SENDER", nargs="+", help="the sender ids")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be erased")
    parser.add_argument("--yes", action="store_true", help="do not ask for the sender id to be typed")


def run_action(store: RedisStore, arguments: argparse.Namespace) -> int:
    """Erase each conversation and print its receipt, a line of JSON."""
    code = DONE
    locks = open_locks(arguments.endpoints)
    try:
        for sender_id in dict.fromkeys(map(store.conversations.bare, arguments.sender_ids)):
            if not arguments.yes and not arguments.dry_run and not _confirmed(sender_id):
                remark(f"{printable(sender_id)}: not confirmed, nothing was erased")
                code = NOT_ALL
                continue
            receipt = Erasure(store, locks, sender_id, arguments.dry_run).receipt()
            say_json(receipt)
            if not receipt["keys"]:
                remark(f"there is no conversation {printable(sender_id)!r}")
            if not receipt["keys"] or receipt["not_erased"]:
                code = NOT_ALL
    finally:
        if locks is not None:
            locks.close()
    return code


def _confirmed(sender_id: str) -> bool:
    remark(f"This erases the conversation {printable(sender_id)!r} for good. Type its sender id to go on:")
    return sys.stdin.readline().rstrip("\n") == sender_id


class Erasure:
    """The erasing of one conversation, and what there is to be said of it."""

    def __init__(self, store: RedisStore, locks: Optional[Locks], sender_id: str, dry_run: bool) -> None:
        self._store = store
        self._locks = locks
        self._sender_id = sender_id
        self._dry_run = dry_run
        self._keys: List[Dict[str, Any]] = []
        self._not_erased: List[str] = []

    def receipt(self) -> Dict[str, Any]:
        """Erase, unless it is a dry run, and return what was erased: keys, sizes, digests, the time."""
        now_s = time.time()
        self._erase_journal()  # before the document, which it would bring back
        documents = self._erase_documents()
        try:
            self._erase_outbox()
        except RedisError as error:
            if self._store.options.publish == "outbox":  # otherwise there may be none, and no leave to look
                self._not_erased.append(f"events that are not published yet: {told(error)}")
        try:
            for document in documents:
                self._erase_index_entry(document)
        except RedisError as error:
            self._not_erased.append(f"the entry in the user's index: {told(error)}")
        try:
            self._erase_lock()
        except RedisError as error:
            self._not_erased.append(f"the lock: {told(error)}")
        if (
            not self._dry_run
            and documents
            and run(self._store.client, self._store.conversations.exists(self._sender_id))
        ):
            self._not_erased.append(
                "a turn was saved meanwhile: the assistant is talking with this person; run it again"
            )
        return {
            "sender_id": self._sender_id,
            "time": moment(now_s),
            "dry_run": self._dry_run,
            "keys": self._keys,
            "not_erased": self._not_erased,
            "not_erasable_from_here": list(ELSEWHERE),
        }

    def _erase_journal(self) -> None:
        """Erase turns that Redis did not have yet; those of a Rasa that runs are left to it, and told of."""
        path = self._store.options.journal_path
        if path is None:
            return
        for found in erase_records(Path(path), self._sender_id, self._dry_run):
            name = str(found.path).encode("utf-8", "surrogateescape")
            if found.why:
                self._not_erased.append(f"{len(found.payloads)} turns in {_shown(name)}: {found.why}")
            else:
                self._note(name, "turns in the journal", b"\n".join(found.payloads))

    def _erase_documents(self) -> List[bytes]:
        """Erase the document, and the one under the bare id where those are read; return what they held."""
        conversations = self._store.conversations
        keys = [conversations.key(self._sender_id)]
        bare_key = self._sender_id.encode("utf-8", "surrogateescape")
        looks_there = self._store.options.read_unprefixed_keys and bare_key not in keys
        if looks_there and run(self._store.client, conversations.holds_document(bare_key)):
            keys.append(bare_key)
        return [value for key in keys for value in self._erase(self._store.client, key, "document")]

    def _erase(self, client: Any, key: bytes, what: str) -> List[bytes]:
        """Erase a key in one transaction with the reading of what it held; return that, if there was anything."""
        kind = client.execute_command("TYPE", key)
        if kind not in (b"string", b"none"):
            self._not_erased.append(f"{what} {_shown(key)}: the key holds something else, a {kind.decode()}")
            return []
        with client.pipeline(transaction=not self._dry_run) as batch:
            batch.execute_command("GET", key)
            if not self._dry_run:
                batch.execute_command("DEL", key)
            replies = batch.execute(raise_on_error=False)
        value = replies[0]
        refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if refused is not None:
            self._not_erased.append(f"{what} {_shown(key)}: {told(refused)}")
            return []
        if value is None:
            return []
        self._note(key, what, value)
        return [value]

    def _erase_outbox(self) -> None:
        """Erase the events that wait for the event broker, which nobody publishes then."""
        events_key, lease_key = outbox_keys(self._store.conversations.key(self._sender_id))
        with self._store.client.pipeline(transaction=not self._dry_run) as batch:
            batch.execute_command("LRANGE", events_key, 0, -1)
            batch.execute_command("GET", lease_key)
            if not self._dry_run:
                batch.execute_command("DEL", events_key, lease_key)
            events, lease = batch.execute()[:2]
        if events:
            self._note(events_key, "unpublished events", b"\n".join(events))
        if lease is not None:
            self._note(lease_key, "outbox lease", lease)

    def _erase_index_entry(self, document: bytes) -> None:
        try:
            user_id = parse(document).members.get("user_id")
        except ValueError:
            self._not_erased.append(
                "an entry in a user's index, if there is one: the document that names the user is unreadable"
            )
            return
        if not isinstance(user_id, str) or not user_id:
            return
        key, member = self._store.users.key(user_id), self._sender_id.encode("utf-8", "surrogateescape")
        if self._store.client.execute_command("ZSCORE", key, member) is not None:
            if not self._dry_run:
                run(self._store.client, self._store.users.remove(user_id, [self._sender_id]))
            self._note(key, "user index entry", member)

    def _erase_lock(self) -> None:
        if self._locks is not None:  # otherwise locks are in the memory of Rasa
            for key in self._locks.keys(self._sender_id):
                self._erase(self._locks.client, key, "lock")

    def _note(self, key: bytes, what: str, value: bytes) -> None:
        digest = hashlib.sha256(value).hexdigest()
        self._keys.append({"key": _shown(key), "what": what, "bytes": len(value), "sha256": digest})


def _shown(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")
