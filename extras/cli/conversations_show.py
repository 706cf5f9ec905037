"""``conversations show``: what was said, from the stored document."""

import argparse
from typing import Optional

from extras.cli.chat import Chat
from extras.cli.output import DONE, NOT_ALL, printable, remark, say, say_json, size
from extras.cli.redis_store import RedisStore
from extras.document import Parsed, SessionStart, parse
from extras.steps import run

EXAMPLES = (
    "rasa-extras conversations show endpoints.yml alice",
    "rasa-extras conversations show endpoints.yml alice --all-sessions --events | jq .text",
)
SESSION_START = SessionStart.of_action("action_session_start")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this action takes."""
    parser.add_argument("sender_id", metavar="SENDER", help="the sender id")
    parser.add_argument("--events", action="store_true", help="the events as they are stored, one a line")
    parser.add_argument(
        "--all-sessions", action="store_true", help="all of the conversation, not its last session only"
    )


def run_action(store: RedisStore, arguments: argparse.Namespace) -> int:
    """Print a conversation."""
    sender_id: str = arguments.sender_id
    try:
        parsed = load(store, sender_id, arguments.all_sessions)
    except ValueError:  # whose text may show what is stored
        remark(f"what is stored for {printable(sender_id)!r} is not a conversation's document")
        return NOT_ALL
    if parsed is None:
        remark(f"there is no conversation {printable(sender_id)!r}")
        return NOT_ALL
    key = store.key(sender_id)
    size_bytes = store.client.execute_command("STRLEN", key)
    ttl_ms = store.client.execute_command("PTTL", key)
    ttl_s = ttl_ms / 1000 if ttl_ms >= 0 else None
    if arguments.events:
        for event in parsed.events:
            say_json(event)
    elif arguments.json:
        known = {"sender_id": sender_id, "size_bytes": size_bytes, "expires_after_s": ttl_s}
        say_json({**known, "members": parsed.members, "events": parsed.events})
    else:
        part = "all of it" if parsed.whole else "its last session"
        expiry = "" if ttl_s is None else f", expires in {ttl_s:,.0f} s"
        say(f"{printable(sender_id)}: {size(size_bytes)}{expiry}; {part}, {len(parsed.events):,} events")
        chat = Chat()
        for event in parsed.events:
            for line in chat.lines(event):
                say(line)
    return DONE


def load(store: RedisStore, sender_id: str, all_sessions: bool) -> Optional[Parsed]:
    """Return a conversation's events, or those of its last session. Raises ``ValueError`` if it is no document."""
    conversations = store.conversations
    if all_sessions:
        document = run(store.client, conversations.load(sender_id))
        return None if document is None else parse(document)
    parsed = run(store.client, conversations.load_session(sender_id, SESSION_START))
    if parsed is None or not parsed.whole:
        return parsed
    first = SESSION_START.last_in(parsed.events) or 0
    return parsed._replace(events=parsed.events[first:], whole=first == 0)
