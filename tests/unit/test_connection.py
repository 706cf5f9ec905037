"""Connection classes on a real server: liveness is in force before connect, and is what they say it is.

Also guaranteed: every failure to connect becomes redis-py's own error in the configured time and leaves no socket
behind, replies are those of the stock classes, over TCP, TLS and Unix sockets, blocking and on every event loop here.
"""

import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from errno import EAFNOSUPPORT, EINVAL, EPIPE
from typing import Any, Callable, Coroutine, Dict, Iterator, List, Tuple

import pytest
import redis
from leaks import none_left, none_left_async, open_descriptors
from scripted import HANGS_S, LOOPS, PATIENCE_S, black_hole
from tls_proxy import Certificates, TlsProxy

from extras import connection as connections
from extras import fastsock, liveness
from extras.bench.server import RedisServer, free_port
from extras.connection import FastConnection, FastSSLConnection, FastUnixConnection
from extras.errors import OptionError
from extras.keepalive import Keepalive

HAS_ASYNCIO = importlib.util.find_spec("redis.asyncio") is not None
ASYNC_NAMES = {
    "tcp": "AsyncFastConnection",
    "tls": "AsyncFastSSLConnection",
    "unix": "AsyncFastUnixConnection",
}
STOCK_NAMES = {"tcp": "Connection", "tls": "SSLConnection", "unix": "UnixDomainSocketConnection"}
SYNC_CLASSES: Dict[str, Any] = {"tcp": FastConnection, "tls": FastSSLConnection, "unix": FastUnixConnection}
REDIS_VERSION = tuple(int(part) for part in redis.__version__.split(".")[:2])

LIVENESS = {"TCP_KEEPIDLE": 7, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 9000}
DEFAULTS = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 45000}

# redis-py before 5 leaves the socket of a failed Unix connect to the garbage collector.


def on(values: Dict[str, int]) -> Dict[str, int]:
    """What the kernel says of a socket with keepalive on, for the options that this system has."""
    return {"SO_KEEPALIVE": 1, **{name: value for name, value in values.items() if hasattr(socket, name)}}


def held_by_kernel(sock: socket.socket) -> Dict[str, int]:
    """Ask the kernel, by the socket module alone."""
    held = {"SO_KEEPALIVE": int(bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))}
    for name in DEFAULTS:
        if hasattr(socket, name):
            held[name] = sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
    return held


def held_by_descriptor(fd: int) -> Dict[str, int]:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return held_by_kernel(sock)


def as_kernel_values(keepalive: Any) -> Dict[str, Any]:
    names = {
        "TCP_KEEPIDLE": keepalive.idle_s,
        "TCP_KEEPINTVL": keepalive.interval_s,
        "TCP_KEEPCNT": keepalive.count,
        "TCP_USER_TIMEOUT": keepalive.user_timeout_ms,
    }
    return {"SO_KEEPALIVE": int(keepalive.enabled), **{n: value for n, value in names.items() if hasattr(socket, n)}}


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Let each test see the warnings that a process logs once."""
    for logged_once in ("_warn_no_meaning", "_warn_no_meaning_on_unix", "_report"):
        getattr(liveness, logged_once).cache_clear()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_port(server: RedisServer, certificates: Certificates) -> Iterator[int]:
    with TlsProxy(certificates.context(certificates.server), server.port) as proxy:
        yield proxy.port


Target = Callable[[str], Dict[str, Any]]


@pytest.fixture
def target(raw: "redis.Redis", server: RedisServer, tls_port: int, certificates: Certificates) -> Target:
    """Return the arguments that reach the emptied server over "tcp", "tls" or "unix"."""

    def arguments(kind: str) -> Dict[str, Any]:
        if kind == "unix":
            return {"path": server.unix_path}
        if kind == "tcp":
            return {"host": "127.0.0.1", "port": server.port}
        return {"host": "127.0.0.1", "port": tls_port, "ssl_ca_certs": certificates.ca_file, "ssl_check_hostname": True}

    return arguments


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> List[Dict[str, int]]:
    """What the kernel holds for each TCP socket at the moment of its ``connect()``."""
    seen: List[Dict[str, int]] = []

    class Recording(socket.socket):
        def connect(self, address: Any) -> None:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                seen.append(held_by_kernel(self))
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Recording)
    return seen


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> List[socket.socket]:
    """Every socket that a connection makes from here on."""
    made: List[socket.socket] = []
    new_socket = liveness.new_socket

    def recording(*args: Any) -> socket.socket:
        sock = new_socket(*args)
        made.append(sock)
        return sock

    monkeypatch.setattr(connections, "new_socket", recording)
    if HAS_ASYNCIO:
        monkeypatch.setattr("extras.async_connection.new_socket", recording)
    return made


@contextmanager
def silent_listener() -> Iterator[socket.socket]:
    """A listener whose connections open, and stay silent."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield listener


@contextmanager
def client_of(connection_class: Any, **kwargs: Any) -> Iterator[Any]:
    pool: Any = redis.ConnectionPool(connection_class=connection_class, **kwargs)
    try:
        yield redis.Redis(connection_pool=pool)
    finally:
        pool.disconnect()


def addresses(*pairs: Tuple[str, int]) -> List[Tuple[int, int, int, str, Any]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", pair) for pair in pairs]


def resolve_to(monkeypatch: pytest.MonkeyPatch, found: List[Any]) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)


def refuse_family(monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    """Make this machine one whose kernel lacks an address family, as with ``ipv6.disable=1``."""

    class Without(socket.socket):
        def __init__(self, family_: int = -1, *args: Any, **kwargs: Any) -> None:
            if family_ == family:
                raise OSError(EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family_, *args, **kwargs)

    monkeypatch.setattr(socket, "socket", Without)


def refuse_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, keepalive: Keepalive) -> None:
        raise OSError(EINVAL, "setsockopt(TCP_KEEPIDLE=0): Invalid argument")

    monkeypatch.setattr(fastsock, "apply_keepalive", refuse)


SPELLINGS: Dict[str, Dict[Any, Any]] = {
    "linux": LIVENESS,
    "macos": {"TCP_KEEPALIVE": 7, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 2, "TCP_RXT_CONNDROPTIME": 9},
    "windows": {"SIO_KEEPALIVE_VALS": [1, 7000, 3000], "TCP_KEEPCNT": 2, "TCP_MAXRTMS": 9000},
    "illumos": {"TCP_KEEPALIVE_THRESHOLD": 7000, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 2, "TCP_MAXRT": 9},
    "text": {" TCP_KEEPIDLE ": "7", "TCP_KEEPINTVL": 3.0, "TCP_KEEPCNT": "2", "TCP_USER_TIMEOUT": "9000"},
    "constants": {getattr(socket, name): value for name, value in LIVENESS.items() if hasattr(socket, name)},
}

BAD_OPTIONS: List[Dict[Any, Any]] = [
    {"TCP_KEEPIDEL": 7},
    {"TCP_KEEPIDLE": 0},
    {"TCP_KEEPIDLE": -1},
    {"TCP_KEEPIDLE": 10**9},
    {"TCP_KEEPCNT": "many"},
    {"TCP_KEEPCNT": None},
    {"TCP_KEEPINTVL": 1.5},
    {"TCP_KEEPIDLE": 7, "TCP_KEEPALIVE": 8},
    {987654: 1},
    {True: 1},
]


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_options_are_in_force_before_connect(kind: str, target: Target, connects: List[Dict[str, int]]) -> None:
    with client_of(SYNC_CLASSES[kind], socket_keepalive_options=LIVENESS, **target(kind)) as client:
        assert client.ping()
    assert connects[0] == on(LIVENESS)


OTHER_HOSTS: Dict[str, Any] = {"none": None, "bytes": b"localhost"}
"""What ``getaddrinfo`` takes beside text, and so do redis-py's connections."""


@pytest.mark.parametrize("host", OTHER_HOSTS.values(), ids=OTHER_HOSTS)
def test_takes_for_a_host_what_redis_py_takes(host: Any, target: Target) -> None:
    with client_of(FastConnection, **{**target("tcp"), "host": host}) as client:
        assert client.ping()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_says_what_the_kernel_holds(kind: str, spelling: str, target: Target) -> None:
    connection: Any = SYNC_CLASSES[kind](socket_keepalive_options=SPELLINGS[spelling], **target(kind))
    assert connection.keepalive is None
    connection.connect()
    held = held_by_descriptor(connection._sock.fileno())
    assert held == on(LIVENESS)
    assert as_kernel_values(connection.keepalive) == held
    connection.disconnect()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize(
    "kwargs", [{}, {"socket_keepalive": True}, {"socket_keepalive": None}, {"socket_keepalive_options": {}}]
)
def test_is_on_by_default(kind: str, kwargs: Dict[str, Any], target: Target) -> None:
    connection: Any = SYNC_CLASSES[kind](**kwargs, **target(kind))
    connection.connect()
    assert held_by_descriptor(connection._sock.fileno()) == on(DEFAULTS)
    assert str(connection.keepalive).startswith("keepalive on, idle 30 s, interval 5 s, count 3")
    connection.disconnect()


def test_defaults_fill_what_is_not_given(target: Target) -> None:
    connection: Any = FastConnection(socket_keepalive_options={"TCP_KEEPIDLE": 10}, **target("tcp"))
    connection.connect()
    assert held_by_descriptor(connection._sock.fileno()) == on(
        {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25000}
    )
    connection.disconnect()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_off_applies_nothing(kind: str, target: Target) -> None:
    with socket.socket() as untouched:
        expected = held_by_kernel(untouched)
    assert expected["SO_KEEPALIVE"] == 0
    connection: Any = SYNC_CLASSES[kind](socket_keepalive=False, socket_keepalive_options=LIVENESS, **target(kind))
    connection.connect()
    assert held_by_descriptor(connection._sock.fileno()) == expected
    assert connection.keepalive.enabled is False
    connection.disconnect()


def test_small_replies_are_not_delayed(target: Target) -> None:
    connection: Any = FastConnection(**target("tcp"))
    connection.connect()
    assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    connection.disconnect()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_bad_options_are_refused_before_any_connection(
    kind: str, options: Dict[Any, Any], target: Target, connects: List[Dict[str, int]]
) -> None:
    with pytest.raises(OptionError, match="socket_keepalive_options"):
        SYNC_CLASSES[kind](socket_keepalive_options=options, **target(kind))
    with client_of(SYNC_CLASSES[kind], socket_keepalive_options=options, **target(kind)) as client, pytest.raises(
        OptionError, match="socket_keepalive_options"
    ):
        client.ping()
    assert connects == []


def test_names_without_meaning_end_in_one_warning(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    options = {"TCP_KEEPINIT": 5, "TCP_CONNECTIONTIMEOUT": 5, "TCP_KEEPIDLE": 7}
    caplog.set_level(logging.INFO, "extras.liveness")
    for _ in range(3):
        connection: Any = FastConnection(socket_keepalive_options=options, **target("tcp"))
        connection.connect()
        assert held_by_descriptor(connection._sock.fileno())["SO_KEEPALIVE"] == 1
        connection.disconnect()
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "TCP_KEEPINIT, TCP_CONNECTIONTIMEOUT" in warning.getMessage()
    (report,) = [record for record in caplog.records if record.levelno == logging.INFO]
    assert "idle 7 s" in report.getMessage()


def test_an_option_this_system_lacks_ends_in_one_warning(
    target: Target, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelling = {meaning: name for meaning, name in fastsock.SPELLING.items() if meaning != "user_timeout_ms"}
    monkeypatch.setattr(fastsock, "SPELLING", spelling)
    with socket.socket() as untouched:
        kernels_own = held_by_kernel(untouched).get("TCP_USER_TIMEOUT")
    for _ in range(3):
        connection: Any = FastConnection(socket_keepalive_options=LIVENESS, **target("tcp"))
        connection.connect()
        assert held_by_descriptor(connection._sock.fileno()).get("TCP_USER_TIMEOUT") == kernels_own
        connection.disconnect()
    (warning,) = caplog.records
    assert "TCP_USER_TIMEOUT" in warning.getMessage()


def test_what_the_kernel_changed_ends_in_one_warning(
    target: Target, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastsock, "read_keepalive", lambda fd: Keepalive(True, 7200, 75, 9, 0))
    for _ in range(3):
        connection: Any = FastConnection(**target("tcp"))
        connection.connect()
        assert connection.keepalive.idle_s == 7200
        connection.disconnect()
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "idle 30 s" in warning.getMessage()
    assert "idle 7200 s" in warning.getMessage()


@pytest.mark.parametrize(
    ("kwargs", "warnings"),
    [
        ({}, 0),
        ({"socket_keepalive": False}, 0),
        ({"socket_keepalive_options": {}}, 0),
        ({"socket_keepalive": True}, 1),
        ({"socket_keepalive_options": LIVENESS}, 1),
    ],
)
def test_liveness_asked_of_a_unix_socket_ends_in_one_warning(
    kwargs: Dict[str, Any], warnings: int, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with client_of(FastUnixConnection, **kwargs, **target("unix")) as client:
            assert client.ping()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings
    assert all("Unix socket" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
def test_commands_pipelines_and_pubsub(kind: str, target: Target) -> None:
    with client_of(SYNC_CLASSES[kind], client_name="sanity", socket_timeout=5, **target(kind)) as client:
        large = os.urandom(300_000)
        assert client.set("key", large)
        assert client.get("key") == large
        with client.pipeline() as pipeline:
            assert pipeline.set("a", 1).incr("a").get("a").execute() == [True, 2, b"2"]
        with client.pubsub() as pubsub:
            pubsub.subscribe("channel")
            assert pubsub.get_message(timeout=5)["type"] == "subscribe"
            assert client.publish("channel", "text") == 1
            assert pubsub.get_message(timeout=5)["data"] == b"text"
        with pytest.raises(redis.ResponseError):
            client.lpush("key", 1)
        assert {entry["name"] for entry in client.client_list()} >= {"sanity"}


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_goes_on_to_the_next_address_of_a_name(
    kind: str, target: Target, monkeypatch: pytest.MonkeyPatch, connects: List[Dict[str, int]]
) -> None:
    arguments = target(kind)
    resolve_to(monkeypatch, addresses(("127.0.0.2", free_port()), ("127.0.0.1", arguments["port"])))
    with client_of(SYNC_CLASSES[kind], socket_keepalive_options=LIVENESS, **arguments) as client:
        assert client.ping()
    assert connects[:2] == [on(LIVENESS), on(LIVENESS)]


def test_goes_on_where_the_kernel_lacks_an_address_family(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = target("tcp")
    ipv6 = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", arguments["port"], 0, 0))
    resolve_to(monkeypatch, [ipv6, *addresses(("127.0.0.1", arguments["port"]))])
    refuse_family(monkeypatch, socket.AF_INET6)
    with client_of(FastConnection, **arguments) as client:
        assert client.ping()


def test_addresses_that_all_refuse_or_a_name_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    connection: Any = FastConnection(host="redis.example", port=6379)
    resolve_to(monkeypatch, addresses(("127.0.0.2", free_port()), ("127.0.0.1", free_port())))
    with pytest.raises(redis.ConnectionError, match=r"redis\.example:6379.*refused"):
        connection.connect()
    resolve_to(monkeypatch, [])
    with pytest.raises(redis.ConnectionError, match=r"redis\.example.*no address"):
        connection.connect()

    def unknown(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(redis.ConnectionError, match=r"redis\.example:6379.*not known"):
        connection.connect()


def test_all_addresses_share_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole("127.0.0.2") as first, black_hole("127.0.0.3") as second:
        resolve_to(monkeypatch, addresses(("127.0.0.2", first), ("127.0.0.3", second), ("127.0.0.2", first)))
        connection: Any = FastConnection(host="redis.example", socket_connect_timeout=1)
        started = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            connection.connect()
        assert 0.95 < time.monotonic() - started < 2.5  # one after the other takes 3


def test_refused_says_which_server(sockets: List[socket.socket]) -> None:
    port = free_port()
    with client_of(FastConnection, host="127.0.0.1", port=port) as client, pytest.raises(
        redis.ConnectionError, match=rf"127\.0\.0\.1:{port}.*refused"
    ):
        client.ping()
    assert [sock.fileno() for sock in sockets] == [-1]


def test_connect_gives_up_in_time(sockets: List[socket.socket]) -> None:
    with black_hole() as port:
        connection: Any = FastConnection(host="127.0.0.1", port=port, socket_connect_timeout=0.2, socket_timeout=10)
        started = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            connection.connect()
        assert 0.15 < time.monotonic() - started < 5
    assert [sock.fileno() for sock in sockets] == [-1]


def test_timeouts_are_those_configured(target: Target) -> None:
    connection: Any = FastConnection(socket_timeout=7, socket_connect_timeout=3, **target("tcp"))
    connection.connect()
    assert connection._sock.gettimeout() == 7
    connection.disconnect()
    waiting: Any = FastConnection(socket_timeout=None, **target("tcp"))
    waiting.connect()
    assert waiting._sock.gettimeout() is None
    waiting.disconnect()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_an_option_the_kernel_refuses_is_named(kind: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_options(monkeypatch)
    connection: Any = SYNC_CLASSES[kind](**target(kind))
    before = open_descriptors()
    with pytest.raises(redis.ConnectionError, match=r"setsockopt\(TCP_KEEPIDLE=0\)"):
        connection.connect()
    assert none_left(before)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_frozen_server_is_given_up_in_time(kind: str, own_server: RedisServer) -> None:
    where: Dict[str, Any] = {"host": "127.0.0.1", "port": own_server.port}
    if kind == "unix":
        where = {"path": own_server.unix_path}
    with client_of(SYNC_CLASSES[kind], socket_timeout=1, **where) as client:
        assert client.ping()
        own_server.freeze()
        started = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        assert 0.95 < time.monotonic() - started < 4
        own_server.thaw()
        assert client.ping()


def test_reconnects_to_a_restarted_server(own_server: RedisServer) -> None:
    with client_of(
        FastConnection, host="127.0.0.1", port=own_server.port, socket_timeout=5, socket_keepalive_options=LIVENESS
    ) as client:
        assert client.ping()
        own_server.stop()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        own_server.start()
        assert client.ping()
        (connection,) = client.connection_pool._available_connections
        assert held_by_descriptor(connection._sock.fileno()) == on(LIVENESS)


def test_no_command_is_lost_on_a_connection_closed_while_idle(own_server: RedisServer) -> None:
    with client_of(FastConnection, host="127.0.0.1", port=own_server.port, socket_timeout=5) as client:
        for _ in range(3):
            assert client.ping()
            own_server.stop()
            own_server.start()
            assert client.ping()


def test_tls_refuses_a_stranger_and_another_name(
    target: Target, server: RedisServer, certificates: Certificates
) -> None:
    stranger = {**target("tls"), "ssl_ca_certs": certificates.other_ca_file}
    with client_of(FastSSLConnection, **stranger) as client, pytest.raises(redis.ConnectionError, match=r"(?i)verify"):
        client.ping()
    with TlsProxy(certificates.context(certificates.other_name), server.port) as proxy:
        arguments = {**target("tls"), "port": proxy.port}
        with client_of(FastSSLConnection, **arguments) as client, pytest.raises(
            redis.ConnectionError, match=r"match|mism"
        ):
            client.ping()
        with client_of(FastSSLConnection, **{**arguments, "ssl_check_hostname": False}) as client:
            assert client.ping()


def test_a_silent_tls_peer_is_given_up_in_time(certificates: Certificates) -> None:
    with silent_listener() as listener:
        port = listener.getsockname()[1]
        connection: Any = FastSSLConnection(host="127.0.0.1", port=port, socket_timeout=0.3, socket_connect_timeout=5)
        started = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            connection.connect()
        assert 0.25 < time.monotonic() - started < 4
        with listener.accept()[0] as peer:
            assert_hung_up(peer)


def assert_hung_up(peer: socket.socket) -> None:
    """Check that the other end is closed, whatever it had sent before."""
    peer.settimeout(2)
    try:
        while peer.recv(65536):
            pass
    except ConnectionResetError:
        pass


def failing(kind: str, stack: ExitStack, certificates: Certificates, server: RedisServer) -> Tuple[str, Dict[str, Any]]:
    """Return the class and arguments of a connection that fails in one way."""
    here: Dict[str, Any] = {"host": "127.0.0.1", "port": server.port}
    if kind == "refused":
        return "tcp", {"host": "127.0.0.1", "port": free_port()}
    if kind == "connect timeout":
        return "tcp", {"host": "127.0.0.1", "port": stack.enter_context(black_hole()), "socket_connect_timeout": 0.002}
    if kind == "silent server":
        listener = stack.enter_context(silent_listener())
        return "tcp", {
            "host": "127.0.0.1",
            "port": listener.getsockname()[1],
            "socket_connect_timeout": 5,
            "socket_timeout": 0.002,
            "password": "x",
        }
    if kind == "wrong password":
        return "tcp", {**here, "username": "nobody", "password": "wrong"}
    if kind == "no unix socket":
        return "unix", {"path": server.unix_path + ".missing"}
    if kind == "not tls":
        return "tls", {**here, "socket_timeout": 0.002, "socket_connect_timeout": 0.02}
    proxy = stack.enter_context(TlsProxy(certificates.context(certificates.server), server.port))
    return "tls", {"host": "127.0.0.1", "port": proxy.port, "ssl_ca_certs": certificates.other_ca_file}


FAILURES = [
    "refused",
    "connect timeout",
    "silent server",
    "wrong password",
    "no unix socket",
    "not tls",
    "stranger",
    "refused option",
]
ROUNDS = 15
"""A leak in one round of ten is seen; more would only take longer: redis-py makes a TLS context for each connection."""


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
def test_connecting_leaks_no_descriptor(kind: str, target: Target) -> None:
    connection: Any = SYNC_CLASSES[kind](**target(kind))
    connection.connect()
    connection.disconnect()
    before = open_descriptors()
    for _ in range(ROUNDS):
        connection.connect()
        connection.disconnect()
    assert none_left(before)


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_to_connect_leaks_no_descriptor(
    failure: str, server: RedisServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        if failure == "refused option":
            refuse_options(monkeypatch)
            kind, arguments = "tcp", {"host": "127.0.0.1", "port": server.port}
        else:
            kind, arguments = failing(failure, stack, certificates, server)
        connection: Any = SYNC_CLASSES[kind](**arguments)
        before = open_descriptors()
        for _ in range(ROUNDS):
            with pytest.raises(redis.RedisError):
                connection.connect()
        assert none_left(before)


def test_threads_share_a_pool(target: Target) -> None:
    with client_of(FastConnection, socket_timeout=5, **target("tcp")) as client:
        wrong: List[Any] = []

        def work(number: int) -> None:
            for turn in range(50):
                client.set(f"k{number}", turn)
                if client.get(f"k{number}") != str(turn).encode():
                    wrong.append((number, turn))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_async_classes_are_there_exactly_where_redis_py_has_asyncio() -> None:
    for name in ASYNC_NAMES.values():
        assert hasattr(connections, name) is HAS_ASYNCIO


Work = Callable[[], Coroutine[Any, Any, None]]


def run_on(loop_class: Any, work: Work) -> None:
    """Run ``work`` on a new loop, in which nothing may be left running or reported at the end."""
    loop = loop_class()
    reported: List[Dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        loop.run_until_complete(asyncio.wait_for(work(), HANGS_S))
        assert asyncio.all_tasks(loop) == set()
        loop.run_until_complete(asyncio.sleep(0.01))
        gc.collect()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        if hasattr(loop, "shutdown_default_executor"):
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert reported == []


def async_class(kind: str) -> Any:
    return getattr(connections, ASYNC_NAMES[kind])


def descriptor(connection: Any) -> int:
    return int(connection._writer.get_extra_info("socket").fileno())


class AsyncClient:
    """A ``redis.asyncio`` client of one connection class; ``async with`` closes its connections."""

    def __init__(self, kind: str, **kwargs: Any) -> None:
        aio: Any = importlib.import_module("redis.asyncio")
        self.pool = aio.ConnectionPool(connection_class=async_class(kind), **kwargs)
        self.client = aio.Redis(connection_pool=self.pool)

    async def __aenter__(self) -> Any:
        return self.client

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.pool.disconnect()


class TestAsync:
    """The same on event loops; collected only where redis-py has asyncio, which a test above checks."""

    __test__ = HAS_ASYNCIO

    @pytest.fixture(params=LOOPS)
    def loop_class(self, request: pytest.FixtureRequest) -> Any:
        return LOOPS[request.param]

    @pytest.mark.parametrize("kind", ["tcp", "tls"])
    def test_options_are_in_force_before_connect(
        self, loop_class: Any, kind: str, target: Target, connects: List[Dict[str, int]]
    ) -> None:
        async def work() -> None:
            async with AsyncClient(kind, socket_keepalive_options=LIVENESS, **target(kind)) as client:
                assert await client.ping()

        run_on(loop_class, work)
        assert connects[0] == on(LIVENESS)

    @pytest.mark.parametrize("host", OTHER_HOSTS.values(), ids=OTHER_HOSTS)
    def test_takes_for_a_host_what_redis_py_takes(self, loop_class: Any, host: Any, target: Target) -> None:
        async def work() -> None:
            async with AsyncClient("tcp", **{**target("tcp"), "host": host}) as client:
                assert await client.ping()

        run_on(loop_class, work)

    def test_only_one_of_several_waits_for_a_turn_of_the_loop(self, loop_class: Any, target: Target) -> None:
        async def work() -> None:
            one, other = (async_class("tcp")(**target("tcp")) for _ in range(2))
            for connection in (one, other):
                await connection.connect()
                await connection.send_command("PING")  # redis-py may send nothing at the start
                await connection.read_response()
            for connection, waits in ((other, False), (one, True), (one, False), (other, True)):
                sending = connection.send_command("PING")
                if waits:
                    assert sending.send(None) is None
                with pytest.raises(StopIteration):
                    sending.send(None)
                assert await connection.read_response() in (b"PONG", "PONG")
            sending = one.send_command("PING")
            assert sending.send(None) is None
            with pytest.raises(asyncio.CancelledError):
                sending.throw(asyncio.CancelledError())
            assert not one.is_connected
            await other.disconnect()

        run_on(loop_class, work)

    @pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "latin-1", "utf-16"])
    @pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
    def test_sends_what_redis_py_sends(self, encoding: str, errors: str, target: Target) -> None:
        aio: Any = importlib.import_module("redis.asyncio")
        ours, stock = (
            kind(encoding=encoding, encoding_errors=errors, **target("tcp"))
            for kind in (async_class("tcp"), aio.Connection)
        )
        commands: List[Any] = [("GET", "é"), ("CONFIG GET", "*"), ("SET", b"k", 5, 1.5, "x" * 7000, b"y" * 70_000)]
        commands += [("SET", memoryview(b"ab"), 2**70), ("GET", "a\udcff"), ("GET", None), ("GET", True)]
        for command in commands:
            found: List[Any] = []
            for connection in (ours, stock):
                try:
                    single = connection.pack_command(*command)
                    found.append((b"".join(single), b"".join(connection.pack_commands([command, command]))))
                except (redis.DataError, UnicodeError) as error:
                    found.append((type(error), str(error)))
            assert found[0] == found[1]

    @pytest.mark.parametrize("kind", ASYNC_NAMES)
    def test_stands_in_redis_pys_own_place(
        self, loop_class: Any, kind: str, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"redis.asyncio.{STOCK_NAMES[kind]}", async_class(kind))

        async def work() -> None:
            async with AsyncClient(kind, **target(kind)) as client:
                assert await client.ping()

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", ["tcp", "tls"])
    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_says_what_the_kernel_holds(self, loop_class: Any, kind: str, spelling: str, target: Target) -> None:
        async def work() -> None:
            connection = async_class(kind)(socket_keepalive_options=SPELLINGS[spelling], **target(kind))
            assert connection.keepalive is None
            await connection.connect()
            held = held_by_descriptor(descriptor(connection))
            assert held == on(LIVENESS)
            assert as_kernel_values(connection.keepalive) == held
            await connection.disconnect()

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", ["tcp", "tls"])
    def test_is_on_by_default_and_off_applies_nothing(self, loop_class: Any, kind: str, target: Target) -> None:
        with socket.socket() as sock:
            untouched = held_by_kernel(sock)

        async def work() -> None:
            for kwargs, expected in (({}, on(DEFAULTS)), ({"socket_keepalive": False}, untouched)):
                connection = async_class(kind)(**kwargs, **target(kind))
                await connection.connect()
                assert held_by_descriptor(descriptor(connection)) == expected
                assert connection.keepalive.enabled is bool(expected["SO_KEEPALIVE"])
                await connection.disconnect()

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", ["tcp", "tls"])
    @pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
    def test_bad_options_are_refused_before_any_connection(
        self, kind: str, options: Dict[Any, Any], target: Target, connects: List[Dict[str, int]]
    ) -> None:
        with pytest.raises(OptionError, match="socket_keepalive_options"):
            async_class(kind)(socket_keepalive_options=options, **target(kind))
        assert connects == []

    def test_liveness_without_meaning_ends_in_one_warning(
        self, loop_class: Any, target: Target, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def work() -> None:
            for _ in range(3):
                async with AsyncClient("tcp", socket_keepalive_options={"TCP_KEEPINIT": 5}, **target("tcp")) as client:
                    assert await client.ping()
                async with AsyncClient("unix", socket_keepalive_options=LIVENESS, **target("unix")) as client:
                    assert await client.ping()

        run_on(loop_class, work)
        tcp, unix = [record.getMessage() for record in caplog.records if record.name == "extras.liveness"]
        assert "TCP_KEEPINIT" in tcp
        assert "Unix socket" in unix

    @pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
    def test_commands_pipelines_and_pubsub(self, loop_class: Any, kind: str, target: Target) -> None:
        async def work() -> None:
            async with AsyncClient(kind, client_name="sanity", socket_timeout=5, **target(kind)) as client:
                large = os.urandom(300_000)
                assert await client.set("key", large)
                assert await client.get("key") == large
                async with client.pipeline() as pipeline:
                    assert await pipeline.set("a", 1).incr("a").get("a").execute() == [True, 2, b"2"]
                pubsub = client.pubsub()
                await pubsub.subscribe("channel")
                assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
                assert await client.publish("channel", "text") == 1
                assert (await pubsub.get_message(timeout=5))["data"] == b"text"
                await (pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())
                with pytest.raises(redis.ResponseError):
                    await client.lpush("key", 1)
                assert {entry["name"] for entry in await client.client_list()} >= {"sanity"}

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", ["tcp", "tls"])
    def test_goes_on_to_the_next_address_of_a_name(
        self,
        loop_class: Any,
        kind: str,
        target: Target,
        monkeypatch: pytest.MonkeyPatch,
        connects: List[Dict[str, int]],
    ) -> None:
        arguments = {**target(kind), "host": "redis.example"}
        if kind == "tls":
            arguments["ssl_check_hostname"] = False
        resolve_to(monkeypatch, addresses(("127.0.0.2", free_port()), ("127.0.0.1", arguments["port"])))

        async def work() -> None:
            async with AsyncClient(kind, socket_keepalive_options=LIVENESS, **arguments) as client:
                assert await client.ping()

        run_on(loop_class, work)
        assert connects[:2] == [on(LIVENESS), on(LIVENESS)]

    def test_goes_on_where_the_kernel_lacks_an_address_family(
        self, loop_class: Any, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = {**target("tcp"), "host": "redis.example"}
        ipv6 = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", arguments["port"], 0, 0))
        resolve_to(monkeypatch, [ipv6, *addresses(("127.0.0.1", arguments["port"]))])
        refuse_family(monkeypatch, socket.AF_INET6)

        async def work() -> None:
            async with AsyncClient("tcp", **arguments) as client:
                assert await client.ping()

        run_on(loop_class, work)

    def test_addresses_that_all_refuse_or_a_name_without_any(
        self, loop_class: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refusing = addresses(("127.0.0.2", free_port()), ("127.0.0.1", free_port()))

        async def work() -> None:
            connection = async_class("tcp")(host="redis.example", port=6379)
            resolve_to(monkeypatch, refusing)
            with pytest.raises(redis.ConnectionError, match=r"redis\.example:6379.*(refused|[Cc]onnect call failed)"):
                await connection.connect()
            resolve_to(monkeypatch, [])
            with pytest.raises(redis.ConnectionError, match=r"redis\.example.*no address"):
                await connection.connect()

        run_on(loop_class, work)

    def test_all_addresses_share_the_connect_timeout(self, loop_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        async def work() -> None:
            connection = async_class("tcp")(host="redis.example", socket_connect_timeout=1)
            started = time.monotonic()
            with pytest.raises(redis.TimeoutError):
                await connection.connect()
            assert 0.95 < time.monotonic() - started < 2.5  # one after the other takes 3

        with black_hole("127.0.0.2") as first, black_hole("127.0.0.3") as second:
            found = addresses(("127.0.0.2", first), ("127.0.0.3", second), ("127.0.0.2", first))
            resolve_to(monkeypatch, found)
            run_on(loop_class, work)

    def test_refused_says_which_server(self, loop_class: Any, sockets: List[socket.socket]) -> None:
        port = free_port()

        async def work() -> None:
            async with AsyncClient("tcp", host="127.0.0.1", port=port) as client:
                with pytest.raises(redis.ConnectionError, match=rf"127\.0\.0\.1:{port}.*(refused|call failed)"):
                    await client.ping()

        run_on(loop_class, work)
        assert [sock.fileno() for sock in sockets] == [-1]

    @pytest.mark.parametrize("kind", ["tcp", "tls"])
    def test_connect_gives_up_in_time(self, loop_class: Any, kind: str, sockets: List[socket.socket]) -> None:
        async def work() -> None:
            with black_hole() if kind == "tcp" else silent_listener() as peer:
                port = peer if isinstance(peer, int) else peer.getsockname()[1]
                connection = async_class(kind)(
                    host="127.0.0.1", port=port, socket_connect_timeout=0.2, socket_timeout=10
                )
                started = time.monotonic()
                with pytest.raises(redis.TimeoutError):
                    await connection.connect()
                assert 0.15 < time.monotonic() - started < 5

        run_on(loop_class, work)
        assert [sock.fileno() for sock in sockets] == [-1]

    @pytest.mark.parametrize("kind", ["tcp", "tls"])
    def test_an_option_the_kernel_refuses_is_named(
        self, loop_class: Any, kind: str, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refuse_options(monkeypatch)

        async def work() -> None:
            connection = async_class(kind)(**target(kind))
            before = open_descriptors()
            with pytest.raises(redis.ConnectionError, match=r"setsockopt\(TCP_KEEPIDLE=0\)"):
                await connection.connect()
            assert await none_left_async(before)

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", ["tcp", "tls"])
    def test_a_cancelled_connect_closes_its_socket(
        self, loop_class: Any, kind: str, sockets: List[socket.socket]
    ) -> None:
        async def work() -> None:
            with black_hole() if kind == "tcp" else silent_listener() as peer:
                port = peer if isinstance(peer, int) else peer.getsockname()[1]
                before = 0
                for delay_s in (0.5, 0, 0.001, 0.05):  # uvloop keeps a descriptor of its own after the first handshake
                    connection = async_class(kind)(host="127.0.0.1", port=port, socket_connect_timeout=10)
                    connecting = asyncio.ensure_future(connection.connect())
                    await asyncio.sleep(delay_s)
                    connecting.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await connecting
                    assert not connection.is_connected
                    await asyncio.sleep(0.02)
                    before = before or open_descriptors()
                assert await none_left_async(before)

        run_on(loop_class, work)
        assert len(sockets) >= 1
        assert {sock.fileno() for sock in sockets} == {-1}

    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    def test_a_frozen_server_is_given_up_in_time_and_never_blocks_the_loop(
        self, loop_class: Any, kind: str, own_server: RedisServer
    ) -> None:
        where: Dict[str, Any] = {"host": "127.0.0.1", "port": own_server.port}
        if kind == "unix":
            where = {"path": own_server.unix_path}
        pauses_s: List[float] = []

        async def ticker() -> None:
            while True:
                started = time.monotonic()
                await asyncio.sleep(0.005)
                pauses_s.append(time.monotonic() - started)

        async def work() -> None:
            async with AsyncClient(kind, socket_timeout=1, **where) as client:
                assert await client.ping()
                own_server.freeze()
                ticking = asyncio.ensure_future(ticker())
                started = time.monotonic()
                with pytest.raises(redis.TimeoutError):
                    await client.ping()
                assert 0.95 < time.monotonic() - started < 5
                ticking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await ticking
                own_server.thaw()
                assert await client.ping()

        run_on(loop_class, work)
        assert len(pauses_s) > 10
        assert max(pauses_s) < 0.9

    def test_a_slow_connect_never_blocks_the_loop(self, loop_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        asked, ticked = threading.Event(), threading.Event()
        ticks_while_connecting = 0

        async def work() -> None:
            nonlocal ticks_while_connecting
            connection = async_class("tcp")(host="redis.example", socket_connect_timeout=1)
            connecting = asyncio.ensure_future(connection.connect())
            while not connecting.done():
                await asyncio.sleep(0.01)
                ticks_while_connecting += ticked.is_set()
                if asked.is_set():
                    ticked.set()
            with pytest.raises(redis.TimeoutError):
                await connecting

        with black_hole() as port:
            found = addresses(("127.0.0.1", port))

            def slow(*args: Any) -> List[Any]:
                asked.set()
                assert ticked.wait(PATIENCE_S)  # the loop runs on
                return found

            monkeypatch.setattr(socket, "getaddrinfo", slow)
            run_on(loop_class, work)
        assert ticks_while_connecting > 3

    def test_reconnects_to_a_restarted_server(self, loop_class: Any, own_server: RedisServer) -> None:
        async def work() -> None:
            async with AsyncClient(
                "tcp",
                host="127.0.0.1",
                port=own_server.port,
                socket_timeout=5,
                socket_keepalive_options=LIVENESS,
            ) as client:
                assert await client.ping()
                own_server.stop()
                with pytest.raises(redis.ConnectionError):
                    await client.ping()
                own_server.start()
                assert await client.ping()
                (connection,) = client.connection_pool._available_connections
                assert held_by_descriptor(descriptor(connection)) == on(LIVENESS)

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    def test_no_command_is_lost_on_a_connection_closed_while_idle(
        self, loop_class: Any, kind: str, own_server: RedisServer
    ) -> None:
        where: Dict[str, Any] = {"host": "127.0.0.1", "port": own_server.port}
        if kind == "unix":
            where = {"path": own_server.unix_path}

        async def work() -> None:
            async with AsyncClient(kind, socket_timeout=5, **where) as client:
                for _ in range(3):
                    assert await client.ping()
                    own_server.stop()
                    own_server.start()
                    assert await client.ping()

        run_on(loop_class, work)

    def test_tls_refuses_a_stranger_and_another_name(
        self, loop_class: Any, target: Target, server: RedisServer, certificates: Certificates
    ) -> None:
        async def work() -> None:
            stranger = {**target("tls"), "ssl_ca_certs": certificates.other_ca_file}
            async with AsyncClient("tls", **stranger) as client:
                with pytest.raises(redis.ConnectionError, match=r"(?i)verify"):
                    await client.ping()
            with TlsProxy(certificates.context(certificates.other_name), server.port) as proxy:
                arguments = {**target("tls"), "port": proxy.port}
                async with AsyncClient("tls", **arguments) as client:
                    with pytest.raises(redis.ConnectionError, match=r"match|mism"):
                        await client.ping()
                async with AsyncClient("tls", **{**arguments, "ssl_check_hostname": False}) as client:
                    assert await client.ping()

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    def test_what_cannot_be_written_closes_the_connection(
        self, loop_class: Any, kind: str, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: Any) -> None:
            raise OSError(EPIPE, "Broken pipe")

        async def work() -> None:
            connection = async_class(kind)(**target(kind))
            await connection.connect()
            with pytest.raises(TypeError):
                await connection.send_packed_command([b"*1\r\n$4\r\nPI", None])
            assert not connection.is_connected
            await connection.connect()
            with monkeypatch.context() as patched:  # no transport says so while it is open
                patched.setattr(asyncio.StreamWriter, "writelines", refuse)
                with pytest.raises(redis.ConnectionError, match=f"^Error {EPIPE} while writing to socket. Broken pipe"):
                    await connection.send_command("PING")
            assert not connection.is_connected
            await connection.send_command("PING")
            assert await connection.read_response() == b"PONG"
            await connection.disconnect()

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
    def test_connecting_leaks_no_descriptor(self, loop_class: Any, kind: str, target: Target) -> None:
        async def work() -> None:
            connection = async_class(kind)(**target(kind))
            await connection.connect()
            await connection.disconnect()
            await asyncio.sleep(0.01)
            before = open_descriptors()
            for _ in range(ROUNDS):
                await connection.connect()
                await connection.disconnect()
            assert await none_left_async(before)

        run_on(loop_class, work)

    @pytest.mark.parametrize("failure", FAILURES)
    def test_failing_to_connect_leaks_no_descriptor(
        self,
        loop_class: Any,
        failure: str,
        server: RedisServer,
        certificates: Certificates,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def work() -> None:
            with ExitStack() as stack:
                if failure == "refused option":
                    refuse_options(monkeypatch)
                    kind, arguments = "tcp", {"host": "127.0.0.1", "port": server.port}
                else:
                    kind, arguments = failing(failure, stack, certificates, server)
                connection = async_class(kind)(**arguments)
                with pytest.raises(redis.RedisError):
                    await connection.connect()
                await asyncio.sleep(0.02)
                # A leak grows each time; what closes late does not.
                for _ in range(2):
                    before = open_descriptors()
                    for _ in range(ROUNDS):
                        with pytest.raises(redis.RedisError):
                            await connection.connect()
                    if await none_left_async(before):
                        return
                raise AssertionError(f"{open_descriptors() - before} more are open")

        run_on(loop_class, work)
