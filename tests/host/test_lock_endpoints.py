"""Rasa builds our lock store from a real endpoints.yml, or says in one clear error why not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from rasa.core.lock_store import LockStore
from rasa.shared.exceptions import RasaException
from rasa.utils.endpoints import EndpointConfig, read_endpoint_config
from the_host import IS_PRO

from extras import _rasa_locks
from extras.bench.server import RedisServer
from extras.lockstore import ExtraRedisLockStore

Call = Callable[[Any], Any]


def write_endpoints(folder: Path, **options: Any) -> str:
    """Write an endpoints.yml."""
    path = folder / "endpoints.yml"
    given = {"type": "extras.lockstore.ExtraRedisLockStore", **options}
    path.write_text("\n".join(["lock_store:", *(f"  {name}: {json.dumps(value)}" for name, value in given.items())]))
    return str(path)


def create(folder: Path, **options: Any) -> Any:
    """Build the lock store as the host does."""
    return LockStore.create(read_endpoint_config(write_endpoints(folder, **options), "lock_store"))


def test_the_host_builds_the_lock_store(tmp_path: Path, server: RedisServer, raw: Any, call: Call) -> None:
    store = create(tmp_path, url="127.0.0.1", port=str(server.port), socket_keepalive_options={"TCP_KEEPIDLE": 7})
    assert type(store) is ExtraRedisLockStore
    assert store.options.db == (0 if IS_PRO else 1)
    assert store.key_prefix == _rasa_locks.STOCK_PREFIX

    async def turn() -> None:
        async with store.lock("alice"):
            assert list(raw.info("keyspace")) == [f"db{store.options.db}"]

    call(turn())
    call(store.close())


@pytest.mark.parametrize(
    ("options", "db"),
    [
        ({"url": "h"}, None),
        ({"host": "h"}, None),
        ({"url": "redis://h/2"}, 2),
        ({"url": "redis://h/0"}, 0),
        ({"url": "h", "db": "0"}, 0),
        ({"url": "h", "db": ""}, None),
        ({"url": "redis://h?db=4"}, 4),
    ],
)
def test_the_database_is_the_stock_lock_stores_unless_it_is_named(options: Dict[str, Any], db: Any, call: Call) -> None:
    store = ExtraRedisLockStore(EndpointConfig(**options))
    assert (store.options.url, store.options.db) == ("h", _rasa_locks.STOCK_DB if db is None else db)
    call(store.close())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prot": 6379}, "unknown option 'prot'; did you mean 'port'"),
        ({"port": "redis"}, "port must be"),
        ({"pasword": "s3cret"}, "did you mean 'password'"),
        ({"token": "s3cret"}, "unknown option 'token'"),
        ({"record_exp": 60}, "record_exp is about conversations, and means nothing for their locks; remove it here"),
        ({"scan_count": 1000}, "scan_count is about conversations"),
        ({"url": "redis://127.0.0.1?record_exp=5"}, "record_exp is about conversations"),
        ({"read_unprefixed_keys": True}, "read_unprefixed_keys is about conversations"),
        ({"host": "elsewhere"}, "url and host are both given"),
        ({"url": "redis://127.0.0.1/1", "db": 2}, "db is given twice"),
        ({"deployment_mode": "galaxy"}, "deployment_mode must be standard, cluster or sentinel"),
        ({"use_ssl": True, "ssl_ca_certs": "/nowhere/ca.pem"}, "no readable file"),
    ],
)
def test_bad_options_are_one_clear_error(options: Dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RasaException) as caught:
        create(tmp_path, **{"url": "127.0.0.1", **options})
    message = str(caught.value)
    assert message.startswith("ExtraRedisLockStore: ")
    assert says in message
    assert "s3cret" not in message


@pytest.mark.parametrize("name", ["ExtraRedisLockstore", "ExtraRedisLock", "RedisLockStore"])
def test_a_misspelt_class_name_is_an_error_that_names_the_right_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(RasaException, match="did you mean ExtraRedisLockStore"):
        create(tmp_path, type=f"extras.lockstore.{name}", url="127.0.0.1")


IN_A_NEW_PROCESS = """
import sys
for hidden in {hidden!r}:
    sys.modules[hidden] = None
import warnings
warnings.simplefilter("ignore")
from rasa.core.lock_store import LockStore
from rasa.shared.exceptions import RasaException
from rasa.utils.endpoints import read_endpoint_config
try:
    store = LockStore.create(read_endpoint_config({path!r}, "lock_store"))
except RasaException as error:
    print("RasaException:", error)
else:
    print(type(store).__name__)
"""


@pytest.mark.parametrize(
    ("hidden", "environment", "says"),
    [
        (["extras._fastsock"], {}, "ExtraRedisLockStore"),
        (["extras._fastsock"], {"EXTRAS_FASTSOCK": "native"}, "install a rasa-extras wheel"),
        (["extras.connection"], {}, "RasaException: ExtraRedisLockStore: loading failed with ModuleNotFoundError"),
        # Rasa Pro itself needs redis-py to be imported.
        *([] if IS_PRO else [(["redis"], {}, "RasaException: ExtraRedisLockStore: loading failed with ModuleNot")]),
        *([] if IS_PRO else [(["redis.asyncio"], {}, "ExtraRedisLockStore")]),
    ],
)
def test_what_is_missing_is_an_error_of_ours(hidden: Any, environment: Any, says: str, tmp_path: Path) -> None:
    path = write_endpoints(tmp_path, url="127.0.0.1")
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS.format(hidden=hidden, path=path)],
        env={**os.environ, **environment},
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert says in done.stdout.splitlines()[-1]
