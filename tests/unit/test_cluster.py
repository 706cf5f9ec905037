"""A store's clients on a real Redis Cluster: every key, every scan, and whatever happens to its masters."""

import asyncio
import os
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
import redis
from least_privilege import PASSWORD, give
from topologies import HOST, SLOTS, RedisCluster, until

from extras import _redis
from extras.acknowledged import Acks, acknowledged
from extras.bench.server import RedisServer
from extras.cli.checks_acl import OF_ACKS, OF_CLUSTERS, rights_of
from extras.configured import AsyncClient, sync_client
from extras.conversation import Changed, Conversations, load_many
from extras.document import parse as parse_document
from extras.options import Options, parse
from extras.outbox import outbox_key
from extras.slots import Next, next_attempt
from extras.steps import arun, run

if not _redis.HAS_CLUSTER:
    pytest.skip("redis-py before 4.1 knows nothing of clusters", allow_module_level=True)

from tools import Tools
from turning import SENDERS, Writers, one

CONVERSATIONS = Conversations("tracker:", 20, False)
SIDES = ["blocking", *(["asyncio"] if _redis.HAS_ASYNCIO else [])]
CONVERSATIONS_OF = {"blocking": CONVERSATIONS, "asyncio": Conversations("more:", 20, False)}
OF_ALICE = {side: Conversations(f"{{tracker:alice}}:{side}:", 20, False) for side in SIDES}
"""All of them are in the slot of ``tracker:alice``."""
BACK_S = 1.0
"""Within this after a fail-over, as the servers have it, there is service again."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "failovers.md"
LATER_S = 0.4
FAILOVERS = int(os.environ.get("FAILOVERS", "1"))


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
    made.empty()
    return made


@pytest.fixture
def options(cluster: RedisCluster) -> Options:
    """Of a store that knows one node."""
    return parse({**cluster.options, "call_timeout": 20})


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


def later(work: Callable[[], None]) -> threading.Timer:
    """Do something while a call is under way."""
    timer = threading.Timer(LATER_S, work)
    timer.start()
    return timer


def test_two_keys_of_which_one_has_moved(cluster: RedisCluster, call: Call) -> None:
    """A turn and its outbox: neither server has both, which one says by TRYAGAIN, until all of the slot has moved."""
    slot = slot_of("alice")
    target = next(port for port in set(cluster.owners(cluster.masters[0]).values()) if port != cluster.owner(slot))
    key, document = CONVERSATIONS.key("alice"), b'{"events": [{"event": "one"}], "name": "alice"}'
    assert call(CONVERSATIONS.replace_if("alice", None, document, None, [b"one"]))
    source = cluster.start_moving(slot, target)
    cluster.migrate(source, target, key)
    with cluster.at(target).pipeline(transaction=False) as asked:
        asked.execute_command("ASKING")
        asked.execute_command("EVAL", "return 1", 2, key, outbox_key(key))
        assert next_attempt(asked.execute(raise_on_error=False)[1]) is Next.LATER

    def finish() -> None:
        cluster.move_keys(slot, source, target)
        cluster.finish_moving(slot, target)

    known = parse_document(document).known
    assert known is not None
    began_at, timer = time.monotonic(), later(finish)
    found = call(CONVERSATIONS.append("alice", known, b', {"event": "two"}', known.closing, None, [b"two"]))
    took_s = time.monotonic() - began_at
    timer.join()
    assert not isinstance(found, Changed)
    assert took_s >= LATER_S
    assert cluster.at(target).lrange(outbox_key(key), 0, -1)[-1].endswith(b"two")
    cluster.move(slot, source)


def test_a_slot_that_nobody_has_for_a_while(cluster: RedisCluster, call: Call) -> None:
    """Its server says CLUSTERDOWN."""
    slot = slot_of("alice")
    admin = cluster.at(cluster.owner(slot))
    assert call(CONVERSATIONS.load("alice")) is None
    admin.execute_command("CLUSTER", "DELSLOTS", slot)
    with pytest.raises(redis.ResponseError) as said:
        admin.get(CONVERSATIONS.key("alice"))
    assert next_attempt(said.value) is Next.LATER
    began_at, timer = time.monotonic(), later(lambda: admin.execute_command("CLUSTER", "ADDSLOTS", slot))
    call(CONVERSATIONS.replace("alice", "x", None))
    took_s = time.monotonic() - began_at
    timer.join()
    assert took_s >= LATER_S
    assert stored(cluster)(CONVERSATIONS.key("alice")) == b"x"


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


@contextmanager
def writing(
    cluster: RedisCluster, options: Options, replicas: int = 0
) -> Iterator[Tuple[List[Writers], List[Writers]]]:
    """Let four writers of each kind write everywhere, and one of each in the slot of Alice.

    ``replicas``: must have what the former write. The others say when service is back: where there are too few, all
    saves of the former fail.
    """
    given: Dict[str, Any] = {"cluster": True, "endpoints": options.endpoints, "socket_timeout": 1}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(Writers(side, CONVERSATIONS_OF[side], **given, min_replicas_ack=replicas))
            for side in SIDES
        ]
        yield writers, [stack.enter_context(Writers(side, OF_ALICE[side], 1, **given)) for side in SIDES]


@pytest.mark.parametrize("attempt", range(FAILOVERS))
def test_slots_that_move_and_a_manual_failover_under_load(
    cluster: RedisCluster, options: Options, attempt: int
) -> None:
    slot = slot_of("alice")
    with writing(cluster, options) as (everywhere, of_alice):
        home = cluster.owner(slot)
        target = next(port for port in set(cluster.owners(home).values()) if port != home)
        cluster.move_range(range(slot, min(slot + 20, SLOTS)), target)
        for writers in everywhere:
            writers.wait_for(20, len(writers.saves))
        cluster.move_range(range(slot, min(slot + 20, SLOTS)), home)
        cluster.at(cluster.replica_of(home)).execute_command("CLUSTER", "FAILOVER")
        new, taken_over_at = cluster.taken_over(home, "tracker:alice")
        back_s = [writers.wait_until_back(taken_over_at, cluster.at(new).get) for writers in of_alice]
        for writers in everywhere:
            writers.wait_for(20, len(writers.saves))
    cluster.settle()
    for writers in (*everywhere, *of_alice):
        writers.judge(stored(cluster))
    print(f"service was back {back_s} s after the manual fail-over")
    assert max(back_s) < BACK_S


@pytest.mark.parametrize("attempt", range(FAILOVERS))
def test_a_killed_master_under_load(cluster: RedisCluster, options: Options, attempt: int) -> None:
    """No acknowledged event is lost: each was at the replica that takes over. Then the shard has none for a while."""
    killed = cluster.owner(slot_of("alice"))
    with writing(cluster, options, 1) as (everywhere, of_alice):
        cluster.servers[killed].kill()
        killed_at = time.monotonic()
        new, taken_over_at = cluster.taken_over(killed, "tracker:alice")
        back_s = [writers.wait_until_back(taken_over_at, cluster.at(new).get) for writers in of_alice]
        cluster.revive(killed)
        for writers in everywhere:
            writers.wait_for(20, len(writers.saves))
    cluster.settle()
    for writers in everywhere:
        writers.judge(stored(cluster), may_lack_replicas=True)
    print(f"the fail-over took {taken_over_at - killed_at:.2f} s, service was back {back_s} s after it")
    assert max(back_s) < BACK_S


@pytest.mark.parametrize("side", SIDES)
def test_a_frozen_master_under_load(cluster: RedisCluster, options: Options, side: str) -> None:
    """Its kernel goes on acknowledging; when it runs again it finds itself a replica, and says MOVED."""
    frozen = cluster.owner(slot_of("alice"))
    others = [port for port in cluster.servers if port != frozen]
    given: Dict[str, Any] = {"cluster": True, "endpoints": options.endpoints, "min_replicas_ack": 1}
    with Writers(side, CONVERSATIONS, socket_timeout=1, **given) as writers:
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


@pytest.mark.parametrize("missing", ["nothing", *OF_CLUSTERS, *OF_ACKS])
def test_the_rights_that_are_documented_are_needed(cluster: RedisCluster, options: Options, missing: str) -> None:
    """Beside those that the stores need on any server."""
    cluster.settle()
    slot = slot_of("alice")
    target = next(port for port in set(cluster.owners(cluster.masters[0]).values()) if port != cluster.owner(slot))
    for port in cluster.servers:
        give(cluster.at(port), [each for each in (*rights_of(), *OF_CLUSTERS, *OF_ACKS) if each != missing])
    login = {"username": "rasa", "password": PASSWORD, "call_timeout": 10}
    client = sync_client(parse({**cluster.options, **login, "min_replicas_ack": 1}))
    source = cluster.start_moving(slot, target)

    def work() -> None:
        steps = CONVERSATIONS.replace_if("alice", None, b"{}", None)  # at the new server, by ASK
        assert run(client, acknowledged(steps, Acks(1, 1000)))
        assert run(client, CONVERSATIONS.sender_ids()) == ["alice"]

    try:
        if missing == "nothing":
            work()
        else:
            with pytest.raises(redis.ResponseError, match=missing[1:].replace("|", r"\|")):
                work()
    finally:
        client.connection_pool.disconnect()
        for port in cluster.servers:
            cluster.at(port).execute_command("ACL", "DELUSER", "rasa")
        cluster.move_keys(slot, source, target)
        cluster.finish_moving(slot, target)
        cluster.settle()
        cluster.move(slot, source)
    assert " ".join(OF_CLUSTERS) in PAGE.read_text(encoding="utf-8")


def test_the_doctor_looks_at_the_rights_on_every_node(
    cluster: RedisCluster, tmp_path: Path, capsys: "pytest.CaptureFixture[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own users: a replica whose user has less is found before it takes over."""
    cluster.settle()
    replica = cluster.replica_of(cluster.owner(0))
    documented = (*rights_of(), *OF_CLUSTERS, *OF_ACKS)
    for port in cluster.servers:
        lacking = {"+setrange", "+asking"} if port == replica else {""}
        give(cluster.at(port), [right for right in documented if right not in lacking])
    monkeypatch.chdir(tmp_path)  # the sources' extras/ would hide what is installed
    login = {"username": "rasa", "password": PASSWORD, "min_replicas_ack": 1}
    ours = {"type": "extras.trackerstore.ExtraRedisTrackerStore", **login, **cluster.options}
    findings = Tools(tmp_path, {"tracker_store": ours}, list, capsys, [PASSWORD]).doctor()
    for port in cluster.servers:
        cluster.at(port).execute_command("ACL", "DELUSER", "rasa")
    of_rights = [finding for finding in findings if finding["title"] == "permissions"]
    lacks = [finding for finding in of_rights if finding["level"] != "ok"]
    assert len(of_rights) == len(cluster.servers)
    assert [(each["level"], each["found"]) for each in lacks] == [
        ("warning", f"{HOST}:{replica}: 'rasa' may not SETRANGE, ASKING")
    ]
    assert lacks[0]["way_out"] == "ACL SETUSER rasa +setrange +asking"
    assert "conversation" in [finding["title"] for finding in findings if finding["level"] == "ok"]


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
