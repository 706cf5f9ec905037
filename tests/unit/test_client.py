"""FastRedis is redis.Redis to whoever uses it: the same replies, errors, retries and callbacks, only sooner.

Guaranteed on a real server and on hostile ones, with redis-py's own client of the same version as the oracle; also that
no thread, process, interrupted call or push message makes one caller get another's reply, and that nothing is left.
"""

import gc
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Callable, Dict, Iterator, List, Tuple

import hiredis
import pytest
import redis
from leaks import growth, none_left, open_descriptors
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from test_transfer import NO_HANDSHAKE, REDIS_VERSION, RINGS_S, Raised, alarm, interrupt, raise_it

from extras import _redis, fastsock
from extras._redis import BlockingConnectionPool, Connection, ConnectionPool
from extras.bench.server import RedisServer
from extras.client import FastPipeline, FastPool, FastRedis
from extras.connection import FastConnection, FastSSLConnection, FastUnixConnection

IS_FAST = fastsock.transfers(socket.socket)
HAS_RETRY = REDIS_VERSION >= (4, 1)
RESP3 = pytest.mark.skipif(
    not _redis.HANDLES_PUSHES, reason="this redis-py takes push messages for replies with hiredis"
)
OPTIONS: Dict[str, Dict[str, Any]] = {
    "default": {},
    "decoded": {"decode_responses": True},
    "latin-1": {"encoding": "latin-1"},
    "latin-1, decoded": {"encoding": "latin-1", "decode_responses": True},
    "errors replaced": {"encoding_errors": "replace", "decode_responses": True},
}
if REDIS_VERSION >= (5, 0):
    OPTIONS["RESP2"] = {"protocol": 2}
    OPTIONS["RESP3"] = {"protocol": 3}
    OPTIONS["RESP3, decoded"] = {"protocol": 3, "decode_responses": True}

Call = Callable[[Any], Any]

if REDIS_VERSION < (4, 0):  # which leaves the socket of a broken connection to the collector
    pytestmark = [
        pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
        pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    ]


def plain(value: Any) -> Any:
    """Make errors and objects of redis-py's comparable."""
    if isinstance(value, BaseException):
        return type(value), str(value).replace("'Fast", "'")  # object has no attribute
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [plain(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return {plain(each) for each in value}
    if isinstance(value, redis.Redis):
        return "a client"
    return type(value).__name__, value


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return plain(call())
    except Exception as error:
        return plain(error)


@contextmanager
def made(client_class: Any = FastRedis, **kwargs: Any) -> Iterator[Any]:
    client = client_class(**kwargs)
    try:
        yield client
    finally:
        client.close()
        client.connection_pool.disconnect()


@pytest.fixture
def fast(raw: "redis.Redis", server: RedisServer) -> Iterator[Any]:
    """A client on the emptied server."""
    with made(port=server.port) as client:
        yield client


def both(server: RedisServer, raw: Any, calls: List[Call], **kwargs: Any) -> Tuple[List[Any], List[Any]]:
    """Return what redis-py and FastRedis make of the same calls, each on an emptied server."""
    found = []
    for client_class in (redis.Redis, FastRedis):
        raw.flushall()
        raw.script_flush()
        with made(client_class, port=server.port, **kwargs) as client:
            found.append([outcome(lambda call=call: call(client)) for call in calls])  # type: ignore[misc]
    return found[0], found[1]


def assert_same(server: RedisServer, raw: Any, calls: List[Call], **kwargs: Any) -> None:
    expected, found = both(server, raw, calls, **kwargs)
    for at, (theirs, ours) in enumerate(zip(expected, found)):
        assert ours == theirs, f"call {at}"


def commands(*listed: Tuple[Any, ...]) -> List[Call]:
    """Calls of methods, by name, arguments and, if the last is a dict for that, keywords."""

    def call(name: str, args: Tuple[Any, ...]) -> Call:
        kwargs: Dict[str, Any] = {}
        if args and isinstance(args[-1], dict) and "**" in args[-1]:
            kwargs, args = args[-1]["**"], args[:-1]
        return lambda client: getattr(client, name)(*args, **kwargs)

    return [call(name, args) for name, *args in listed]  # type: ignore[arg-type]


TABLE: List[Tuple[Any, ...]] = [
    ("ping",),
    ("echo", "é"),
    ("set", "s", "välue"),
    ("get", "s"),
    ("get", "missing"),
    ("set", "s", 1.5, {"**": {"ex": 100, "xx": True}}),
    ("set", "s2", 5, {"**": {"nx": True}}),
    ("set", "s2", 6, {"**": {"nx": True}}),
    ("setex", "e", 100, "v"),
    ("ttl", "e"),
    ("getset", "s", b"\x00\xff"),
    ("execute_command", "STRLEN", "s"),
    ("mset", {"a": 1, "b": "2"}),
    ("mget", "a", "b", "c"),
    ("mget", []),
    ("append", "a", "x"),
    ("incr", "n"),
    ("incrby", "n", 2**40),
    ("incrbyfloat", "f", 1.25),
    ("incr", "a"),
    ("getrange", "a", 0, -1),
    ("setrange", "a", 1, "yy"),
    ("setbit", "bits", 7, 1),
    ("getbit", "bits", 7),
    ("bitcount", "bits"),
    ("exists", "a", "b", "zz"),
    ("type", "a"),
    ("expire", "a", 100),
    ("pexpire", "a", 100_000),
    ("persist", "a"),
    ("persist", "a"),
    ("rename", "a", "a2"),
    ("rename", "zz", "z"),
    ("delete", "a2", "zz"),
    ("unlink", "b"),
    ("keys", "s2*"),  # several come in no order
    ("hset", "h", "f", "v"),
    ("hset", "h", {"**": {"mapping": {"x": 1, "y": 2.5}}}),
    ("hget", "h", "f"),
    ("hget", "h", "none"),
    ("hgetall", "h"),
    ("hgetall", "none"),
    ("hmget", "h", ["f", "none"]),
    ("hkeys", "h"),
    ("hvals", "h"),
    ("hincrby", "h", "x", 3),
    ("hincrbyfloat", "h", "x", 0.5),
    ("hexists", "h", "f"),
    ("hdel", "h", "f"),
    ("hscan", "h"),
    ("get", "h"),
    ("lpush", "l", 1, 2, 3),
    ("rpush", "l", "a", "b"),
    ("lrange", "l", 0, -1),
    ("lindex", "l", 0),
    ("lpop", "l"),
    ("lpop", "none"),
    ("blpop", "l", 1),
    ("blpop", ["none", "l"], {"**": {"timeout": 1}}),
    ("brpoplpush", "l", "l2", 1),
    ("linsert", "l", "before", "a", "c"),
    ("lset", "l", 100, "x"),
    ("sort", "l", {"**": {"alpha": True}}),
    ("sort", "l", {"**": {"alpha": True, "get": ["#", "w_*"], "groups": True}}),
    ("sort", "l", {"**": {"alpha": True, "store": "sorted"}}),
    ("sadd", "set", "m", "n"),
    ("smembers", "set"),
    ("sismember", "set", "m"),
    ("spop", "none"),
    ("sdiff", "set", "none"),
    ("sunion", "set", "none"),
    ("sscan", "set"),
    ("zadd", "z", {"a": 1, "b": 2.5, "c": float("inf")}),
    ("zrange", "z", 0, -1, {"**": {"withscores": True}}),
    ("zrangebyscore", "z", "-inf", "+inf", {"**": {"withscores": True, "start": 0, "num": 2}}),
    ("zscore", "z", "a"),
    ("zscore", "z", "none"),
    ("zincrby", "z", 1.5, "a"),
    ("zadd", "z", {"a": 1}, {"**": {"incr": True}}),
    ("zrank", "z", "b"),
    ("zrank", "z", "none"),
    ("zpopmin", "z"),
    ("bzpopmin", "z", 1),
    ("zscan", "z"),
    ("xadd", "x", {"f": "v"}, {"**": {"id": "1-1"}}),
    ("xadd", "x", {"f": "w"}, {"**": {"id": "1-1"}}),
    ("xadd", "x", {"f": "w"}, {"**": {"id": "2-1"}}),
    ("xlen", "x"),
    ("xrange", "x"),
    ("xrevrange", "x"),
    ("xread", {"x": 0}),
    ("xread", {"none": 0}),
    ("xread", {"none": 0}, {"**": {"block": 5}}),
    ("xgroup_create", "x", "g", "0"),
    ("xgroup_create", "x", "g", "0"),
    ("xreadgroup", "g", "me", {"x": ">"}),
    ("xpending", "x", "g"),
    ("xack", "x", "g", "1-1"),
    ("xinfo_stream", "x"),
    ("xdel", "x", "1-1"),
    ("pfadd", "p", "a", "b"),
    ("pfcount", "p"),
    ("geoadd", "geo", 13.36, 38.11, "here"),
    ("geopos", "geo", "here", "none"),
    ("geodist", "geo", "here", "here"),
    ("geohash", "geo", "here"),
    ("eval", "return {1, 'two', {3}, redis.status_reply('x'), false}", 0),
    ("eval", "return redis.error_reply('MINE it is')", 0),
    ("eval", "return {redis.error_reply('MINE it is'), 1}", 0),
    ("eval", "return KEYS[1] .. ARGV[1]", 1, "k", b"\xff"),
    ("evalsha", "0" * 40, 0),
    ("script_load", "return 1"),
    ("script_exists", "0" * 40),
    ("object", "encoding", "n"),
    ("object", "encoding", "none"),
    ("dump", "n"),
    ("restore", "copy", 0, b"bad"),
    ("scan", 0, {"**": {"count": 1000, "match": "n"}}),
    ("config_get", "maxmemory"),
    ("config_set", "no-such", 1),
    ("config_resetstat",),
    ("client_getname",),
    ("client_setname", "me"),
    ("client_getname",),
    ("dbsize",),
    ("lastsave",),
    ("publish", "nobody", "x"),
    ("pubsub_channels",),
    ("pubsub_numsub", "a"),
    ("execute_command", "NOSUCHCOMMAND", "x"),
    ("execute_command", "CONFIG GET", "maxmemory"),
    ("execute_command", "get", "n"),
    ("execute_command", b"get", "n"),
    ("execute_command", "HGETALL", "h"),
    ("execute_command", "hgetall", "h"),
    ("execute_command", b"HGETALL", "h"),
    ("execute_command", "SET", "n"),
    ("acl_whoami",),
    ("execute_command", "BITFIELD", "bf", "GET", "u8", 0),
    ("waitof",),
    ("wait", 0, 1),
    ("move", "n", 5),
    ("select", 0),
    ("flushdb",),
    ("get", "n"),
    ("set", "n", "x"),
    ("__getitem__", "n"),
    ("__getitem__", "zz"),
    ("__contains__", "n"),
    ("__delitem__", "n"),
]

KINDS: List[Call] = [
    lambda client: sorted(client.info())[:3] and client.info()["redis_version"],
    lambda client: isinstance(client.time(), tuple),
    lambda client: sorted(client.client_list()[0])[:5],
    lambda client: isinstance(client.client_id(), int),
    lambda client: sorted(client.memory_stats())[:3],
    lambda client: [client.set(f"scan{at}", at) for at in range(30)] and sorted(client.scan_iter("scan*", count=5)),
    lambda client: client.register_script("return ARGV[1]")(args=["x"]),
    lambda client: client.register_script("return ARGV[1]")(args=["x"]),
    lambda client: [client.set("d", "v"), client.restore("d2", 0, client.dump("d")), client.get("d2")],
    lambda client: client.command_count() > 0,
    lambda client: client.slowlog_get(0),
    lambda client: client.object("encoding", "d"),
]


class TestSameAsRedisPy:
    @pytest.mark.parametrize("name", OPTIONS)
    def test_commands(self, server: RedisServer, raw: Any, name: str) -> None:
        assert_same(server, raw, [*commands(*TABLE), *KINDS], **OPTIONS[name])

    @pytest.mark.parametrize("name", OPTIONS)
    def test_arguments(self, server: RedisServer, raw: Any, name: str) -> None:
        class Text(str):
            pass

        class Octets(bytes):
            pass

        class Number(int):
            pass

        values: List[Any] = [
            *("", "é", "\ud800", "a\udcff", b"", b"\xff", 0, -1, 2**63, -(2**70), 0.1, float("nan"), float("inf")),
            *(None, True, False, [1], (1,), {}, set(), object, Text("t"), Octets(b"o"), Number(7), 1j),
            *(bytearray(b"ba"), memoryview(b"mv"), memoryview(b"abcd")[::2], bytearray(7000), memoryview(bytes(7000))),
        ]
        calls: List[Call] = []
        for value in values:
            calls += commands(
                ("set", "k", value), ("get", "k"), ("set", value, 1), ("get", value), ("lpush", "l", 1, value)
            )
            if value != "":  # to no command at all no server replies
                calls += commands(("execute_command", value), ("execute_command", value, "k"))
            calls += commands(("ping",))
        calls += commands(
            ("execute_command",), ("ping",), ("execute_command", "PING", "a", {"**": {"odd": 1}}), ("ping",)
        )
        assert_same(server, raw, calls, **OPTIONS[name])

    @pytest.mark.parametrize("size", [5_990, 6_001, 65_536, 1_000_000, 10_000_000])
    def test_large_values(self, server: RedisServer, raw: Any, fast: Any, size: int) -> None:
        data = os.urandom(1000) * (size // 1000 + 1)
        for _ in range(2):
            assert fast.set("large", data) is True
            assert fast.get("large") == data
        assert fast.pipeline().get("large").get("large").execute() == [data, data]
        assert raw.get("large") == data

    @pytest.mark.parametrize("name", OPTIONS)
    def test_bad_text(self, server: RedisServer, raw: Any, name: str) -> None:
        calls = commands(("set", "k", b"\xff\xfe"), ("get", "k"), ("echo", "x"), ("mget", "k", "k"), ("echo", "y"))
        large = b"x" * 70_000 + b"\xff"
        calls += commands(("set", "k", large), ("get", "k"), ("echo", "x"))
        calls.append(lambda client: client.pipeline(transaction=False).get("k").echo("z").execute())
        calls += commands(("echo", "x"))
        assert_same(server, raw, calls, **OPTIONS[name])

    @pytest.mark.parametrize("name", ["default", "decoded"])
    def test_options_of_a_reply(self, server: RedisServer, raw: Any, name: str) -> None:
        never, empty = redis.client.NEVER_DECODE if hasattr(redis.client, "NEVER_DECODE") else "NEVER_DECODE", []  # type: ignore[var-annotated]
        calls = commands(("set", "k", b"\xc3\xa9"), ("lpush", "l", 1))
        if REDIS_VERSION >= (4, 0):
            calls += commands(("execute_command", "GET", "k", {"**": {never: True}}), ("get", "k"))
        calls += commands(
            ("execute_command", "INCR", "l", {"**": {"EMPTY_RESPONSE": empty}}),
            ("execute_command", "GET", "k", {"**": {"EMPTY_RESPONSE": empty}}),
        )
        for transaction in (True, False):
            calls.append(
                lambda client, transaction=transaction: (  # type: ignore[misc]
                    client.pipeline(transaction)
                    .set("a", 1)
                    .execute_command("GET", "k", **{"EMPTY_RESPONSE": empty})
                    .get("a")
                    .execute()
                )
            )
        assert_same(server, raw, calls, **OPTIONS[name])

    def test_callbacks_of_the_user(self, server: RedisServer, raw: Any) -> None:
        def callback(reply: Any, **options: Any) -> Any:
            return "mine", reply, sorted(options)

        def refusing(reply: Any) -> Any:
            raise redis.ResponseError("not that")

        calls = commands(
            ("set_response_callback", "GET", callback),
            ("set_response_callback", "echo", callback),
            ("set_response_callback", b"PING", callback),
            ("set_response_callback", "STRLEN", refusing),
            *(("set", "k", 1), ("get", "k"), ("echo", "x"), ("execute_command", "Echo", "x"), ("ping",)),
            *(
                ("execute_command", b"PING"),
                ("execute_command", "GET", "k", {"**": {"a": 1, "keys": 2}}),
                ("strlen", "k"),
            ),
        )
        for transaction in (True, False):
            for raises in (True, False):
                calls.append(
                    lambda client, transaction=transaction, raises=raises: (  # type: ignore[misc]
                        client.pipeline(transaction).get("k").echo("x").set("k", 2).strlen("k").execute(raises)
                    )
                )
                calls += commands(("echo", "still there"))
            calls.append(
                lambda client, transaction=transaction: (  # type: ignore[misc]
                    client.pipeline(transaction).execute_command("GET", "k", keys=[1], a=1).execute()
                )
            )
        calls.append(lambda client: client.response_callbacks.clear() or client.get("k"))
        assert_same(server, raw, calls)
        calls.insert(0, lambda client: setattr(client, "response_callbacks", dict(client.response_callbacks)))
        del calls[2:5]
        assert_same(server, raw, calls[:1] + calls[4:7])


class TestPipelines:
    @pytest.mark.parametrize("name", OPTIONS)
    @pytest.mark.parametrize("transaction", [True, False])
    def test_commands(self, server: RedisServer, raw: Any, name: str, transaction: bool) -> None:
        listed = [
            line
            for line in TABLE
            if line[0] not in ("select", "__getitem__", "__contains__", "__delitem__", "object", "move")
        ]

        def run(client: Any, start: int, raises: bool) -> Any:
            pipeline = client.pipeline(transaction)
            for call in commands(*listed[start : start + 25]):
                with suppress(AttributeError, redis.DataError):
                    call(pipeline)
            return pipeline.execute(raise_on_error=raises)

        calls: List[Call] = [
            lambda client, start=start, raises=raises: run(client, start, raises)  # type: ignore[misc]
            for start in range(0, len(listed), 25)
            for raises in (False, True)
        ]
        assert_same(server, raw, calls, **OPTIONS[name])

    @pytest.mark.parametrize("transaction", [True, False])
    @pytest.mark.parametrize("raises", [True, False])
    def test_errors(self, server: RedisServer, raw: Any, transaction: bool, raises: bool) -> None:
        def run(*listed: Tuple[Any, ...]) -> Call:
            def call(client: Any) -> Any:
                pipeline = client.pipeline(transaction)
                for each in commands(*listed):
                    each(pipeline)
                return pipeline.execute(raise_on_error=raises)

            return call

        calls = [
            run(),
            run(("set", "a", 1), ("lpush", "a", 1), ("get", "a")),
            run(("set", "a", 1), ("execute_command", "NOSUCH"), ("get", "a")),
            run(("execute_command", "GET"), ("set", "a", 2)),
            run(("set", "a", None)),
            run(("set", "a", 1), ("set", True, 1), ("get", "a")),
            run(("set", "a", "\ud800"), ("get", "a")),
            run(("execute_command", 5, 1)),
            run(("execute_command", [1], 1)),
            run(("execute_command", "CONFIG GET", "maxmemory"), ("get", "a")),
            run(("execute_command", b"GET", "a"), ("execute_command", "get", "a")),
            run(("execute_command", "EXEC"), ("get", "a")),
            run(("execute_command", "DISCARD"), ("get", "a")),
            run(("execute_command", "UNWATCH"), ("get", "a")),
            run(("execute_command", "MULTI"), ("get", "a")),
            lambda client: client.get("a"),
        ]
        assert_same(server, raw, calls)

    @pytest.mark.parametrize("protocol", [name for name in OPTIONS if name in ("default", "RESP3")])
    def test_watching(self, server: RedisServer, raw: Any, protocol: str) -> None:
        def changed(client: Any) -> Any:
            with client.pipeline() as pipeline:
                pipeline.watch("w")
                before = pipeline.get("w")
                raw.set("w", 5)
                pipeline.multi()
                pipeline.set("w", 6)
                return before, outcome(pipeline.execute), pipeline.watching, len(pipeline)

        def unchanged(client: Any) -> Any:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.watch("w")
                value = pipeline.get("w")
                pipeline.multi()
                return value, pipeline.set("w", 7).get("w").execute(), pipeline.watching, pipeline.connection

        def unwatched(client: Any) -> Any:
            with client.pipeline() as pipeline:
                pipeline.watch("w")
                seen = [pipeline.watching, pipeline.unwatch(), pipeline.watching, bool(pipeline.connection)]
                return seen, pipeline.get("w").execute()

        def misused(client: Any) -> Any:
            with client.pipeline() as pipeline:
                pipeline.multi()
                return outcome(pipeline.multi), outcome(lambda: pipeline.watch("w")), outcome(pipeline.execute)

        def left_watching(client: Any) -> Any:
            with client.pipeline() as pipeline:
                pipeline.watch("w")
            raw.set("w", 1)
            return client.pipeline().get("w").execute(), client.get("w")

        def function(client: Any) -> Any:
            tries: List[int] = []

            def work(pipeline: Any) -> Any:
                tries.append(1)
                value = int(pipeline.get("w"))
                if len(tries) == 1:
                    raw.incr("w")
                pipeline.multi()
                pipeline.set("w", value + 100)
                return "value"

            return client.transaction(work, "w"), client.transaction(work, "w", value_from_callable=True), len(tries)

        def nested(client: Any) -> Any:
            with client.pipeline() as outer, client.pipeline() as inner:
                outer.set("o", 1)
                inner.set("i", 2)
                return inner.execute(), outer.get("i").execute(), client.get("o")

        def again(client: Any) -> Any:
            pipeline = client.pipeline()
            pipeline.set("x", 1)
            pipeline.reset()
            return len(pipeline), bool(pipeline), pipeline.execute(), pipeline.get("x").execute(), pipeline.execute()

        def scripts(client: Any) -> Any:
            script = client.register_script("return ARGV[1]")
            for transaction in (True, False):
                with client.pipeline(transaction) as pipeline:
                    script(args=["x"], client=pipeline)
                    pipeline.get("w")
                    script(args=["y"], client=pipeline)
                    first = pipeline.execute()
            return first

        calls: List[Call] = [
            changed,
            unchanged,
            unwatched,
            misused,
            left_watching,
            changed,
            function,
            nested,
            again,
            scripts,
        ]
        assert_same(server, raw, calls, **OPTIONS[protocol])

    def test_watching_ends_with_the_connection(self, fast: Any, raw: Any) -> None:
        with fast.pipeline() as pipeline:
            pipeline.watch("w")
            raw.client_kill_filter(skipme=True, _type="normal")
            pipeline.multi()
            pipeline.set("w", 1)
            with pytest.raises(redis.WatchError):
                pipeline.execute()
        assert fast.set("w", 2)

    def test_is_one_send_and_fast(self, fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        if not IS_FAST:
            pytest.skip("the twin leaves sending to redis-py")
        fast.ping()
        seen: List[int] = []
        exchange = FastConnection.exchange

        def recording(self: Any, sent: Any) -> Any:
            replies = exchange(self, sent)
            seen.append(-1 if replies is None else len(replies))
            return replies

        monkeypatch.setattr(FastConnection, "exchange", recording)
        assert fast.pipeline().set("a", 1).get("a").execute() == [True, b"1"]
        assert fast.pipeline(False).set("a", 1).get("a").execute() == [True, b"1"]
        assert seen == [4, 2]
        assert type(fast.pipeline()) is FastPipeline

    def test_is_done_without_redis_pys_execute(self, fast: Any, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        if not IS_FAST:
            pytest.skip("the twin leaves sending to redis-py")
        fast.ping()
        executed: List[int] = []
        execute = FastPipeline._execute_pipeline

        class Own(FastPipeline):
            def _execute_pipeline(self, *args: Any, **kwargs: Any) -> Any:
                executed.append(1)
                return execute(self, *args, **kwargs)

        def own(count: int) -> Any:
            return Own(fast.connection_pool, fast.response_callbacks, False, None).set("a", 1).mget(["a"] * count)

        assert own(2).execute() == [True, [b"1", b"1"]]
        assert executed == [1]
        with monkeypatch.context() as patch:
            patch.setattr(fast.connection_pool, "get_connection", None)
            assert fast.pipeline(False).set("a", 1).set("b", 2).execute() == [True, True]
            assert fast.pipeline(False).get("a").get("a").execute() == [b"1", b"1"]
            assert fast.pipeline(False).set("a", 2, nx=True).set("a", 3, nx=True).execute() == [None, None]
            assert fast.pipeline(False).hgetall("none").hgetall("none").execute() == [{}, {}]
            assert fast.pipeline(False).hset("h", "a", 1).get("b").execute() == [1, b"2"]
            pipeline = fast.pipeline(False).hgetall("h").hgetall("h")
            first, second = pipeline.execute()
            assert first == second == {b"a": b"1"}
            assert first is not second
            assert pipeline.command_stack == []
        raw.client_kill_filter(skipme=True, _type="normal")
        assert fast.pipeline(False).get("a").execute() == [b"1"]
        with monkeypatch.context() as patch:
            patch.setattr(redis.client.Pipeline, "execute", lambda self, raise_on_error=True: "traced")
            assert fast.pipeline(False).get("a").execute() == "traced"
        with pytest.raises(redis.ResponseError, match="Command # 2"):
            fast.pipeline(False).get("a").lpush("a", 1).execute()
        failed = fast.pipeline(False).get("a").lpush("a", 1).execute(raise_on_error=False)[1]
        assert isinstance(failed, redis.ResponseError)
        assert len(fast.connection_pool.parked) == 1


class TestClient:
    def test_methods_that_are_overridden_are_called(self, fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: List[Any] = []

        class Own(FastRedis):
            def execute_command(self, *args: Any, **options: Any) -> Any:
                seen.append(args)
                return super().execute_command(*args, **options)

        with Own(connection_pool=fast.connection_pool) as own:
            own.set("k", "v")
            assert own.get("k") == b"v"
        assert seen == [("SET", "k", "v"), ("GET", "k")]
        fast.set_response_callback("get", lambda reply, **options: (reply, options))
        assert fast.get("k") == (b"v", {})
        del fast.response_callbacks["GET"]
        for whose in (FastRedis, fast):
            with monkeypatch.context() as patch:
                patch.setattr(whose, "execute_command", lambda *args, **options: "own")
                assert fast.get("k") == "own"
        assert fast.get("k") == b"v"

    def test_takes_the_short_way(self, fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        assert type(fast.connection_pool) is FastPool
        assert fast.connection_pool.connection_class is FastConnection
        fast.ping()
        fast.ping()
        assert len(fast.connection_pool.parked) == int(IS_FAST)
        if IS_FAST:
            monkeypatch.setattr(fast, "_execute_by_redis_py", None)
            assert fast.set("k", "é") is True
            assert fast.get("k") == "é".encode()
            assert fast.hgetall("none") == {}
            with pytest.raises(redis.ResponseError):
                fast.lpush("k", 1)

    def test_kinds_of_use(self, server: RedisServer, raw: Any) -> None:
        def subscribed(client: Any) -> Any:
            with client.pubsub() as pubsub:
                pubsub.subscribe("c")
                found = [pubsub.get_message(timeout=5)]
                found.append(client.publish("c", "x"))
                found.append(pubsub.get_message(timeout=5))
                return found, client.get("k")

        def monitored(client: Any) -> Any:
            with client.monitor() as monitor:
                client.set("k", 1)
                return next(each["command"] for each in monitor.listen() if each["command"].startswith("SET"))

        def locked(client: Any) -> Any:
            lock = client.lock("lock", timeout=5)
            other = client.lock("lock", blocking_timeout=0.01)
            return lock.acquire(), other.acquire(), lock.extend(5), lock.release(), outcome(lock.release)

        def alone(client: Any) -> Any:
            with client.client() as single:
                one = single.client_id()
                return (
                    single.client_id() == one,
                    single.pipeline().get("k").execute(),
                    single.get("k"),
                    single.echo("x"),
                )

        calls: List[Call] = [subscribed, monitored, locked, alone, *commands(("blpop", "none", 1), ("get", "k"))]
        assert_same(server, raw, calls)
        assert_same(server, raw, calls, decode_responses=True)
        assert_same(
            server, raw, [call for call in calls if call not in (alone, subscribed)], single_connection_client=True
        )

    def test_blocking_command_outlasts_the_timeout(self, server: RedisServer, raw: Any) -> None:
        calls = commands(("blpop", "none", 1), ("get", "k"), ("ping",))
        kwargs: Dict[str, Any] = {"socket_timeout": 0.7}
        if HAS_RETRY:
            kwargs["retry"] = no_retry(0)
        assert_same(server, raw, calls, **kwargs)

    @pytest.mark.parametrize("client_class", [redis.Redis, FastRedis])
    def test_single_connection(self, server: RedisServer, raw: Any, client_class: Any) -> None:
        with made(client_class, port=server.port, single_connection_client=True) as client:
            assert client.connection is not None
            number = client.client_id()
            assert [client.client_id() for _ in range(3)] == [number] * 3
            assert client.set("k", 1)
            assert client.get("k") == b"1"
            if client_class is FastRedis:
                assert type(client.connection) is FastConnection
            with pytest.raises(redis.ResponseError):
                client.lpush("k", 1)
        assert client.connection is None
        with ExitStack() as stack:
            url = f"redis://127.0.0.1:{server.port}"
            from_url = client_class.from_url(url, single_connection_client=True) if REDIS_VERSION >= (5, 0) else None
            if from_url is not None:
                stack.callback(from_url.connection_pool.disconnect)
                stack.callback(from_url.close)
                assert from_url.connection is not None
                assert from_url.ping()

    def test_from_url(self, server: RedisServer, raw: Any) -> None:
        for url, connection_class in (
            (f"redis://127.0.0.1:{server.port}/0?socket_timeout=5", FastConnection),
            (f"unix://{server.unix_path}?db=0", FastUnixConnection),
        ):
            if connection_class is FastUnixConnection and REDIS_VERSION[0] == 7:
                url += "&protocol=2"
            client = FastRedis.from_url(url, decode_responses=True)
            try:
                assert type(client) is FastRedis
                assert type(client.connection_pool) is FastPool
                assert [client.set("k", 1), client.get("k"), client.get("k")] == [True, "1", "1"]
                ((connection,),) = [client.connection_pool.parked or client.connection_pool._available_connections]
                assert type(connection) is connection_class
            finally:
                client.close()
                client.connection_pool.disconnect()
        client = FastRedis.from_url("rediss://127.0.0.1:1")
        assert client.connection_pool.connection_class is FastSSLConnection
        assert FastRedis(ssl=True).connection_pool.connection_class is FastSSLConnection
        assert FastRedis(unix_socket_path="/x").connection_pool.connection_class is FastUnixConnection
        with pytest.raises(TypeError):
            FastRedis(nonsense=1)
        with pytest.raises(ValueError, match="scheme"):
            FastRedis.from_url("http://x")

    @pytest.mark.parametrize("pool_class", [ConnectionPool, BlockingConnectionPool, FastPool])
    @pytest.mark.parametrize("connection_class", [Connection, FastConnection])
    def test_pool_that_is_given(self, server: RedisServer, raw: Any, pool_class: Any, connection_class: Any) -> None:
        pool = pool_class(port=server.port, connection_class=connection_class)
        client: Any = FastRedis(connection_pool=pool)
        assert client.connection_pool is pool
        assert type(pool) is pool_class
        for at in range(3):
            assert client.set("k", at)
            assert client.get("k") == b"%d" % at
        assert client.pipeline().get("k").incr("k").execute() == [b"2", 3]
        if pool_class is FastPool:
            assert bool(pool.parked) is (IS_FAST and connection_class is FastConnection) or client.ping()
        assert connections_of(raw) == 1
        client.close()
        pool.disconnect()

    def test_two_clients_of_a_pool(self, server: RedisServer, raw: Any) -> None:
        pool = FastPool(port=server.port, connection_class=FastConnection)
        first: Any = FastRedis(connection_pool=pool)
        second: Any = FastRedis(connection_pool=pool)
        stock: Any = redis.Redis(connection_pool=pool)
        for at in range(5):
            assert [each.incr("n") for each in (first, second, stock)] == [3 * at + 1, 3 * at + 2, 3 * at + 3]
        assert connections_of(raw) == 1
        pool.disconnect()

    def test_closing(self, server: RedisServer, raw: Any) -> None:
        with FastRedis(port=server.port) as client:
            for _ in range(3):
                client.ping()
            with client.pipeline() as pipeline:
                pipeline.ping().execute()
        client.close()
        if REDIS_VERSION < (5, 0):
            client.connection_pool.disconnect()
        else:
            assert eventually(lambda: connections_of(raw) == 0)
        assert client.ping()
        client.connection_pool.disconnect()
        assert eventually(lambda: connections_of(raw) == 0)
        for _ in range(3):
            assert client.ping()
            client.connection_pool.disconnect(inuse_connections=False)
            assert eventually(lambda: connections_of(raw) == 0)

    @pytest.mark.parametrize("limit", [1, 2])
    def test_limit_of_connections(self, server: RedisServer, raw: Any, limit: int) -> None:
        def run(client: Any) -> Any:
            found = [client.ping(), client.ping(), client.pipeline().ping().execute()]
            with client.pubsub() as pubsub:
                found.append(outcome(lambda: pubsub.subscribe("c")))
                found += [outcome(client.ping), outcome(client.ping), outcome(client.pipeline().ping().execute)]
                with client.pubsub() as another:
                    found.append(outcome(lambda: another.subscribe("c")))
                    found += [outcome(client.ping), outcome(client.pipeline().ping().execute)]
                found += [outcome(client.ping), outcome(client.ping)]
            return [*found, client.ping(), client.pipeline().ping().execute(), connections_of(raw) <= limit]

        assert_same(server, raw, [run], max_connections=limit)

    def test_limit_while_another_thread_parks(self, server: RedisServer, raw: Any) -> None:
        """As many connections as threads are always enough, also if one is parked just after it was looked for."""
        with made(port=server.port, max_connections=1) as client:
            pool = client.connection_pool
            client.ping()
            connection = pool.get_connection("_") if REDIS_VERSION < (5, 3) else pool.get_connection()
            unpark = pool._unpark

            def parks_just_after() -> None:
                unpark()
                if not pool.parked:
                    pool.parked.append(connection)

            pool._unpark = parks_just_after
            assert redis.Redis(connection_pool=pool).ping()
            pool._unpark = unpark


def connections_of(raw: Any) -> int:
    """How many connections the server has besides the one that asks."""
    return len([entry for entry in raw.client_list() if "N" in entry["flags"] or "P" in entry["flags"]]) - 1


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def no_retry(count: int) -> Any:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Retry(NoBackoff(), count)


class Peer:
    """A server that answers each command by a function of it and its number: bytes, or what is done instead.

    ``commands`` are those it has seen, with the number of the connection they came by.
    """

    def __init__(self, answer: Callable[[List[bytes], int], Any]) -> None:
        self._answer = answer
        self.commands: List[Tuple[int, List[bytes]]] = []

    def __enter__(self) -> "Peer":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._open: List[socket.socket] = []
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._open.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock, len(self._open))))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        reader = hiredis.Reader()
        with sock, suppress(OSError):
            while True:
                data = sock.recv(65536)
                if not data:
                    return
                reader.feed(data)
                command = reader.gets()
                while command is not False:
                    self.commands.append((number, command))
                    answer = self._answer(command, len(self.commands) - 1)
                    sock.sendall(answer.replace(b"<FIN>", b"").replace(b"<RST>", b""))
                    if b"<RST>" in answer:
                        time.sleep(0.02)  # what was sent would be discarded with the connection
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    if b"<FIN>" in answer or b"<RST>" in answer:
                        return
                    command = reader.gets()


def against(answers: Dict[bytes, bytes], run: Call, client_class: Any, **kwargs: Any) -> Tuple[Any, List[Any]]:
    """Return what comes of calls on a server with these answers, and the commands it saw after the first."""
    with Peer(lambda command, _: answers.get(command[0], b"+PONG\r\n")) as peer, made(
        client_class, host="127.0.0.1", port=peer.port, **{"socket_timeout": 5, **NO_HANDSHAKE, **kwargs}
    ) as client:
        client.ping()
        client.ping()
        found = run(client)
        text = repr(found).replace(str(peer.port), "PORT")
    # What one connection has sent is in order, what two have is not.
    return text, sorted(peer.commands, key=lambda numbered: numbered[0])


BROKEN: Dict[str, bytes] = {
    "closes": b"<FIN>",
    "half a reply": b"$5\r\nab<FIN>",
    "half a large reply": b"$70000\r\nab<FIN>",
    "resets": b"<RST>",
    "half a reply, resets": b"*2\r\n:1\r\n<RST>",
    "no RESP": b"?bogus\r\n",
    "loading": b"-LOADING it is\r\n",
    "busy": b"-BUSY it is\r\n",
    "read-only": b"-READONLY it is\r\n",
    "too many": b"-ERR max number of clients reached\r\n",
    "no auth": b"-NOAUTH who\r\n",
    "loading in a list": b"*1\r\n-LOADING it is\r\n",
    "try again": b"-TRYAGAIN it is\r\n",
    "master down": b"-MASTERDOWN it is\r\n",
}


class TestWhatGoesWrong:
    @pytest.mark.parametrize("what", BROKEN)
    @pytest.mark.parametrize("retries", [0, 2] if HAS_RETRY else [0])
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # redis-py 3.5 leaves sockets to the collector
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_errors_and_retries(self, what: str, retries: int) -> None:
        def run(client: Any) -> Any:
            return [
                outcome(lambda: client.get("k")),
                outcome(client.ping),
                outcome(client.pipeline(transaction=False).get("k").echo("x").execute),
                outcome(client.ping),
                outcome(client.ping),
            ]

        choices: List[Dict[str, Any]] = [{}]
        if HAS_RETRY:
            choices = [
                {"retry": no_retry(retries)},
                {"retry": no_retry(retries), "retry_on_error": [redis.ConnectionError]},
                {"retry": no_retry(retries), "retry_on_error": [redis.ReadOnlyError, redis.TimeoutError]},
            ]
        for kwargs in choices:
            answers = {b"GET": BROKEN[what]}
            expected = against(answers, run, redis.Redis, **kwargs)
            assert against(answers, run, FastRedis, **kwargs) == expected

    @pytest.mark.parametrize("kwargs", [{}, {"retry_on_timeout": True}], ids=str)
    @pytest.mark.filterwarnings("ignore:.*retry_on_timeout:DeprecationWarning")
    def test_timeouts_and_retries(self, kwargs: Dict[str, Any]) -> None:
        def run(client: Any) -> Any:
            return [outcome(lambda: client.get("k")), outcome(client.ping)]

        if HAS_RETRY:
            kwargs = {**kwargs, "retry": no_retry(2)}
        found = [
            against({b"GET": b""}, run, client_class, **{**kwargs, "socket_timeout": 0.8})
            for client_class in (redis.Redis, FastRedis)
        ]
        assert found[0] == found[1]
        assert "Timeout reading from" in found[0][0]

    def test_recovers_after_some_attempts(self) -> None:
        if not HAS_RETRY:
            pytest.skip("redis-py has retries since 4.1")
        for client_class in (redis.Redis, FastRedis):
            attempts: List[int] = []

            def answer(command: List[bytes], number: int, attempts: List[int] = attempts) -> bytes:
                if command[0] != b"GET":
                    return b"+PONG\r\n"
                attempts.append(number)
                return b"$1\r\nv\r\n" if len(attempts) % 3 == 0 else b"<FIN>"

            kwargs = {**NO_HANDSHAKE, "retry": no_retry(2), "retry_on_error": [redis.ConnectionError]}
            with Peer(answer) as peer, made(client_class, host="127.0.0.1", port=peer.port, **kwargs) as client:
                client.ping()
                assert [client.get("k"), client.get("k")] == [b"v", b"v"]
            assert len(attempts) == 6

    def test_server_closes_idle_connections(self, fast: Any, raw: Any) -> None:
        for _ in range(3):
            with fast.pubsub() as pubsub:
                pubsub.subscribe("c")
                for _ in range(2):
                    assert fast.set("k", "v")
                    assert fast.get("k") == b"v"
                raw.client_kill_filter(skipme=True, _type="normal")
                assert fast.get("k") == b"v"
            raw.client_kill_filter(skipme=True, _type="normal")
            assert fast.pipeline().get("k").execute() == [b"v"]
            raw.client_kill_filter(skipme=True, _type="normal")
            assert fast.get("k") == b"v"

    def test_server_is_restarted(self, own_server: RedisServer) -> None:
        kwargs = {"retry": no_retry(0)} if HAS_RETRY else {}
        with made(port=own_server.port, **kwargs) as client:
            for _ in range(2):
                client.set("k", "v")
            own_server.kill()
            for call in (client.ping, client.pipeline().ping().execute, client.ping):
                with pytest.raises(RedisConnectionError):
                    call()
            own_server.start()
            assert client.get("k") is None
            assert client.pipeline().set("k", 1).execute() == [True]
            assert client.get("k") == b"1"

    def test_server_is_frozen(self, own_server: RedisServer) -> None:
        kwargs = {"retry": no_retry(0)} if HAS_RETRY else {}
        with made(port=own_server.port, socket_timeout=0.8, **kwargs) as client:
            for _ in range(2):
                client.set("k", "v")
            for call in (lambda: client.echo("late"), client.pipeline(transaction=False).echo("late").execute):
                own_server.freeze()
                begun = time.monotonic()
                with pytest.raises(RedisTimeoutError):
                    call()
                assert time.monotonic() - begun >= 0.79
                own_server.thaw()
                client.connection_pool.connection_kwargs["socket_timeout"] = 10
                assert client.get("k") == b"v"
                assert client.echo("mine") == b"mine"
                client.connection_pool.disconnect()
                client.connection_pool.reset()
                client.connection_pool.connection_kwargs["socket_timeout"] = 0.8

    def test_reply_nobody_asked_for(self) -> None:
        """What waits on an idle connection is never taken for the reply to the next command."""
        for kwargs in [{"protocol": 2}, {}] if REDIS_VERSION >= (5, 0) else [{}]:
            for number, at_once in enumerate((True, False)):
                extra = {b"ECHO": b"$4\r\nmine\r\n" + b"+unasked\r\n" * at_once}
                found = [
                    against(
                        extra,
                        lambda client: [outcome(lambda: client.echo("x")), outcome(lambda: client.get("k"))],
                        client_class,
                        **kwargs,
                    )
                    for client_class in (redis.Redis, FastRedis)
                ]
                assert found[0] == found[1], number

    @pytest.mark.parametrize("pipelined", [False, True])
    def test_interrupted(self, pipelined: bool) -> None:
        """A handler that raises while a reply is awaited; it comes late, and is nobody's."""
        threads: List[threading.Thread] = []

        def answer(command: List[bytes], number: int) -> bytes:
            if command[0] != b"GET":
                return b"$4\r\nmine\r\n"
            if command[1] == b"slow":
                time.sleep(0.6)
            return b"$4\r\nlate\r\n"

        with Peer(answer) as peer, made(host="127.0.0.1", port=peer.port, socket_timeout=5, **NO_HANDSHAKE) as client:
            client.echo("x")
            client.echo("x")
            for error, handler in ((Raised, raise_it), (KeyboardInterrupt, interrupt)):
                batch = client.pipeline(transaction=False).get("fast").get("slow").get("fast")
                with pytest.raises(error), alarm(RINGS_S, handler):
                    batch.execute() if pipelined else client.get("slow")
                for _ in range(3):
                    assert client.echo("x") == b"mine"
                time.sleep(0.6)
                assert client.echo("x") == b"mine"
        assert not threads

    def test_handler_uses_the_client_itself(self, fast: Any) -> None:
        seen: List[Any] = []

        def handler(*args: Any) -> None:
            signal.setitimer(signal.ITIMER_REAL, 0)  # or the next one would come in the midst of this one
            seen.append(fast.echo("inner"))

        fast.ping()
        fast.ping()
        with alarm(0.1, handler):
            assert fast.blpop("none", 1) is None
        assert fast.echo("outer") == b"outer"
        assert seen == [b"inner"]


class TestHealthAndPushes:
    @pytest.mark.parametrize("client_class", [redis.Redis, FastRedis])
    def test_health_check(self, client_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with Peer(lambda command, _: b"+PONG\r\n" if command[0] == b"PING" else b"$1\r\nv\r\n") as peer, made(
            client_class, host="127.0.0.1", port=peer.port, health_check_interval=1000, **NO_HANDSHAKE
        ) as client:
            for _ in range(3):
                assert client.get("k") == b"v"
            before = len(peer.commands)
            assert [command[0] for _, command in peer.commands[-3:]] == [b"GET"] * 3
            (connection,) = (
                getattr(client.connection_pool, "parked", []) or client.connection_pool._available_connections
            )
            due = connection.next_health_check
            assert due > _redis.clock() + 900
            for _ in range(2):
                connection.next_health_check = _redis.clock() - 1
                assert client.get("k") == b"v"
                assert connection.next_health_check >= due
                assert client.pipeline(transaction=False).get("k").execute() == [b"v"]
                connection.next_health_check = _redis.clock() - 1
                assert client.pipeline(transaction=False).get("k").execute() == [b"v"]
                assert connection.next_health_check >= due
            names = [command[0] for _, command in peer.commands[before:]]
            assert names == [b"PING", b"GET", b"GET", b"PING", b"GET"] * 2

    @RESP3
    @pytest.mark.parametrize("pushes", [1, 3])
    def test_push_messages(self, pushes: int) -> None:
        push = b">2\r\n+message\r\n+x\r\n" * pushes
        found = {}
        for client_class in (redis.Redis, FastRedis):
            handled: List[Any] = []

            def answer(command: List[bytes], number: int) -> bytes:
                if command[0] == b"EXEC":
                    return push + b"*2\r\n$1\r\nv\r\n$1\r\nw\r\n" + push
                return push + (b"*1\r\n+in\r\n" if command[1:] == [b"list"] else b"$1\r\nv\r\n")

            kwargs: Dict[str, Any] = {**NO_HANDSHAKE, "protocol": 3}

            def handshake(connection: Any, handled: List[Any] = handled) -> None:
                connection._parser.on_connect(connection)
                connection._parser.set_pubsub_push_handler(handled.append)

            kwargs["redis_connect_func"] = handshake
            with Peer(answer) as peer, made(client_class, host="127.0.0.1", port=peer.port, **kwargs) as client:
                results = [client.get("k"), client.get("list"), client.get("k")]
                results += client.pipeline(transaction=False).get("k").get("list").get("k").execute()
                results += client.pipeline().get("k").get("k").execute()
                results += [client.get("list"), client.get("k")]
            found[client_class] = results, [list(each) for each in handled]
        ours, theirs = found[FastRedis], found[redis.Redis]
        assert ours[0] == theirs[0] == [b"v", [b"in"], b"v", b"v", [b"in"], b"v", b"v", b"w", [b"in"], b"v"]
        assert all(each == [b"message", b"x"] for each in ours[1])
        assert len(ours[1]) >= 10 * pushes

    @RESP3
    def test_tracking(self, server: RedisServer, raw: Any) -> None:
        def run(client: Any, bcast: bool) -> Any:
            found = [client.execute_command("CLIENT TRACKING", "ON", "BCAST") if bcast else client.set("k", 0)]
            for at in range(20):
                raw.set("k", at)
                found += [client.get("k"), client.set(f"own{at}", 1), client.pipeline().get("k").set("k", 5).execute()]
                raw.delete("k")
                found += [client.pipeline(transaction=False).get("k").echo("x").execute(), client.echo("y")]
            return found

        for bcast in (True, False):
            assert_same(server, raw, [lambda client, bcast=bcast: run(client, bcast)], protocol=3)  # type: ignore[misc]

    @pytest.mark.skipif(REDIS_VERSION < (7, 0), reason="since redis-py 7")
    def test_maintenance_notifications(self) -> None:
        """Timeouts are relaxed while the server says so, also where it says it between two commands."""
        start, end = b">4\r\n+MIGRATING\r\n:1\r\n:10\r\n*0\r\n", b">3\r\n+MIGRATED\r\n:2\r\n*0\r\n"
        found = {}
        for client_class in (redis.Redis, FastRedis):
            seen: List[Any] = []

            def handshake(connection: Any, seen: List[Any] = seen) -> None:
                connection._parser.on_connect(connection)
                connection._parser.maintenance_push_handler_func = lambda message: seen.append(type(message).__name__)

            def answer(command: List[bytes], number: int) -> bytes:
                return {b"A": start + b"+a\r\n", b"B": b"+b\r\n" + end}.get(command[-1], b"+c\r\n")

            kwargs: Dict[str, Any] = {**NO_HANDSHAKE, "protocol": 3, "redis_connect_func": handshake}
            with Peer(answer) as peer, made(client_class, host="127.0.0.1", port=peer.port, **kwargs) as client:
                results = [client.get(name) for name in ("C", "C", "A", "B", "C", "C")]
                results += client.pipeline(transaction=False).get("C").get("A").get("B").execute()
                results.append(client.get("C"))
            found[client_class] = results, seen, [command for _, command in peer.commands]
        assert found[FastRedis] == found[redis.Redis]

    def test_tracer_sees_every_command(self, fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for _ in range(2):
            fast.ping()
        seen: List[Any] = []
        stock: Any = redis.Redis.execute_command

        def traced(self: Any, *args: Any, **options: Any) -> Any:
            seen.append(args)
            return stock(self, *args, **options)

        monkeypatch.setattr(redis.Redis, "execute_command", traced)
        for at in range(3):
            fast.set("k", at)
            fast.get("k")
        assert seen == [each for at in range(3) for each in (("SET", "k", at), ("GET", "k"))]
        monkeypatch.undo()
        fast.get("k")
        assert len(seen) == 6

    @pytest.mark.skipif(REDIS_VERSION < (8, 0), reason="redis-py has metrics since 7.2")
    def test_metrics_are_collected(self, fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import redis.client

        for _ in range(2):
            fast.ping()
        seen: List[str] = []
        monkeypatch.setattr(
            redis.client, "record_operation_duration", lambda **kwargs: seen.append(kwargs["command_name"])
        )
        fast.ping()
        assert seen == [] if IS_FAST else ["PING"]
        del seen[:]
        monkeypatch.setattr(_redis.OBSERVABILITY, "_provider_manager", object())
        fast.get("k")
        fast.pipeline(transaction=False).get("k").execute()
        assert seen == ["GET", "PIPELINE"]

    @pytest.mark.skipif(REDIS_VERSION < (5, 3), reason="redis-py authenticates anew since 5.3")
    def test_idle_connections_authenticate_anew(self) -> None:
        class Token:
            def try_get(self, name: str) -> str:
                return "user"

            def get_value(self) -> str:
                return "secret"

        for client_class in (redis.Redis, FastRedis):
            with Peer(lambda command, _: b"+OK\r\n") as peer, made(
                client_class, host="127.0.0.1", port=peer.port, **NO_HANDSHAKE
            ) as client:
                for _ in range(3):
                    client.execute_command("ECHO", "x")
                client.connection_pool.re_auth_callback(Token())
                client.execute_command("ECHO", "x")
            assert [command[0] for _, command in peer.commands] == [b"ECHO"] * 3 + [b"AUTH", b"ECHO"]


class TestThreadsAndProcesses:
    def test_threads(self, fast: Any, raw: Any) -> None:
        wrong: List[Any] = []

        def work(number: int) -> None:
            got: Any
            expected: Any
            try:
                for at in range(500):
                    value = b"%d-%d" % (number, at) * (1, 1, 1, 900)[at % 4]
                    if at % 10 == 9:
                        got = (
                            fast.pipeline(at % 20 == 9).set(f"k{number}", value).get(f"k{number}").echo(value).execute()
                        )
                        expected = [True, value, value]
                    elif at % 25 == 3:
                        got, expected = outcome(lambda: fast.lpush(f"k{number}", 1))[0], redis.ResponseError
                    else:
                        got, expected = fast.echo(value), value
                    if got != expected:
                        wrong.append((number, at, got))
            except Exception as error:
                wrong.append(error)

        fast.set("k", 1)
        for number in range(8):
            fast.set(f"k{number}", 0)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert connections_of(raw) <= 8
        pool = fast.connection_pool
        pool._unpark()
        assert len(pool._available_connections) == pool._created_connections
        assert pool._in_use_connections == set()

    # redis-py's own connect() and disconnect() race for the socket, and the loser's is left to the collector.
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    def test_disconnected_by_another_thread(self, server: RedisServer, raw: Any) -> None:
        wrong: List[Any] = []
        done = threading.Event()

        def work(number: int) -> None:
            value = b"%d" % number
            while not done.is_set():
                try:
                    got = [client.echo(value), *client.pipeline(transaction=False).echo(value).echo(value).execute()]
                    if got != [value] * 3:
                        wrong.append(got)
                except RedisConnectionError:
                    pass
                except Exception as error:
                    wrong.append(error)

        kwargs = {"retry": no_retry(3)} if HAS_RETRY else {}
        with made(port=server.port, socket_timeout=5, **kwargs) as client:
            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for _ in range(100):
                outcome(client.connection_pool.disconnect)  # in redis-py 3.5 it is in a race with the others' own
                time.sleep(0.002)
            done.set()
            for thread in threads:
                thread.join()
            assert [each for each in wrong if not is_redis_pys_own_race(each)] == []
            assert client.echo("x") == b"x"
            pool = client.connection_pool
            pool._unpark()
            assert len(pool._available_connections) == pool._created_connections
        gc.collect()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_fork(self, fast: Any, raw: Any) -> None:
        for _ in range(2):
            fast.set("k", "parent")
        number = fast.client_id()
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                wrong = [at for at in range(300) if fast.echo(f"child{at}") != b"child%d" % at]
                wrong += [at for at in range(50) if fast.pipeline().echo(f"p{at}").execute() != [b"p%d" % at]]
                status = 2 if wrong else 3 if fast.client_id() == number else 0
                fast.close()
                fast.connection_pool.disconnect()
            os._exit(status)
        wrong = [at for at in range(300) if fast.echo(f"parent{at}") != b"parent%d" % at]
        assert os.waitpid(child, 0)[1] == 0
        assert wrong == []
        assert fast.client_id() == number
        assert connections_of(raw) == 1

    @pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_multiprocessing(self, fast: Any, raw: Any) -> None:
        for _ in range(2):
            fast.set("n", 0)
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=count_up, args=(fast,)) for _ in range(3)]
        for process in processes:
            process.start()
        count_up(fast)
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert fast.get("n") == b"400"
        assert eventually(lambda: connections_of(raw) == 1)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.skipif(REDIS_VERSION >= (5, 3), reason="redis-py itself takes that lock in the child since 5.3")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_fork_while_another_thread_has_the_lock(self, fast: Any) -> None:
        for _ in range(2):
            fast.ping()
        locked, release = threading.Event(), threading.Event()

        def hold() -> None:
            with fast.connection_pool._lock:
                locked.set()
                release.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        locked.wait(30)
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # ends the process if it waits for ever
            status = 1
            with suppress(BaseException):
                status = 0 if fast.echo("child") == b"child" else 2
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        release.set()
        thread.join()
        assert fast.echo("x") == b"x"


def count_up(client: Any) -> None:
    for at in range(100):
        client.incr("n") if at % 2 else client.pipeline().incr("n").execute()


def is_redis_pys_own_race(error: Any) -> bool:
    """Its methods use the socket and the parser of a connection that another thread has just closed."""
    if not IS_FAST and isinstance(error, TypeError):
        return "fileno() method" in str(error)  # its select() on the socket that is None by now
    if not IS_FAST and isinstance(error, RedisTimeoutError):
        return True  # its reading goes on for socket_timeout on what was closed: stock Redis(), too, now and then
    return isinstance(error, (AttributeError, ValueError)) and "NoneType" in str(error)


class TestLeaks:
    def test_client(self, server: RedisServer, raw: Any) -> None:
        script = "return {1, 'two', {3}, redis.error_reply('no')}"
        large = b"x" * 80_000

        def many(client: Any) -> None:
            for call in commands(
                *(("set", "k", large), ("get", "k"), ("get", "none"), ("set", "s", "v"), ("get", "s"), ("incr", "n")),
                *(("hset", "h", "f", 1), ("hgetall", "h"), ("lpush", "s", 1), ("execute_command", "NOSUCH")),
                *(("eval", script, 0), ("set", "k", None), ("set", "k", "\ud800"), ("mget", "k", "s")),
            ):
                with suppress(redis.RedisError, UnicodeError):
                    call(client)
            for transaction in (True, False):
                for raises in (True, False):
                    with suppress(redis.RedisError):
                        client.pipeline(transaction).set("s", 1).lpush("s", 1).get("k").execute(raises)

        with made(port=server.port) as client:
            assert growth(lambda: many(client), 12) < 12  # redis-py's pipelines are noisy
        with made(port=server.port, decode_responses=True) as client:
            assert growth(lambda: many(client), 12) < 12
            assert growth(lambda: client.get("s") and client.mget("s", "s"), 300) <= 0

    def test_connections_that_break(self, server: RedisServer, raw: Any) -> None:
        kwargs = {"retry": no_retry(1)} if HAS_RETRY else {}
        with made(port=server.port, **kwargs) as client:
            client.ping()

            def breaks() -> None:
                for act in (
                    lambda: raw.client_kill_filter(skipme=True, _type="normal"),
                    client.connection_pool.disconnect,
                ):
                    client.ping()
                    act()
                    with suppress(RedisConnectionError):
                        client.ping()

            if REDIS_VERSION >= (4, 0):
                assert growth(breaks, 20) < 20  # redis-py 8.1 alone: 19; 3.5 is not measured
            before = open_descriptors()
            for _ in range(10):
                breaks()
            assert none_left(before)

    def test_clients(self, server: RedisServer) -> None:
        before = open_descriptors()
        for _ in range(10):
            with made(port=server.port) as client:
                for _ in range(3):
                    client.ping()
                with suppress(redis.ResponseError):
                    client.execute_command("NOSUCH")
        assert none_left(before)

    def test_errors_are_freed_at_once(self, fast: Any, raw: Any) -> None:
        """No error keeps itself, with its traceback and the caller's arguments, until the collector runs."""
        import gc
        import weakref

        class Big(List[Any]):
            pass

        def fails(call: Call) -> Any:
            local = Big()
            with suppress(redis.RedisError):
                call(fast)
            return weakref.ref(local)

        calls: List[Call] = [lambda client: client.lpush("s", 1), lambda client: client.execute_command("NOSUCH")]
        fast.set("s", 1)
        gc.collect()
        gc.disable()
        try:
            for call in calls:
                assert fails(call)() is None
        finally:
            gc.enable()


def test_what_differs_between_versions() -> None:
    assert ("keys" if REDIS_VERSION >= (5, 1) else None) == _redis.FOR_CACHE
    assert abs(_redis.clock() - (time.time() if REDIS_VERSION < (6, 0) else time.monotonic())) < 60 or HAS_RETRY
