"""What only Rasa Pro calls: delete, update, the user index and the serialized trackers of a user, as its own store."""

import asyncio
import json
import re
import threading
import time
from typing import Any, Callable, Dict, List, Set

import pytest
import redis
from conversations import Script, add
from rasa.shared.core.domain import Domain
from topologies import RedisCluster

from extras.bench.server import RedisServer
from extras.trackerstore import ExtraRedisTrackerStore

Call = Callable[[Any], Any]
Make = Callable[..., Any]


@pytest.fixture
def both(stock: Make, ours: Make) -> List[Any]:
    """The stock store on database 0, ours on database 1."""
    return [stock(), ours()]


def everything(server: RedisServer, db: int) -> Dict[bytes, Any]:
    """Return strings as they are, sorted sets with their scores to the second."""
    client: Any = redis.Redis(port=server.port, db=db)
    found: Dict[bytes, Any] = {}
    for key in client.keys("*"):
        if client.type(key) == b"string":
            found[key] = client.get(key)
        else:
            found[key] = [(m, round(s, -1)) for m, s in client.zrange(key, 0, -1, withscores=True)]
    client.connection_pool.disconnect()
    return found


def converse(store: Any, call: Call, sender: str, user: Any, seed: int, same: Callable[[int], None], **kw: Any) -> Any:
    """Save a conversation of a user."""
    same(seed)
    tracker = store.init_tracker(sender, user_id=user)
    script = Script(seed)
    add(tracker, script.session_start() + script.turn())
    call(store.save(tracker, **kw))
    return tracker


def test_the_user_index_and_the_serialized_trackers_are_the_stock_stores(
    both: List[Any], call: Call, server: RedisServer, same_session_ids: Callable[[int], None]
) -> None:
    listed = []
    for store in both:
        for number in range(7):
            converse(store, call, f"conversation {number}", f"user {number % 2}", 10 - number, same_session_ids)
        converse(store, call, "nobody's", None, 11, same_session_ids)
        converse(store, call, "brief", "user 1", 12, same_session_ids, timeout=500)
        listed.append(
            [
                call(store.get_trackers_by_user_id(user, limit=limit, skip=skip))
                for user in ("user 0", "user 1", "user 2")
                for limit, skip in ((None, None), (2, None), (None, 1), (1, 1), (0, 9))
            ]
        )
    assert listed[0] == listed[1]
    assert [len(page) for page in listed[1][:2]] == [4, 2]
    assert everything(server, 0) == everything(server, 1)


def test_expired_orphaned_and_foreign_entries_are_left_out_as_the_stock_store_does(
    both: List[Any], call: Call, server: RedisServer, same_session_ids: Callable[[int], None]
) -> None:
    listed = []
    for db, store in enumerate(both):
        for number in range(4):
            converse(store, call, f"c{number}", "user", number, same_session_ids)
        client: Any = redis.Redis(port=server.port, db=db)
        client.zadd("user_trackers:user", {"expired": time.time() - 5, "orphan": "inf", "c3": time.time() + 60})
        client.set("tracker:broken", "{")
        client.set("tracker:foreign", json.dumps({"events": [], "user_id": "another"}))
        client.zadd("user_trackers:user", {"broken": "inf", "foreign": "inf"})
        client.connection_pool.disconnect()
        listed.append(call(store.get_serialized_trackers_by_user_id("user")))
    assert listed[0] == listed[1]
    assert sorted(entry["sender_id"] for entry in listed[1]) == ["c0", "c1", "c2", "c3"]
    assert everything(server, 0) == everything(server, 1)


def test_delete_removes_the_document_and_its_index_entry(
    both: List[Any], call: Call, server: RedisServer, same_session_ids: Callable[[int], None]
) -> None:
    for store in both:
        for sender in ("alice", "bob"):
            converse(store, call, sender, "user", 1, same_session_ids)
        call(store.delete("tracker:alice"))
        call(store.delete("never there"))
    assert everything(server, 0) == everything(server, 1)
    assert call(both[1].exists("alice")) is False
    assert call(both[1].exists("bob")) is True


@pytest.mark.parametrize("document", ["{", "[]"])
def test_delete_also_removes_what_cannot_be_read(
    document: str, both: List[Any], call: Call, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    client: Any = redis.Redis(port=server.port, db=1)
    client.set("tracker:alice", document)
    call(both[1].delete("alice"))
    assert client.exists("tracker:alice") == 0
    assert "The document of 'alice' cannot be read" in caplog.text
    client.connection_pool.disconnect()


def test_update_replaces_the_whole_conversation(
    both: List[Any], call: Call, server: RedisServer, same_session_ids: Callable[[int], None]
) -> None:
    for store in both:
        converse(store, call, "alice", "user", 1, same_session_ids)
        same_session_ids(2)
        shorter = store.init_tracker("tracker:alice", user_id="user")
        add(shorter, Script(2).turn())
        call(store.update(shorter))
    assert everything(server, 0) == everything(server, 1)
    assert len(call(both[1].retrieve_full_tracker("alice")).events) == len(shorter.events)


def test_conversations_are_counted_as_the_stock_store_does(
    both: List[Any], call: Call, same_session_ids: Callable[[int], None]
) -> None:
    for store in both:
        for number in range(3):
            converse(store, call, f"c{number}", None, number, same_session_ids)
    assert call(both[0].count_conversations()) == call(both[1].count_conversations()) == 3
    assert call(both[0].count_conversations(9e9)) == call(both[1].count_conversations(9e9)) == 0


def test_permissive_slots_and_engine_version_reach_the_document(
    both: List[Any], call: Call, server: RedisServer, same_session_ids: Callable[[int], None]
) -> None:
    from rasa.shared.engine_version import MANTLE_ENGINE_VERSION

    for store in both:
        store.use_permissive_slots = True
        store.engine_version = MANTLE_ENGINE_VERSION
        converse(store, call, "alice", "user", 3, same_session_ids)
        again = call(store.retrieve("alice"))
        same_session_ids(4)
        add(again, Script(4).turn())
        call(store.save(again))
    documents = [
        json.loads(re.sub(rb'"event_id": "[^"]+"', b'"event_id": ""', everything(server, db)[b"tracker:alice"]))
        for db in (0, 1)  # the host draws a new event_id whenever it serialises an event in this form
    ]
    assert documents[0] == documents[1]
    assert "event_id" in documents[1]["events"][0]


@pytest.mark.parametrize("start_session_after_expiry", [True, False])
def test_the_latest_session_is_cut_by_the_hosts_rule(
    start_session_after_expiry: bool, both: List[Any], call: Call, same_session_ids: Callable[[int], None]
) -> None:
    events = []
    for store in both:
        store.domain.session_config = store.domain.session_config._replace(
            start_session_after_expiry=start_session_after_expiry
        )
        same_session_ids(5)
        tracker = store.init_tracker("alice")
        script = Script(5)
        add(tracker, script.session_start() + script.turn())
        add(tracker, [{"event": "inactive", "timestamp": 1_800_000_000.0}])
        add(tracker, script.session_start() + script.turn())
        call(store.save(tracker))
        events.append([event.as_dict() for event in call(store.retrieve("alice")).events])
        assert len(events[-1]) < len(tracker.events)
    assert events[0] == events[1]


def test_the_user_index_on_a_cluster_while_writers_are_at_work_and_slots_move(
    cluster: RedisCluster, domain: Domain, call: Call
) -> None:
    """Each user's index, and each conversation, has a slot of its own; two are moved, and a replica takes over."""
    cluster.settle()
    cluster.empty()
    stores = [ExtraRedisTrackerStore(domain, **cluster.options, call_timeout=15, client_name=n) for n in ("a", "b")]
    kept: Dict[str, Set[str]] = {f"user {number}": set() for number in range(3)}
    masters_change = threading.Event()

    def change_masters() -> None:
        for user in ("user 0", "user 1"):
            slot = cluster.slot_of(f"user_trackers:{user}")
            home = cluster.owner(slot)
            other = next(port for port in set(cluster.owners(home).values()) if port != home)
            cluster.move(slot, other)
            cluster.move(slot, home)
        cluster.fail_over(cluster.master_of("user_trackers:user 2"))
        masters_change.set()

    async def write(number: int) -> None:
        script, store, count = Script(number), stores[number % 2], 0
        while count < 12 or not masters_change.is_set():
            user, sender_id = f"user {count % 3}", f"{number}-{count}"
            tracker = store.init_tracker(sender_id, user_id=user)
            add(tracker, script.session_start() + script.turn())
            await store.save(tracker)
            if count % 4 == 3:
                await store.delete(sender_id)
            else:
                kept[user].add(sender_id)
            listed = await store.get_serialized_trackers_by_user_id(user)
            assert (sender_id in {each["sender_id"] for each in listed}) == (sender_id in kept[user])
            count += 1
            await asyncio.sleep(0.01)

    async def work() -> None:
        changing = asyncio.get_running_loop().run_in_executor(None, change_masters)
        await asyncio.gather(*map(write, range(4)))
        await changing
        for user, sender_ids in kept.items():
            listed = await stores[0].get_serialized_trackers_by_user_id(user)
            assert {each["sender_id"] for each in listed} == sender_ids
            key = f"user_trackers:{user}"
            members = cluster.at(cluster.master_of(key)).zrange(key, 0, -1)
            assert {member.decode() for member in members} == sender_ids
        for store in stores:
            await store.close()

    call(work())
