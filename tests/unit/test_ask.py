"""Whole commands on the wire: packed, sent and answered in one call, natively and in Python alike.

Guaranteed on socket pairs: bytes are those of redis-py's packer, what it refuses is declined and nothing sent, replies
come whole and in order however they are cut, and after any error the caller knows whether the command has gone.
"""

import errno
import os
import random
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import hiredis
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from leaks import growth, open_descriptors
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from test_transfer import (
    GIVES_UP,
    LARGE_BODY,
    MORE,
    NO_HANDSHAKE,
    REPLIES,
    RINGS_S,
    Number,
    Raised,
    Text,
    alarm,
    bulk,
    by_hiredis,
    comparable,
    new_reader,
    raise_it,
    refusing_server,
)

from extras import _fastsock as native
from extras import _fastsock_py as python
from extras import fastsock
from extras._redis import Connection, packed_buffers
from extras.connection import FastConnection
from extras.fastsock import CUTOFF_BYTES, PUSH

BUFFERS = packed_buffers()
BOTH = frozenset({bytearray, memoryview})
Pair = Tuple[socket.socket, socket.socket]


@pytest.fixture(params=[native, python], ids=["native", "python"])
def twin(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.settimeout(5)
        yield ours, theirs


@pytest.fixture
def selected(twin: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let connections run on the native module, then on its twin."""
    for name in ("Reader", "pack_commands", "send_all", "send_command", "wait_readable"):
        monkeypatch.setattr(fastsock, name, getattr(twin, name))
    monkeypatch.setattr(fastsock, "transfers", fastsock._has_plain_calls)
    return twin


class Octets(bytes):
    pass


class Fraction(float):
    pass


def by_redis_py(commands: List[Any]) -> Optional[bytes]:
    """Return what redis-py sends; ``None`` if it refuses."""
    stock: Any = Connection()
    try:
        return b"".join(piece for command in commands for piece in stock.pack_command(*command))
    except (redis.DataError, UnicodeError, TypeError, ValueError, AttributeError, IndexError):
        return None


SIZES = st.sampled_from([0, 1, CUTOFF_BYTES // 4, CUTOFF_BYTES // 4 + 1, CUTOFF_BYTES - 1, CUTOFF_BYTES])
SIZES = SIZES | st.sampled_from([CUTOFF_BYTES + 1, 3 * CUTOFF_BYTES])
PLAIN: Any = st.one_of(
    st.text(max_size=8),
    st.binary(max_size=8),
    st.integers(),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**400]),
    st.floats(),
    st.builds(lambda size: "é" * size, SIZES),
    st.builds(lambda size: "x" * size, SIZES),
    st.builds(lambda size: b"\x00" * size, SIZES),
)
ODD: Any = st.one_of(
    st.booleans(),
    st.none(),
    st.sampled_from(
        [Text("t"), Octets(b"o"), Number(5), Fraction(1.5), [1], (), {}, object(), 1j, "\ud800", "a\udcffb"]
    ),
    st.builds(lambda size: bytearray(size), SIZES),
    st.builds(lambda size: memoryview(bytes(size)), SIZES),
    st.builds(lambda: memoryview(bytes(64)).cast("i")),
    st.builds(lambda: memoryview(b"abcd")[::2]),
    st.builds(lambda: memoryview(b"ab").cast("b")),
)
NAMES: Any = st.sampled_from(
    ["GET", "é", b"SET", b"\xff\x00", "CONFIG GET", b"CONFIG GET", " ", "", b"", "A\tB", b"A\tB"]
)
NAMES = NAMES | st.sampled_from(["\x1c", "\x85", "x" * (CUTOFF_BYTES + 1), b"x" * (CUTOFF_BYTES + 1), "\x0b", "\x00"])


class TestPackCommands:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(NAMES, st.lists(PLAIN, max_size=4)), max_size=4))
    def test_plain_arguments_are_packed_as_redis_py_does(self, drawn: List[Any]) -> None:
        commands = [(name, *args) for name, args in drawn]
        natively, in_python = (module.pack_commands(commands, BUFFERS) for module in (native, python))
        assert natively == in_python
        if natively is None:
            assert any(not python._is_one_word(command) for command in commands)
        else:
            assert b"".join(natively) == by_redis_py(commands)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.lists(PLAIN | ODD, max_size=4), max_size=3), st.sampled_from([BUFFERS, BOTH, frozenset()]))
    def test_anything_is_packed_alike_or_declined(self, drawn: List[Any], buffers: Any) -> None:
        commands = [("SET", *args) for args in drawn]
        natively, in_python = (module.pack_commands(commands, buffers) for module in (native, python))
        assert (natively is None) == (in_python is None)
        if natively is not None and in_python is not None:
            assert b"".join(natively) == b"".join(in_python)
            assert [len(piece) for piece in natively] == [len(piece) for piece in in_python]
            if buffers <= BUFFERS:
                assert b"".join(natively) == by_redis_py(commands)

    @pytest.mark.parametrize(
        "commands",
        [
            [()],
            [[]],
            [("GET", "k"), ()],
            [None],
            [5],
            [("GET", None)],
            [(None,)],
            [(5, "k")],
            [("GET", True)],
            [{1: 2}],
        ],
        ids=str,
    )
    def test_what_is_no_command_is_declined(self, twin: Any, commands: Any) -> None:
        assert twin.pack_commands(commands, BOTH) is None

    def test_lists_are_commands_too(self, twin: Any) -> None:
        assert b"".join(twin.pack_commands([["GET", "k"], ("GET", "k")], BOTH)) == b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" * 2
        assert twin.pack_commands([], BOTH) == []

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_large_arguments_are_the_callers_own(self, twin: Any, kind: Any) -> None:
        data, small = kind(bytes(CUTOFF_BYTES + 1)), kind(bytes(CUTOFF_BYTES))
        pieces = twin.pack_commands([("SET", data, small, data), ("SET", data)], BOTH)
        assert [piece is data for piece in pieces] == [False, True, False, True, False, True, False]

    def test_more_digits_than_python_writes(self, twin: Any) -> None:
        """hiredis, asked to pack such a number, kills the process."""
        packed = twin.pack_commands([("SET", "k", 10**5000)], BOTH)
        try:
            digits = str(10**5000).encode()
        except ValueError:  # Python 3.11, and the last releases of earlier ones
            assert packed is None
        else:
            assert b"".join(packed) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5001\r\n%s\r\n" % digits

    def test_commands_that_change_meanwhile(self, twin: Any) -> None:
        """What ``len()`` says is not what comes: redis-py's to make sense of."""

        class Liar(List[Any]):
            def __len__(self) -> int:
                return 5

        assert native.pack_commands([Liar(["GET", "k"])], BOTH) is None

    def test_an_error_of_the_callers_own_is_not_swallowed(self, twin: Any) -> None:
        def commands() -> Iterator[Any]:
            yield ("GET", "k")
            raise Raised

        with pytest.raises(Raised):
            twin.pack_commands(commands(), BOTH)


class TestReplies:
    @pytest.mark.parametrize("name", ["small", "large", "large among small", "large in an array", "RESP3"])
    def test_any_cut(self, twin: Any, pair: Pair, name: str) -> None:
        stream, chance = REPLIES[name], random.Random(name)
        expected = by_hiredis(stream)
        for _ in range(4):
            reader = new_reader(twin)
            cuts = sorted({0, len(stream), *(chance.randrange(len(stream)) for _ in range(5)), chance.randrange(12)})

            def send(cuts: List[int] = cuts) -> None:
                for start, end in zip(cuts, cuts[1:]):
                    pair[1].sendall(stream[start:end])
                    time.sleep(0.0005)

            thread = threading.Thread(target=send)
            thread.start()
            first = chance.randrange(1, len(expected) + 1)
            found = reader.replies(pair[0], first, 5)
            found += reader.replies(pair[0], len(expected) - first, 5)
            thread.join()
            assert comparable(found) == expected
            assert reader.has_data() is False

    @pytest.mark.parametrize("cut", range(1, 9))
    def test_short_bulk_cut_anywhere(self, twin: Any, pair: Pair, cut: int) -> None:
        stream = b"$3\r\nabc\r\n"
        reader = new_reader(twin)
        pair[1].sendall(stream[:cut])
        assert reader.receive(pair[0], 1)
        pair[1].sendall(stream[cut:])
        assert reader.replies(pair[0], 1, 5) == [b"abc"]
        assert not reader.has_data()

    def test_every_size_of_a_short_bulk(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        for size in [*range(0, 120), 998, 999, 1000, 1001, 4080, 4086, 4087, 4088, 4089, 4090, 9998, 9999, 10_000]:
            data = LARGE_BODY[:size]
            pair[1].sendall(bulk(data))
            assert reader.replies(pair[0], 1, 5) == [data]
            assert not reader.has_data()

    @pytest.mark.parametrize("errors", ["strict", "replace", "surrogateescape"])
    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
    def test_short_bulk_is_decoded(self, twin: Any, pair: Pair, encoding: str, errors: str) -> None:
        for data in (b"text", "é".encode(), b"\xff\xfe"):
            (expected,) = by_hiredis(bulk(data), encoding=encoding, errors=errors)
            for cut in (0, 3):
                reader = new_reader(twin, encoding=encoding, errors=errors)
                if cut:
                    pair[1].sendall(bulk(data)[:cut])
                    reader.receive(pair[0], 1)
                pair[1].sendall(bulk(data)[cut:])
                try:
                    found: Any = reader.replies(pair[0], 1, 5)[0]
                except UnicodeDecodeError as error:
                    found = error
                assert comparable(found) == expected
                pair[1].sendall(b"+OK\r\n")
                assert reader.replies(pair[0], 1, 5) == ["OK"]

    def test_bulks_that_are_not_what_they_say(self, twin: Any, pair: Pair) -> None:
        for stream in (b"$5\r\nabc\r\n:1\r\n", b"$2\r\nab\r\n:7\r\n", b"$03\r\nabc\r\n", b"$-1\r\n"):
            reader, oracle = new_reader(twin), hiredis.Reader(notEnoughData=MORE)
            pair[1].sendall(stream)
            reader.receive(pair[0], 5)
            oracle.feed(stream)
            for _ in range(2):
                found = []
                for each in (reader, oracle):
                    try:
                        found.append(comparable(each.gets()))
                    except hiredis.HiredisError as error:
                        found.append(comparable(error))
                assert found[0] == found[1]

    def test_errors_are_among_them(self, twin: Any, pair: Pair) -> None:
        pair[1].sendall(b"+a\r\n-ERR no\r\n*2\r\n-ERR in\r\n:1\r\n")
        found = new_reader(twin).replies(pair[0], 3, 5)
        assert comparable(found) == by_hiredis(b"+a\r\n-ERR no\r\n*2\r\n-ERR in\r\n:1\r\n")

    @pytest.mark.skipif(PUSH is None, reason="hiredis knows push messages since 3")
    def test_stops_at_a_push_message(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        pair[1].sendall(b"+a\r\n>2\r\n+invalidate\r\n*1\r\n+k\r\n+b\r\n>1\r\n+x\r\n")
        found = reader.replies(pair[0], 3, 5)
        assert [type(reply) for reply in found] == [bytes, PUSH]
        assert reader.replies(pair[0], 1, 5) == [b"b"]
        assert type(reader.replies(pair[0], 1, 5)[0]) is PUSH

    def test_more_than_is_asked_for_stays(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        pair[1].sendall(b"+a\r\n+b\r\n$1\r\nc\r\n")
        assert reader.replies(pair[0], 1, 5) == [b"a"]
        assert reader.has_data()
        assert reader.replies(pair[0], 0, 5) == []
        assert reader.replies(pair[0], 2, 5) == [b"b", b"c"]

    def test_end_of_stream(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        pair[1].sendall(b"+a\r\n$5\r\nab")
        pair[1].close()
        with pytest.raises(ConnectionAbortedError) as caught:
            reader.replies(pair[0], 2, 5)
        assert caught.value.args == ()

    def test_time(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        begun = time.monotonic()
        with pytest.raises(socket.timeout, match="timed out"):
            reader.replies(pair[0], 1, 0.05)
        assert time.monotonic() - begun >= 0.05
        with pytest.raises(BlockingIOError):
            reader.replies(pair[0], 1, 0)
        pair[1].sendall(b"$5\r\nab")
        with pytest.raises(socket.timeout):
            reader.replies(pair[0], 1, 0.01)
        pair[1].sendall(b"cde\r\n")
        assert reader.replies(pair[0], 1, 0) == [b"abcde"]
        threading.Timer(0.02, pair[1].sendall, [b"+OK\r\n"]).start()
        assert reader.replies(pair[0], 1, None) == [b"OK"]
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="Timeout value out of range"):
                reader.replies(pair[0], 1, bad)

    def test_errors_of_the_socket(self, twin: Any) -> None:
        closed = socket.socket()
        closed.close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            new_reader(twin).replies(closed, 1, 5)
        with refusing_server(b"", reset=True) as port, socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                new_reader(twin).replies(sock, 1, 5)

    def test_broken_stream(self, twin: Any, pair: Pair) -> None:
        pair[1].sendall(b"?\r\n")
        with pytest.raises(hiredis.ProtocolError):
            new_reader(twin).replies(pair[0], 1, 5)

    @pytest.mark.parametrize("timeout_s", [None, 5])
    def test_signals(self, twin: Any, pair: Pair, timeout_s: Optional[float]) -> None:
        pair[0].settimeout(timeout_s)
        reader = new_reader(twin)
        with pytest.raises(Raised), alarm(RINGS_S, raise_it):
            reader.replies(pair[0], 1, timeout_s)
        threading.Timer(0.1, pair[1].sendall, [b"+OK\r\n"]).start()
        calls: List[int] = []
        with alarm(0.015, lambda *args: calls.append(1)):
            assert reader.replies(pair[0], 1, timeout_s) == [b"OK"]
        assert calls


def answering(theirs: socket.socket, answer: bytes) -> Tuple[threading.Thread, List[bytes]]:
    """Answer the first bytes that come."""
    seen: List[bytes] = []

    def answer_it() -> None:
        with suppress(OSError):
            seen.append(theirs.recv(100_000))
            theirs.sendall(answer)

    thread = threading.Thread(target=answer_it)
    thread.start()
    return thread, seen


def nothing_sent(theirs: socket.socket) -> bool:
    theirs.setblocking(False)
    try:
        return theirs.recv(1) == b""
    except BlockingIOError:
        return True


class TestSendCommand:
    @pytest.mark.parametrize("timeout_s", [None, 5])
    @pytest.mark.parametrize("size", [0, CUTOFF_BYTES, CUTOFF_BYTES + 1, 3_000_000])
    def test_sizes(self, twin: Any, pair: Pair, size: int, timeout_s: Optional[float]) -> None:
        pair[0].settimeout(timeout_s)
        args, oracle = ("SET", "k", LARGE_BODY[:1] * size), hiredis.Reader()
        received: List[Any] = []

        def receive() -> None:
            while not received:
                oracle.feed(pair[1].recv(100_000))
                command = oracle.gets()
                if command is not False:
                    received.append(command)

        thread = threading.Thread(target=receive)
        thread.start()
        assert twin.send_command(pair[0], args, BOTH, timeout_s) is True
        thread.join()
        assert received == [[b"SET", b"k", args[2]]]

    @pytest.mark.parametrize("args", [(), ("GET", None), ("A B",), (5,), ("GET", "\ud800")], ids=str)
    def test_declines_what_is_not_packed(self, twin: Any, pair: Pair, args: Any) -> None:
        assert twin.send_command(pair[0], args, BOTH, 5) is False
        assert nothing_sent(pair[1])

    @pytest.mark.parametrize(
        "data", [b"x" * 4_000_000, "x" * 4_000_000, ["x" * 1000] * 4000], ids=["bytes", "str", "many"]
    )
    def test_time(self, twin: Any, pair: Pair, data: Any) -> None:
        args = ("SET", *(data if isinstance(data, list) else [data]))
        with pytest.raises(socket.timeout, match="timed out"):
            twin.send_command(pair[0], args, BOTH, 0.01)

    def test_errors(self, twin: Any, pair: Pair) -> None:
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="Timeout value out of range"):
                twin.send_command(pair[0], ("PING",), BOTH, bad)
        pair[1].close()
        with pytest.raises(BrokenPipeError):
            twin.send_command(pair[0], ("PING",), BOTH, 5)
        pair[0].close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            twin.send_command(pair[0], ("PING",), BOTH, 5)


class TestReply:
    def test_one_after_the_other(self, twin: Any, pair: Pair) -> None:
        stream = b"+a\r\n-ERR no\r\n*2\r\n:1\r\n$-1\r\n" + bulk(LARGE_BODY) + b":7\r\n"
        reader, expected = new_reader(twin), by_hiredis(stream)
        thread = threading.Thread(target=pair[1].sendall, args=[stream])
        thread.start()
        assert comparable([reader.reply(pair[0], 5) for _ in expected]) == expected
        thread.join()
        assert not reader.has_data()

    def test_comes_late_and_in_parts(self, twin: Any, pair: Pair) -> None:
        def send() -> None:
            for part in (b"$5", b"\r\nab", b"cde\r", b"\n"):
                time.sleep(0.01)
                pair[1].sendall(part)

        thread = threading.Thread(target=send)
        thread.start()
        assert new_reader(twin).reply(pair[0], None) == b"abcde"
        thread.join()

    def test_time_and_errors(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        with pytest.raises(socket.timeout, match="timed out"):
            reader.reply(pair[0], 0.01)
        with pytest.raises(BlockingIOError):
            reader.reply(pair[0], 0)
        with pytest.raises(ValueError, match="Timeout value out of range"):
            reader.reply(pair[0], -1)
        pair[1].sendall(b"+OK\r\n")
        assert reader.reply(pair[0], 0) == b"OK"
        pair[1].close()
        with pytest.raises(ConnectionAbortedError) as caught:
            reader.reply(pair[0], 5)
        assert caught.value.args == ()

    def test_quiet(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        assert reader.is_quiet(pair[0])
        pair[1].sendall(b"$5\r\nab")
        assert not reader.is_quiet(pair[0])
        assert reader.receive(pair[0], 5)
        assert not reader.is_quiet(pair[0])
        pair[1].sendall(b"cde\r\n")
        assert reader.reply(pair[0], 5) == b"abcde"
        assert reader.is_quiet(pair[0])
        pair[1].close()
        assert not reader.is_quiet(pair[0])
        pair[0].close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            reader.is_quiet(pair[0])


class TestRoom:
    """Replies of bytes that somebody else has received."""

    @pytest.mark.parametrize("encoding", [None, "utf-8"])
    @pytest.mark.parametrize("name", ["small", "large", "large among small", "large in an array", "RESP3"])
    def test_any_cut(self, twin: Any, name: str, encoding: Optional[str]) -> None:
        stream, chance = REPLIES[name], random.Random(name)
        expected = by_hiredis(stream, encoding=encoding, errors="replace")
        for most in (1, 7, 100, 5000, 1 << 20):
            if len(stream) > 50_000 * most:
                continue
            reader = new_reader(twin, encoding=encoding, errors="replace")
            found: List[Any] = []
            at = 0
            while at < len(stream):
                room = reader.room(-1)
                assert len(room) > 0
                size = min(len(room), chance.randrange(1, most + 1), len(stream) - at)
                room[:size] = stream[at : at + size]
                reader.received(size)
                at += size
                reply = reader.gets()
                while reply is not MORE:
                    found.append(reply)
                    reply = reader.gets()
            assert comparable(found) == expected
            assert reader.has_data() is False

    def test_room_without_bytes_changes_nothing(self, twin: Any) -> None:
        reader = new_reader(twin)
        for part in (b"$5\r\nab", b"cde\r\n"):
            for _ in range(20):
                room = reader.room()
            room[: len(part)] = part
            reader.received(len(part))
        assert reader.gets() == b"abcde"
        reader.received(0)
        assert reader.gets() is MORE

    def test_more_than_there_is_room_for(self, twin: Any) -> None:
        reader = new_reader(twin)
        for size in (len(reader.room()) + 1, -1):
            with pytest.raises(ValueError, match=r"bytes are not what room\(\) has"):
                reader.received(size)
        assert reader.has_data() is False


class TestSendSome:
    @pytest.fixture(autouse=True)
    def non_blocking(self, pair: Pair) -> None:
        pair[0].setblocking(False)

    def test_what_goes_out_goes_out(self, twin: Any, pair: Pair) -> None:
        assert twin.send_some(pair[0], b"PING\r\n") == 6
        assert pair[1].recv(100) == b"PING\r\n"

    def test_it_never_waits(self, twin: Any, pair: Pair) -> None:
        data = bytes(8_000_000)
        sent = twin.send_some(pair[0], data)
        assert 0 < sent < len(data)
        assert twin.send_some(pair[0], data) < len(data)
        assert twin.send_some(pair[0], data) == 0

    def test_what_is_broken_sends_nothing(self, twin: Any, pair: Pair) -> None:
        pair[1].close()
        assert twin.send_some(pair[0], b"PING\r\n") == 0
        pair[0].close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            twin.send_some(pair[0], b"PING\r\n")

    def test_only_bytes(self, twin: Any, pair: Pair) -> None:
        with pytest.raises(TypeError):
            twin.send_some(pair[0], None)


class TestAsk:
    @pytest.mark.parametrize(
        "answer",
        [b"+OK\r\n", b":5\r\n", b"$-1\r\n", b"$3\r\nabc\r\n", b"*2\r\n:1\r\n-ERR x\r\n", b"-ERR no\r\n", b"*0\r\n"],
    )
    @pytest.mark.parametrize("timeout_s", [None, 5])
    def test_reply(self, twin: Any, pair: Pair, answer: bytes, timeout_s: Optional[float]) -> None:
        pair[0].settimeout(timeout_s)
        reader = new_reader(twin)
        for _ in range(2):
            thread, seen = answering(pair[1], answer)
            reply = reader.ask(pair[0], ("GET", "k", 1, 1.5), BOTH)
            thread.join()
            assert comparable([reply]) == by_hiredis(answer)
            assert b"".join(seen) == b"*4\r\n$3\r\nGET\r\n$1\r\nk\r\n$1\r\n1\r\n$3\r\n1.5\r\n"
            assert reader.was_sent is True

    @pytest.mark.parametrize("size", [0, 10, CUTOFF_BYTES, CUTOFF_BYTES + 1, 70_000, 3_000_000])
    def test_sizes(self, twin: Any, pair: Pair, size: int) -> None:
        data, oracle = bytes(size), hiredis.Reader()

        def echo() -> None:
            while True:
                oracle.feed(pair[1].recv(100_000))
                command = oracle.gets()
                if command is not False:
                    pair[1].sendall(bulk(command[1]))
                    return

        thread = threading.Thread(target=echo)
        thread.start()
        assert new_reader(twin).ask(pair[0], ("ECHO", data), BOTH) == data
        thread.join()

    @pytest.mark.parametrize(
        "args", [(), ("GET", None), ("GET", True), ("A B",), (5,), ("GET", "\ud800"), [["x"]]], ids=str
    )
    def test_declines_what_is_not_packed(self, twin: Any, pair: Pair, args: Any) -> None:
        reader = new_reader(twin)
        assert reader.ask(pair[0], args, BOTH) is NotImplemented
        assert reader.was_sent is False
        thread, _ = answering(pair[1], b"+OK\r\n")
        assert reader.ask(pair[0], ("PING",), BOTH) == b"OK"
        thread.join()
        assert reader.ask(pair[0], args, BOTH) is NotImplemented
        assert reader.was_sent is False
        assert nothing_sent(pair[1])

    def test_declines_where_something_waits(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        pair[1].sendall(b"+late\r\n+later\r\n")
        assert reader.ask(pair[0], ("PING",), BOTH) is NotImplemented
        assert reader.replies(pair[0], 1, 5) == [b"late"]
        assert reader.ask(pair[0], ("PING",), BOTH) is NotImplemented  # read, and not taken
        assert reader.replies(pair[0], 1, 5) == [b"later"]
        for start in (b"$5\r\nab", b"$70000\r\nab", b"*2\r\n:1\r\n"):
            other = new_reader(twin)
            pair[1].sendall(start)
            assert other.receive(pair[0], 5)
            assert other.gets() is MORE
            assert other.ask(pair[0], ("PING",), BOTH) is NotImplemented
        assert nothing_sent(pair[1])

    def test_declines_where_the_peer_has_closed(self, twin: Any, pair: Pair) -> None:
        pair[1].close()
        reader = new_reader(twin)
        assert reader.ask(pair[0], ("PING",), BOTH) is NotImplemented
        assert reader.was_sent is False

    def test_declines_while_another_thread_reads(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        thread = threading.Thread(target=reader.replies, args=(pair[0], 1, 5))
        thread.start()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                reader.replies(pair[0], 0, 5)
            except RuntimeError:
                break
        assert reader.ask(pair[0], ("PING",), BOTH) is NotImplemented
        assert nothing_sent(pair[1])
        pair[1].setblocking(True)
        pair[1].sendall(b"+OK\r\n")
        thread.join()

    def test_declines_while_another_thread_asks(self, twin: Any, pair: Pair) -> None:
        """Also while it is still sending, when no reply is awaited yet."""
        reader = new_reader(twin)
        failed: List[BaseException] = []

        def ask() -> None:
            try:
                reader.ask(pair[0], ("SET", "k", bytes(8_000_000)), BOTH)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert python.wait_readable(pair[1], 5)
        assert reader.ask(pair[0], ("PING",), BOTH) is NotImplemented
        pair[1].close()
        thread.join()
        assert isinstance(failed[0], OSError)

    def test_end_of_stream(self, twin: Any, pair: Pair) -> None:
        for start in (b"", b"$5\r\nab", b"$70000\r\nab", b"*2\r\n:1\r\n"):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                reader = new_reader(twin)
                thread, _ = answering(theirs, start)
                threading.Thread(target=lambda thread=thread, end=theirs: (thread.join(), end.close())).start()
                with pytest.raises(ConnectionAbortedError) as caught:
                    reader.ask(ours, ("PING",), BOTH)
                assert caught.value.args == ()
                assert reader.was_sent is True

    def test_time(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        pair[0].settimeout(0.05)
        begun = time.monotonic()
        with pytest.raises(socket.timeout, match="timed out"):
            reader.ask(pair[0], ("PING",), BOTH)
        assert time.monotonic() - begun >= 0.05
        assert reader.was_sent is True
        with pytest.raises(socket.timeout):
            reader.ask(pair[0], ("SET", "k", bytes(8_000_000)), BOTH)
        assert reader.was_sent is False

    def test_no_time_at_all(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        pair[0].settimeout(0)
        with pytest.raises(BlockingIOError):
            reader.ask(pair[0], ("PING",), BOTH)
        assert reader.was_sent is True

    def test_errors_of_the_socket(self, twin: Any) -> None:
        closed = socket.socket()
        closed.close()
        reader = new_reader(twin)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            reader.ask(closed, ("PING",), BOTH)
        assert reader.was_sent is False

    @pytest.mark.parametrize("timeout_s", [None, 5])
    @pytest.mark.parametrize("size", [1, 8_000_000])
    def test_signals(self, twin: Any, pair: Pair, timeout_s: Optional[float], size: int) -> None:
        pair[0].settimeout(timeout_s)
        reader = new_reader(twin)
        with pytest.raises(Raised), alarm(RINGS_S, raise_it):
            reader.ask(pair[0], ("SET", "k", bytes(size)), BOTH)
        assert reader.was_sent is (size == 1)

    def test_handler_returns(self, twin: Any, pair: Pair) -> None:
        threading.Timer(0.1, pair[1].sendall, [b"+OK\r\n"]).start()
        calls: List[int] = []
        with alarm(0.015, lambda *args: calls.append(1)):
            assert new_reader(twin).ask(pair[0], ("PING",), BOTH) == b"OK"
        assert calls

    def test_goes_on_after_declining(self, twin: Any, pair: Pair) -> None:
        """Every outcome leaves a reader that takes the next call."""
        reader = new_reader(twin)
        for args in ((), ("GET", None)):
            reader.ask(pair[0], args, BOTH)
        pair[0].settimeout(0.01)
        with pytest.raises(socket.timeout):
            reader.ask(pair[0], ("PING",), BOTH)
        pair[1].sendall(b"+late\r\n")
        assert reader.ask(pair[0], ("PING",), BOTH) is NotImplemented
        assert reader.replies(pair[0], 1, 5) == [b"late"]

    @pytest.mark.skipif(PUSH is None, reason="hiredis knows push messages since 3")
    def test_push_message_is_returned(self, twin: Any, pair: Pair) -> None:
        reader = new_reader(twin)
        thread, _ = answering(pair[1], b">1\r\n+x\r\n+OK\r\n")
        assert type(reader.ask(pair[0], ("PING",), BOTH)) is PUSH
        assert reader.replies(pair[0], 1, 5) == [b"OK"]
        thread.join()


def hostile(connection_class: Any, answer: bytes, reset: bool, call: Callable[[Any], Any]) -> Any:
    with refusing_server(answer, reset) as port:
        connection: Any = connection_class(host="127.0.0.1", port=port, socket_timeout=5, **NO_HANDSHAKE)
        connection.connect()
        with connection._sock:  # which redis-py 3.5 does not close after a reset
            try:
                reply = call(connection)
            except Exception as error:
                assert connection._sock is None
                return type(error), str(error).replace(str(port), "PORT")
            connection.disconnect()
            return comparable(reply)


def by_two_calls(connection: Any) -> Any:
    connection.send_command("GET", "k")
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


class TestConnection:
    """``ask`` and ``exchange`` end as sending and reading by themselves do."""

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"$5\r\nab",
            b"$70000\r\nhalf",
            b"*3\r\n:1\r\n",
            b"!bogus\r\n",
            b"?\r\n",
            b"-ERR no\r\n",
            b"-LOADING it is\r\n",
            b"-NOAUTH who\r\n",
            b"-READONLY it is\r\n",
            b"-ERR max number of clients reached\r\n",
            b"*2\r\n-LOADING it is\r\n:1\r\n",
            b"*2\r\n:1\r\n-ERR no\r\n",
            b"*0\r\n",
        ],
    )
    @pytest.mark.parametrize("reset", [False, True])
    def test_hostile_server(self, selected: Any, answer: bytes, reset: bool) -> None:
        expected = hostile(Connection, answer, reset, by_two_calls)
        assert hostile(FastConnection, answer, reset, lambda connection: connection.ask(("GET", "k"))) == expected
        calls: Callable[[Any], Any] = lambda connection: connection.exchange([("GET", "k")])[0]  # noqa: E731
        assert hostile(FastConnection, answer, reset, calls) == expected

    @pytest.mark.parametrize("act", ["timeout", "closed", "silent"])
    def test_timeouts_and_closed_sockets(self, selected: Any, act: str) -> None:
        value = b"x" if act == "silent" else b"x" * 20_000_000
        found: Dict[str, Any] = {}
        calls: Dict[str, Tuple[Any, Callable[[Any], Any]]] = {
            "stock": (Connection, lambda it: (it.send_command("SET", "k", value), it.read_response())),
            "ask": (FastConnection, lambda it: it.ask(("SET", "k", value))),
            "exchange": (FastConnection, lambda it: it.exchange([("SET", "k", value)])),
        }
        for name, (connection_class, call) in calls.items():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
                connection = connection_class(host="127.0.0.1", port=port, **GIVES_UP)
                connection.connect()
                if act == "closed":
                    connection._sock.close()
                with pytest.raises((RedisConnectionError, RedisTimeoutError)) as caught:
                    call(connection)
                assert connection._sock is None
                found[name] = caught.type, str(caught.value).replace(str(port), "PORT")
        assert found["ask"] == found["stock"]
        assert found["exchange"] == found["stock"]

    def test_another_thread_has_disconnected(self, selected: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection: Any = FastConnection(port=listener.getsockname()[1], **NO_HANDSHAKE)
            assert connection.ask(("PING",)) is NotImplemented
            assert connection.exchange([("PING",)]) is None
            connection.connect()
            parser = connection._parser
            assert parser.wire is not None
            sock, connection._sock = connection._sock, None  # between two lines of it
            assert connection.ask(("PING",)) is NotImplemented
            connection._sock = sock
            connection.disconnect()
            assert connection.ask(("PING",)) is NotImplemented
            with pytest.raises(RedisConnectionError):
                parser.read_replies(1)

    def test_interrupted(self, selected: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for call in ("ask", "exchange"):
                connection: Any = FastConnection(port=listener.getsockname()[1], socket_timeout=5, **NO_HANDSHAKE)
                connection.connect()
                with pytest.raises(Raised), alarm(RINGS_S, raise_it):
                    connection.ask(("PING",)) if call == "ask" else connection.exchange([("PING",)])
                assert connection._sock is None

    @pytest.mark.parametrize("kwargs", [{"encoding": "latin-1"}, {"command_packer": object()}], ids=str)
    def test_packers_of_other_kinds(self, selected: Any, kwargs: Dict[str, Any]) -> None:
        if "command_packer" in kwargs and not hasattr(Connection(), "_command_packer"):
            pytest.skip("redis-py has packers since 4.5")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection: Any = FastConnection(port=listener.getsockname()[1], **kwargs, **NO_HANDSHAKE)
            connection.connect()
            assert connection._parser.wire is None
            assert connection.ask(("PING",)) is NotImplemented
            assert connection.exchange([("PING",)]) is None
            connection.disconnect()


class TestLeaks:
    """No outcome leaves a block of memory or a descriptor behind."""

    def test_packing(self) -> None:
        large, array = bytes(CUTOFF_BYTES + 1), bytearray(CUTOFF_BYTES + 1)
        good: List[Any] = [
            ("SET", "k", "é" * 4000, large, array, 1, 2**70, 1.5, "é" * 9000),
            ("GET", b"k", memoryview(large)),
        ]
        bad: List[Any] = [[*good, ("SET", None)], [*good, ()], [*good, 5], [("SET", "x" * 3000, "\ud800")]]

        def packs() -> None:
            assert native.pack_commands(good, BOTH) is not None
            for commands in bad:
                assert native.pack_commands(commands, BOTH) is None

        assert growth(packs, 300) <= 0

    @pytest.mark.parametrize("name", ["small", "large", "large in an array", "RESP3", "text"])
    def test_replies(self, name: str, pair: Pair) -> None:
        ours, theirs = pair
        stream, reader = REPLIES[name], new_reader(native)
        count = len(by_hiredis(stream))

        def reads() -> None:
            theirs.sendall(stream)
            assert len(reader.replies(ours, count, 5)) == count

        assert growth(reads, 40) <= 0

    @pytest.mark.parametrize(
        "answer", [b"+OK\r\n", b":50000\r\n", b"$3\r\nabc\r\n", b"-ERR no\r\n", b"*2\r\n:1\r\n$1\r\nx\r\n"]
    )
    def test_answers(self, answer: bytes, pair: Pair) -> None:
        ours, theirs = pair
        reader = new_reader(native)

        def asks() -> None:
            # Asking declines where the answer is there already, so the wait for it ends in time, and it comes then.
            with suppress(socket.timeout):
                reader.ask(ours, ("SET", "k", 1, "é" * 2000), BOTH)
            theirs.recv(10_000)
            theirs.sendall(answer)
            assert reader.ask(ours, ("GET", "k"), BOTH) is NotImplemented
            reader.replies(ours, 1, 5)

        ours.settimeout(0.0001)
        assert growth(asks, 60) <= 0

    def test_errors(self, pair: Pair) -> None:
        ours, theirs = pair
        closed, ended, peer = socket.socket(), *socket.socketpair()
        closed.close()
        large = bytes(CUTOFF_BYTES + 1)

        def fails() -> None:
            reader = new_reader(native)
            for sock in (closed, ended, ours, 5):
                for args in (("GET", "k"), ("SET", "k", large), ("GET", None), 5, ()):
                    with suppress(OSError, AttributeError):
                        reader.ask(sock, args, BOTH)
                for arguments in ((sock, 1, 0), (sock, 1, -1), (sock, 0, 0), (sock, None, 0)):
                    with suppress(OSError, AttributeError, ValueError, TypeError):
                        reader.replies(*arguments)
            with suppress(BlockingIOError):
                while True:
                    theirs.recv(100_000)

        with ended:
            peer.close()
            for sock in (ours, theirs):
                sock.setblocking(False)
            assert growth(fails, 60) <= 0

    def test_connection(self) -> None:
        def answered(answer: bytes) -> None:
            for call in ("ask", "exchange"):
                with refusing_server(answer) as port:
                    connection: Any = FastConnection(host="127.0.0.1", port=port, socket_timeout=5, **NO_HANDSHAKE)
                    connection.connect()
                    with suppress(redis.RedisError):
                        connection.ask(("GET", "k")) if call == "ask" else connection.exchange([("GET", "k")])
                    connection.disconnect()

        before = open_descriptors()
        for answer in (b"+OK\r\n", b"", b"-LOADING\r\n", b"?\r\n", b"$3\r\nab"):
            answered(answer)
        assert open_descriptors() <= before
