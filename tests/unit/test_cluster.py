"""A store's clients on a real Redis Cluster: every key, every scan, and whatever happens to its masters."""

import asyncio
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
import redis
from topologies import HOST, SLOTS, RedisCluster, until

from extras import _redis
from extras.bench.server import RedisServer
from extras.configured import AsyncClient, sync_client
from extras.conversation import Conversations, load_many
from extras.options import Options, parse
from extras.steps import arun, run

if not _redis.HAS_CLUSTER:
    pytest.skip("redis-py before 4.1 knows nothing of clusters", allow_module_level=True)

from tools import Tools
from turning import SENDERS, Writers, one

CONVERSATIONS = Conversations("tracker:", 20, False)
SIDES = ["blocking", *(["asyncio"] if _redis.HAS_ASYNCIO else [])]
BACK_S = 1.0 + 3.0
"""After a fail-over: what is promised, and what a busy machine may take besides."""


def slot_of(sender_id: str) -> int:
    """Return the slot of a conversation."""
    return int(_redis.key_slot(CONVERSATIONS.key(sender_id)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The cluster of this file; every test finds it whole, with masters that may be others than at first."""
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def cluster(made: RedisCluster) -> RedisCluster:
    """The cluster, empty."""
    for port in set(made.owners(made.masters[0]).values()):
        made.at(port).flushall()
    return made


@pytest.fixture
def options(cluster: RedisCluster) -> Options:
    """Of a store that knows one node."""
    return parse({"cluster": True, "endpoints": [f"{HOST}:{cluster.masters[0]}"], "call_timeout": 20})


@pytest.fixture(params=SIDES)
def call(request: pytest.FixtureRequest, options: Options) -> Iterator[Callable[[Any], Any]]:
    """Carry out steps on a store's client."""
    if request.param == "blocking":
        client = sync_client(options)
        yield lambda steps: run(client, steps)
        client.connection_pool.disconnect()
        return
    loop = asyncio.new_event_loop()
    clients = AsyncClient(options)

    async def carried_out(steps: Any) -> Any:
        return await arun(clients.current(), steps)

    yield lambda steps: loop.run_until_complete(carried_out(steps))
    loop.run_until_complete(clients.close())
    loop.close()


def stored(cluster: RedisCluster) -> Callable[[bytes], Any]:
    """Return what reads a key where it is."""

    def get(key: bytes) -> Any:
        return cluster.at(cluster.owner(int(_redis.key_slot(key)))).get(key)

    return get


Call = Callable[[Any], Any]


def test_every_key_is_where_it_belongs(cluster: RedisCluster, call: Call) -> None:
    names = [f"sender-{number}" for number in range(60)]
    for name in names:
        call(CONVERSATIONS.replace(name, f"of {name}", None))
    assert sorted(call(CONVERSATIONS.sender_ids())) == sorted(names)
    expected = [*(f"of {name}".encode() for name in names[:5]), None]
    assert call(load_many(CONVERSATIONS, [*names[:5], "nobody"])) == expected
    masters = set(cluster.owners(cluster.masters[0]).values())
    assert len(masters) == 3
    assert all(cluster.at(port).dbsize() for port in masters)
    assert call(one("PING")) in (True, b"PONG")


def test_a_slot_on_its_way_and_there(cluster: RedisCluster, call: Call) -> None:
    slot = slot_of("alice")
    source = cluster.owner(slot)
    target = next(port for port in set(cluster.owners(source).values()) if port != source)
    call(CONVERSATIONS.replace("alice", "before", None))
    assert cluster.start_moving(slot, target) == source
    assert call(CONVERSATIONS.load("alice")) == b"before"
    cluster.move_keys(slot, source, target)
    assert call(CONVERSATIONS.load("alice")) == b"before"  # by ASK
    assert call(CONVERSATIONS.replace_if("alice", b"before", b"under way", None))
    cluster.finish_moving(slot, target)
    assert call(CONVERSATIONS.load("alice")) == b"under way"  # by MOVED
    assert call(CONVERSATIONS.sender_ids()) == ["alice"]
    assert stored(cluster)(CONVERSATIONS.key("alice")) == b"under way"
    cluster.move(slot, source)


def test_a_scan_sees_what_is_moved_behind_it(cluster: RedisCluster, call: Call) -> None:
    names = {f"sender-{number}" for number in range(90)}
    for name in names:
        call(CONVERSATIONS.replace(name, "x", None))
    cursor, found = call(CONVERSATIONS.some_sender_ids(0))
    first = cluster.owner(slot_of(found[0]))
    behind = next(name for name in sorted(names) if cluster.owner(slot_of(name)) != first)
    home = cluster.owner(slot_of(behind))
    cluster.move(slot_of(behind), first)
    seen = set(found)
    while cursor:
        cursor, found = call(CONVERSATIONS.some_sender_ids(cursor))
        seen.update(found)
    assert seen == names
    cluster.move(slot_of(behind), home)


def test_batches_and_commands_of_the_command_line(cluster: RedisCluster, options: Options) -> None:
    client = sync_client(options)
    assert client.ping() is True
    assert len(client.time()) == 2
    with client.pipeline(transaction=False) as batch:
        for name in SENDERS:
            batch.execute_command("SET", CONVERSATIONS.key(name), name)
            batch.execute_command("STRLEN", CONVERSATIONS.key(name))
        assert batch.execute() == [reply for name in SENDERS for reply in (True, len(name))]
    slot = slot_of("alice")
    target = next(port for port in set(cluster.owners(cluster.masters[0]).values()) if port != cluster.owner(slot))
    home = cluster.owner(slot)
    cluster.move(slot, target)
    with client.pipeline(transaction=True) as batch:  # at whom the client takes for its master
        batch.execute_command("GET", CONVERSATIONS.key("alice"))
        batch.execute_command("DEL", CONVERSATIONS.key("alice"))
        assert batch.execute() == [b"alice", 1]
    with client.pipeline(transaction=False) as batch:
        batch.execute_command("LPUSH", CONVERSATIONS.key("bob"), "x")
        assert isinstance(batch.execute(raise_on_error=False)[0], redis.ResponseError)
    client.connection_pool.disconnect()
    cluster.move(slot, home)


@pytest.mark.parametrize("side", SIDES)
def test_slots_that_move_and_a_manual_failover_under_load(cluster: RedisCluster, options: Options, side: str) -> None:
    given = {"cluster": True, "endpoints": options.endpoints}
    with Writers(side, CONVERSATIONS, **given) as writers:
        slot = slot_of("alice")
        home = cluster.owner(slot)
        target = next(port for port in set(cluster.owners(home).values()) if port != home)
        cluster.move(slot, target)
        writers.wait_for(20, len(writers.saves))
        cluster.move(slot, home)
        cluster.fail_over(cluster.owner(slot_of("bob")))
        writers.wait_for(40, len(writers.saves))
    cluster.settle()
    writers.judge(stored(cluster))


@pytest.mark.parametrize("side", SIDES)
def test_a_killed_master_under_load(cluster: RedisCluster, options: Options, side: str) -> None:
    """No acknowledged event is lost: each was at the replica that takes over. Then the shard has none for a while."""
    given = {"cluster": True, "endpoints": options.endpoints, "min_replicas_ack": 1, "socket_timeout": 1}
    slot = slot_of("alice")
    killed = cluster.owner(slot)
    others = [port for port in cluster.servers if port != killed]
    with Writers(side, CONVERSATIONS, **given) as writers:
        cluster.servers[killed].kill()
        until("the fail-over", lambda: cluster.owners(others[0]) and killed not in cluster.owners(others[0]).values())
        until("the cluster is up", lambda: cluster.is_up(others[0]))
        taken_over_at = time.monotonic()
        until("service", lambda: any(s.ended_at > taken_over_at and s.sender_id == "alice" for s in writers.saves))
        cluster.revive(killed)
        writers.wait_for(20, len(writers.saves))
    cluster.settle()
    writers.judge(stored(cluster), may_lack_replicas=True)
    assert writers.back_after(taken_over_at, ["alice"]) < BACK_S


@pytest.mark.parametrize("side", SIDES)
def test_a_frozen_master_under_load(cluster: RedisCluster, options: Options, side: str) -> None:
    """Its kernel goes on acknowledging; when it runs again it finds itself a replica, and says MOVED."""
    frozen = cluster.owner(slot_of("alice"))
    others = [port for port in cluster.servers if port != frozen]
    given = {"cluster": True, "endpoints": options.endpoints, "min_replicas_ack": 1, "socket_timeout": 1}
    with Writers(side, CONVERSATIONS, **given) as writers:
        cluster.servers[frozen].freeze()
        until("the fail-over", lambda: frozen not in cluster.owners(others[0]).values())
        cluster.servers[frozen].thaw()
        writers.wait_for(20, len(writers.saves))
    cluster.settle()
    writers.judge(stored(cluster), may_lack_replicas=True)


def test_the_command_line(
    cluster: RedisCluster,
    options: Options,
    tmp_path: Path,
    capsys: "pytest.CaptureFixture[str]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keys() -> List[bytes]:
        masters = set(cluster.owners(cluster.masters[0]).values())
        return [key for port in masters for key in cluster.at(port).scan_iter()]

    store = {"url": HOST, "cluster": True, "endpoints": list(options.endpoints)}
    ours = {"type": "extras.trackerstore.ExtraRedisTrackerStore", **store}
    tools = Tools(tmp_path, {"tracker_store": ours, "lock_store": {"type": "redis", **store}}, keys, capsys)
    tools.conversations()
    monkeypatch.chdir(tmp_path)  # the sources' extras/ would hide what is installed
    masters = set(cluster.owners(cluster.masters[0]).values())
    for port in masters:
        cluster.at(port).config_set("appendonly", "yes")
    findings = tools.doctor()
    for port in masters:
        cluster.at(port).config_set("appendonly", "no")
    titles = [finding["title"] for finding in findings if finding["level"] == "ok"]
    assert {"layout", "permissions", "conversation", "liveness", "lock store"} <= set(titles)
    assert titles.count("role") == 3
    assert [finding for finding in findings if finding["level"] in ("warning", "failed")] == []


def test_what_is_no_cluster_says_so(server: RedisServer) -> None:
    client = sync_client(parse({"cluster": True, "url": HOST, "port": server.port}))
    with pytest.raises(redis.ResponseError, match="cluster support disabled"):
        run(client, one("GET", "key"))
    client.connection_pool.disconnect()


def test_nobody_answers_until_the_call_is_over(tmp_path: Path) -> None:
    stopped = RedisServer(tmp_path)
    client = sync_client(parse({"cluster": True, "url": HOST, "port": stopped.port, "call_timeout": 0.6}))
    started_at = time.monotonic()
    with pytest.raises(redis.RedisError) as raised:
        run(client, one("GET", "key"))
    assert time.monotonic() - started_at < 0.6 + 2.0
    assert isinstance(raised.value, (redis.ConnectionError, redis.TimeoutError))


def test_all_slots_have_a_master(made: RedisCluster) -> None:
    """What the other tests stand on."""
    taken: List[int] = []
    for first, last in made.owners(made.masters[0]):
        taken += range(first, last + 1)
    assert sorted(taken) == list(range(SLOTS))
