"""The async client is redis.asyncio's: same replies, same errors, on one connection per event loop where that can be.

Against a real server beside the stock client, on RESP2 and RESP3, as bytes and as text; and against one that follows a
script, which shows what goes over the wire and what is sent again after a loss.
"""

import asyncio
import os
import threading
import time
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Callable, Dict, List, Tuple

import pytest
import redis
from leaks import none_left_async
from scripted import (
    LATE_S,
    LOOPS,
    PATIENCE_S,
    SOON_S,
    Peer,
    ScriptedServer,
    after_one_reply,
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

from extras import _redis
from extras.bench.server import RedisServer
from extras.routing import is_repeatable, is_shared

if not _redis.HAS_ASYNCIO:
    pytest.skip("redis-py has no asyncio support", allow_module_level=True)

import redis.asyncio as stock_redis
from redis.asyncio.connection import BlockingConnectionPool, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError, WatchError

from extras.async_client import AsyncFastRedis
from extras.connection import AsyncFastConnection, AsyncFastSSLConnection, AsyncFastUnixConnection

HAS_RESP3 = int(redis.__version__.split(".")[0]) >= 5
RESP2: Dict[str, Any] = {"protocol": 2} if HAS_RESP3 else {}
NO_RETRY: Dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}
SETTINGS: List[Dict[str, Any]] = [
    *({"decode_responses": decoded, **({"protocol": 3} if three else {})} for decoded in (0, 1) for three in (0, 1)),
    {"encoding": "latin-1", "decode_responses": True},
    {"encoding": "latin-1"},
]
SETTINGS = [given for given in SETTINGS if HAS_RESP3 or "protocol" not in given]


@pytest.fixture(params=LOOPS)
def loop_class(request: pytest.FixtureRequest) -> Any:
    return LOOPS[request.param]


@asynccontextmanager
async def opened(port: int, of: Any = AsyncFastRedis, **given: Any) -> AsyncIterator[Any]:
    """A client of a loopback port, closed at the end."""
    client = of(host="127.0.0.1", port=port, socket_timeout=given.pop("socket_timeout", PATIENCE_S), **given)
    try:
        yield client
    finally:
        await (client.aclose() if hasattr(client, "aclose") else client.close())


def on_script(port: int, **given: Any) -> Any:
    return opened(port, **{**RESP2, **NO_RETRY, **given})


COMMANDS: List[Callable[[Any], Any]] = [
    lambda c: c.set("text", "Grüße"),
    lambda c: c.set("text", "again", nx=True),
    lambda c: c.set("text", "again", ex=100, get=True),
    lambda c: c.get("text"),
    lambda c: c.get("nothing"),
    lambda c: c.set("number", 7),
    lambda c: c.incrby("number", 3),
    lambda c: c.incrbyfloat("number", 0.5),
    lambda c: c.mset({"a": 1, "b": b"\x00\r\n"}),
    lambda c: c.mget("a", "b", "nothing"),
    lambda c: c.append("a", "more"),
    lambda c: c.strlen("a"),
    lambda c: c.exists("a", "b", "nothing"),
    lambda c: c.expire("a", 100),
    lambda c: c.ttl("nothing"),
    lambda c: c.type("a"),
    lambda c: c.hset("hash", mapping={"one": 1, "two": "2"}),
    lambda c: c.hgetall("hash"),
    lambda c: c.hmget("hash", "one", "nothing"),
    lambda c: c.hincrbyfloat("hash", "one", 0.25),
    lambda c: c.hscan("hash"),
    lambda c: c.rpush("list", "x", b"y", 1, 2.5),
    lambda c: c.lrange("list", 0, -1),
    lambda c: c.lpop("list", 2),
    lambda c: c.sadd("set", "only"),
    lambda c: c.smembers("set"),
    lambda c: c.sismember("set", "only"),
    lambda c: c.zadd("sorted", {"m": 1.5, "n": 2}),
    lambda c: c.zscore("sorted", "m"),
    lambda c: c.zrange("sorted", 0, -1, withscores=True),
    lambda c: c.zincrby("sorted", 1, "m"),
    lambda c: c.zpopmin("sorted"),
    lambda c: c.geoadd("geo", (13.36, 38.11, "Palermo", 15.08, 37.5, "Catania")),
    lambda c: c.geopos("geo", "Palermo", "nowhere"),
    lambda c: c.geodist("geo", "Palermo", "Catania"),
    lambda c: c.xadd("stream", {"field": "value"}, id="1-1"),
    lambda c: c.xrange("stream"),
    lambda c: c.xread({"stream": "0"}),
    lambda c: c.xread({"stream": "$"}, block=1),
    lambda c: c.xinfo_stream("stream"),
    lambda c: c.eval("return {1, 'two', false, {3}}", 0),
    lambda c: c.evalsha("0" * 40, 0),
    lambda c: c.script_load("return 1"),
    lambda c: c.script_exists("0" * 40),
    lambda c: c.config_get("maxmemory"),
    lambda c: c.config_set("maxmemory", 0),
    lambda c: c.execute_command("CONFIG GET", "maxmemory"),
    lambda c: c.execute_command("get", "text"),
    lambda c: c.execute_command(b"GET", "text"),
    lambda c: c.execute_command("ECHO", ""),
    lambda c: c.dump("number"),
    lambda c: c.object("encoding", "number"),
    lambda c: c.ping(),
    lambda c: c.client_getname(),
    lambda c: c.echo("e"),
    lambda c: c.blpop("nothing", 0.01),
    lambda c: c.blpop("list", 1),
    lambda c: c.wait(0, 1),
    lambda c: c.scan(match="numbe*", count=1000),
    lambda c: c.sort("set", alpha=True),
    lambda c: c.lpush("text", "wrong type"),
    lambda c: c.execute_command("NONESUCH", 1),
    lambda c: c.execute_command("GET"),
    lambda c: c.set("key", None),
    lambda c: c.set("key", object()),
    lambda c: c.set("key", True),
    lambda c: c.set("key", "\ud800"),
    lambda c: c.set(b"bytes", b"\xff\xfe"),
    lambda c: c.get("bytes"),
    lambda c: c.getrange("bytes", 0, 0),
    lambda c: c.setbit("bits", 7, 1),
    lambda c: c.bitcount("bits"),
    lambda c: c.acl_whoami(),
    lambda c: c.dbsize(),
    lambda c: c.info("cluster"),
    lambda c: c.slowlog_len(),
    lambda c: c.command_count(),
    lambda c: c.publish("nobody", "hears"),
    lambda c: c.pubsub_channels(),
    lambda c: c.delete("text", "nothing"),
    lambda c: c.flushdb(),
]


def seen(result: Any) -> Any:
    """A result or an error as something that can be compared, types included."""
    if isinstance(result, BaseException):
        return type(result), str(result)
    if isinstance(result, (list, tuple)):
        return type(result), [seen(one) for one in result]
    if isinstance(result, dict):
        return type(result), {seen_key(key): seen(value) for key, value in result.items()}
    return type(result), result


def seen_key(key: Any) -> Any:
    return key if isinstance(key, (str, bytes)) else repr(key)


async def one_after_the_other(client: Any) -> List[Any]:
    return [seen(await outcome(call(client))) for call in COMMANDS]


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_replies_and_errors_are_those_of_the_stock_client(given: Any, raw: "redis.Redis", server: RedisServer) -> None:
    async def work() -> None:
        async with opened(server.port, **given) as ours, opened(server.port, of=stock_redis.Redis, **given) as stock:
            expected = await one_after_the_other(stock)
            raw.flushall()
            found = await one_after_the_other(ours)
            for number, (one, other) in enumerate(zip(found, expected)):
                assert one == other, number

    run_on(asyncio.SelectorEventLoop, work)


def queue(pipe: Any) -> None:
    pipe.set("key", "value", ex=100).get("key").incr("count").hset("hash", "field", 1).hgetall("hash")
    pipe.sadd("set", "member").smembers("set").zadd("sorted", {"m": 1}).zrange("sorted", 0, -1, withscores=True)
    pipe.set("a", 1).set("b", 2).get("nothing").execute_command("CONFIG GET", "maxmemory").mget("a", "b")


def queue_with_errors(pipe: Any) -> None:
    pipe.set("key", "value").lpush("key", 1).incr("count").incr("key").get("key")


def queue_the_unknown(pipe: Any) -> None:
    pipe.set("key", "value").execute_command("NONESUCH", "x" * 200).get("key")


def queue_what_cannot_be_sent(pipe: Any) -> None:
    pipe.set("unsent", "value").set("key", None)


def queue_a_script(pipe: Any) -> None:
    pipe.get("key").eval("return {1, redis.call('PING')}", 0)


def queue_what_is_not_shared(pipe: Any) -> None:
    pipe.set("key", "value").blpop("nothing", 0.01).dump("nothing")


QUEUES: List[Callable[[Any], Any]] = [
    queue,
    queue_with_errors,
    queue_the_unknown,
    queue_what_cannot_be_sent,
    queue_a_script,
    queue_what_is_not_shared,
    lambda pipe: None,
]


@pytest.mark.parametrize("given", SETTINGS, ids=str)
@pytest.mark.parametrize("transaction", [False, True])
def test_batches_are_those_of_the_stock_client(
    transaction: bool, given: Any, raw: "redis.Redis", server: RedisServer
) -> None:
    async def results(client: Any) -> List[Any]:
        raw.flushall()
        found = []
        for fill in QUEUES:
            for raises in (True, False):
                pipe = client.pipeline(transaction)
                fill(pipe)
                found.append(seen(await outcome(pipe.execute(raises))))
                assert len(pipe) == 0
                found.append(seen(await outcome(pipe.set("again", 1).execute())))
        found.append(raw.exists("unsent"))
        return found

    async def work() -> None:
        async with opened(server.port, **given) as ours, opened(server.port, of=stock_redis.Redis, **given) as stock:
            expected = await results(stock)
            found = await results(ours)
            for number, (one, other) in enumerate(zip(found, expected)):
                assert one == other, number

    run_on(asyncio.SelectorEventLoop, work)


def test_a_transaction_is_refused_as_a_whole_and_scripts_are_loaded(
    loop_class: Any, raw: "redis.Redis", server: RedisServer
) -> None:
    def counts(pipe: Any) -> None:
        pipe.multi()
        pipe.incr("count")

    async def work() -> None:
        async with opened(server.port) as client:
            pipe = client.pipeline()
            with pytest.raises(ResponseError, match=r"^Command # 2 \(SET key\) of pipeline caused error"):
                await pipe.set("key", "value").execute_command("SET", "key").execute()
            assert not raw.exists("key")
            script = client.register_script("return ARGV[1]")
            pipe = client.pipeline()
            await script(args=["one"], client=pipe)
            await script(args=["two"], client=pipe)
            assert await pipe.execute() == [b"one", b"two"]
            async with client.pipeline() as pipe:
                await pipe.watch("watched")
                assert await pipe.get("watched") is None
                pipe.multi()
                pipe.set("watched", "mine")
                raw.set("watched", "theirs")
                with pytest.raises(WatchError):
                    await pipe.execute()
            assert await client.transaction(counts, "count") == [1]

    run_on(loop_class, work)


def test_tasks_share_one_connection_whatever_else_goes_on(
    loop_class: Any, raw: "redis.Redis", server: RedisServer
) -> None:
    async def work() -> None:
        before = await descriptors_of_a_running_loop()
        async with opened(server.port, client_name="mine") as client:

            async def one(number: int) -> None:
                for turn in range(5):
                    assert await client.set(f"key{number}", f"{turn}")
                    assert await client.pipeline().get(f"key{number}").incr("all").execute() > [b"%d" % turn]

            await asyncio.gather(*(one(number) for number in range(50)))
            assert int(raw.get("all") or 0) == 250
            assert [entry["name"] for entry in raw.client_list()].count("mine") == 1
            waiting = asyncio.ensure_future(client.blpop("later", 5))
            await until(lambda: raw.info("clients")["blocked_clients"] == 1)  # before the monitor, which tells of it
            subscribed = client.pubsub(ignore_subscribe_messages=True)
            await subscribed.subscribe("news")
            async with client.lock("lock", timeout=5), client.monitor() as monitor:
                assert await client.get("key0") == b"4"
                assert (await monitor.next_command())["command"] == "GET key0"
                await client.publish("news", "hear")
                await client.rpush("later", "value")
                assert await waiting == (b"later", b"value") or await waiting == [b"later", b"value"]
            message = None
            while message is None:
                message = await subscribed.get_message(timeout=1)
            assert message["data"] == b"hear"
            await (subscribed.aclose() if hasattr(subscribed, "aclose") else subscribed.close())
            async with client.client() as single:
                assert single.shared_connection() is None
                await single.execute_command("SELECT", 1)
                assert await single.get("key0") is None
            assert await client.get("key0") == b"4"
        assert await none_left_async(before)
        await until(lambda: "mine" not in [entry["name"] for entry in raw.client_list()])

    run_on(loop_class, work)


def test_one_turn_of_the_loop_is_one_write_and_a_batch_is_not_split(loop_class: Any) -> None:
    packets: List[bytes] = []

    def records(peer: Peer) -> None:
        peer.echo(1)
        while True:
            packets.append(peer.sock.recv(1_000_000))
            if not packets[-1]:
                return
            for line in packets[-1].split(b"\r\n"):
                if line in (b"SET", b"MULTI", b"EXEC"):
                    peer.send(b"*1\r\n+OK\r\n" if line == b"EXEC" else b"+OK\r\n")

    async def work() -> None:
        async with on_script(server.port) as client:
            assert await client.execute_command("ECHO", "first") == b"first"
            first = client.set("0", "v")
            others = [client.set(str(number), "v") for number in range(1, 30)]
            batch = client.pipeline().set("batched", "v").execute()
            assert await asyncio.gather(first, *others, batch) == [True] * 30 + [[True]]
        assert len(list(filter(None, packets))) <= 2, packets  # the first perhaps at once, then all others
        assert b"MULTI\r\n*3\r\n$3\r\nSET\r\n$7\r\nbatched\r\n$1\r\nv\r\n*1\r\n$4\r\nEXEC\r\n" in b"".join(packets)

    with ScriptedServer(records) as server:
        run_on(loop_class, work)


def test_a_cancelled_batch_keeps_its_place(loop_class: Any, raw: "redis.Redis", server: RedisServer) -> None:
    async def work() -> None:
        async with opened(server.port) as client:
            for turn in range(60):
                pipes = [client.pipeline(transaction=bool(turn % 2)) for _ in range(3)]
                calls = [asyncio.ensure_future(p.echo(f"{turn}:{n}").echo("x").execute()) for n, p in enumerate(pipes)]
                calls.append(asyncio.ensure_future(client.echo("single")))
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
                calls[turn % 3].cancel()
                *batches, single = await outcomes(*calls)
                assert single == b"single"
                for number, found in enumerate(batches):
                    cancelled = number == turn % 3 and isinstance(found, asyncio.CancelledError)
                    assert cancelled or found == [f"{turn}:{number}".encode(), b"x"]

    run_on(loop_class, work)


def test_back_pressure_holds_up_batches_too(loop_class: Any) -> None:
    reading = threading.Event()

    def reads_later(peer: Peer) -> None:
        peer.echo(1)
        reading.wait(PATIENCE_S)
        peer.echo()

    async def work() -> None:
        async with on_script(server.port) as client:
            assert await client.echo("first") == b"first"
            large = b"x" * 3_000_000
            small = bytearray(b"y") if bytearray in _redis.packed_buffers() else b"y"
            pipes = [client.pipeline(False).echo(large).echo(small) for _ in range(3)]
            calls = [asyncio.ensure_future(pipe.execute()) for pipe in pipes]
            await asyncio.sleep(0.05)
            assert client.shared_connection()._replies.writable is not None
            calls.append(asyncio.ensure_future(client.echo("after")))
            await asyncio.sleep(0.01)
            assert not any(call.done() for call in calls)
            reading.set()
            assert await outcomes(*calls) == [[large, b"y"]] * 3 + [b"after"]

    with ScriptedServer(reads_later) as server:
        run_on(loop_class, work)


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize(
    ("command", "repeated"), [(("INCR", "x"), False), (("GET", "x"), True), (("SET", "y", "x"), False)]
)
def test_only_what_changes_nothing_is_sent_again_after_a_loss(
    loop_class: Any, command: Tuple[str, ...], repeated: bool, is_batch: bool
) -> None:
    async def asked(client: Any) -> Any:
        if not is_batch:
            return await client.execute_command(*command)
        return await client.pipeline(False).execute_command("GET", "x").execute_command(*command).execute()

    def numbers(peer: Peer) -> None:
        while True:
            peer.send(b":7\r\n" if peer.command()[0] in (b"GET", b"INCR", b"SET") else b"+OK\r\n")

    async def work() -> None:
        async with opened(server.port, **RESP2, retry=None) as client:
            assert await client.echo("first") == b"first"
            if repeated:
                assert await asked(client) == ([7, 7] if is_batch else 7)
            else:
                with pytest.raises(redis.ConnectionError, match=f"127.0.0.1:{server.port}"):
                    await asked(client)
            assert await client.execute_command("GET", "after") == 7

    with ScriptedServer(after_one_reply(closes_when_asked), numbers) as server:
        run_on(loop_class, work)
    assert [number for number, value in server.asked if value == b"x"] == [0] + [1] * repeated * (1 + is_batch)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_retry_object_says_how_often(loop_class: Any, retries: int) -> None:
    async def work() -> None:
        async with opened(server.port, **RESP2, retry=Retry(NoBackoff(), retries)) as client:
            found = await outcome(client.get("x"))
            assert found == b"x" if retries == 3 else isinstance(found, redis.ConnectionError)
            assert await client.get("after") == b"after"

    with ScriptedServer(*[closes_when_asked] * min(retries + 1, 3), echoes) as server:
        run_on(loop_class, work)
    assert [number for number, value in server.asked if value == b"x"] == list(range(retries + 1))


def test_a_frozen_server_is_a_timeout_and_a_later_one_is_found(loop_class: Any) -> None:
    async def work() -> None:
        async with on_script(server.port, socket_timeout=SOON_S) as client:
            assert await client.echo("first") == b"first"
            started = time.monotonic()
            errors = await outcomes(client.get("x"), client.incr("x"), client.pipeline().incr("x").execute())
            assert SOON_S - 0.01 < time.monotonic() - started < SOON_S + LATE_S
            assert [type(error) for error in errors] == [redis.TimeoutError] * 3
            assert len(set(map(id, errors))) == 3
            assert await client.echo("after") == b"after"

    with ScriptedServer(after_one_reply(is_silent), echoes) as server:
        run_on(loop_class, work)


@pytest.mark.skipif(not _redis.PUSH_IS_KNOWN or not HAS_RESP3, reason="no push messages here")
def test_push_messages_do_not_break_the_order(loop_class: Any) -> None:
    def pushes(peer: Peer) -> None:
        while True:
            asked = peer.command()
            if asked[0] == b"HELLO":
                peer.send(b"%1\r\n+proto\r\n:3\r\n")
            elif asked[0] == b"CLIENT":  # of the handshake, which is redis-py's: it takes pushes for replies until 6
                peer.send(b"+OK\r\n")
            else:
                peer.send(b">2\r\n+message\r\n+one\r\n" + bulk(asked[-1]) + b">2\r\n+message\r\n+two\r\n")

    async def work() -> None:
        async with opened(server.port, protocol=3, **NO_RETRY) as client:
            assert await client.echo("first") == b"first"
            await asyncio.sleep(0.01)
            heard: List[Any] = []

            async def hears(message: Any) -> None:
                heard.append(list(message))

            replies = client.shared_connection()._replies
            if replies._handle_push is not None:
                client.shared_connection().connection._parser.set_pubsub_push_handler(hears)
            calls = [client.echo(str(number)) for number in range(5)]
            assert await outcomes(*calls) == [str(number).encode() for number in range(5)]
            assert await client.pipeline(False).echo("a").echo("b").execute() == [b"a", b"b"]
            await asyncio.sleep(0.01)
            assert len(heard) == (0 if replies._handle_push is None else 14)

    with ScriptedServer(pushes) as server:
        run_on(loop_class, work)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_has_a_connection_of_its_own(raw: "redis.Redis", server: RedisServer) -> None:
    async def made() -> Any:  # before Python 3.10 what is made without a loop makes one, which nobody closes
        return AsyncFastRedis(port=server.port, client_name="forked", **RESP2)

    async def asks() -> bool:
        found = await outcomes(*(client.echo(str(number)) for number in range(20)))
        return found == [str(number).encode() for number in range(20)]

    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(made())
    assert loop.run_until_complete(asks())
    child = os.fork()
    if child == 0:
        good = False
        try:
            own = asyncio.new_event_loop()
            good = own.run_until_complete(asks()) and names(raw_of(server)).count("forked") == 2
            own.run_until_complete(client.close() if not hasattr(client, "aclose") else client.aclose())
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert loop.run_until_complete(asks())
    assert names(raw).count("forked") == 1
    loop.run_until_complete(client.close() if not hasattr(client, "aclose") else client.aclose())
    loop.close()


def raw_of(server: RedisServer) -> "redis.Redis":
    return redis.Redis(port=server.port)


def names(client: "redis.Redis") -> List[str]:
    return [entry["name"] for entry in client.client_list()]


def test_loops_in_threads_have_connections_of_their_own(raw: "redis.Redis", server: RedisServer) -> None:
    client: List[Any] = []
    found: List[Any] = []
    meeting = threading.Barrier(2, timeout=PATIENCE_S)

    async def work() -> None:
        if not client:
            client.append(AsyncFastRedis(port=server.port, **RESP2))
        for turn in range(50):
            key = f"{threading.get_ident()}:{turn}"
            assert await client[0].set(key, key)
            assert await client[0].get(key) == key.encode()
        found.append(client[0].shared_connection())
        meeting.wait()
        shared = client[0]._shared.pop()
        await shared.close()

    run_on(asyncio.SelectorEventLoop, lambda: make(client, server))
    threads = [threading.Thread(target=run_on, args=(asyncio.SelectorEventLoop, work)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 2


async def make(clients: List[Any], server: RedisServer) -> None:
    clients.append(AsyncFastRedis(port=server.port, **RESP2))


def test_what_a_dropped_client_had_open_is_closed_with_a_warning(loop_class: Any, server: RedisServer) -> None:
    clients: List[Any] = []

    async def work() -> None:
        before = await descriptors_of_a_running_loop()
        client = AsyncFastRedis(port=server.port, **RESP2)
        assert await client.echo("text") == b"text"
        clients.append(client)
        del client
        with pytest.warns(ResourceWarning, match="^unclosed connection to localhost"):
            clients.clear()
        assert await none_left_async(before)

    run_on(loop_class, work)


class Derived(ConnectionPool):
    """A pool of a user's own."""


def test_stock_pools_get_our_connections_and_given_pools_stay_as_they_are() -> None:
    async def work() -> None:
        assert AsyncFastRedis().connection_pool.connection_class is AsyncFastConnection
        assert AsyncFastRedis(ssl=True).connection_pool.connection_class is AsyncFastSSLConnection
        assert AsyncFastRedis(unix_socket_path="/x").connection_pool.connection_class is AsyncFastUnixConnection
        by_url = AsyncFastRedis.from_url("redis://localhost:1/3", client_name="named")
        assert type(by_url) is AsyncFastRedis
        assert by_url.connection_pool.connection_class is AsyncFastConnection
        assert by_url.connection_pool.connection_kwargs["db"] == 3
        assert by_url.shared_connection() is not None
        for pool in (ConnectionPool(), Derived(connection_class=AsyncFastConnection)):
            given = AsyncFastRedis(connection_pool=pool)
            assert given.connection_pool is pool
            assert given.shared_connection() is None
        assert pool.connection_class is AsyncFastConnection
        for fast in (ConnectionPool, BlockingConnectionPool):
            assert AsyncFastRedis(connection_pool=fast(connection_class=AsyncFastConnection)).shared_connection()
        assert AsyncFastRedis(single_connection_client=True).shared_connection() is None
        assert AsyncFastRedis(retry_on_error=[redis.ReadOnlyError]).shared_connection() is None
        assert AsyncFastRedis(retry_on_error=[redis.TimeoutError]).shared_connection() is not None

    run_on(asyncio.SelectorEventLoop, work)


def test_observed_and_maintained_clients_take_the_stock_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Streaming:
        def on_next(self, callback: Any) -> None:
            """Called with each new token."""

    async def work() -> None:
        client = AsyncFastRedis(**RESP2)
        assert client.shared_connection() is not None
        with monkeypatch.context() as patch:
            patch.setattr(_redis.OBSERVABILITY, "_provider_manager", object())
            assert client.shared_connection() is None
        assert client.shared_connection() is not None
        assert AsyncFastRedis(credential_provider=Streaming(), **RESP2).shared_connection() is None
        if hasattr(ConnectionPool, "maint_notifications_enabled"):
            from redis.maint_notifications import MaintNotificationsConfig

            choices: List[Tuple[Any, bool]] = [(True, False), ("auto", True), (False, True)]
            for enabled, shared in choices:
                config = MaintNotificationsConfig(enabled=enabled)
                client = AsyncFastRedis(host="x", protocol=3, maint_notifications_config=config)
                assert (client.shared_connection() is not None) is shared

    run_on(asyncio.SelectorEventLoop, work)


def test_a_client_that_cannot_share_works_as_the_stock_one(raw: "redis.Redis", server: RedisServer) -> None:
    async def work() -> None:
        pool = ConnectionPool(connection_class=Connection, port=server.port, **RESP2)
        client = AsyncFastRedis(connection_pool=pool)
        assert await client.set("key", "value")
        assert await client.pipeline().get("key").get("nothing").execute() == [b"value", None]
        await pool.disconnect()

    run_on(asyncio.SelectorEventLoop, work)


@pytest.mark.parametrize(
    ("command", "shared"),
    [
        (("GET", "k"), True),
        (("get", "k"), True),
        ((b"GET", "k"), True),
        (("CONFIG GET", "x"), True),
        (("JSON.GET", "k"), True),
        (("XREAD", "STREAMS", "block", "0"), True),
        (("XREAD", "COUNT", 1, b"STREAMS", "block", "0"), True),
        (("XREAD", "block", 0, "STREAMS", "s", "0"), False),
        (("XREADGROUP", "GROUP", "g", "c", b"BLOCK", 0, "STREAMS", "s", ">"), False),
        (("BLPOP", "k", 0), False),
        (("blpop", "k", 0), False),
        (("CLIENT LIST",), False),
        (("CLIENT", "LIST"), False),
        (("SCRIPT LOAD", "x"), False),
        (("MULTI",), False),
        (("HIMPORT SET", "k"), False),
        (("",), False),
        ((7,), False),
        ((bytearray(b"GET"), "k"), False),
    ],
)
def test_routes(command: Tuple[Any, ...], shared: bool) -> None:
    assert is_shared(command) is shared


def test_every_blocking_command_of_the_server_has_a_connection_of_its_own(raw: "redis.Redis") -> None:
    """The server's own flags are the oracle; a module's commands are not known to it."""
    blocking = [name for name, entry in raw.command().items() if "blocking" in map(str, entry["flags"])]
    assert len(blocking) > 5
    assert [name for name in blocking if is_shared((name, "BLOCK", 0))] == []


def test_what_is_repeated_changes_nothing_by_the_servers_own_flags(raw: "redis.Redis") -> None:
    writing = {name for name, entry in raw.command().items() if "write" in map(str, entry["flags"])}
    assert len(writing) > 50
    assert [name for name in writing if is_repeatable((name,))] == []
    assert is_repeatable((b"get", "k"))
    assert not is_repeatable(("NONESUCH",))
