"""A call of the store ends within ``call_timeout`` whatever Redis does, and repeats what an outage has cut short.

On blocking clients and on each event loop: what the time goes on, what the error says, who else is not to suffer; and
for each kind of error whether, how often and after which pauses a command is sent again.
"""

import asyncio
import gc
import importlib.util
import random
import socket
import threading
import time
import warnings
from typing import Any, Callable, List, Tuple

import pytest
import redis
from leaks import none_left, open_descriptors
from scripted import (
    LOOPS,
    PATIENCE_S,
    Peer,
    Script,
    ScriptedServer,
    after_one_reply,
    answers,
    black_hole,
    bulk,
    closes_when_asked,
    echoes,
    is_silent,
    outcomes,
    run_on,
)
from tls_proxy import Certificates

from extras import budget
from extras.bench.server import RedisServer
from extras.bounded import AsyncBudget, Bounded
from extras.budget import FIRST_PAUSE_S, LONGEST_PAUSE_S, Budget, CallTimeoutError, Limits
from extras.configured import AsyncClient, sync_client
from extras.options import parse
from extras.steps import Steps, arun, run

HAS_ASYNCIO = importlib.util.find_spec("redis.asyncio") is not None
SIDES = ["blocking", *(LOOPS if HAS_ASYNCIO else [])]
TIMEOUT_S = 0.8
LATE_S = 4.0
"""Far more than a call may be late, for a machine that has other things to do; what it waits for takes longer still."""
NEVER_S = 30.0

# A socket that the server has reset, redis-py 3.5 leaves to the garbage collector.
pytestmark = (
    [pytest.mark.filterwarnings("ignore:unclosed <(ssl|socket):ResourceWarning")]
    if redis.__version__.startswith("3.")
    else []
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def command(*arguments: Any) -> "Steps[Any]":
    return (yield arguments)


def commands(*arguments: Tuple[Any, ...]) -> "Steps[List[Any]]":
    replies = []
    for each in arguments:
        replies.append((yield each))
    return replies


def carried_out(
    side: str, port: int, *calls: "Steps[Any]", per_command: bool = False, **given: Any
) -> List[Tuple[Any, float]]:
    """Carry out calls one after the other; return the result or error of each, and the seconds it took."""
    options = parse({"url": "127.0.0.1", "port": port, "socket_timeout": None, "socket_connect_timeout": None, **given})
    found: List[Tuple[Any, float]] = []
    if side == "blocking":
        client = sync_client(options)
        try:
            for call in calls:
                started = time.monotonic()
                try:
                    result = run(client, call, per_command)
                except (redis.RedisError, OSError) as error:
                    result = error
                found.append((result, time.monotonic() - started))
        finally:
            client.connection_pool.disconnect()
        return found

    async def work() -> None:
        clients = AsyncClient(options)
        try:
            for call in calls:
                started = time.monotonic()
                result = (await outcomes(arun(clients.current(), call, per_command)))[0]
                found.append((result, time.monotonic() - started))
        finally:
            await clients.close()
        await closed_late()

    run_on(LOOPS[side], work)
    return found


async def closed_late() -> None:
    """Wait for sockets that are closed already, but whose close uvloop puts off: after a handshake that failed, say."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        sockets: List[Any] = [each for each in gc.get_objects() if type(each) is socket.socket]
        if not any(each._closed and each.fileno() != -1 for each in sockets):
            return
        sockets.clear()
        await asyncio.sleep(0.02)


def assert_given_up(outcome: Tuple[Any, float], waiting_for: str) -> None:
    error, took_s = outcome
    assert isinstance(error, CallTimeoutError), error
    assert TIMEOUT_S - 0.01 <= took_s < TIMEOUT_S + LATE_S
    for part in ("call_timeout", f"{TIMEOUT_S:g} s", waiting_for):
        assert part in str(error)
    assert "private" not in str(error)


def drips(peer: Peer) -> None:
    """Answer a byte per tenth of a second, so that no single wait is ever long."""
    peer.command()
    for byte in bulk(b"x" * 100):
        peer.send(bytes([byte]))
        time.sleep(0.1)


class TestTheTime:
    def test_of_a_frozen_server(self, side: str, own_server: RedisServer) -> None:
        def freeze_and_ask() -> "Steps[Any]":
            own_server.freeze()
            return (yield ("GET", "private"))

        asked = carried_out(
            side,
            own_server.port,
            command("PING"),
            freeze_and_ask(),
            command("GET", "private"),
            call_timeout=TIMEOUT_S,
        )
        assert asked[0][0] in (True, b"PONG")
        assert_given_up(asked[1], "GET was waiting for its reply")
        assert isinstance(asked[2][0], CallTimeoutError)

    def test_of_a_frozen_server_that_was_not_connected_to(self, side: str, own_server: RedisServer) -> None:
        own_server.freeze()
        (outcome,) = carried_out(
            side, own_server.port, command("GET", "private"), call_timeout=TIMEOUT_S, client_name="private"
        )
        assert_given_up(outcome, f"waiting for a connection to 127.0.0.1:{own_server.port}")

    @pytest.mark.parametrize("first", [drips, after_one_reply(drips)])
    def test_of_a_reply_that_drips_in(self, side: str, first: Script) -> None:
        with ScriptedServer(first) as server:
            calls = [command("ECHO", "first"), command("ECHO", "private")]
            outcome = carried_out(side, server.port, *calls[first is drips :], call_timeout=TIMEOUT_S)[-1]
        assert_given_up(outcome, "ECHO was waiting for its reply")

    def test_of_a_reply_that_drips_in_under_tls(self, side: str, certificates: Certificates) -> None:
        with ScriptedServer(drips, context=certificates.context(certificates.server)) as server:
            (outcome,) = carried_out(
                side,
                server.port,
                command("ECHO", "private"),
                call_timeout=TIMEOUT_S,
                use_ssl=True,
                ssl_ca_certs=certificates.ca_file,
            )
        assert_given_up(outcome, "ECHO was waiting for its reply")

    def test_of_a_tls_handshake_that_nobody_answers(self, side: str, certificates: Certificates) -> None:
        with ScriptedServer(lambda peer: time.sleep(TIMEOUT_S + 0.5)) as server:
            (outcome,) = carried_out(
                side,
                server.port,
                command("ECHO", "private"),
                call_timeout=TIMEOUT_S,
                use_ssl=True,
                ssl_ca_certs=certificates.ca_file,
            )
        assert_given_up(outcome, f"waiting for a connection to 127.0.0.1:{server.port}")

    @pytest.mark.parametrize("is_tls", [False, True])
    def test_of_a_server_that_takes_nothing(self, side: str, is_tls: bool, certificates: Certificates) -> None:
        context = certificates.context(certificates.server) if is_tls else None
        ending = threading.Event()

        def reads_no_more(peer: Peer) -> None:
            peer.echo(1)
            ending.wait(PATIENCE_S)

        with ScriptedServer(reads_no_more, context=context) as server:
            outcome = carried_out(
                side,
                server.port,
                command("ECHO", "first"),
                command("SET", "private", b"private" * 4_000_000),
                call_timeout=TIMEOUT_S,
                use_ssl=is_tls,
                ssl_ca_certs=certificates.ca_file if is_tls else None,
            )[-1]
            ending.set()
        assert_given_up(outcome, "SET was waiting for")  # its reply, or still the handshake on a busy machine

    def test_of_a_connection_that_never_opens(self, side: str) -> None:
        before = open_descriptors()
        with black_hole() as port:
            (outcome,) = carried_out(side, port, command("GET", "private"), call_timeout=TIMEOUT_S)
        assert_given_up(outcome, f"waiting for a connection to 127.0.0.1:{port}")
        assert none_left(before)

    def test_of_a_resolver_that_hangs(self, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
        goes_on = threading.Event()
        asked: List[Any] = []

        def hangs(host: str, *args: Any) -> Any:
            asked.append(host)
            goes_on.wait(NEVER_S)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", hangs)
        before = threading.active_count()
        try:
            outcomes = carried_out(
                side,
                6379,
                *(command("GET", "private") for _ in range(2)),
                url="redis.example",
                call_timeout=TIMEOUT_S,
            )
            assert threading.active_count() == before + 1  # and not one for each call
        finally:
            goes_on.set()
        for outcome in outcomes:
            assert_given_up(outcome, "waiting for the address of redis.example")
        assert asked == ["redis.example"]
        deadline = time.monotonic() + PATIENCE_S
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() == before

    def test_of_several_commands_together(self, side: str) -> None:
        def slowly(peer: Peer) -> None:
            while True:
                asked = peer.command()
                time.sleep(0.2)
                peer.send(bulk(asked[-1]))

        with ScriptedServer(slowly) as server:
            (outcome,) = carried_out(
                side, server.port, commands(*[("ECHO", "private")] * 20), call_timeout=TIMEOUT_S, socket_timeout=1
            )
        assert_given_up(outcome, "ECHO was waiting for its reply")

    def test_of_each_command_on_request(self, side: str) -> None:
        """Of a scan, say, which takes as long as there are conversations."""

        def slowly(peer: Peer) -> None:
            while True:
                asked = peer.command()
                if asked[-1] != b"soon":
                    peer.wait_for_the_end()
                    return
                time.sleep(0.2)
                peer.send(bulk(asked[-1]))

        with ScriptedServer(slowly) as server:
            found = carried_out(
                side,
                server.port,
                commands(*[("ECHO", "soon")] * 5),
                commands(*[("ECHO", "soon")] * 3, ("ECHO", "private")),
                per_command=True,
                call_timeout=TIMEOUT_S,
                socket_timeout=NEVER_S,
            )
        assert found[0][0] == [b"soon"] * 5
        error, took_s = found[1]
        assert isinstance(error, CallTimeoutError)
        assert 0.6 + TIMEOUT_S - 0.05 < took_s < 0.6 + TIMEOUT_S + LATE_S

    def test_of_a_server_that_is_down_goes_on_attempts(self, side: str) -> None:
        with ScriptedServer(closes_when_asked) as server:
            (outcome,) = carried_out(
                side, server.port, command("ECHO", "private"), call_timeout=TIMEOUT_S, retries=1000
            )
        error, took_s = outcome
        if isinstance(error, CallTimeoutError):  # the time was over while an attempt waited for its reply
            assert "given up after" in str(error)
            error = error.__cause__
        assert isinstance(error, redis.ConnectionError)  # which says more than that the time is over
        assert took_s < TIMEOUT_S + LATE_S
        assert 1 < len(server.asked) < 1000

    def test_is_not_limited_on_request(self, side: str) -> None:
        def late(peer: Peer) -> None:
            asked = peer.command()
            time.sleep(0.3)
            peer.send(bulk(asked[-1]))
            peer.wait_for_the_end()

        with ScriptedServer(late) as server:
            (outcome,) = carried_out(side, server.port, command("ECHO", "value"), call_timeout=None)
        assert outcome[0] == b"value"

    def test_is_over_sooner_by_socket_timeout(self, side: str) -> None:
        with ScriptedServer(is_silent) as server:
            (outcome,) = carried_out(
                side, server.port, command("ECHO", "value"), call_timeout=NEVER_S, socket_timeout=0.6
            )
        assert isinstance(outcome[0], redis.TimeoutError)
        assert not isinstance(outcome[0], CallTimeoutError)
        assert server.asked == [(0, b"value")]

    def test_of_a_large_reply_is_enough(self, side: str, server: RedisServer) -> None:
        value = bytes(range(256)) * 40_000
        outcome = carried_out(
            side, server.port, commands(("SET", "key", value), ("GET", "key"), ("DEL", "key")), call_timeout=PATIENCE_S
        )
        assert outcome[0][0][1:] == [value, 1]

    def test_leaves_a_connection_that_can_be_used(self, side: str, own_server: RedisServer) -> None:
        def thaw() -> "Steps[Any]":
            own_server.thaw()
            return (yield ("ECHO", "value"))

        own_server.freeze()
        asked = carried_out(side, own_server.port, command("ECHO", "old"), thaw(), call_timeout=TIMEOUT_S)
        assert isinstance(asked[0][0], CallTimeoutError)
        assert asked[1][0] == b"value"

    def test_chains_what_failed_last(self, side: str) -> None:
        with ScriptedServer(closes_when_asked, is_silent) as server:
            (outcome,) = carried_out(side, server.port, command("ECHO", "private"), call_timeout=TIMEOUT_S)
        assert_given_up(outcome, "ECHO was waiting for its reply")
        assert isinstance(outcome[0].__cause__, redis.ConnectionError)


def taken_from(pool: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # redis-py asks for a command's name until 5.3, and then for none
        return pool.get_connection("_")


def test_time_in_a_pool_counts(server: RedisServer) -> None:
    options = parse(
        {
            "url": "127.0.0.1",
            "port": server.port,
            "max_connections": 1,
            "socket_timeout": None,
            "call_timeout": TIMEOUT_S,
        }
    )
    client: Any = sync_client(options)
    taken = taken_from(client.connection_pool)
    try:
        started = time.monotonic()
        with pytest.raises(CallTimeoutError, match="waiting for a free connection") as caught:
            run(client, command("GET", "private"))
        assert_given_up((caught.value, time.monotonic() - started), "GET")
    finally:
        client.connection_pool.release(taken)
    assert run(client, command("ECHO", "value")) == b"value"
    client.connection_pool.disconnect()


def test_a_pool_without_a_free_connection_is_no_outage(server: RedisServer) -> None:
    options = parse({"url": "127.0.0.1", "port": server.port, "max_connections": 1, "socket_timeout": 1})
    client: Any = sync_client(options)
    taken = taken_from(client.connection_pool)
    with pytest.raises(redis.ConnectionError, match="No connection available"):
        run(client, command("ECHO", "value"))
    client.connection_pool.release(taken)
    assert run(client, command("ECHO", "value")) == b"value"
    client.connection_pool.disconnect()


LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
FULL = b"-ERR max number of clients reached\r\n"


def replies_once(reply: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.command()
        peer.send(reply)
        peer.echo()

    return script


class TestRepeats:
    @pytest.mark.parametrize("retries", [0, 1, 4])
    def test_after_a_loss(self, side: str, retries: int) -> None:
        with ScriptedServer(closes_when_asked) as server:
            (outcome,) = carried_out(side, server.port, command("ECHO", "value"), retries=retries)
        assert isinstance(outcome[0], redis.ConnectionError)
        assert len(server.asked) == 1 + retries

    @pytest.mark.parametrize("retries", [0, 2])
    def test_no_more_often_on_a_kept_connection(self, side: str, retries: int) -> None:
        with ScriptedServer(after_one_reply(closes_when_asked), closes_when_asked) as server:
            outcomes = carried_out(side, server.port, command("ECHO", "1"), command("ECHO", "2"), retries=retries)
        assert outcomes[0][0] == b"1"
        assert isinstance(outcomes[1][0], redis.ConnectionError)
        assert [value for _, value in server.asked] == [b"1", *[b"2"] * (1 + retries)]

    @pytest.mark.parametrize(
        "script", [replies_once(LOADING), replies_once(FULL), closes_when_asked], ids=["loading", "full", "lost"]
    )
    def test_until_redis_is_there(self, side: str, script: Script) -> None:
        with ScriptedServer(script, echoes) as server:
            (outcome,) = carried_out(side, server.port, command("ECHO", "value"))
        assert outcome[0] == b"value"
        assert len(server.asked) == 2

    def test_while_it_is_down(self, side: str, own_server: RedisServer) -> None:
        own_server.stop()
        starting = threading.Timer(0.3, own_server.start)
        starting.start()
        try:
            (outcome,) = carried_out(side, own_server.port, command("ECHO", "value"), retries=100, call_timeout=20)
        finally:
            starting.join()
        assert outcome[0] == b"value"

    @pytest.mark.parametrize(
        "reply",
        [
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            b"-NOAUTH Authentication required.\r\n",
            b"-NOPERM this user has no permissions to run the 'echo' command\r\n",
            b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
            b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
            b"-ERR unknown command\r\n",
        ],
        ids=lambda reply: reply.split()[0].decode()[1:],
    )
    def test_nothing_that_redis_refuses(self, side: str, reply: bytes) -> None:
        with ScriptedServer(answers(reply)) as server:
            (outcome,) = carried_out(side, server.port, command("ECHO", "value"))
        assert isinstance(outcome[0], redis.RedisError)
        assert len(server.asked) == 1

    def test_what_a_replica_refuses_where_the_name_leads_then(self, side: str) -> None:
        with ScriptedServer(answers(b"-READONLY You can't write against a read only replica.\r\n")) as server:
            (outcome,) = carried_out(side, server.port, command("ECHO", "value"), retries=2)
        assert isinstance(outcome[0], redis.exceptions.ReadOnlyError)
        assert [connection for connection, _ in server.asked] == [0, 1, 2]  # a new connection each time

    def test_nothing_after_a_password_that_is_wrong(self, side: str) -> None:
        with ScriptedServer(answers(b"-WRONGPASS invalid username-password pair\r\n"), strict=True) as server:
            (outcome,) = carried_out(side, server.port, command("ECHO", "value"), password="private")
        assert isinstance(outcome[0], redis.RedisError)  # its AuthenticationError since 4.0
        assert "username-password pair" in str(outcome[0])
        assert server.accepted == 1

    # uvloop puts off the close of a socket whose handshake failed, now and then until the collector finds it.
    @pytest.mark.filterwarnings(r"ignore:unclosed <socket.socket \[closed\]:ResourceWarning")
    def test_nothing_with_a_server_that_cannot_be_trusted(self, side: str, certificates: Certificates) -> None:
        with ScriptedServer(echoes, context=certificates.context(certificates.server)) as server:
            (outcome,) = carried_out(
                side,
                server.port,
                command("ECHO", "value"),
                use_ssl=True,
                ssl_ca_certs=certificates.other_ca_file,
            )
        assert isinstance(outcome[0], redis.ConnectionError)
        assert "certificate" in str(outcome[0])
        assert server.accepted == 1

    @pytest.mark.parametrize("is_wanted", [False, True])
    def test_after_a_timeout_only_on_request(self, side: str, is_wanted: bool) -> None:
        with ScriptedServer(is_silent, echoes) as server:
            (outcome,) = carried_out(
                side, server.port, command("ECHO", "value"), socket_timeout=0.6, retry_on_timeout=is_wanted
            )
        if is_wanted:
            assert outcome[0] == b"value"
        else:
            assert isinstance(outcome[0], redis.TimeoutError)
        assert len(server.asked) == 1 + is_wanted


class TestPauses:
    def test_are_of_full_jitter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: List[Tuple[float, float]] = []

        def uniform(low: float, high: float) -> float:
            drawn.append((low, high))
            return high

        monkeypatch.setattr(random, "uniform", uniform)
        call = Budget(Limits(None, 2000))
        pauses_s = [call.pause_s(redis.ConnectionError(), failures) for failures in (1, 2, 3, 5, 6, 7, 2000)]
        assert pauses_s == [FIRST_PAUSE_S, 0.1, 0.2, 0.8, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
        assert {low for low, _ in drawn} == {0}
        assert call.pause_s(redis.ConnectionError(), 2001) is None

    def test_are_drawn_from_the_whole_range(self) -> None:
        call = Budget(Limits(None, 10))
        pauses_s = [call.pause_s(redis.ConnectionError(), 10) or 0.0 for _ in range(2000)]
        assert 0 <= min(pauses_s) < 0.1 * LONGEST_PAUSE_S
        assert 0.9 * LONGEST_PAUSE_S < max(pauses_s) <= LONGEST_PAUSE_S

    def test_do_not_outlast_the_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(random, "uniform", lambda low, high: high)
        call = Budget(Limits(LONGEST_PAUSE_S / 2, 100))
        assert call.pause_s(redis.ConnectionError(), 1) == FIRST_PAUSE_S
        assert call.pause_s(redis.ConnectionError(), 50) is None


def test_a_call_leaves_no_limit_behind(server: RedisServer) -> None:
    carried_out("blocking", server.port, command("PING"), call_timeout=TIMEOUT_S)
    assert budget.current() is None
    assert budget.within(7.0) == 7.0
    assert budget.within(None) is None


@pytest.mark.parametrize("loop_class", list(LOOPS.values()), ids=list(LOOPS))
class TestBounded:
    """A deadline is not a cancellation, whichever comes first."""

    @pytest.mark.parametrize("is_cancelled_first", [False, True])
    def test_a_cancellation_wins_against_the_deadline(self, loop_class: Any, is_cancelled_first: bool) -> None:
        async def work() -> None:
            loop = asyncio.get_running_loop()
            bounded = Bounded(wait_for(loop.create_future()), NEVER_S, Failed)
            task = asyncio.ensure_future(awaited(bounded))
            await asyncio.sleep(0.01)
            steps: List[Callable[[], Any]] = [bounded._expire, task.cancel]
            for step in reversed(steps) if is_cancelled_first else steps:
                step()
            with pytest.raises(asyncio.CancelledError):
                await task

        run_on(loop_class, work)

    @pytest.mark.parametrize("is_cancelled_first", [False, True])
    def test_a_cancellation_wins_against_the_deadline_of_a_reply(
        self, loop_class: Any, is_cancelled_first: bool
    ) -> None:
        async def work() -> None:
            loop = asyncio.get_running_loop()
            call = AsyncBudget(Limits(NEVER_S), loop)
            call.begin(("ECHO",))
            call.answer = loop.create_future()
            task = asyncio.ensure_future(wait_for(call.answer))
            await asyncio.sleep(0.01)
            steps: List[Callable[[], Any]] = [call._expire, task.cancel]
            for step in reversed(steps) if is_cancelled_first else steps:
                step()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(CallTimeoutError, match="GET was waiting"):
                call.begin(("GET",))
            call.end()

        run_on(loop_class, work)

    @pytest.mark.parametrize("is_expired_first", [False, True])
    def test_a_result_wins_against_the_deadline_of_a_reply(self, loop_class: Any, is_expired_first: bool) -> None:
        async def work() -> None:
            loop = asyncio.get_running_loop()
            call = AsyncBudget(Limits(NEVER_S), loop)
            call.answer = answer = loop.create_future()
            task = asyncio.ensure_future(wait_for(answer))
            await asyncio.sleep(0.01)
            if is_expired_first:
                call._expire()
                with pytest.raises(CallTimeoutError):
                    await task
            else:
                answer.set_result("reply")
                call._expire()
                assert await task == "reply"
            call.end()

        run_on(loop_class, work)

    @pytest.mark.parametrize("is_expired_first", [False, True])
    def test_a_result_wins_against_the_deadline(self, loop_class: Any, is_expired_first: bool) -> None:
        async def work() -> None:
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            bounded = Bounded(wait_for(future), NEVER_S, Failed)
            task = asyncio.ensure_future(awaited(bounded))
            await asyncio.sleep(0.01)
            steps: List[Callable[[], Any]] = [lambda: future.set_result("reply"), bounded._expire]
            for step in reversed(steps) if is_expired_first else steps:
                step()
            assert await task == "reply"

        run_on(loop_class, work)

    def test_the_deadline_cancels_what_is_waited_for(self, loop_class: Any) -> None:
        async def work() -> None:
            future = asyncio.get_running_loop().create_future()
            with pytest.raises(Failed):
                await Bounded(wait_for(future), 0.05, Failed)
            assert future.cancelled()

        run_on(loop_class, work)

    def test_a_timeout_within_is_not_the_deadline(self, loop_class: Any) -> None:
        async def gives_up() -> None:
            await asyncio.wait_for(asyncio.sleep(NEVER_S), 0.05)

        async def work() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await Bounded(gives_up(), NEVER_S, Failed)

        run_on(loop_class, work)

    def test_it_may_clean_up(self, loop_class: Any) -> None:
        ended: List[str] = []

        async def cleans_up() -> None:
            try:
                await asyncio.sleep(NEVER_S)
            finally:
                await asyncio.sleep(0.01)
                ended.append("cleaned up")

        async def work() -> None:
            with pytest.raises(Failed):
                await Bounded(cleans_up(), 0.05, Failed)

        run_on(loop_class, work)
        assert ended == ["cleaned up"]

    def test_it_may_not_go_on_for_ever(self, loop_class: Any) -> None:
        async def clings() -> None:
            for _ in range(3):
                try:
                    await asyncio.sleep(NEVER_S)
                except asyncio.CancelledError:
                    continue

        async def work() -> None:
            started = time.monotonic()
            await Bounded(clings(), 0.05, Failed)
            assert time.monotonic() - started < PATIENCE_S

        run_on(loop_class, work)

    def test_errors_and_bare_yields_pass(self, loop_class: Any) -> None:
        async def fails() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            raise KeyError("key")

        async def work() -> None:
            with pytest.raises(KeyError):
                await Bounded(fails(), NEVER_S, Failed)

        run_on(loop_class, work)


class Failed(Exception):
    """What the bounded coroutine is said to have done."""


async def wait_for(future: "asyncio.Future[Any]") -> Any:
    return await future


async def awaited(bounded: "Bounded[Any]") -> Any:
    return await bounded


@pytest.mark.parametrize("loop_class", list(LOOPS.values()), ids=list(LOOPS))
class TestTogether:
    """Tasks that share a connection; collected only where redis-py has asyncio."""

    __test__ = HAS_ASYNCIO

    def test_who_gives_up_opening_fails_nobody_else(self, loop_class: Any) -> None:
        with ScriptedServer(lambda peer: time.sleep(1), answers(b"+OK\r\n"), strict=True) as server:

            async def work() -> None:
                options = {"url": "127.0.0.1", "port": server.port, "client_name": "bot", "call_timeout": 0.6}
                clients = AsyncClient(parse(options))
                first = asyncio.ensure_future(arun(clients.current(), command("ECHO", "first")))
                await asyncio.sleep(0.4)
                others = [arun(clients.current(), command("ECHO", str(number))) for number in range(3)]
                found = await outcomes(first, *others)
                assert isinstance(found[0], CallTimeoutError)
                assert found[1:] == [b"OK"] * 3
                await clients.close()

            run_on(loop_class, work)
        assert server.accepted == 2

    def test_who_gives_up_waiting_disturbs_nobody_else(self, loop_class: Any) -> None:
        def slow_at_first(peer: Peer) -> None:
            asked = peer.command()
            time.sleep(0.5)
            peer.send(bulk(asked[-1]))
            peer.echo()

        with ScriptedServer(slow_at_first) as server:

            async def work() -> None:
                options = {"url": "127.0.0.1", "port": server.port, "call_timeout": 0.3}
                clients = AsyncClient(parse(options))
                first = asyncio.ensure_future(arun(clients.current(), command("ECHO", "first")))
                await asyncio.sleep(0.25)
                second = asyncio.ensure_future(arun(clients.current(), command("ECHO", "second")))
                found = await outcomes(first, second)
                assert isinstance(found[0], CallTimeoutError)
                assert found[1] in (b"second",) or isinstance(found[1], CallTimeoutError)
                assert await arun(clients.current(), command("ECHO", "third")) == b"third"
                await clients.close()

            run_on(loop_class, work)
        assert server.accepted == 1

    def test_the_hosts_cancellation_stays_one(self, loop_class: Any) -> None:
        with ScriptedServer(is_silent) as server:

            async def work() -> None:
                clients = AsyncClient(parse({"url": "127.0.0.1", "port": server.port, "call_timeout": NEVER_S}))
                task = asyncio.ensure_future(arun(clients.current(), command("ECHO", "value")))
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await clients.close()

            run_on(loop_class, work)

    def test_closing_ends_who_waits_and_opens_nothing(self, loop_class: Any) -> None:
        with ScriptedServer(is_silent) as server:

            async def work() -> None:
                clients = AsyncClient(parse({"url": "127.0.0.1", "port": server.port}))
                task = asyncio.ensure_future(arun(clients.current(), command("ECHO", "value")))
                await asyncio.sleep(0.1)
                await clients.close()
                with pytest.raises(redis.ConnectionError, match="was closed"):
                    await task

            run_on(loop_class, work)
        assert server.accepted == 1
