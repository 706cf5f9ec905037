"""Who logs in, as the stores themselves say it: least rights, refusals, and Rasa Pro's login by IAM."""

import asyncio
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import redis
from conversations import Script, add
from least_privilege import give, servers, with_user
from proxy import Proxy
from rasa.shared.exceptions import RasaException
from rasa.utils.endpoints import EndpointConfig
from the_host import IS_PRO

from extras._rasa_locks import LockError
from extras.bench.server import RedisServer
from extras.cli.checks_acl import rights_of
from extras.cli.main import main
from extras.lockstore import ExtraRedisLockStore
from extras.trackerstore import ExtraRedisTrackerStore, StoreRefusedError, TrackerStoreError

Call = Callable[[Any], Any]
SECRET = "hunter2-of-the-host"


def lock_store(**options: Any) -> Any:
    return ExtraRedisLockStore(EndpointConfig(type="extras.lockstore.ExtraRedisLockStore", **options))


@pytest.mark.parametrize("binary", servers())
def test_the_stores_work_with_the_documented_rights_and_no_more(
    binary: str, domain: Any, call: Call, tmp_path: Path
) -> None:
    with with_user(binary, tmp_path, rights_of("bot")) as (_, admin, given):
        store = ExtraRedisTrackerStore(domain, **given, key_prefix="bot", record_exp=60)
        kept = ExtraRedisTrackerStore(domain, **given, key_prefix="bot")
        locks = lock_store(**given, key_prefix="bot")

        async def in_turn() -> List[int]:
            done: List[int] = []

            async def turn(number: int) -> None:
                async with locks.lock("alice", 60, 0.05):
                    done.append(number)

            await asyncio.gather(*map(turn, range(5)))
            await locks.close()
            return done

        for _ in range(2):
            tracker = store.init_tracker("alice")
            script = Script(7)
            for turn in range(3):
                add(tracker, script.session_start() + script.turn())
                call(store.save(tracker))
                if turn == 1:
                    admin.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")  # and they connect again
                tracker = call(store.retrieve("alice"))
            assert 0 < admin.pttl("bot:tracker:alice") <= 60_000
            call(kept.save(tracker))
            if hasattr(store, "retrieve_full_tracker"):
                assert len(call(store.retrieve_full_tracker("alice")).events) >= len(tracker.events)
            assert list(call(store.keys())) == ["alice"]
            assert call(store.exists("alice"))
            if IS_PRO:
                of_user = store.init_tracker("bob", user_id="user")
                add(of_user, script.session_start())
                call(store.save(of_user))
                assert len(call(store.get_serialized_trackers_by_user_id("user"))) == 1
                call(store.update(of_user))
                call(store.delete("bob"))
                call(store.delete("alice"))
            assert call(in_turn()) == [0, 1, 2, 3, 4]
            give(admin, rights_of("bot"))  # all connections are closed
        call(store.close())
        call(kept.close())


def test_a_refusal_is_the_stores_own_error(server: RedisServer, domain: Any, call: Call) -> None:
    given: Dict[str, Any] = {"url": "127.0.0.1", "port": server.port, "username": "nobody", "password": SECRET}
    store = ExtraRedisTrackerStore(domain, **given)
    attempts: List[Callable[[], Any]] = [
        lambda: store.retrieve("alice"),
        lambda: store.keys(),
        lambda: store.save(store.init_tracker("a")),
    ]
    for attempt in attempts:
        with pytest.raises(StoreRefusedError) as error:
            call(attempt())
        assert isinstance(error.value, (TrackerStoreError, RasaException))
        assert "username, password: " in str(error.value)
        assert SECRET not in str(error.value)
        assert isinstance(error.value.__cause__, redis.RedisError)
    call(store.close())
    locks = lock_store(**given)

    async def lock() -> None:
        try:
            async with locks.lock("alice"):
                pass
        finally:
            await locks.close()

    with pytest.raises(LockError, match="username, password: "):
        call(lock())


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that Rasa Pro's own stores log in by; a token is signed here, and AWS is not asked."""
    for name, value in {
        "IAM_CLOUD_PROVIDER": "aws",
        "ELASTICACHE_REDIS_AWS_IAM_ENABLED": "true",
        "AWS_ELASTICACHE_CLUSTER_NAME": "my-cache",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    if importlib.util.find_spec("aws_msk_iam_sasl_signer") is None:  # Pro's module for it holds Kafka's, too
        signer = types.ModuleType("aws_msk_iam_sasl_signer")
        vars(signer).update(MSKAuthTokenProvider=None)
        monkeypatch.setitem(sys.modules, signer.__name__, signer)


@pytest.mark.skipif(not IS_PRO, reason="only Rasa Pro logs in by IAM")
def test_pros_login_by_iam(
    server: RedisServer,
    raw: "redis.Redis",
    domain: Any,
    call: Call,
    iam: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: "pytest.CaptureFixture[str]",
) -> None:
    raw.execute_command("ACL SETUSER", "iam-user", "reset", "on", "nopass", "~*", "&*", "+@all")  # any token will do
    try:
        with Proxy(server.port) as proxy:
            given = {"url": "127.0.0.1", "port": proxy.port, "username": "iam-user", "password": "not used"}
            stores = [ExtraRedisTrackerStore(domain, **given) for _ in range(2)]
            for store in stores:
                assert call(store.retrieve("alice")) is None
            sent = bytes(proxy.sent)
            assert sent.count(b"AUTH") == 1  # stores with equal options share a connection
            assert b"iam-user" in sent
            assert b"my-cache/?Action=connect&User=iam-user&X-Amz-Algorithm=AWS4-HMAC-SHA256" in sent
            assert b"not used" not in sent
            raw.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
            assert call(stores[0].retrieve("alice")) is None
            assert bytes(proxy.sent).count(b"AUTH") == 2
            locks = lock_store(**given)
            locks.issue_ticket("alice")
            assert bytes(proxy.sent).count(b"AUTH") == 3
            call(locks.close())
            for store in stores:
                call(store.close())

            raw.set("tracker:alice", '{"events": []}')
            path = tmp_path / "endpoints.yml"
            sections = {"tracker_store": "extras.trackerstore.ExtraRedisTrackerStore", "lock_store": "redis"}
            path.write_text(json.dumps({name: {"type": kind, **given} for name, kind in sections.items()}))
            monkeypatch.chdir(tmp_path)  # the sources' extras/ would hide what is installed
            for command in (["doctor"], ["conversations", "list"], ["conversations", "delete", "--yes", "alice"]):
                before = bytes(proxy.sent).count(b"User=iam-user")
                line = [*command[:2], str(path), *command[2:]]
                assert main(line) == 0, capsys.readouterr()
                assert bytes(proxy.sent).count(b"User=iam-user") > before
            assert SECRET not in capsys.readouterr().out
            assert b"not used" not in bytes(proxy.sent)
    finally:
        raw.execute_command("ACL DELUSER", "iam-user")
