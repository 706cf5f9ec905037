"""One connection for all tasks of an event loop: each gets its own reply or an error in time, whatever the server does.

On every event loop here: against a real server over TCP, TLS and Unix sockets, and against one that follows a script
wherever a real one would have to misbehave.
"""

import asyncio
import gc
import importlib
import importlib.util
import socket
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
import redis
from leaks import none_left, none_left_async, open_descriptors
from redis.exceptions import BusyLoadingError, InvalidResponse, NoScriptError
from scripted import (
    LATE_S,
    LOOPS,
    PATIENCE_S,
    SOON_S,
    Peer,
    Script,
    ScriptedServer,
    after_one_reply,
    answers,
    bulk,
    closes_when_asked,
    descriptors_of_a_running_loop,
    echoes,
    is_silent,
    outcome,
    outcomes,
    run_on,
    until,
)
from tls_proxy import Certificates, TlsProxy

from extras.bench.server import RedisServer, free_port
from extras.budget import ClosedError, Limits
from extras.configured import AsyncClient, connection_kwargs
from extras.multiplexed import MultiplexedConnection
from extras.options import parse
from extras.replies import Replies

HAS_ASYNCIO = importlib.util.find_spec("redis.asyncio") is not None

KINDS = ["tcp", "tls", "unix"]
MEGABYTES = b"0123456789" * 500_000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_port(server: RedisServer, certificates: Certificates) -> Iterator[int]:
    with TlsProxy(certificates.context(certificates.server), server.port) as proxy:
        yield proxy.port


@asynccontextmanager
async def connected_to(port: Optional[int] = None, **given: Any) -> AsyncIterator[MultiplexedConnection]:
    """The running loop's connection to a loopback port or what is given, closed at the end; it may repeat all."""
    options = {"socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S, **given}
    if port is not None:
        options.update(url="127.0.0.1", port=port)
    checked = parse(options)
    client: Any = repeating_client({**connection_kwargs(checked), "retry_on_timeout": checked.retry_on_timeout})
    try:
        shared = client.shared_connection()
        assert shared is not None
        yield shared
    finally:
        await client.aclose()


def repeating_client(kwargs: Dict[str, Any]) -> Any:
    """Make a store's client, all of whose commands the connection itself may repeat."""
    from extras.async_store import AsyncStoreRedis, store_client

    class Repeating(AsyncStoreRedis):
        def _may_be_repeated(self, command: Any) -> bool:
            return True

    client = store_client(kwargs, Limits())
    client.__class__ = Repeating
    return client


def resets_when_asked(peer: Peer) -> None:
    peer.command()
    peer.reset()


def closes_within_a_reply(peer: Peer) -> None:
    peer.command()
    peer.send(b"$10\r\n01234")


def closes_within_a_header(peer: Peer) -> None:
    peer.command()
    peer.send(b"$")


LOSSES = [closes_when_asked, resets_when_asked, closes_within_a_reply, closes_within_a_header]


class TestMultiplexed:
    """Collected only where redis-py has asyncio."""

    __test__ = HAS_ASYNCIO

    @pytest.fixture(params=LOOPS)
    def loop_class(self, request: pytest.FixtureRequest) -> Any:
        return LOOPS[request.param]

    @pytest.fixture
    def real(self, raw: "redis.Redis", server: RedisServer, tls_port: int, certificates: Certificates) -> Any:
        """Return the options that reach the emptied server over "tcp", "tls" or "unix"."""

        def given(kind: str) -> Dict[str, Any]:
            if kind == "unix":
                return {"url": f"unix://{server.unix_path}"}
            if kind == "tcp":
                return {"url": "127.0.0.1", "port": server.port}
            return {"url": f"rediss://127.0.0.1:{tls_port}", "ssl_ca_certs": certificates.ca_file}

        return given

    @pytest.mark.parametrize("kind", KINDS)
    def test_200_tasks_at_once_get_their_own_replies(
        self, loop_class: Any, kind: str, real: Any, raw: "redis.Redis"
    ) -> None:
        async def one(client: MultiplexedConnection, number: int) -> None:
            for turn in range(5):
                key, value = f"key{number}", f"{number}:{turn}"
                assert await client.execute("SET", key, value) == b"OK"
                assert await client.execute("GET", key) == value.encode()

        async def work() -> None:
            async with connected_to(**real(kind), client_name="shared") as client:
                await asyncio.gather(*(one(client, number) for number in range(200)))
                assert [entry["name"] for entry in raw.client_list()].count("shared") == 1

        run_on(loop_class, work)

    @pytest.mark.parametrize("kind", KINDS)
    def test_large_values_pass_both_ways_while_others_are_served(self, loop_class: Any, kind: str, real: Any) -> None:
        async def work() -> None:
            async with connected_to(**real(kind)) as client:
                calls = [client.execute("SET", "large", MEGABYTES), client.execute("GET", "large")]
                calls += [client.execute("ECHO", str(number)) for number in range(50)]
                ok, found, *echoed = await asyncio.gather(*calls)
                assert ok == b"OK"
                assert found == MEGABYTES
                assert echoed == [str(number).encode() for number in range(50)]

        run_on(loop_class, work)

    @pytest.mark.skipif(not hasattr(socket.socket, "sendmsg"), reason="there is no sendmsg here")
    @pytest.mark.parametrize("taken", [0, 1, 32, 33, 70_000, 100_032, 100_033, 1_000_000])
    def test_a_large_value_goes_with_its_head_and_the_transport_sends_the_rest(
        self, loop_class: Any, taken: int, real: Any
    ) -> None:
        value = b"0123456789" * 10_000
        packed = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$100000\r\n%b\r\n" % value

        class Sparing:
            def __init__(self, sock: Any) -> None:
                self.sock = sock
                self.asked: List[bytes] = []

            def sendmsg(self, pieces: List[bytes]) -> int:
                self.asked.append(b"".join(pieces))
                if not taken:
                    raise BlockingIOError
                return int(self.sock.send(self.asked[-1][:taken]))

        async def work() -> None:
            async with connected_to(**real("tcp")) as client:
                assert await client.execute("ECHO", "first") == b"first"
                replies: Any = client._replies
                own: Any = client.connection
                real_one, replies._sock = replies._sock, Sparing(own._own_socket)
                setting = asyncio.ensure_future(client.execute("SET", "key", value))
                await asyncio.sleep(0)
                sparing, replies._sock = replies._sock, real_one
                assert await setting == b"OK"
                assert sparing.asked == [packed]
                assert await client.execute("GET", "key") == value

        run_on(loop_class, work)

    def test_replies_and_errors_of_every_kind(self, loop_class: Any, real: Any) -> None:
        nested = "return {1, {'two', {'', {}, {{{3}}}}}, false}"

        async def work() -> None:
            async with connected_to(**real("tcp")) as client:
                assert await client.execute("GET", "nothing") is None
                assert await client.execute("SET", "empty", b"") == b"OK"
                assert await client.execute("GET", "empty") == b""
                assert await client.execute("INCR", "number") == 1
                assert await client.execute("LRANGE", "nothing", 0, -1) == []
                assert await client.execute("EVAL", nested, 0) == [1, [b"two", [b"", [], [[[3]]]]], None]
                with pytest.raises(NoScriptError):
                    await client.execute("EVALSHA", "0" * 40, 0)
                with pytest.raises(redis.ResponseError, match=r"^WRONGTYPE "):
                    await client.execute("LPUSH", "empty", "value")
                with pytest.raises(redis.ResponseError, match="unknown command"):
                    await client.execute("NONESUCH")
                assert await client.execute("ECHO", "still") == b"still"

        run_on(loop_class, work)

    def test_arguments_are_bytes_text_and_numbers(self, loop_class: Any, real: Any) -> None:
        sent = [b"\x00\r\n\xff", "Grüße", "", b"", 7, -(10**18), 1.5, 0.1]
        stored = [b"\x00\r\n\xff", "Grüße".encode(), b"", b"", b"7", b"-1000000000000000000", b"1.5", b"0.1"]

        async def work() -> None:
            async with connected_to(**real("tcp")) as client:
                assert await client.execute("RPUSH", "list", *sent) == len(sent)
                assert await client.execute("LRANGE", "list", 0, -1) == stored
                with pytest.raises(redis.DataError):
                    await client.execute("ECHO", None)
                assert await client.execute("ECHO", "still") == b"still"

        run_on(loop_class, work)

    def test_replies_cut_at_every_byte_and_joined_in_one_packet(self, loop_class: Any) -> None:
        replies = b"+OK\r\n$-1\r\n:-12\r\n$5\r\nab\r\nc\r\n*2\r\n*1\r\n$0\r\n\r\n*0\r\n-NOSCRIPT none\r\n"
        cuts = range(len(replies))

        def cut(peer: Peer) -> None:
            for position in cuts:
                for _ in range(6):
                    peer.command()
                peer.send(replies[:position])
                time.sleep(0.002)
                peer.send(replies[position:])
            for _ in range(6):
                peer.command()
            for position in cuts:
                peer.send(replies[position : position + 1])
                time.sleep(0.001)
            peer.wait_for_the_end()

        async def work() -> None:
            async with connected_to(server.port) as client:
                for _ in range(len(cuts) + 1):
                    *got, error = await outcomes(*(client.execute("GET", str(number)) for number in range(6)))
                    assert got == [b"OK", None, -12, b"ab\r\nc", [[b""], []]]
                    assert type(error) is NoScriptError

        with ScriptedServer(cut) as server:
            run_on(loop_class, work)

    def test_waiting_to_send_stops_nobody_else_and_ends_when_the_server_reads(self, loop_class: Any) -> None:
        reading = threading.Event()

        def reads_later(peer: Peer) -> None:
            peer.echo(1)
            reading.wait(PATIENCE_S)
            peer.echo()

        async def work() -> None:
            async with connected_to(server.port) as client:
                assert await client.execute("ECHO", "first") == b"first"
                calls = [asyncio.ensure_future(client.execute("ECHO", MEGABYTES)) for _ in range(3)]
                await asyncio.sleep(0.05)
                calls += [asyncio.ensure_future(client.execute("ECHO", str(number))) for number in range(20)]
                for _ in range(20):
                    await asyncio.sleep(0.005)  # the loop goes on
                assert not any(call.done() for call in calls)
                calls[1].cancel()  # under way or waiting to be sent
                calls[7].cancel()
                await asyncio.sleep(0.01)
                reading.set()
                got = await outcomes(*calls)
                expected = [MEGABYTES] * 3 + [str(number).encode() for number in range(20)]
                for number, (reply, own) in enumerate(zip(got, expected)):
                    assert isinstance(reply, asyncio.CancelledError) if number in (1, 7) else reply == own
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(reads_later) as server:
            run_on(loop_class, work)
        assert server.accepted == 1

    @pytest.mark.parametrize("early_reply", [b"", b"-ERR Protocol error: invalid bulk length\r\n"])
    def test_a_server_that_takes_nothing_is_a_timeout_also_for_what_is_unsent(
        self, loop_class: Any, early_reply: bytes
    ) -> None:
        ending = threading.Event()

        def takes_nothing(peer: Peer) -> None:
            peer.echo(1)
            peer.send(early_reply and bulk(peer.sock.recv(1)) and early_reply)
            ending.wait(PATIENCE_S)

        async def work() -> None:
            async with connected_to(server.port, socket_timeout=SOON_S) as client:
                assert await client.execute("ECHO", "first") == b"first"
                calls = [asyncio.ensure_future(client.execute("ECHO", MEGABYTES)) for _ in range(2)]
                calls += [asyncio.ensure_future(client.execute("ECHO", str(number))) for number in range(5)]
                started = time.monotonic()
                first, *errors = await outcomes(*calls)
                assert time.monotonic() - started < SOON_S + LATE_S
                if early_reply:
                    assert type(first) is redis.ResponseError
                else:
                    errors.append(first)
                assert [type(error) for error in errors] == [redis.TimeoutError] * len(errors)
                assert len(set(map(id, errors))) == len(errors)
                assert await client.execute("ECHO", "after") == b"after"
            ending.set()

        with ScriptedServer(takes_nothing, echoes) as server:
            run_on(loop_class, work)

    def test_a_cancelled_task_keeps_its_place(self, loop_class: Any, real: Any) -> None:
        async def work() -> None:
            async with connected_to(**real("tcp")) as client:
                for turn in range(100):
                    calls = [asyncio.ensure_future(client.execute("ECHO", f"{turn}:{n}")) for n in range(5)]
                    for _ in range(turn % 7):
                        await asyncio.sleep(0)
                    await asyncio.sleep(turn % 4 * 0.0001)
                    calls[turn % 5].cancel()
                    for number, reply in enumerate(await outcomes(*calls)):
                        cancelled = number == turn % 5 and isinstance(reply, asyncio.CancelledError)
                        assert cancelled or reply == f"{turn}:{number}".encode()
                    assert await client.execute("ECHO", f"after {turn}") == f"after {turn}".encode()

        run_on(loop_class, work)

    @pytest.mark.parametrize("fails", [False, True])
    def test_cancelled_at_the_moment_of_the_reply_or_of_the_failure(self, loop_class: Any, fails: bool) -> None:
        def answers_both_at_once(peer: Peer) -> None:
            first, second = peer.command(), peer.command()
            if not fails:
                peer.send(bulk(first[-1]) + bulk(second[-1]))
                peer.echo()

        async def work() -> None:
            async with connected_to(server.port) as client:
                calls: List[asyncio.Future[Any]] = []

                async def cancels_the_other() -> Any:
                    try:
                        return await client.execute("ECHO", "first")
                    finally:
                        calls[1].cancel()

                calls.append(asyncio.ensure_future(cancels_the_other()))
                calls.append(asyncio.ensure_future(client.execute("ECHO", "second")))
                first, second = await outcomes(*calls)
                assert type(first) is redis.ConnectionError if fails else first == b"first"
                assert isinstance(second, asyncio.CancelledError)
                del first, second
                calls.clear()
                gc.collect()
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(answers_both_at_once, echoes) as server:
            run_on(loop_class, work)

    def test_cancelled_while_connecting_closes_the_socket_and_the_next_caller_connects(self, loop_class: Any) -> None:
        async def work() -> None:
            before = await descriptors_of_a_running_loop()
            async with connected_to(server.port, client_name="greeted") as client:
                first = asyncio.ensure_future(client.execute("ECHO", "first"))
                await until(lambda: server.asked)  # its greeting, which is not answered
                waiting = [asyncio.ensure_future(client.execute("ECHO", str(number))) for number in range(3)]
                await asyncio.sleep(0.01)
                waiting[0].cancel()
                first.cancel()
                server.strict = False
                assert isinstance(await outcome(first), asyncio.CancelledError)
                got = await outcomes(*waiting)
                assert isinstance(got[0], asyncio.CancelledError)
                assert got[1:] == [b"1", b"2"]
                await until(lambda: server.ended == [0])
            await until(lambda: server.ended == [0, 1])
            assert await none_left_async(before)

        with ScriptedServer(is_silent, echoes, strict=True) as server:
            run_on(loop_class, work)
        assert server.accepted == 2

    def test_cancelled_at_any_step_of_connecting_leaves_nothing_open(self, loop_class: Any, real: Any) -> None:
        async def work() -> None:
            before = await descriptors_of_a_running_loop()
            cancelled = 0
            for step in range(20):
                async with connected_to(**real("tcp"), client_name="greeted", db=1) as client:
                    call = asyncio.ensure_future(client.execute("ECHO", "first"))
                    for _ in range(step):
                        await asyncio.sleep(0)
                    call.cancel()
                    cancelled += isinstance(await outcome(call), asyncio.CancelledError)
                    assert await client.execute("ECHO", "after") == b"after"
            assert cancelled > 3
            assert await none_left_async(before)

        run_on(loop_class, work)

    def test_silence_is_a_timeout_for_all_who_wait(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port, socket_timeout=SOON_S) as client:
                assert await client.execute("ECHO", "first") == b"first"
                started = time.monotonic()
                errors = await outcomes(*(client.execute("ECHO", str(number)) for number in range(10)))
                assert SOON_S - 0.01 < time.monotonic() - started < SOON_S + LATE_S
                assert [type(error) for error in errors] == [redis.TimeoutError] * 10
                assert len(set(map(id, errors))) == 10
                assert all(f"127.0.0.1:{server.port}" in str(error) for error in errors)
                await until(lambda: server.ended == [0])
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(after_one_reply(is_silent), echoes) as server:
            run_on(loop_class, work)
        sent = [b"first", *(b"%d" % number for number in range(10))]
        assert server.asked == [*((0, value) for value in sent), (1, b"after")]

    def test_slow_but_steady_is_no_timeout(self, loop_class: Any) -> None:
        def trickles(peer: Peer) -> None:
            for byte in bulk(peer.command()[-1]):
                peer.send(bytes([byte]))
                time.sleep(0.06)
            peer.echo()

        async def work() -> None:
            async with connected_to(server.port, socket_timeout=SOON_S) as client:
                started = time.monotonic()
                assert await client.execute("ECHO", "0123456789") == b"0123456789"
                assert time.monotonic() - started > SOON_S + 0.1
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(trickles) as server:
            run_on(loop_class, work)
        assert server.accepted == 1

    def test_without_a_timeout_it_waits(self, loop_class: Any) -> None:
        def takes_its_time(peer: Peer) -> None:
            time.sleep(0.2)
            peer.echo()

        async def work() -> None:
            async with connected_to(server.port, socket_timeout=None) as client:
                assert await outcomes(*(client.execute("ECHO", str(n)) for n in range(3))) == [b"0", b"1", b"2"]

        with ScriptedServer(takes_its_time) as server:
            run_on(loop_class, work)

    def test_a_loop_that_was_held_up_does_not_take_a_reply_for_silence(self, loop_class: Any) -> None:
        def takes_a_moment(peer: Peer) -> None:
            while True:
                asked = peer.command()
                time.sleep(0.02)
                peer.send(bulk(asked[-1]))

        async def never_idle() -> None:
            while True:
                await asyncio.sleep(0)

        async def work() -> None:
            async with connected_to(server.port, socket_timeout=SOON_S) as client:
                # So that the loop looks at its timers without waiting for anything first.
                others = asyncio.ensure_future(never_idle())
                assert await client.execute("ECHO", "watched") == b"watched"
                time.sleep(SOON_S + 0.1)  # as a host's own work does
                # Here the last watch is overdue.
                assert await client.execute("ECHO", "second") == b"second"
                call = asyncio.ensure_future(client.execute("ECHO", "third"))
                await asyncio.sleep(0)  # a loop may send only after this turn
                time.sleep(SOON_S + 0.1)
                assert await call == b"third"
                others.cancel()
                assert isinstance(await outcome(others), asyncio.CancelledError)

        with ScriptedServer(takes_a_moment) as server:
            run_on(loop_class, work)
        assert server.accepted == 1

    def test_an_idle_connection_has_no_timeout_and_no_timer(self, loop_class: Any) -> None:
        timers: List[Any] = []

        class Recording(loop_class):  # type: ignore[misc]
            def call_later(self, delay: float, callback: Any, *args: Any, **kwargs: Any) -> Any:
                if getattr(callback, "__module__", "") == Replies.__module__:
                    timers.append(callback)
                return super().call_later(delay, callback, *args, **kwargs)

        async def work() -> None:
            async with connected_to(server.port, socket_timeout=0.5) as client:
                for turn in range(20):
                    assert await client.execute("ECHO", str(turn)) == str(turn).encode()
                assert timers
                await asyncio.sleep(0.7)
                timers.clear()
                await asyncio.sleep(0.7)
                assert timers == []
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(echoes) as server:
            run_on(Recording, work)
        assert server.accepted == 1

    def test_after_a_timeout_it_is_sent_once_more_where_that_is_asked_for(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port, socket_timeout=SOON_S, retry_on_timeout=True) as client:
                assert await client.execute("ECHO", "again") == b"again"
                await until(lambda: server.ended == [0])

        with ScriptedServer(is_silent, echoes) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"again"), (1, b"again")]

    @pytest.mark.parametrize(
        "scripts",
        [
            (is_silent, is_silent, echoes),
            (after_one_reply(closes_when_asked), is_silent, echoes),
            (after_one_reply(is_silent), closes_when_asked, echoes),
        ],
    )
    def test_nothing_is_sent_more_than_twice(self, loop_class: Any, scripts: Tuple[Script, ...]) -> None:
        async def work() -> None:
            async with connected_to(server.port, socket_timeout=SOON_S, retry_on_timeout=True) as client:
                if scripts[0] is not is_silent:
                    assert await client.execute("ECHO", "first") == b"first"
                with pytest.raises((redis.TimeoutError, redis.ConnectionError), match=f"127.0.0.1:{server.port}"):
                    await client.execute("ECHO", "again")
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(*scripts) as server:
            run_on(loop_class, work)
        assert [number for number, value in server.asked if value == b"again"] == [0, 1]

    @pytest.mark.parametrize("over_tls", [False, True])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_what_a_kept_connection_lost_is_sent_again_once(
        self, loop_class: Any, loss: Script, over_tls: bool, certificates: Certificates
    ) -> None:
        tls = {"use_ssl": True, "ssl_ca_certs": certificates.ca_file} if over_tls else {}

        async def work() -> None:
            async with connected_to(server.port, **tls) as client:
                assert await client.execute("ECHO", "first") == b"first"
                started = time.monotonic()
                assert await client.execute("ECHO", "again") == b"again"
                assert time.monotonic() - started < PATIENCE_S / 2
                many = await outcomes(*(client.execute("ECHO", str(number)) for number in range(10)))
                assert many == [str(number).encode() for number in range(10)]

        context = certificates.context(certificates.server) if over_tls else None
        with ScriptedServer(after_one_reply(loss), echoes, context=context) as server:
            run_on(loop_class, work)
        assert server.asked[:3] == [(0, b"first"), (0, b"again"), (1, b"again")]
        assert server.accepted == 2

    @pytest.mark.parametrize("over_tls", [False, True])
    @pytest.mark.parametrize("resets", [False, True])
    def test_a_connection_lost_while_idle_is_replaced_unnoticed(
        self, loop_class: Any, resets: bool, over_tls: bool, certificates: Certificates
    ) -> None:
        tls = {"use_ssl": True, "ssl_ca_certs": certificates.ca_file} if over_tls else {}

        def ends(peer: Peer) -> None:
            if resets:
                peer.reset()

        async def work() -> None:
            async with connected_to(server.port, **tls) as client:
                assert await client.execute("ECHO", "first") == b"first"
                await asyncio.sleep(0.03)
                started = time.monotonic()
                assert await outcomes(*(client.execute("ECHO", str(n)) for n in range(3))) == [b"0", b"1", b"2"]
                assert time.monotonic() - started < PATIENCE_S / 2

        context = certificates.context(certificates.server) if over_tls else None
        with ScriptedServer(after_one_reply(ends), echoes, context=context) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"first"), (1, b"0"), (1, b"1"), (1, b"2")]

    @pytest.mark.parametrize("loss", LOSSES)
    def test_what_two_connections_lost_is_an_error_that_names_the_server(self, loop_class: Any, loss: Script) -> None:
        async def work() -> None:
            async with connected_to(server.port) as client:
                assert await client.execute("ECHO", "first") == b"first"
                error = await outcome(client.execute("ECHO", "again"))
                assert type(error) is redis.ConnectionError
                assert f"127.0.0.1:{server.port}" in str(error)
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(after_one_reply(loss), loss, echoes) as server:
            run_on(loop_class, work)
        assert server.accepted == 3

    @pytest.mark.parametrize("loss", LOSSES)
    def test_what_a_new_connection_lost_is_not_sent_again(self, loop_class: Any, loss: Script) -> None:
        async def work() -> None:
            async with connected_to(server.port) as client:
                with pytest.raises(redis.ConnectionError, match=f"127.0.0.1:{server.port}"):
                    await client.execute("ECHO", "first")
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(loss, echoes) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"first"), (1, b"after")]

    def test_a_connection_reset_before_it_is_taken_over_is_an_error(
        self, loop_class: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from extras.connection import AsyncFastConnection

        connect: Any = AsyncFastConnection.connect

        async def connects_late(connection: Any) -> None:
            await connect(connection)
            if not gone.is_set():
                gone.set()
                await asyncio.sleep(0.2)

        gone = threading.Event()

        def resets_at_once(peer: Peer) -> None:
            peer.sock.settimeout(0.02)
            while not gone.is_set():
                with suppress(socket.timeout):
                    peer.command()
            peer.reset()

        async def work() -> None:
            async with connected_to(server.port) as client:
                with pytest.raises(redis.ConnectionError, match=f"127.0.0.1:{server.port}"):
                    await client.execute("ECHO", "first")
                assert await client.execute("ECHO", "after") == b"after"

        monkeypatch.setattr(AsyncFastConnection, "connect", connects_late)
        with ScriptedServer(resets_at_once, echoes) as server:
            run_on(loop_class, work)
        assert server.asked == [(1, b"after")]

    def test_an_error_reply_is_not_a_lost_connection(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port) as client:
                assert await client.execute("ECHO", "first") == b"first"
                with pytest.raises(BusyLoadingError):  # which is a ConnectionError
                    await client.execute("ECHO", "asked")
                with pytest.raises(BusyLoadingError):
                    await client.execute("ECHO", "asked again")

        loading = answers(b"-LOADING Redis is loading the dataset in memory\r\n")
        with ScriptedServer(after_one_reply(loading)) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"first"), (0, b"asked"), (0, b"asked again")]

    def test_a_refused_connection_names_the_server(self, loop_class: Any) -> None:
        port = free_port()

        async def work() -> None:
            before = await descriptors_of_a_running_loop()
            async with connected_to(port) as client:
                errors = await outcomes(*(client.execute("ECHO", "text") for _ in range(20)))
                assert all(isinstance(error, redis.ConnectionError) for error in errors)
                assert all(f"127.0.0.1:{port}" in str(error) for error in errors)
                assert len(set(map(id, errors))) == 20
            assert await none_left_async(before)

        run_on(loop_class, work)

    def test_who_waits_for_a_connect_that_fails_does_not_wait_for_another(self, loop_class: Any) -> None:
        async def work() -> None:
            before = await descriptors_of_a_running_loop()
            given = {"socket_timeout": SOON_S, "socket_connect_timeout": SOON_S, "client_name": "greeted"}
            async with connected_to(server.port, **given) as client:
                for _ in range(2):
                    started = time.monotonic()
                    errors = await outcomes(*(client.execute("ECHO", "text") for _ in range(10)))
                    assert time.monotonic() - started < 2 * SOON_S + LATE_S
                    assert all(isinstance(error, (redis.TimeoutError, redis.ConnectionError)) for error in errors)
                    assert len(set(map(id, errors))) == 10
            assert await none_left_async(before)

        with ScriptedServer(is_silent, strict=True) as server:
            run_on(loop_class, work)
            assert server.accepted == 2

    def test_a_wrong_password_leaves_nothing_open(self, loop_class: Any, own_server: RedisServer) -> None:
        admin: Any = redis.Redis(port=own_server.port)
        admin.execute_command("ACL", "SETUSER", "bot", "on", ">right", "~*", "+@all")
        admin.connection_pool.disconnect()

        async def work() -> None:
            before = await descriptors_of_a_running_loop()
            for _ in range(10):
                async with connected_to(own_server.port, username="bot", password="wrong") as client:
                    with pytest.raises(
                        (redis.AuthenticationError, redis.ResponseError), match=r"(?i)wrongpass|invalid"
                    ):
                        await client.execute("ECHO", "text")
            async with connected_to(own_server.port, username="bot", password="right") as client:
                assert await client.execute("ACL", "WHOAMI") == b"bot"
            assert await none_left_async(before)

        run_on(loop_class, work)

    @pytest.mark.parametrize(
        "violation",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x00\xff\xfe\r\n",
            b":12x\r\n",
            b"$-5\r\n",
            b"$99999999999999999999\r\n",
            b"*99999999999\r\n",
            b"*1\r\n" * 100_000 + b":1\r\n",
        ],
        ids=["text", "zeros", "number", "negative", "long", "wide", "deep"],
    )
    def test_a_violation_of_the_protocol_fails_who_wait_and_ends_the_connection(
        self, loop_class: Any, violation: bytes
    ) -> None:
        def violates(peer: Peer) -> None:
            asked = [peer.command() for _ in range(4)]
            peer.send(bulk(asked[0][-1]) + violation + b"".join(bulk(one[-1]) for one in asked[1:]))
            peer.wait_for_the_end()

        async def work() -> None:
            async with connected_to(server.port) as client:
                first, *others = await outcomes(*(client.execute("ECHO", str(number)) for number in range(4)))
                assert first == b"0"
                assert all(isinstance(error, (InvalidResponse, redis.ConnectionError)) for error in others)
                assert len(set(map(id, others))) == 3
                await until(lambda: server.ended == [0])
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(violates, echoes) as server:
            run_on(loop_class, work)

    def test_a_length_that_never_comes_is_a_timeout(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port, socket_timeout=SOON_S) as client:
                with pytest.raises(redis.TimeoutError):
                    await client.execute("ECHO", "text")
                assert await client.execute("ECHO", "after") == b"after"

        def promises(peer: Peer) -> None:
            peer.command()
            peer.send(b"$9223372036854775807\r\n")
            peer.wait_for_the_end()

        with ScriptedServer(promises, echoes) as server:
            run_on(loop_class, work)

    @pytest.mark.parametrize("together", [False, True])
    def test_a_reply_that_nobody_asked_for_is_given_to_nobody(self, loop_class: Any, together: bool) -> None:
        def says_more(peer: Peer) -> None:
            asked = bulk(peer.command()[-1])
            if together:
                peer.send(asked + b"+extra\r\n")
            else:
                peer.send(asked)
                time.sleep(0.02)
                peer.send(b"+extra\r\n")
            peer.wait_for_the_end()

        async def work() -> None:
            async with connected_to(server.port) as client:
                assert await client.execute("ECHO", "first") == b"first"
                await until(lambda: server.ended == [0])
                assert await client.execute("ECHO", "after") == b"after"

        with ScriptedServer(says_more, echoes) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"first"), (1, b"after")]

    def test_an_error_in_no_encoding_is_an_error(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port) as client:
                for _ in range(2):
                    with pytest.raises(redis.ResponseError):
                        await client.execute("ECHO", "text")

        with ScriptedServer(answers(b"-ERR \xff\xfe\r\n")) as server:
            run_on(loop_class, work)
        assert server.accepted == 1

    def test_an_idle_connection_is_checked_once_and_a_busy_one_not(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port, health_check_interval=0.2) as client:
                for turn in range(5):
                    assert await client.execute("ECHO", str(turn)) == str(turn).encode()
                assert (0, b"PING") not in server.asked
                await asyncio.sleep(0.25)
                many = await outcomes(*(client.execute("ECHO", str(number)) for number in range(10)))
                assert many == [str(number).encode() for number in range(10)]

        with ScriptedServer(echoes) as server:
            run_on(loop_class, work)
        assert [value for _, value in server.asked].count(b"PING") == 1
        assert server.accepted == 1

    def test_a_command_behind_another_that_waits_is_not_held_up_by_a_check(self, loop_class: Any) -> None:
        def answers_late(peer: Peer) -> None:
            peer.echo(1)
            asked = [peer.command(), peer.command()]
            for one in asked:
                peer.send(bulk(one[-1]))
            peer.wait_for_the_end()

        async def work() -> None:
            async with connected_to(server.port, health_check_interval=0.02, socket_timeout=5) as client:
                assert await client.execute("ECHO", "first") == b"first"
                calls = [asyncio.ensure_future(client.execute("ECHO", "second"))]
                await asyncio.sleep(0.1)
                calls.append(asyncio.ensure_future(client.execute("ECHO", "third")))
                assert await outcomes(*calls) == [b"second", b"third"]

        with ScriptedServer(answers_late) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"first"), (0, b"second"), (0, b"third")]

    @pytest.mark.parametrize("death", [*LOSSES, is_silent, answers(b"garbage\r\n")])
    def test_a_dead_connection_found_by_the_check_is_replaced_unnoticed(self, loop_class: Any, death: Script) -> None:
        async def work() -> None:
            async with connected_to(server.port, health_check_interval=0.02, socket_timeout=SOON_S) as client:
                assert await client.execute("ECHO", "first") == b"first"
                await asyncio.sleep(0.04)
                assert await client.execute("ECHO", "second") == b"second"

        with ScriptedServer(after_one_reply(death), echoes) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"first"), (0, b"PING"), (1, b"second")]

    def test_what_the_connection_that_replaced_a_dead_one_lost_is_not_sent_again(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port, health_check_interval=0.02) as client:
                assert await client.execute("ECHO", "first") == b"first"
                await asyncio.sleep(0.04)
                with pytest.raises(redis.ConnectionError, match=f"127.0.0.1:{server.port}"):
                    await client.execute("ECHO", "second")

        with ScriptedServer(after_one_reply(closes_when_asked), closes_when_asked, echoes) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"first"), (0, b"PING"), (1, b"second")]

    def test_an_error_that_answers_the_check_is_not_the_callers(self, loop_class: Any) -> None:
        def refuses_to_check(peer: Peer) -> None:
            while True:
                asked = peer.command()[-1]
                peer.send(b"-MISCONF Errors writing to disk\r\n" if asked == b"PING" else bulk(asked))

        async def work() -> None:
            async with connected_to(server.port, health_check_interval=0.02) as client:
                assert await client.execute("ECHO", "first") == b"first"
                await asyncio.sleep(0.04)
                assert await client.execute("ECHO", "second") == b"second"

        with ScriptedServer(refuses_to_check) as server:
            run_on(loop_class, work)
        assert server.asked == [(0, b"first"), (0, b"PING"), (0, b"second")]

    def test_first_commands_open_one_connection_and_so_do_those_after_a_loss(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port) as client:
                for _ in range(2):
                    many = await outcomes(*(client.execute("ECHO", str(number)) for number in range(50)))
                    assert many == [str(number).encode() for number in range(50)]

        def answers_fifty(peer: Peer) -> None:
            peer.echo(50)
            peer.command()

        with ScriptedServer(answers_fifty, echoes) as server:
            run_on(loop_class, work)
        assert server.accepted == 2

    def test_closing_fails_who_wait_and_opens_nothing(self, loop_class: Any) -> None:
        async def work() -> None:
            async with connected_to(server.port) as client:
                assert await client.execute("ECHO", "first") == b"first"
                calls = [asyncio.ensure_future(client.execute("ECHO", str(number))) for number in range(5)]
                await until(lambda: len(server.asked) == 6)
                await client.close()
                await client.close()
                errors = await outcomes(*calls)
                assert [type(error) for error in errors] == [ClosedError] * 5
                assert all(f"127.0.0.1:{server.port}" in str(error) for error in errors)
                await until(lambda: server.ended == [0])
                assert server.accepted == 1
                assert await client.execute("ECHO", "after") == b"after"
            await until(lambda: server.ended == [0, 1])

        with ScriptedServer(after_one_reply(is_silent), echoes) as server:
            run_on(loop_class, work)

    def test_closing_closes_what_is_being_opened(self, loop_class: Any) -> None:
        async def work() -> None:
            before = await descriptors_of_a_running_loop()
            async with connected_to(server.port, client_name="greeted") as client:
                call = asyncio.ensure_future(client.execute("ECHO", "first"))
                await until(lambda: server.accepted)
                await asyncio.gather(client.close(), client.close())
                reply = await outcome(call)
                assert reply == b"first" or type(reply) is ClosedError
                await until(lambda: server.ended == [0])
            assert await none_left_async(before)

        def greets_late(peer: Peer) -> None:
            time.sleep(0.1)
            peer.echo()

        with ScriptedServer(greets_late) as server:
            run_on(loop_class, work)
        assert server.accepted == 1

    @pytest.mark.parametrize("over_tls", [False, True])
    def test_closing_does_not_wait_for_a_server_that_takes_nothing(
        self, loop_class: Any, over_tls: bool, certificates: Certificates
    ) -> None:
        tls = {"use_ssl": True, "ssl_ca_certs": certificates.ca_file} if over_tls else {}
        ending = threading.Event()

        def takes_nothing(peer: Peer) -> None:
            peer.echo(1)
            ending.wait(PATIENCE_S)

        async def work() -> None:
            before = await descriptors_of_a_running_loop()
            async with connected_to(server.port, **tls) as client:
                assert await client.execute("ECHO", "first") == b"first"
                calls = [asyncio.ensure_future(client.execute("ECHO", MEGABYTES)) for _ in range(2)]
                await asyncio.sleep(0.05)
                started = time.monotonic()
                await client.close()
                errors = await outcomes(*calls)
                assert time.monotonic() - started < PATIENCE_S / 2
                assert [type(error) for error in errors] == [ClosedError] * 2
                assert await client.execute("ECHO", "after") == b"after"
                started = time.monotonic()
                await client.close()  # with nothing under way
                assert time.monotonic() - started < PATIENCE_S / 2
                ending.set()
            assert await none_left_async(before)

        context = certificates.context(certificates.server) if over_tls else None
        with ScriptedServer(takes_nothing, context=context) as server:
            run_on(loop_class, work)

    @pytest.mark.parametrize("kind", KINDS)
    def test_many_connects_leave_nothing_open(self, loop_class: Any, kind: str, real: Any) -> None:
        connects = {"tcp": 50, "unix": 50, "tls": 8}[kind]

        async def work() -> None:
            async with connected_to(**real(kind)) as client:
                await client.execute("ECHO", "text")
                await client.close()
                before = await descriptors_of_a_running_loop()
                for number in range(connects):
                    assert await client.execute("ECHO", str(number)) == str(number).encode()
                    await client.close()
                assert await none_left_async(before)

        run_on(loop_class, work)

    # The loop ends with a connection open, which is what the warnings say.
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    @pytest.mark.filterwarnings("ignore:loop is closed:ResourceWarning")
    @pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_socket_of_a_closed_loop_is_closed_by_abandoning_it(
        self, loop_class: Any, kind: str, real: Any
    ) -> None:
        clients: List[MultiplexedConnection] = []

        async def work() -> None:
            client = AsyncClient(parse(real(kind))).current().shared_connection()
            assert client is not None
            assert await client.execute("ECHO", "text") == b"text"
            clients.append(client)

        before = open_descriptors()
        for _ in range(3):
            run_on(loop_class, work)
            clients[-1].abandon()
        assert none_left(before)
        clients.clear()
        gc.collect()

    def test_memory_does_not_grow_with_commands_and_errors(
        self, loop_class: Any, raw: "redis.Redis", server: RedisServer
    ) -> None:
        def fails_in_turns(peer: Peer) -> None:
            peer.echo(1)
            asked = peer.command()
            if peer.number % 3 == 0:
                peer.reset()
            elif peer.number % 3 == 1:
                peer.send(b"garbage\r\n")
            else:
                peer.send(bulk(asked[-1])[:-1])

        async def works(client: MultiplexedConnection) -> None:
            for _ in range(5):
                await outcomes(*(client.execute("ECHO", b"x" * 100) for _ in range(200)))
            call = asyncio.ensure_future(client.execute("ECHO", "cancelled"))
            await asyncio.sleep(0)
            call.cancel()
            await outcome(call)

        async def fails(client: MultiplexedConnection) -> None:
            for _ in range(15):
                await outcomes(*(client.execute("ECHO", "text") for _ in range(2)))

        async def blocks_after(turn: Callable[[], Awaitable[None]]) -> List[int]:
            counts = []
            for _ in range(4):
                await turn()
                await asyncio.sleep(0.05)  # for the server's threads to end
                bad.forget()
                gc.collect()
                counts.append(sys.getallocatedblocks())
            return counts

        async def work() -> None:
            async with connected_to(server.port) as client:
                counts = await blocks_after(lambda: works(client))
                assert counts[-1] - counts[1] < 500, counts  # of 2000 commands
            async with connected_to(bad.port) as client:
                counts = await blocks_after(lambda: fails(client))
                assert counts[-1] - counts[1] < 1000, counts  # of some 30 connections

        with ScriptedServer(fails_in_turns) as bad:
            run_on(loop_class, work)
        assert bad.accepted > 30
