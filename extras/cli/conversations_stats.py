"""``conversations stats``: how many conversations there are, how large, what they take of the server's memory."""

import argparse
import array
import json
import random
import time
from typing import Any, Dict, List, Optional

from extras.cli.conversations_list import matching
from extras.cli.output import DONE, Unusable, moment, printable, say, say_json, size, told
from extras.cli.redis_store import RedisStore, failed
from extras.document import parse
from extras.steps import run

EXAMPLES = (
    "rasa-extras conversations stats endpoints.yml --json > monday.json",
    "rasa-extras conversations stats endpoints.yml --since monday.json",
)
_SAMPLE = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this action takes."""
    parser.add_argument("--match", default="*", metavar="PATTERN", help="sender ids like this one only: *, ?, [...]")
    parser.add_argument("--since", metavar="FILE", help="also say how much has been added since, by an earlier --json")


def run_action(store: RedisStore, arguments: argparse.Namespace) -> int:
    """Count, and print."""
    before = None if arguments.since is None else _earlier(arguments.since)
    found = measured(store, arguments.match)
    if before is not None:
        found["since"] = _growth(before, found)
    if arguments.json:
        say_json(found)
    else:
        for line in _as_text(found):
            say(line)
    return DONE


def measured(store: RedisStore, pattern: str) -> Dict[str, Any]:
    """Return the sizes of all conversations; events and memory are those of a sample, extrapolated."""
    sizes = array.array("Q")
    sample: List[str] = []
    largest: Optional[str] = None
    most_bytes, drawn = 0, random.Random()
    for sender_ids in matching(store, pattern):
        with store.client.pipeline(transaction=False) as batch:
            for sender_id in sender_ids:
                batch.execute_command("STRLEN", store.key(sender_id))
            replies = batch.execute(raise_on_error=False)
        for sender_id, size_bytes in zip(sender_ids, replies):
            if failed(size_bytes) or not size_bytes:
                continue
            sizes.append(size_bytes)
            if size_bytes > most_bytes:
                most_bytes, largest = size_bytes, sender_id
            if len(sample) < _SAMPLE:
                sample.append(sender_id)
            elif drawn.randrange(len(sizes)) < _SAMPLE:  # each is in the sample as likely as any other
                sample[drawn.randrange(_SAMPLE)] = sender_id
    ordered = sorted(sizes)
    total_bytes = sum(ordered)
    return {
        "time_s": round(time.time(), 3),
        "conversations": len(ordered),
        "total_bytes": total_bytes,
        "median_bytes": ordered[len(ordered) // 2] if ordered else 0,
        "p99_bytes": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] if ordered else 0,
        "largest_bytes": most_bytes,
        "largest": largest,
        **_of_sample(store, sample, total_bytes),
    }


def _of_sample(store: RedisStore, sample: List[str], total_bytes: int) -> Dict[str, Any]:
    """Return events and memory, in the proportion to bytes that they have in the sample."""
    seen_bytes = events = memory_bytes = 0
    refused: Optional[str] = None
    for sender_id in sample:
        document = run(store.client, store.conversations.load(sender_id))
        if document is None:
            continue
        try:
            events += len(parse(document).events)
        except ValueError:
            continue
        seen_bytes += len(document)
        with store.client.pipeline(transaction=False) as batch:
            batch.execute_command("MEMORY", "USAGE", store.key(sender_id))
            (used,) = batch.execute(raise_on_error=False)
        if failed(used):
            refused = told(used)
        memory_bytes += used if isinstance(used, int) else 0
    scale = total_bytes / seen_bytes if seen_bytes else 0
    return {
        "sampled": len(sample),
        "events": round(events * scale),
        "memory_bytes": None if refused else round(memory_bytes * scale),
        "memory_refused": refused,
    }


def _earlier(path: str) -> Dict[str, Any]:
    """Return what an earlier run printed."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        return {name: float(found[name]) for name in ("time_s", "conversations", "total_bytes", "events")}
    except OSError as error:
        raise Unusable(f"--since {path!r} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise Unusable(f"--since {path!r} is not what stats --json prints") from None


def _growth(before: Dict[str, Any], now: Dict[str, Any]) -> Dict[str, Any]:
    days = max(now["time_s"] - before["time_s"], 1e-3) / 86_400
    added = {name: now[name] - before[name] for name in ("conversations", "total_bytes", "events")}
    return {
        "days": round(days, 6),
        **{name: round(count) for name, count in added.items()},
        "total_bytes_a_day": round(added["total_bytes"] / days),
    }


def _as_text(found: Dict[str, Any]) -> List[str]:
    about = "" if found["sampled"] == found["conversations"] else f" (estimated by {found['sampled']} of them)"
    memory = found["memory_bytes"]
    used = f"unknown ({found['memory_refused']})" if memory is None else f"{size(memory)}{about}"
    lines = [
        f"conversations  {found['conversations']:,}",
        f"documents      {size(found['total_bytes'])}",
        f"each           {size(found['median_bytes'])} median, {size(found['p99_bytes'])} p99",
        f"largest        {size(found['largest_bytes'])} {printable(found['largest'] or '')}".rstrip(),
        f"events         {found['events']:,}{about}",
        f"server memory  {used}",
    ]
    since = found.get("since")
    if since is not None:
        start = moment(found["time_s"] - since["days"] * 86_400)
        lines.append(
            f"since {start}: {since['conversations']:+,} conversations, {since['events']:+,} events, "
            f"{since['total_bytes']:+,} B, {since['total_bytes_a_day']:+,} B a day"
        )
    return lines
