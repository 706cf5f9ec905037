"""Clients made from options reach Redis as the options say, and carry out steps on it.

Guaranteed for the blocking client and for one async client per event loop: options arrive at the server, a limit on
connections makes callers wait, errors reach the caller with the steps closed, and nothing is left open.
"""

import asyncio
import gc
import importlib
import importlib.util
import inspect
import threading
import time
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Coroutine, Dict, Iterator, List

import pytest
import redis
from leaks import none_left, none_left_async, open_descriptors
from scripted import HANGS_S
from tls_proxy import Certificates, TlsProxy

from extras import connection as connections
from extras.bench.server import RedisServer
from extras.configured import AsyncClient, connection_kwargs, sync_client
from extras.connection import FastConnection, FastSSLConnection, FastUnixConnection
from extras.errors import OptionError
from extras.options import Options, parse
from extras.steps import Steps, arun, run

HAS_ASYNCIO = importlib.util.find_spec("redis.asyncio") is not None
LIVENESS = {"TCP_KEEPIDLE": 7}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def options(raw: "redis.Redis", server: RedisServer) -> Callable[..., Options]:
    """Make options for the emptied server."""

    def made(**given: Any) -> Options:
        return parse({"url": "127.0.0.1", "port": server.port, **given})

    return made


@contextmanager
def opened(options: Options) -> Iterator[Any]:
    client: Any = sync_client(options)
    try:
        yield client
    finally:
        client.connection_pool.disconnect()


def echo(value: str) -> "Steps[str]":
    reply = yield ("ECHO", value)
    return str(reply.decode())


def command(*arguments: Any) -> "Steps[Any]":
    return (yield arguments)


def put_and_get(key: str, value: str) -> "Steps[Any]":
    yield ("SET", key, value)
    found = yield ("GET", key)
    yield ("DEL", key)
    return found


def connection_of(clients: AsyncClient) -> Any:
    shared: Any = clients.current().shared_connection()
    return shared.connection


def names_of_clients(raw: "redis.Redis") -> List[str]:
    return [entry["name"] for entry in raw.client_list()]


def test_kwargs_of_tcp() -> None:
    options = parse(
        {
            "url": "redis.internal",
            "port": 6380,
            "db": 3,
            "username": "bot",
            "password": "secret",
            "client_name": "rasa",
            "socket_timeout": 1.5,
            "socket_connect_timeout": 0.5,
            "socket_keepalive": False,
            "socket_keepalive_options": LIVENESS,
            "retry_on_timeout": True,
            "health_check_interval": 30,
        }
    )
    assert connection_kwargs(options) == {
        "host": "redis.internal",
        "port": 6380,
        "db": 3,
        "username": "bot",
        "password": "secret",
        "client_name": "rasa",
        "socket_timeout": 1.5,
        "socket_connect_timeout": 0.5,
        "socket_keepalive": False,
        "socket_keepalive_options": LIVENESS,
        "health_check_interval": 30.0,
    }


def test_kwargs_of_a_unix_socket_hold_no_host() -> None:
    kwargs = connection_kwargs(parse({"url": "unix:///run/redis.sock", "db": 2, "password": "secret"}))
    assert kwargs["path"] == "/run/redis.sock"
    assert kwargs["db"] == 2
    assert kwargs["password"] == "secret"
    assert not {"host", "port", "ssl_cert_reqs", "socket_keepalive"} & set(kwargs)
    assert not kwargs["socket_keepalive_options"]


def test_kwargs_of_tls_verify_the_server(certificates: Certificates) -> None:
    files = {
        "ssl_ca_certs": certificates.ca_file,
        "ssl_certfile": certificates.client_cert_file,
        "ssl_keyfile": certificates.client_key_file,
    }
    kwargs = connection_kwargs(parse({"url": "rediss://redis.internal", **files}))
    assert {name: kwargs[name] for name in files} == files
    assert kwargs["ssl_cert_reqs"] == "required"
    assert kwargs["ssl_check_hostname"] is True
    unchecked = connection_kwargs(parse({"url": "rediss://redis.internal", "ssl_check_hostname": "no"}))
    assert unchecked["ssl_check_hostname"] is False


@pytest.mark.parametrize("name", ["ssl_keyfile", "ssl_certfile", "ssl_ca_certs"])
@pytest.mark.parametrize("missing", ["missing.pem", ""])
def test_a_tls_file_that_cannot_be_read_is_named(
    name: str, missing: str, certificates: Certificates, tmp_path: Path
) -> None:
    path = str(tmp_path / missing)  # a file that is not there, or a folder
    given = {
        "url": "rediss://redis.internal",
        "ssl_ca_certs": certificates.ca_file,
        "ssl_certfile": certificates.client_cert_file,
        "ssl_keyfile": certificates.client_key_file,
        name: path,
    }
    for make in (connection_kwargs, sync_client, *([AsyncClient] if HAS_ASYNCIO else [])):
        with pytest.raises(OptionError) as error:
            make(parse(given))
        assert str(error.value).startswith(name)
        assert repr(path) in str(error.value)


def test_connection_class_follows_the_options() -> None:
    for given, expected in (
        ({}, FastConnection),
        ({"use_ssl": True}, FastSSLConnection),
        ({"url": "unix:///run/redis.sock"}, FastUnixConnection),
    ):
        assert sync_client(parse(given)).connection_pool.connection_class is expected


def test_steps_are_carried_out_and_return(options: Callable[..., Options]) -> None:
    with opened(options()) as client:
        assert run(client, put_and_get("key", "value")) == b"value"
        assert run(client, echo("Grüße")) == "Grüße"

        def nothing() -> "Steps[int]":
            return 5
            yield ()

        assert run(client, nothing()) == 5


def test_reaches_a_unix_socket(raw: "redis.Redis", server: RedisServer) -> None:
    with opened(parse({"url": f"unix://{server.unix_path}", "db": 1, "client_name": "by-path"})) as client:
        assert run(client, command("SET", "key", "value"))
        assert "by-path" in names_of_clients(raw)
    assert redis_value(server, 1, "key") == b"value"


def redis_value(server: RedisServer, db: int, key: str) -> Any:
    client: Any = redis.Redis(port=server.port, db=db)
    try:
        return client.get(key)
    finally:
        client.connection_pool.disconnect()


@pytest.mark.parametrize("one_file", [False, True])
def test_reaches_a_tls_server_that_asks_for_a_certificate(
    one_file: bool, raw: "redis.Redis", server: RedisServer, certificates: Certificates
) -> None:
    own = {"ssl_certfile": certificates.client_cert_file, "ssl_keyfile": certificates.client_key_file}
    if one_file:
        own = {"ssl_certfile": certificates.client_both_file}
    with TlsProxy(certificates.context(certificates.server, client_needs_one=True), server.port) as proxy:
        given = {"url": f"rediss://127.0.0.1:{proxy.port}", "ssl_ca_certs": certificates.ca_file, "call_timeout": 60}
        with opened(parse({**given, **own})) as client:
            assert run(client, echo("text")) == "text"
        with opened(parse(given)) as client, pytest.raises(redis.ConnectionError):
            run(client, echo("text"))


def test_database_and_name_arrive(options: Callable[..., Options], raw: "redis.Redis", server: RedisServer) -> None:
    with opened(options(db=3, client_name="rasa-bot")) as client:
        run(client, command("SET", "key", "value"))
        (entry,) = [entry for entry in raw.client_list() if entry["name"] == "rasa-bot"]
        assert entry["db"] == "3"
    assert redis_value(server, 3, "key") == b"value"
    assert redis_value(server, 0, "key") is None


def add_user(server: RedisServer) -> None:
    client: Any = redis.Redis(port=server.port)
    client.execute_command("ACL", "SETUSER", "bot", "on", ">pass word#1", "~*", "+@all")
    client.connection_pool.disconnect()


def test_user_and_password_arrive(own_server: RedisServer) -> None:
    add_user(own_server)
    given = {"url": "127.0.0.1", "port": own_server.port, "username": "bot"}
    with opened(parse({**given, "password": "pass word#1"})) as client:
        assert run(client, command("ACL", "WHOAMI")) == b"bot"
    with opened(parse({**given, "password": "wrong"})) as client:
        with pytest.raises(redis.RedisError, match=r"(?i)WRONGPASS|invalid username") as error:
            run(client, echo("text"))
        assert "wrong password" not in str(error.value)


def pings(server: RedisServer) -> int:
    client: Any = redis.Redis(port=server.port)
    stats = client.info("commandstats")
    client.connection_pool.disconnect()
    return int(stats.get("cmdstat_ping", {}).get("calls", 0))


def test_an_idle_connection_is_checked_before_use(own_server: RedisServer) -> None:
    given = {"url": "127.0.0.1", "port": own_server.port}
    for interval_s, checks in ((0, 0), (0.05, 1)):
        with opened(parse({**given, "health_check_interval": interval_s})) as client:
            run(client, echo("text"))
            before = pings(own_server)
            time.sleep(0.1)
            run(client, echo("text"))
            assert pings(own_server) - before == checks


def test_liveness_is_on_and_as_given(options: Callable[..., Options]) -> None:
    for given, idle_s in (({}, 30), ({"socket_keepalive_options": LIVENESS}, 7)):
        with opened(options(**given)) as client:
            run(client, echo("text"))
            (connection,) = client.connection_pool._available_connections
            assert connection.keepalive.enabled
            assert connection.keepalive.idle_s == idle_s


def held_connection(client: Any) -> Any:
    """Take a connection out of the pool, as long as the subscription is open."""
    pubsub = client.pubsub()
    pubsub.subscribe("channel")
    return pubsub


def test_at_the_limit_callers_wait_for_a_free_connection(options: Callable[..., Options], raw: "redis.Redis") -> None:
    with opened(options(max_connections=1, socket_timeout=5, client_name="limited")) as client:
        holding = held_connection(client)
        releasing = threading.Timer(0.2, holding.close)
        releasing.start()
        started = time.monotonic()
        assert run(client, echo("text")) == "text"
        assert time.monotonic() - started > 0.15
        releasing.join()
        assert names_of_clients(raw).count("limited") == 1


def test_at_the_limit_callers_give_up_after_socket_timeout(options: Callable[..., Options]) -> None:
    with opened(options(max_connections=1, socket_timeout=1)) as client:
        holding = held_connection(client)
        started = time.monotonic()
        with pytest.raises(redis.ConnectionError):
            run(client, echo("text"))
        assert 0.95 < time.monotonic() - started < 4
        holding.close()
        assert run(client, echo("text")) == "text"


def test_threads_beyond_the_limit_are_all_served(options: Callable[..., Options], raw: "redis.Redis") -> None:
    failures: List[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                value = f"{number}:{turn}"
                assert run(client, put_and_get(f"key{number}", value)) == value.encode()
        except BaseException as error:
            failures.append(error)

    with opened(options(max_connections=3, socket_timeout=5, client_name="limited")) as client:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert 1 <= names_of_clients(raw).count("limited") <= 3


def raises_after_a_reply() -> "Steps[None]":
    yield ("PING",)
    raise ValueError("of the steps")


def refused_by_redis(closed: List[str]) -> "Steps[None]":
    try:
        yield ("SET", "text", "no number")
        yield ("INCR", "text")
    finally:
        closed.append("closed")


def test_errors_reach_the_caller_and_the_steps_are_closed(options: Callable[..., Options]) -> None:
    with opened(options()) as client:
        with pytest.raises(ValueError, match="of the steps"):
            run(client, raises_after_a_reply())
        closed: List[str] = []
        steps = refused_by_redis(closed)
        with pytest.raises(redis.ResponseError, match="integer"):
            run(client, steps)
        assert inspect.getgeneratorstate(steps) == inspect.GEN_CLOSED
        assert closed == ["closed"]
        assert run(client, echo("text")) == "text"


def test_no_server_is_a_connection_error(own_server: RedisServer) -> None:
    with opened(parse({"url": "127.0.0.1", "port": own_server.port})) as client:
        own_server.stop()
        with pytest.raises(redis.ConnectionError, match=f"127.0.0.1:{own_server.port}"):
            run(client, echo("text"))
        own_server.start()
        assert run(client, echo("text")) == "text"


def test_disconnected_blocking_client_leaves_nothing_open(options: Callable[..., Options]) -> None:
    before = open_descriptors()
    for given in ({}, {"max_connections": 2}):
        with opened(options(**given)) as client:
            run(client, echo("text"))
            assert open_descriptors() == before + 1
        assert none_left(before)


def test_the_async_client_is_there_exactly_where_redis_py_has_asyncio() -> None:
    if HAS_ASYNCIO:
        assert isinstance(AsyncClient(parse({})), AsyncClient)
    else:
        with pytest.raises(OptionError, match=r"redis-py 3\.5\.3 .*pip install 'redis>="):
            AsyncClient(parse({}))
        with pytest.raises(OptionError, match=r"redis-py 3\.5\.3 .*pip install 'redis>="):
            importlib.import_module("extras.async_client")


def run_on_new_loop(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run ``work`` on a new event loop to which nothing may have been reported at its end."""
    reported: List[Dict[str, Any]] = []

    async def watched() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        return await asyncio.wait_for(work(), HANGS_S)

    try:
        return asyncio.run(watched())
    finally:
        assert reported == []


class TestAsyncClient:
    """Collected only where redis-py has asyncio, which a test above checks."""

    __test__ = HAS_ASYNCIO

    def test_steps_are_carried_out_and_return(self, options: Callable[..., Options]) -> None:
        clients = AsyncClient(options())

        async def work() -> None:
            assert await arun(clients.current(), put_and_get("key", "value")) == b"value"
            assert await arun(clients.current(), echo("Grüße")) == "Grüße"
            await clients.close()

        run_on_new_loop(work)

    def test_a_loop_has_one_connection_and_another_loop_its_own(
        self, options: Callable[..., Options], raw: "redis.Redis"
    ) -> None:
        clients = AsyncClient(options(client_name="one"))

        async def work() -> Any:
            client = clients.current()
            shared: Any = client.shared_connection()
            assert await arun(client, echo("text")) == "text"
            assert clients.current() is client
            assert client.shared_connection() is shared
            assert names_of_clients(raw).count("one") == 1
            assert type(connection_of(clients)) is connections.AsyncFastConnection
            await clients.close()
            return shared

        first, second = run_on_new_loop(work), run_on_new_loop(work)
        assert first is not second

    def test_loops_in_threads_at_the_same_time(self, options: Callable[..., Options]) -> None:
        clients = AsyncClient(options())
        found: List[Any] = []

        async def work() -> None:
            for turn in range(50):
                key = f"{threading.get_ident()}:{turn}"
                assert await arun(clients.current(), put_and_get(key, key)) == key.encode()
            found.append(clients.current().shared_connection())
            await clients.close()

        threads = [threading.Thread(target=run_on_new_loop, args=(work,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(connection) for connection in found}) == 4

    # These loops end with connections open, which is what the three warnings say.
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    @pytest.mark.filterwarnings("ignore:loop is closed:ResourceWarning")
    @pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
    def test_the_connection_of_a_closed_loop_is_dropped(self, options: Callable[..., Options]) -> None:
        clients: Any = AsyncClient(options())
        ended: List[weakref.ref[Any]] = []

        async def work() -> None:
            assert await arun(clients.current(), echo("text")) == "text"
            ended.append(weakref.ref(clients.current().shared_connection()))

        before = open_descriptors()
        for _ in range(5):
            asyncio.run(work())
        gc.collect()
        assert [known() for known in ended[:-1]] == [None] * 4
        assert none_left(before + 1)
        clients = None
        gc.collect()

    def test_closed_clients_leave_nothing_open_and_open_again(
        self, options: Callable[..., Options], raw: "redis.Redis"
    ) -> None:
        clients = AsyncClient(options(client_name="closing"))

        async def work() -> None:
            await clients.close()
            for _ in range(3):
                before = open_descriptors()
                asked = (arun(clients.current(), echo(str(number))) for number in range(5))
                assert await asyncio.gather(*asked) == list("01234")
                assert names_of_clients(raw).count("closing") == 1
                await clients.close()
                assert await none_left_async(before)
                deadline = time.monotonic() + 5
                while "closing" in names_of_clients(raw) and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                assert "closing" not in names_of_clients(raw)

        run_on_new_loop(work)

    def test_fifty_tasks_share_one_connection(self, options: Callable[..., Options], raw: "redis.Redis") -> None:
        clients = AsyncClient(options(socket_timeout=5, client_name="many"))

        async def one(number: int) -> None:
            for turn in range(10):
                value = f"{number}:{turn}"
                assert await arun(clients.current(), put_and_get(f"key{number}", value)) == value.encode()

        async def work() -> None:
            await asyncio.gather(*(one(number) for number in range(50)))
            assert names_of_clients(raw).count("many") == 1
            await clients.close()

        run_on_new_loop(work)

    def test_a_cancelled_call_gives_nobody_a_reply_that_is_not_theirs(self, options: Callable[..., Options]) -> None:
        clients = AsyncClient(options(socket_timeout=5))

        async def work() -> None:
            for turn in range(60):
                calls = [asyncio.ensure_future(arun(clients.current(), echo(f"{turn}:{n}"))) for n in range(4)]
                await asyncio.sleep(turn % 6 * 0.0002)
                calls[turn % 4].cancel()
                done = await asyncio.gather(*calls, return_exceptions=True)
                for number, reply in enumerate(done):
                    assert reply == f"{turn}:{number}" or isinstance(reply, asyncio.CancelledError)
                assert await arun(clients.current(), echo(f"after {turn}")) == f"after {turn}"
            await clients.close()

        run_on_new_loop(work)

    def test_errors_and_cancellation_close_the_steps(self, options: Callable[..., Options]) -> None:
        clients = AsyncClient(options())

        async def work() -> None:
            client = clients.current()
            with pytest.raises(ValueError, match="of the steps"):
                await arun(client, raises_after_a_reply())
            closed: List[str] = []
            steps = refused_by_redis(closed)
            with pytest.raises(redis.ResponseError, match="integer"):
                await arun(client, steps)
            assert inspect.getgeneratorstate(steps) == inspect.GEN_CLOSED
            assert closed == ["closed"]

            waiting = command("BLPOP", "nothing", "4")
            blocking = asyncio.ensure_future(arun(client, waiting))
            await asyncio.sleep(0.05)
            blocking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await blocking
            assert inspect.getgeneratorstate(waiting) == inspect.GEN_CLOSED
            assert await arun(client, echo("text")) == "text"
            await clients.close()

        run_on_new_loop(work)

    def test_user_database_name_and_health_check_arrive(self, own_server: RedisServer) -> None:
        add_user(own_server)
        given = {
            "url": "127.0.0.1",
            "port": own_server.port,
            "username": "bot",
            "password": "pass word#1",
            "db": 3,
            "client_name": "rasa-bot",
            "health_check_interval": 0.05,
        }
        clients = AsyncClient(parse(given))
        wrong = AsyncClient(parse({**given, "password": "wrong"}))

        async def work() -> None:
            assert await arun(clients.current(), command("ACL", "WHOAMI")) == b"bot"
            await arun(clients.current(), command("SET", "key", "value"))
            assert redis_value(own_server, 3, "key") == b"value"
            listed = await arun(clients.current(), command("CLIENT", "GETNAME"))
            assert listed in (b"rasa-bot", "rasa-bot")
            before = pings(own_server)
            await asyncio.sleep(0.1)
            await arun(clients.current(), echo("text"))
            assert pings(own_server) - before == 1
            await clients.close()
            with pytest.raises(redis.RedisError, match=r"(?i)WRONGPASS|invalid username"):
                await arun(wrong.current(), echo("text"))
            await wrong.close()

        run_on_new_loop(work)

    @pytest.mark.parametrize("one_file", [False, True])
    def test_reaches_unix_and_tls(
        self, one_file: bool, raw: "redis.Redis", server: RedisServer, certificates: Certificates
    ) -> None:
        own = {"ssl_certfile": certificates.client_cert_file, "ssl_keyfile": certificates.client_key_file}
        if one_file:
            own = {"ssl_certfile": certificates.client_both_file}

        async def work() -> None:
            by_path = AsyncClient(parse({"url": f"unix://{server.unix_path}"}))
            assert await arun(by_path.current(), echo("text")) == "text"
            assert type(connection_of(by_path)) is connections.AsyncFastUnixConnection
            await by_path.close()
            with TlsProxy(certificates.context(certificates.server, client_needs_one=True), server.port) as proxy:
                given = {"url": f"rediss://127.0.0.1:{proxy.port}", "ssl_ca_certs": certificates.ca_file}
                by_tls = AsyncClient(parse({**given, **own}))
                assert await arun(by_tls.current(), echo("text")) == "text"
                assert type(connection_of(by_tls)) is connections.AsyncFastSSLConnection
                await by_tls.close()
                without = AsyncClient(parse(given))
                with pytest.raises(redis.ConnectionError):
                    await arun(without.current(), echo("text"))
                await without.close()

        run_on_new_loop(work)
