"""``conversations import``: what ``export`` has written, back into Redis.

Every way of it may be carried out again: what is there already stays as it is, so that an import that was cut is
completed by the same command.
"""

import argparse
import json
import time
from typing import Any, Dict, List, Optional, Tuple

from extras.cli.jsonlines import Line, read_lines
from extras.cli.output import DONE, NOT_ALL, counted, printable, remark, say, say_json
from extras.cli.redis_store import RedisStore
from extras.document import SEPARATOR, START, Known, Parsed, parse
from extras.steps import Steps, run

EXAMPLES = (
    "rasa-extras conversations import endpoints.yml all.jsonl --dry-run",
    "rasa-extras conversations import endpoints.yml all.jsonl --existing merge",
)
EXISTING = ("skip", "merge", "replace")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this action takes."""
    parser.add_argument("file", metavar="FILE", help="what export has written")
    parser.add_argument(
        "--existing",
        choices=EXISTING,
        default="skip",
        help="what to do with conversations that are there: skip (the default), merge (add the events that are not in "
        "it, as the store does with those of another writer) or replace",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run_action(store: RedisStore, arguments: argparse.Namespace) -> int:
    """Write each line's conversation."""
    counts = {"imported": 0, "merged": 0, "replaced": 0, "skipped": 0, "unchanged": 0, "failed": 0}
    for line in read_lines(arguments.file):
        outcome, why = _import(store, line, arguments.existing, arguments.dry_run)
        counts[outcome] += 1
        if why:
            remark(f"line {line.number}: {why}")
    if arguments.json:
        say_json({"dry_run": arguments.dry_run, "existing": arguments.existing, **counts})
    else:
        note = f" (of those that were there: {arguments.existing})"
        say(("would be done: " if arguments.dry_run else "") + counted(counts) + note)
    return NOT_ALL if counts["failed"] else DONE


def _import(store: RedisStore, line: Line, existing: str, dry_run: bool) -> Tuple[str, str]:
    """Return what became of a line, and why if it failed."""
    if line.value is None:
        return "failed", "is no whole JSON object; was the file cut?"
    sender_id, text, ttl_ms = (line.value.get(name) for name in ("sender_id", "document", "ttl_ms"))
    if not isinstance(sender_id, str) or not isinstance(text, str) or not isinstance(ttl_ms, (int, type(None))):
        return "failed", "lacks a sender_id or a document, or its ttl_ms is no number"
    try:
        document = text.encode("utf-8", "surrogateescape")
        parsed = parse(document)
        forms = None if existing != "merge" else [_canonical(event) for event in parsed.events]
    except ValueError:  # whose text may show what is stored
        return "failed", f"{printable(sender_id)}: is not a conversation's document"
    steps = _steps(store, sender_id, document, parsed, forms, existing, ttl_ms, dry_run)
    outcome = run(store.client, steps)
    if outcome == "failed":
        return outcome, f"{printable(sender_id)}: what is stored cannot be read, and is left as it is"
    return outcome, ""


def _steps(
    store: RedisStore,
    sender_id: str,
    document: bytes,
    parsed: Parsed,
    forms: Optional[List[str]],
    existing: str,
    ttl_ms: Optional[int],
    dry_run: bool,
) -> Steps[str]:
    """Store a document and return what became of it; ``forms``: its events, to be merged with those of another."""
    conversations = store.conversations
    ttl_s = None if ttl_ms is None else max(ttl_ms, 1) / 1000
    while True:
        stored = yield from conversations.load(sender_id)
        if stored is None:
            outcome = "imported"
            done = dry_run or (yield from conversations.replace_if(sender_id, None, document, ttl_s))
        elif stored == document:
            return "unchanged"
        elif existing == "skip":
            return "skipped"
        elif existing == "replace":
            outcome = "replaced"
            done = dry_run or (yield from conversations.replace_if(sender_id, stored, document, ttl_s))
        else:
            outcome, done = yield from _merge(store, sender_id, stored, parsed, forms or [], dry_run)
        if done:
            break
    user_id = parsed.members.get("user_id")
    if user_id and not dry_run and outcome in ("imported", "replaced"):
        yield from store.users.add(user_id, sender_id, ttl_s, time.time())
    return outcome


def _merge(
    store: RedisStore, sender_id: str, stored: bytes, parsed: Parsed, forms: List[str], dry_run: bool
) -> Steps[Tuple[str, bool]]:
    """Add the events that are not in ``stored`` behind its own; return the outcome, and whether it was carried out."""
    try:
        there = parse(stored)
        known_forms = {_canonical(event) for event in there.events}
    except ValueError:
        return "failed", True
    missing = [event for event, form in zip(parsed.events, forms) if form not in known_forms]
    if not missing or dry_run:
        return ("merged" if missing else "unchanged"), True
    ttl_ms = yield ("PTTL", store.conversations.key(sender_id))
    ttl_s = ttl_ms / 1000 if ttl_ms > 0 else None
    addition = json.dumps(missing)[1:-1]
    if there.known is not None:
        text = (("" if there.known.empty else SEPARATOR) + addition).encode()
        found = yield from store.conversations.append(sender_id, there.known, text, there.known.closing, ttl_s)
        if isinstance(found, Known):
            return "merged", True
    # In another spelling, changed meanwhile, or still under the key of a Rasa 2.0 store.
    whole = _document(there.events + missing, there.members)
    return "merged", (yield from store.conversations.replace_if(sender_id, stored, whole, ttl_s))


def _document(events: List[Any], members: Dict[str, Any]) -> bytes:
    text = json.dumps({"events": events, **members})
    assert text.startswith(START)
    return text.encode()


def _canonical(event: Any) -> str:
    return json.dumps(event, sort_keys=True)
