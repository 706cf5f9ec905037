"""With ``on_outage: journal`` no turn waits for a fail-over, and none is lost or doubled by it."""

import json
import time
from pathlib import Path
from typing import Any, Callable, List, Union

from chat import Chat, told, wait_for_replay
from rasa.shared.core.domain import Domain
from topologies import HOST, RedisCluster
from watched import Watched

from extras import _rasa
from extras.trackerstore import ExtraRedisTrackerStore

CALL_TIMEOUT_S = 1.0
GRACE_S = 2.0
SENDERS = ("alice", "bob", "carol", "dave")
"""In a cluster all three masters have some of them."""


def key(sender_id: str) -> str:
    return f"{_rasa.STOCK_PREFIX}{sender_id}"


def times(laid_out: Union[RedisCluster, Watched], sender_id: str) -> List[float]:
    """Return the times of the events that the master has."""
    text = laid_out.at(laid_out.master_of(key(sender_id))).get(key(sender_id))
    return [event["timestamp"] for event in json.loads(text)["events"]]


def test_turns_of_a_failover_go_to_the_journal_and_are_stored_once(
    laid_out: Union[RedisCluster, Watched], domain: Domain, call: Callable[[Any], Any], tmp_path: Path
) -> None:
    """The cluster's only node that the options name is the one that is killed: who replays knows the others, too."""
    lost = laid_out.master_of(key("alice"))
    named = {"endpoints": [f"{HOST}:{lost}"]} if isinstance(laid_out, RedisCluster) else {}
    timeouts = {"call_timeout": CALL_TIMEOUT_S, "socket_timeout": 0.5}
    journal = {"on_outage": "journal", "journal_path": str(tmp_path / "journal")}
    store = ExtraRedisTrackerStore(domain, **{**laid_out.options, **named, **timeouts, **journal})
    chats = [Chat(store, call, sender_id, seed) for seed, sender_id in enumerate(SENDERS)]
    try:
        for chat in (*chats, *chats):
            chat.say()
        for port in {laid_out.master_of(key(sender_id)) for sender_id in SENDERS}:
            laid_out.until_copied(port)
        laid_out.servers[lost].kill()
        for chat in (*chats, *chats):
            began_at = time.monotonic()
            chat.say()
            assert time.monotonic() - began_at < 2 * CALL_TIMEOUT_S + GRACE_S  # it reads, and saves
        assert store.outage_journal().records > 0
        laid_out.taken_over(lost, key("alice"))
        for chat in chats:
            chat.say()
        wait_for_replay(store)
        for chat in chats:
            chat.say()
            assert times(laid_out, chat.sender_id) == told(chat.said)
        assert store.outage_journal().records == 0
        assert (tmp_path / "journal").stat().st_size == 0
    finally:
        laid_out.revive(lost)
        call(store.close())
