"""``conversations list``: who has talked, when last, and how much of it is stored.

They come as Redis finds them; it may name one twice while its table of keys is resized.
"""

import argparse
import fnmatch
import itertools
from typing import Any, Dict, Iterator, List, Optional

from extras.cli.output import DONE, NOT_ALL, moment, printable, say, say_json, size, whole
from extras.cli.redis_store import UNREACHABLE, RedisStore, failed
from extras.document import last_event

EXAMPLES = (
    "rasa-extras conversations list endpoints.yml --match 'alice*'",
    "rasa-extras conversations list endpoints.yml --json | jq -r .sender_id",
)
_TAIL_BYTES = 4096
_LONGER_TAIL_BYTES = 262_144
_BATCH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this action takes."""
    parser.add_argument("--match", default="*", metavar="PATTERN", help="sender ids like this one only: *, ?, [...]")
    parser.add_argument("--limit", type=whole, metavar="N", help="no more than N")


def run_action(store: RedisStore, arguments: argparse.Namespace) -> int:
    """Print a line for each conversation, as they are found."""
    code = DONE
    for row in itertools.islice(rows(store, arguments.match), arguments.limit):
        code = NOT_ALL if "error" in row else code
        if arguments.json:
            say_json(row)
        else:
            what = row.get("error") or size(row["size_bytes"])
            say(f"{moment(row['last_activity_s']):20}  {what:>9}  {printable(row['sender_id'])}")
    return code


def matching(store: RedisStore, pattern: str) -> Iterator[List[str]]:
    """Yield the sender ids that are like ``pattern``, some at a time."""
    for sender_ids in store.pages():
        found = [sender_id for sender_id in sender_ids if fnmatch.fnmatchcase(sender_id, pattern)]
        for start in range(0, len(found), _BATCH):
            yield found[start : start + _BATCH]


def rows(store: RedisStore, pattern: str) -> Iterator[Dict[str, Any]]:
    """Yield what is known of each conversation by its size and its end."""
    for sender_ids in matching(store, pattern):
        keys = [store.key(sender_id) for sender_id in sender_ids]
        with store.client.pipeline(transaction=False) as batch:
            for key in keys:
                batch.execute_command("STRLEN", key)
                batch.execute_command("GETRANGE", key, -_TAIL_BYTES, -1)
            replies = batch.execute(raise_on_error=False)
        for sender_id, key, size_bytes, tail in zip(sender_ids, keys, replies[::2], replies[1::2]):
            if failed(size_bytes) or failed(tail) or not store.reaches(sender_id):
                error = "is no text" if store.reaches(sender_id) else UNREACHABLE
                yield {"sender_id": sender_id, "last_activity_s": None, "size_bytes": None, "error": error}
            elif size_bytes:  # it may have gone since
                last_s = _last_activity_s(store, key, size_bytes, tail)
                yield {"sender_id": sender_id, "last_activity_s": last_s, "size_bytes": size_bytes}


def _last_activity_s(store: RedisStore, key: bytes, size_bytes: int, tail: bytes) -> Optional[float]:
    for longer_bytes in (_LONGER_TAIL_BYTES, size_bytes, None):
        event = last_event(tail)
        if event is not None:
            timestamp = event.get("timestamp")
            return timestamp if isinstance(timestamp, (int, float)) else None
        if longer_bytes is None or len(tail) >= size_bytes:
            return None
        tail = store.client.execute_command("GETRANGE", key, -longer_bytes, -1)
    return None
