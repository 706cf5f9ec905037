"""``rasa-extras`` where Rasa is: it goes to the places of the host's own stores, and logs in as they do."""

import json
from inspect import signature
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import redis
from rasa.core.lock_store import LockStore, RedisLockStore
from rasa.utils.endpoints import EndpointConfig
from the_host import IS_PRO

from extras import _rasa
from extras.bench.server import RedisServer
from extras.cli.main import main

LOCK_STORES: List[Dict[str, Any]] = [
    {"type": "redis"},
    *(
        [{"type": "redis", "key_prefix": "bot1"}]
        if "key_prefix" in signature(RedisLockStore.__init__).parameters
        else []
    ),
    {"type": "extras.lockstore.ExtraRedisLockStore", "key_prefix": "my-bot"},
    *([{"type": "concurrent_redis"}, {"type": "concurrent_redis", "key_prefix": "bot1"}] if IS_PRO else []),
]


def all_keys(server: RedisServer) -> List[bytes]:
    found: List[bytes] = []
    for database in range(16):
        client = redis.Redis(port=server.port, db=database)
        found += client.scan_iter()
        client.connection_pool.disconnect()
    return found


@pytest.mark.parametrize("given", LOCK_STORES, ids=str)
def test_delete_finds_the_locks_of_the_hosts_own_stores(
    given: Dict[str, Any],
    server: RedisServer,
    raw: "redis.Redis",
    tmp_path: Path,
    call: Callable[[Any], Any],
    capsys: "pytest.CaptureFixture[str]",
) -> None:
    place = {"port": server.port, "host" if given["type"].startswith("concurrent") else "url": "127.0.0.1"}
    locks = LockStore.create(EndpointConfig(**given, **place))
    for sender_id in ("alice", "bob"):
        locks.issue_ticket(sender_id, 60)
    before = all_keys(server)
    assert len(before) == (4 if given["type"].startswith("concurrent") else 2)
    raw.set(f"{_rasa.STOCK_PREFIX}alice", '{"events": []}')
    path = tmp_path / "endpoints.yml"
    tracker_store = {"type": "redis", "url": "127.0.0.1", "port": server.port}
    path.write_text(json.dumps({"tracker_store": tracker_store, "lock_store": {**given, **place}}))
    capsys.readouterr()
    code = main(["conversations", "delete", str(path), "alice", "--yes"])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert json.loads(printed.out)["not_erased"] == []
    assert sorted(all_keys(server)) == sorted(key for key in before if b"alice" not in key)
    if hasattr(locks, "close"):
        call(locks.close())
    else:
        locks.red.connection_pool.disconnect()
