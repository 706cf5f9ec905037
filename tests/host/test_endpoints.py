"""Rasa builds our store from a real endpoints.yml, or says in one clear error why not; it never falls to memory."""

import json
import os
import socket
import subprocess
import sys
import zipfile
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest
from conversations import Script, add
from rasa.core.brokers.broker import EventBroker
from rasa.shared.exceptions import RasaException
from rasa.utils.endpoints import read_endpoint_config
from the_host import IS_PRO, IS_RASA_2, RecordingBroker

from extras import _rasa
from extras.bench.server import RedisServer
from extras.trackerstore import ExtraRedisTrackerStore

Call = Callable[[Any], Any]


class ConfiguredBroker(RecordingBroker, EventBroker):  # type: ignore[misc]
    """A broker that ``endpoints.yml`` can name."""

    if iscoroutinefunction(EventBroker.from_endpoint_config):

        @classmethod
        async def from_endpoint_config(cls, broker_config: Any, event_loop: Optional[Any] = None) -> Any:
            """Make the broker as the hosts since 2.2 ask for it."""
            return cls()

    else:

        @classmethod
        def from_endpoint_config(cls, broker_config: Any) -> Any:  # type: ignore[misc]
            """Make the broker as Rasa 2.0 asks for it."""
            return cls()


def write_endpoints(folder: Path, **options: Any) -> str:
    """Write an endpoints.yml; a ``${VAR}`` stands unquoted, as Rasa 2.0 needs it."""
    store = {"type": "extras.trackerstore.ExtraRedisTrackerStore", **options}
    broker = {"type": f"{ConfiguredBroker.__module__}.ConfiguredBroker", "url": "unused"}
    lines = []
    for section, values in (("tracker_store", store), ("event_broker", broker)):
        lines.append(f"{section}:")
        for name, value in values.items():
            plain = isinstance(value, str) and value.startswith("$")
            lines.append(f"  {name}: {value if plain else json.dumps(value).replace('NaN', '.nan')}")
    path = folder / "endpoints.yml"
    path.write_text("\n".join(lines))
    return str(path)


def create(path: str, broker: Any = None) -> Any:
    """Build the store as the host does, and take it out of what Rasa Pro wraps it in."""
    store = _rasa.TrackerStore.create(read_endpoint_config(path, "tracker_store"), None, broker)
    return getattr(store, "_tracker_store", store)


def test_the_host_builds_the_store_with_an_event_broker(
    tmp_path: Path, server: RedisServer, call: Call, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PORT_HERE", str(server.port))
    path = write_endpoints(
        tmp_path,
        url="127.0.0.1",
        port="${REDIS_PORT_HERE}",
        db="2",
        socket_keepalive="yes",
        socket_keepalive_options={"TCP_KEEPIDLE": 7, "TCP_KEEPINTVL": "3", "TCP_KEEPCNT": 2},
        record_exp="3600",
    )
    broker = call(EventBroker.create(read_endpoint_config(path, "event_broker")))
    assert type(broker) is ConfiguredBroker
    store = create(path, broker)
    assert type(store) is ExtraRedisTrackerStore
    assert store.event_broker is broker
    tracker = store.init_tracker("alice")
    events = Script(5).turn()
    add(tracker, events)
    call(store.save(tracker))
    assert len(broker.published) == len(events)
    assert call(store.keys()) == ["alice"]
    call(store.close())


BAD: List[Dict[str, Any]] = [
    {"prot": 6379},
    {"Port": 6379},
    {"pasword": "s3cret"},
    {"ssl": True},
    {"decode_responses": True},
    {"socket_keepalive_option": {}},
    {"record_expiry": 5},
    {"port": "redis"},
    {"port": 0},
    {"port": 65536},
    {"port": True},
    {"db": -1},
    {"db": "zero"},
    {"db": 1.5},
    {"use_ssl": "maybe"},
    {"use_ssl": 2},
    {"ssl_ca_certs": "/nowhere/ca.pem"},
    {"use_ssl": True, "ssl_ca_certs": "/nowhere/ca.pem"},
    {"use_ssl": True, "ssl_keyfile": "/nowhere/key.pem"},
    {"password": ["s3cret"]},
    {"password": 12345},
    {"record_exp": "soon"},
    {"record_exp": -1},
    {"record_exp": float("nan")},
    {"scan_count": 0},
    {"socket_timeout": 0},
    {"socket_timeout": "fast"},
    {"socket_connect_timeout": -2},
    {"health_check_interval": "often"},
    {"max_connections": 0},
    {"client_name": "my bot"},
    {"key_prefix": "two words"},
    {"retry_on_timeout": "perhaps"},
    {"socket_keepalive": "sometimes"},
    {"socket_keepalive_options": [5, 5, 3]},
    {"socket_keepalive_options": {"TCP_KEEPIDEL": 5}},
    {"socket_keepalive_options": {"TCP_KEEPIDLE": 0}},
    {"socket_keepalive_options": {"TCP_KEEPCNT": 100000}},
    {"socket_keepalive_options": {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 6}},
    {"socket_keepalive_options": {"TCP_KEEPINTVL": "x"}},
    {"cluster": True, "db": 1},
    {"deployment_mode": "cluster", "db": 1},
    {"deployment_mode": "sentinel", "sentinel_service": "mymaster"},
    {"deployment_mode": "galaxy"},
    {"endpoints": ["a:1", "b:2"]},
    {"url": "http://127.0.0.1"},
    {"url": "redis://"},
    {"url": "redis://:s3cret@127.0.0.1:port"},
    {"url": "redis://:s3/cret@127.0.0.1"},
    {"url": "redis://127.0.0.1/nine"},
    {"url": "redis://127.0.0.1/1?prot=3"},
    {"url": "redis://127.0.0.1/1", "db": 2},
    {"url": "redis+sentinel://127.0.0.1/mymaster/zero"},
    {"url": "two words"},
    {"url": "unix://relative.sock"},
]


@pytest.mark.parametrize("options", BAD, ids=lambda options: "-".join(map(str, options)))
def test_bad_options_are_one_clear_error_before_any_connection(options: Dict[str, Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.01)
        here = {"url": "127.0.0.1", **({} if "port" in options else {"port": listener.getsockname()[1]})}
        path = write_endpoints(tmp_path, **{**here, **options})
        with pytest.raises(RasaException, match=r"^ExtraRedisTrackerStore: ") as caught:
            create(path)
        with pytest.raises(OSError, match="timed out"):
            listener.accept()
    message = str(caught.value)
    assert any(name in message for name in options)
    assert len(message.splitlines()) == 1
    assert "s3cret" not in message
    assert "s3" not in message


@pytest.mark.parametrize("name", ["ExtraRedisTrackerstore", "ExtraRedisStore", "RedisTrackerStore"])
def test_a_misspelt_class_name_is_an_error_and_not_memory(name: str, tmp_path: Path) -> None:
    path = write_endpoints(tmp_path, type=f"extras.trackerstore.{name}", url="127.0.0.1")
    with pytest.raises(RasaException, match="did you mean ExtraRedisTrackerStore"):
        create(path)


IN_A_NEW_PROCESS = """
import sys
for hidden in {hidden!r}:
    sys.modules[hidden] = None
import warnings
warnings.simplefilter("ignore")
import rasa.shared.exceptions
try:
    from rasa.core.tracker_stores.tracker_store import TrackerStore
except ImportError:
    from rasa.core.tracker_store import TrackerStore
from rasa.utils.endpoints import read_endpoint_config
try:
    store = TrackerStore.create(read_endpoint_config({path!r}, "tracker_store"), None, "the broker")
    store = getattr(store, "_tracker_store", store)
except rasa.shared.exceptions.RasaException as error:
    print("RasaException:", error)
else:
    from extras import fastsock
    print(type(store).__name__, store.event_broker, fastsock.IMPL, fastsock.__file__)
"""


def in_a_new_process(path: str, hidden: List[str], **environment: str) -> str:
    """Build the store in a new process that cannot import ``hidden``; return the last line it prints."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS.format(hidden=hidden, path=path)],
        env={**os.environ, "SQLALCHEMY_SILENCE_UBER_WARNING": "1", **environment},
        cwd=str(Path(path).parent),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def test_the_native_module_runs_where_it_is_installed(tmp_path: Path) -> None:
    assert " native " in in_a_new_process(write_endpoints(tmp_path, url="127.0.0.1"), [])


def test_without_the_native_module_the_store_still_starts(tmp_path: Path) -> None:
    line = in_a_new_process(write_endpoints(tmp_path, url="127.0.0.1"), ["extras._fastsock"])
    assert line.startswith("ExtraRedisTrackerStore the broker python ")


@pytest.mark.parametrize(
    ("hidden", "environment", "names"),
    [
        (["extras._fastsock"], {"EXTRAS_FASTSOCK": "native"}, "install a rasa-extras wheel"),
        ([], {"EXTRAS_FASTSOCK": "fast"}, "EXTRAS_FASTSOCK is 'fast'"),
        (["extras.connection"], {}, "Reinstall the package"),
        # Rasa Pro itself needs redis-py to be imported.
        *([] if IS_PRO else [(["redis"], {}, "redis")]),
        *([] if IS_PRO or IS_RASA_2 else [(["redis.asyncio"], {}, "has no asyncio support")]),
    ],
)
def test_what_is_missing_is_an_error_of_ours_and_not_memory(
    hidden: List[str], environment: Dict[str, str], names: str, tmp_path: Path
) -> None:
    line = in_a_new_process(write_endpoints(tmp_path, url="127.0.0.1"), hidden, **environment)
    assert line.startswith("RasaException: ExtraRedisTrackerStore: ")
    assert names in line


def test_the_wheel_unpacked_into_a_folder_works(tmp_path: Path) -> None:
    with zipfile.ZipFile(os.environ["RASA_EXTRAS_WHEEL"]) as wheel:
        wheel.extractall(tmp_path / "app")
    line = in_a_new_process(write_endpoints(tmp_path, url="127.0.0.1"), [], PYTHONPATH=str(tmp_path / "app"))
    assert line.startswith("ExtraRedisTrackerStore the broker native ")
    assert str(tmp_path / "app") in line


def test_rasa_pro_wraps_the_store_and_makes_it_again_after_an_error(
    tmp_path: Path, call: Call, own_server: RedisServer
) -> None:
    if not IS_PRO:
        assert not hasattr(_rasa.TrackerStore, "delete")
        return
    path = write_endpoints(tmp_path, url="127.0.0.1", port=own_server.port)
    wrapper = _rasa.TrackerStore.create(read_endpoint_config(path, "tracker_store"), None, None)
    first = wrapper._tracker_store
    own_server.stop()
    assert call(wrapper.retrieve("alice")) is None
    own_server.start()
    assert wrapper._tracker_store is not first
    assert type(wrapper._tracker_store) is ExtraRedisTrackerStore
    assert call(wrapper.retrieve("alice")) is None
    call(wrapper._tracker_store.close())
