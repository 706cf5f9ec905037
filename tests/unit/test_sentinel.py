"""A store's clients behind real Sentinels: the master is found, and found again, whatever becomes of it."""

import asyncio
import os
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest
import redis
from tools import Tools
from topologies import HOST
from turning import Writers, one
from watched import SERVICE, Watched

from extras import _redis
from extras.bench.server import RedisServer
from extras.cli import checks_acl
from extras.configured import AsyncClient, sync_client
from extras.conversation import Conversations
from extras.options import Options, parse
from extras.steps import arun, run

CONVERSATIONS = Conversations("tracker:", 20, False)
SIDES = ["blocking", *(["asyncio"] if _redis.HAS_ASYNCIO else [])]
BACK_S = 1.0
"""Within this after a fail-over, as the servers have it, there is service again."""
FAILOVERS = int(os.environ.get("FAILOVERS", "1"))
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
    watched.empty()


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
def writing(watched: Watched, replicas: int) -> Iterator[Tuple[List[Writers], List[Writers]]]:
    """Let four writers of each kind write who want so many replicas to have it, and one of each who wants none.

    These say when service is back: where there are too few replicas, all saves of the former fail.
    """
    given_to = given(watched, socket_timeout=1)
    with ExitStack() as stack:
        strict = [
            stack.enter_context(
                Writers(side, Conversations(f"{side}:", 20, False), **given_to, min_replicas_ack=replicas)
            )
            for side in SIDES
        ]
        plain = [
            stack.enter_context(Writers(side, Conversations(f"plain:{side}:", 20, False), 1, **given_to))
            for side in SIDES
        ]
        yield strict, plain


@pytest.mark.parametrize("attempt", range(FAILOVERS))
@pytest.mark.parametrize("how", ["by hand", "after a kill"])
def test_a_failover_under_load(how: str, attempt: int, watched: Watched) -> None:
    """No acknowledged event is lost.

    What both replicas have, the one that takes over by hand has; meanwhile the old master goes on as one. After a kill
    the one that has the most takes over, so that one that has it will do.
    """
    watched.settle()
    lost = watched.master()
    with writing(watched, 2 if how == "by hand" else 1) as (strict, plain):
        began_at = time.monotonic()
        if how == "by hand":
            watched.order_fail_over()
        else:
            watched.servers[lost].kill()
        new, taken_over_at = watched.taken_over(lost, "alice")
        back_s = [writers.wait_until_back(taken_over_at, watched.at(new).get) for writers in plain]
        for writers in strict:
            writers.wait_until_stored(len(writers.saves) + 8)
    for writers in strict:
        writers.judge(watched.at(new).get, may_lack_replicas=True)
    print(f"the fail-over took {taken_over_at - began_at:.2f} s, service was back {back_s} s after it")
    assert max(back_s) < BACK_S
    if how == "after a kill":
        watched.revive(lost)
    watched.empty()


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


def test_a_user_of_the_sentinels_with_the_rights_that_are_documented(watched: Watched) -> None:
    for rights in (checks_acl.OF_SENTINELS, ()):
        for port in watched.sentinels:
            watched.at(port).execute_command("ACL", "SETUSER", "asker", "reset", "on", ">asks", *rights)
        client = sync_client(parse(given(watched, sentinel_username="asker", sentinel_password="asks")))
        if rights:
            assert run(client, one("PING"))
        else:
            with pytest.raises(redis.RedisError, match="permission"):
                run(client, one("PING"))
        client.connection_pool.disconnect()
    for port in watched.sentinels:
        watched.at(port).execute_command("ACL", "DELUSER", "asker")


def test_the_doctor_looks_at_the_rights_at_every_sentinel(
    watched: Watched, tmp_path: Path, capsys: "pytest.CaptureFixture[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that refuses is found while the others still answer."""
    refusing, _, wrong = watched.sentinels
    for port in watched.sentinels:
        rights = () if port == refusing else checks_acl.OF_SENTINELS
        password = "other" if port == wrong else "asks-them"
        watched.at(port).execute_command("ACL", "SETUSER", "asker", "reset", "on", f">{password}", *rights)
    monkeypatch.chdir(tmp_path)  # the sources' extras/ would hide what is installed
    kind = "extras.trackerstore.ExtraRedisTrackerStore"
    store = {"type": kind, **given(watched, sentinel_username="asker", sentinel_password="asks-them")}
    findings = Tools(tmp_path, {"tracker_store": store}, list, capsys, [PASSWORD, "asks-them"]).doctor()
    for port in watched.sentinels:
        watched.at(port).execute_command("ACL", "DELUSER", "asker")
    found = [(each["level"], each["found"]) for each in findings if each["title"] == "permissions"]
    assert ("warning", f"{HOST}:{refusing}: 'asker' may not SENTINEL MASTERS") in found
    assert any(level == "warning" and text.startswith(f"{HOST}:{wrong}: ") for level, text in found)
    assert [level for level, _ in found] == ["warning", "warning", "ok"]


def test_the_doctor_waits_until_a_master_is_known(
    watched: Watched, tmp_path: Path, capsys: "pytest.CaptureFixture[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def monitor() -> None:
        for port in watched.sentinels:
            client = watched.at(port)
            client.execute_command("SENTINEL", "MONITOR", "late", HOST, watched.master(), 2)
            client.execute_command("SENTINEL", "SET", "late", "auth-pass", PASSWORD)

    monkeypatch.chdir(tmp_path)  # the sources' extras/ would hide what is installed
    kind = "extras.trackerstore.ExtraRedisTrackerStore"
    store = {"type": kind, **given(watched, sentinel_service="late")}
    tools = Tools(tmp_path, {"tracker_store": store}, list, capsys, [PASSWORD, OF_SENTINELS])
    soon = threading.Timer(0.7, monitor)
    soon.start()
    findings = tools.doctor()
    soon.join()
    for port in watched.sentinels:
        watched.at(port).execute_command("SENTINEL", "REMOVE", "late")
    assert ("layout", "ok") in [(finding["title"], finding["level"]) for finding in findings]


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
