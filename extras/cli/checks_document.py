"""A conversation through the store's own code: stored, appended to, read, deleted; nothing of it is left."""

import json
import time
from typing import Any

from extras._redis import RedisError, ResponseError
from extras.cli.checks_options import Target
from extras.cli.findings import Check, failed, first_line, ok
from extras.conversation import Conversations
from extras.document import Known, SessionStart
from extras.refusals import way_out_of
from extras.steps import Steps, run

EXPIRES_AFTER_S = 60.0
_SESSION = SessionStart.of_action("action_session_start")
_SAID = json.dumps({"event": "user", "timestamp": 1.5, "text": "rasa-extras doctor, \u00fc\u4e16"})


def check_document(client: Any, target: Target, scratch_id: str) -> Check[bool]:
    """Carry a scratch conversation through a turn; return whether it came back as it was written."""
    conversations = Conversations(target.prefix, target.options.scan_count, False)
    begun = time.perf_counter()
    try:
        try:
            wrong = run(client, _turn(conversations, scratch_id))
        finally:
            run(client, conversations.erase(scratch_id))
    except RedisError as error:
        yield failed("conversation", f"a scratch conversation: {first_line(error)}", way_out_of(error))
        return False
    took_ms = (time.perf_counter() - begun) * 1000
    if wrong:
        yield failed("conversation", f"a scratch conversation {wrong}", "see what stands between Rasa and Redis")
        return False
    yield ok("conversation", f"a scratch one was stored, appended to, read back and deleted ({took_ms:.1f} ms)")
    return True


def _turn(conversations: Conversations, sender_id: str) -> Steps[str]:
    """Return what went wrong, empty for nothing."""
    start = json.dumps({"event": "action", "timestamp": 1.0, "name": "action_session_start"})
    closing = f'], "name": {json.dumps(sender_id)}}}'
    first = f'{{"events": [{start}{closing}'.encode()
    if not (yield from conversations.replace_if(sender_id, None, first, EXPIRES_AFTER_S)):
        return "could not be stored: there is one of that name"
    session = yield from conversations.load_session(sender_id, _SESSION)
    if session is None or session.known is None:
        return "was not there once it was stored"
    added = yield from conversations.append(
        sender_id, session.known, f", {_SAID}".encode(), closing.encode(), EXPIRES_AFTER_S
    )
    if not isinstance(added, Known):
        return "was changed by somebody else"
    stored = yield from conversations.load(sender_id)
    if stored != f'{{"events": [{start}, {_SAID}{closing}'.encode():
        return "came back changed"
    try:
        left_ms = yield ("PTTL", conversations.key(sender_id))
    except ResponseError:  # refused: the store does not need it, so its user may not have it
        return ""
    return "" if 0 < left_ms <= EXPIRES_AFTER_S * 1000 else "would not expire"
