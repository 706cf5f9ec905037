"""``conversations export``: all conversations into a file of JSON lines, as they are stored, byte for byte."""

import argparse
import hashlib
from typing import Any, Dict, List, Optional, Set

from extras.cli.conversations_list import matching
from extras.cli.jsonlines import Writer, read_lines
from extras.cli.output import DONE, NOT_ALL, counted, printable, remark, say, say_json
from extras.cli.redis_store import UNREACHABLE, RedisStore, failed

EXAMPLES = (
    "rasa-extras conversations export endpoints.yml all.jsonl",
    "rasa-extras conversations export endpoints.yml all.jsonl --resume",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this action takes."""
    parser.add_argument("file", metavar="FILE", help="is made; only its owner may read it")
    parser.add_argument("--match", default="*", metavar="PATTERN", help="sender ids like this one only: *, ?, [...]")
    parser.add_argument("--resume", action="store_true", help="go on with a file that was cut; what is in it stays")


def run_action(store: RedisStore, arguments: argparse.Namespace) -> int:
    """Write a line for each conversation: its sender id, its document as text, and when it expires."""
    counts = {"exported": 0, "already in the file": 0, "failed": 0}
    with Writer(arguments.file, arguments.resume) as writer:
        done: Set[bytes] = set()
        if arguments.resume:
            done = {_digest(str(line.value.get("sender_id"))) for line in read_lines(arguments.file) if line.value}
        for sender_ids in matching(store, arguments.match):
            new = [sender_id for sender_id in sender_ids if _digest(sender_id) not in done]
            counts["already in the file"] += len(sender_ids) - len(new)
            done.update(map(_digest, new))  # SCAN may name one again
            for line in lines(store, new):
                if line.get("document") is None:
                    counts["failed"] += 1
                    why = "its key holds no text" if store.reaches(line["sender_id"]) else UNREACHABLE
                    remark(f"{printable(line['sender_id'])}: {why}")
                else:
                    counts["exported"] += 1
                    writer.write(line)
    if arguments.json:
        say_json(counts)
    else:
        say(counted(counts))
    return NOT_ALL if counts["failed"] else DONE


def lines(store: RedisStore, sender_ids: List[str]) -> List[Dict[str, Any]]:
    """Return the lines of some conversations; ``document`` is ``None`` where there is something else."""
    found: List[Dict[str, Any]] = []
    for sender_id in sender_ids:  # one at a time: documents may be large
        if not store.reaches(sender_id):
            found.append({"sender_id": sender_id, "document": None})
            continue
        key = store.key(sender_id)
        with store.client.pipeline(transaction=False) as batch:
            batch.execute_command("GET", key)
            batch.execute_command("PTTL", key)
            document, ttl_ms = batch.execute(raise_on_error=False)
        if document is not None:  # it may have gone since
            text: Optional[str] = None if failed(document) else document.decode("utf-8", "surrogateescape")
            expires = None if failed(ttl_ms) or ttl_ms < 0 else ttl_ms
            found.append({"sender_id": sender_id, "document": text, "ttl_ms": expires})
    return found


def _digest(sender_id: str) -> bytes:
    return hashlib.blake2b(sender_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
