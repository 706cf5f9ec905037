"""A store's clients behind real Sentinels: the master is found, and found again, whatever becomes of it."""

import asyncio
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
import redis
from tools import Tools
from topologies import HOST, SERVICE, Watched, until
from turning import Writers, one

from extras import _redis
from extras.bench.server import RedisServer
from extras.configured import AsyncClient, sync_client
from extras.conversation import Conversations
from extras.options import Options, parse
from extras.steps import arun, run

CONVERSATIONS = Conversations("tracker:", 20, False)
SIDES = ["blocking", *(["asyncio"] if _redis.HAS_ASYNCIO else [])]
BACK_S = 1.0 + 3.0
"""After a fail-over: what is promised, and what a busy machine may take besides."""
PASSWORD, OF_SENTINELS = "of-the-servers", "of-the-sentinels"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The servers of this file; Sentinels have a password of their own."""
    folder = tmp_path_factory.mktemp("sentinel")
    servers = ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
    sentinels = [f"requirepass {OF_SENTINELS}", f"sentinel auth-pass {SERVICE} {PASSWORD}"]
    with Watched(folder, servers, sentinels, PASSWORD, OF_SENTINELS) as running:
        yield running


@pytest.fixture
def options(watched: Watched) -> Options:
    """Of a store that knows all Sentinels, the first of which is not there."""
    return parse(given(watched))


def given(watched: Watched, **others: Any) -> Any:
    """Return options as in endpoints.yml."""
    nobody = RedisServer(Path("/nowhere")).port
    return {
        "deployment_mode": "sentinel",
        "endpoints": [f"{HOST}:{nobody}", *watched.endpoints],
        "sentinel_service": SERVICE,
        "password": PASSWORD,
        "sentinel_password": OF_SENTINELS,
        "call_timeout": 20,
        **others,
    }


Call = Callable[[Any], Any]


@pytest.fixture(params=SIDES)
def call(request: pytest.FixtureRequest, options: Options) -> Iterator[Call]:
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


def test_the_master_is_found(watched: Watched, call: Call) -> None:
    names = [f"sender-{number}" for number in range(50)]
    for name in names:
        call(CONVERSATIONS.replace(name, "x", None))
    assert sorted(call(CONVERSATIONS.sender_ids())) == sorted(names)
    assert watched.at(watched.master()).dbsize() == len(names)
    watched.at(watched.master()).flushall()


def test_commands_of_the_command_line(watched: Watched, options: Options) -> None:
    client = sync_client(options)
    assert client.ping() is True
    assert client.info("replication")["role"] == "master"
    assert [port for _, port in client.masters()] == [watched.master()]
    with client.pipeline(transaction=True) as batch:
        batch.execute_command("SET", "key", "value")
        batch.execute_command("GET", "key")
        assert batch.execute() == [True, b"value"]
    client.execute_command("DEL", "key")
    client.connection_pool.disconnect()


@contextmanager
def writing(watched: Watched, replicas: int) -> Iterator[List[Writers]]:
    """Let writers of both kinds write; each kind below a prefix of its own."""
    with ExitStack() as stack:
        options = given(watched, min_replicas_ack=replicas, socket_timeout=1)
        yield [stack.enter_context(Writers(side, Conversations(f"{side}:", 20, False), **options)) for side in SIDES]


def test_a_manual_failover_under_load(watched: Watched) -> None:
    """What both replicas have, the one that takes over has. The old master goes on as one for a while."""
    with writing(watched, 2) as all_writers:
        watched.fail_over()
        until("the promotion", lambda: watched.role(watched.master()) == "master")
        for writers in all_writers:
            writers.wait_until_stored(len(writers.saves) + 8)
    for writers in all_writers:
        writers.judge(watched.at(watched.master()).get, may_lack_replicas=True)
    watched.at(watched.master()).flushall()


def test_a_killed_master_under_load(watched: Watched) -> None:
    """The replica that has the most takes over, so that one that has it will do."""
    until("a replica", lambda: any(watched.has_link(port) for port in watched.nodes if port != watched.master()))
    killed = watched.master()
    with writing(watched, 1) as all_writers:
        watched.servers[killed].kill()
        until("the fail-over", lambda: watched.master() != killed)
        until("the promotion", lambda: watched.role(watched.master()) == "master")
        taken_over_at = time.monotonic()
        for writers in all_writers:
            writers.wait_until_stored(len(writers.saves) + 8)
    for writers in all_writers:
        writers.judge(watched.at(watched.master()).get, may_lack_replicas=True)
        assert writers.back_after(taken_over_at, ["alice"]) < BACK_S
    watched.revive(killed)
    watched.at(watched.master()).flushall()


def test_the_command_line(
    watched: Watched, tmp_path: Path, capsys: "pytest.CaptureFixture[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> List[bytes]:
        found: List[bytes] = []
        for database in range(2):
            client = redis.Redis(HOST, watched.master(), db=database, password=PASSWORD)
            found += client.scan_iter()
            client.connection_pool.disconnect()
        return found

    kind = "extras.trackerstore.ExtraRedisTrackerStore"
    sections = {
        "tracker_store": {"type": kind, "record_exp": 60, **given(watched)},
        "lock_store": {"type": "extras.lockstore.ExtraRedisLockStore", **given(watched)},
    }
    tools = Tools(tmp_path, sections, keys, capsys, [PASSWORD, OF_SENTINELS])
    tools.conversations()
    monkeypatch.chdir(tmp_path)  # the sources' extras/ would hide what is installed
    watched.at(watched.master()).config_set("appendonly", "yes")
    findings = tools.doctor()
    watched.at(watched.master()).config_set("appendonly", "no")
    assert [finding["title"] for finding in findings].count("role") == 1
    assert {"connect"} == {finding["title"] for finding in findings if "refused" in finding["found"]}
    # The first Sentinel is not there: see given().
    assert [finding["title"] for finding in findings if finding["level"] in ("warning", "failed")] == ["connect"]


def test_sentinels_that_do_not_know_the_master(watched: Watched) -> None:
    client = sync_client(parse(given(watched, sentinel_service="another", call_timeout=0.5)))
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)) as caught:  # whichever the time ends in
        run(client, one("GET", "key"))
    assert "master 'another'" in f"{caught.value} {caught.value.__cause__}"
    client.connection_pool.disconnect()


@pytest.mark.parametrize("wrong", ["password", "sentinel_password"])
def test_a_wrong_password_is_said_at_once(watched: Watched, wrong: str) -> None:
    client = sync_client(parse(given(watched, **{wrong: "hunter2"})))
    started_at = time.monotonic()
    with pytest.raises(redis.RedisError) as raised:
        run(client, one("GET", "key"))
    assert time.monotonic() - started_at < 5
    assert "hunter2" not in str(raised.value)
    client.connection_pool.disconnect()
