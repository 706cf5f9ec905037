"""Bytes go between a connection and its server as redis-py says, natively and in Python, whatever the peer does.

Guaranteed on socket pairs and hostile servers: replies are those of hiredis however they are cut, timeouts and signals
lose nothing, errors close the connection as in redis-py, and no path leaves memory, a descriptor or a buffer behind.
"""

import errno
import gc
import mmap
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import hiredis
import pytest
import redis
from leaks import growth, none_left, open_descriptors
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras import _fastsock as native
from extras import _fastsock_py as python
from extras import fastsock
from extras._redis import DISCONNECTS_WHEN_INTERRUPTED, NOT_ENOUGH_DATA, Connection, HiredisParser, packed_buffers
from extras.bench.server import RedisServer
from extras.connection import FastConnection, FastSSLConnection, FastUnixConnection
from extras.fastsock import CUTOFF_BYTES
from extras.transfer import FastParser

MORE = object()
BUFFER = 4096
LARGE = native.LARGE_BYTES
REDIS_VERSION = tuple(int(part) for part in redis.__version__.split(".")[:2])


@pytest.fixture(params=[native, python], ids=["native", "python"])
def twin(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def selected(twin: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let connections run on the native module, then on its twin."""
    for name in ("Reader", "send_all", "send_command", "wait_readable"):
        monkeypatch.setattr(fastsock, name, getattr(twin, name))
    monkeypatch.setattr(fastsock, "transfers", fastsock._has_plain_calls)
    return twin


def new_reader(twin: Any, buffer_bytes: int = BUFFER, **kwargs: Any) -> Any:
    inner = hiredis.Reader(notEnoughData=MORE, **kwargs)
    return twin.Reader(inner, MORE, buffer_bytes, kwargs.get("encoding"), kwargs.get("errors", "strict"))


def comparable(reply: Any) -> Any:
    """Errors are equal if class and text are."""
    if isinstance(reply, (list, tuple)):
        return [comparable(each) for each in reply]
    return (type(reply), str(reply)) if isinstance(reply, Exception) else (type(reply), reply)


def by_hiredis(stream: bytes, decode: bool = True, **kwargs: Any) -> List[Any]:
    reader = hiredis.Reader(notEnoughData=MORE, **kwargs)
    reader.feed(stream)
    return all_of(reader, decode)


def all_of(reader: Any, decode: bool = True) -> List[Any]:
    found: List[Any] = []
    while True:
        try:
            reply = reader.gets() if decode else reader.gets(False)
        except UnicodeDecodeError as error:
            reply = error
        if reply is MORE:
            return found
        found.append(comparable(reply))


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def received(
    twin: Any, parts: List[bytes], buffer_bytes: int = BUFFER, decode: bool = True, **kwargs: Any
) -> List[Any]:
    """Receive each part by itself, and return all replies."""
    reader, found = new_reader(twin, buffer_bytes, **kwargs), []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        for part in parts:
            rest = memoryview(part)
            while rest:
                with suppress(BlockingIOError):
                    rest = rest[theirs.send(rest) :]
                while twin.wait_readable(ours, 0):
                    assert reader.receive(ours, 1) is True
                    found += all_of(reader, decode)
        theirs.close()
        assert reader.receive(ours, 1) is False
    assert reader.has_data() is False
    return found


LARGE_BODY = random.Random(1).getrandbits(8 * (LARGE + 1000)).to_bytes(LARGE + 1000, "big")
TEXT_BODY = ("aé\r\n$5\r\n" * LARGE)[: LARGE + 999].encode()
REPLIES: Dict[str, bytes] = {
    "small": b"+OK\r\n:5\r\n$3\r\nabc\r\n$-1\r\n$0\r\n\r\n*2\r\n:1\r\n$1\r\nx\r\n*0\r\n*-1\r\n-ERR no\r\n",
    "large": bulk(LARGE_BODY),
    "large among small": b"+a\r\n" + bulk(LARGE_BODY) + b"+b\r\n" + bulk(LARGE_BODY) * 2 + b"$1\r\nc\r\n",
    "large in an array": b"*2\r\n" + bulk(LARGE_BODY) + b":1\r\n" + bulk(LARGE_BODY) + b":2\r\n",
    "text": bulk(TEXT_BODY) + b"$2\r\n\xc3\xa9\r\n",
    "RESP3": b"_\r\n#t\r\n#f\r\n,1.5\r\n%1\r\n+k\r\n:1\r\n~1\r\n:1\r\n=6\r\ntxt:ab\r\n" + bulk(LARGE_BODY) + b"#f\r\n",
    "nested deeply": b"*1\r\n" * 100 + bulk(LARGE_BODY) + bulk(LARGE_BODY),
    "push": b">2\r\n+invalidate\r\n*1\r\n+k\r\n" + bulk(LARGE_BODY) + b">2\r\n+invalidate\r\n_\r\n+x\r\n",
}


NO_HANDSHAKE: Dict[str, Any] = {}
if REDIS_VERSION >= (4, 0):
    NO_HANDSHAKE["redis_connect_func"] = lambda connection: connection._parser.on_connect(connection)
GIVES_UP: Dict[str, Any] = {"socket_timeout": 0.1, "socket_connect_timeout": 10, **NO_HANDSHAKE}


def taken(client: Any) -> Any:
    """Take a connection from the client's pool."""
    pool = client.connection_pool
    return pool.get_connection() if REDIS_VERSION >= (5, 3) else pool.get_connection("_")


class TestReader:
    """Replies are what hiredis makes of the same bytes."""

    @pytest.mark.parametrize("name", REPLIES)
    @pytest.mark.parametrize("buffer_bytes", [1000, BUFFER, 65536, 200_000])
    def test_any_cut(self, twin: Any, name: str, buffer_bytes: int) -> None:
        stream, chance = REPLIES[name], random.Random(name)
        expected = by_hiredis(stream)
        assert expected
        for _ in range(3):
            cuts = sorted({0, len(stream), *(chance.randrange(len(stream)) for _ in range(4)), chance.randrange(12)})
            parts = [stream[start:end] for start, end in zip(cuts, cuts[1:])]
            assert received(twin, parts, buffer_bytes) == expected

    def test_one_byte_at_a_time(self, twin: Any) -> None:
        stream = REPLIES["small"] + b"$70000\r\n"
        assert received_until(twin, [stream[at : at + 1] for at in range(len(stream))]) == by_hiredis(stream)

    @pytest.mark.parametrize("cut", range(1, 14))
    def test_cut_in_header_or_after_it(self, twin: Any, cut: int) -> None:
        stream = b"+a\r\n" + bulk(LARGE_BODY) + b"+b\r\n"
        for at in (cut, len(stream) - cut):
            assert received(twin, [stream[:at], stream[at:]]) == by_hiredis(stream)

    def test_every_size_around_the_limits(self, twin: Any) -> None:
        header = len(b"$65536\r\n")
        sizes = {limit + add for limit in (BUFFER, LARGE, LARGE + BUFFER) for add in (-2, -1, 0, 1, 2)}
        sizes |= {BUFFER - header - add for add in (-1, 0, 1, 2, 3)} | {
            LARGE + BUFFER - header + add for add in range(-3, 2)
        }
        for size in sorted(sizes):
            stream = bulk(LARGE_BODY[:size]) + b":7\r\n"
            assert received(twin, [stream]) == by_hiredis(stream)

    @pytest.mark.parametrize("decode", [True, False])
    @pytest.mark.parametrize("errors", ["strict", "replace", "surrogateescape", "ignore"])
    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
    def test_decoding(self, twin: Any, encoding: str, errors: str, decode: bool) -> None:
        stream = REPLIES["text"] + bulk(LARGE_BODY) + b"$1\r\nz\r\n"
        expected = by_hiredis(stream, decode, encoding=encoding, errors=errors)
        assert len(expected) == 4
        assert received(twin, [stream], decode=decode, encoding=encoding, errors=errors) == expected

    @pytest.mark.parametrize(
        "header",
        [
            b"$999999999999999999999\r\n",
            b"$536870913\r\n",
            b"$18446744073709551615\r\n",
            b"$-2\r\n",
            b"$+70000\r\n",
            b"$070000\r\n",
            b"$7e4\r\n",
            b"$70000\rx",
            b"$70000",
            b"$\r\n",
        ],
    )
    def test_odd_headers_are_left_to_hiredis(self, twin: Any, header: bytes) -> None:
        expected = outcome(header)
        reader = new_reader(twin)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(header)
            assert reader.receive(ours, 1)
            try:
                found: Any = reader.gets()
            except hiredis.HiredisError as error:
                found = (type(error), str(error))
        assert found == expected

    def test_huge_length_costs_nothing_until_it_comes(
        self, twin: Any, pair: Tuple[socket.socket, socket.socket]
    ) -> None:
        if twin is python:
            pytest.skip("the twin clears its memory")
        reader = new_reader(twin)
        pair[1].sendall(b"$%d\r\nabc" % native.BULK_MAX_BYTES)
        before = resident_bytes()
        assert reader.receive(pair[0], 1)
        assert reader.gets() is MORE
        assert reader.has_data()
        assert resident_bytes() - before < 16 * 1024 * 1024

    def test_timeout_loses_nothing(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        reader, stream = new_reader(twin), bulk(LARGE_BODY) + b":1\r\n"
        for start in range(0, len(stream), 9000):
            theirs.sendall(stream[start : start + 9000])
            while twin.wait_readable(ours, 0):
                reader.receive(ours, 1)
            if start + 9000 < len(stream):
                assert reader.gets() is MORE
                with pytest.raises(socket.timeout):
                    reader.receive(ours, 0.001)
                with pytest.raises(BlockingIOError):
                    reader.receive(ours, 0)
        assert all_of(reader) == by_hiredis(stream)

    def test_time_is_kept(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        begun = time.monotonic()
        with pytest.raises(socket.timeout, match="timed out"):
            new_reader(twin).receive(pair[0], 0.05)
        assert 0.05 <= time.monotonic() - begun < 4
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="Timeout value out of range"):
                new_reader(twin).receive(pair[0], bad)

    def test_reset_and_closed(self, twin: Any) -> None:
        with refusing_server(b"$70000\r\nabc", reset=True) as port, socket.create_connection(
            ("127.0.0.1", port)
        ) as sock:
            sock.sendall(b"x")
            reader = new_reader(twin)
            with pytest.raises(ConnectionResetError) as caught:
                list(iter(lambda: reader.receive(sock, 5), False))
            assert caught.value.args == (errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        for call in (
            reader.receive,
            lambda sock, timeout_s: twin.send_all(sock, [b"x"], timeout_s),
            twin.wait_readable,
        ):
            for timeout_s in (None, 0, 5):
                with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as failed:
                    call(sock, timeout_s)
                assert failed.value.errno == errno.EBADF

    def test_two_at_once_are_refused(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        reader = new_reader(twin)
        found: List[Any] = []

        def receive() -> None:
            try:
                found.append(reader.receive(pair[0], 30))
            except RuntimeError as error:
                found.append(str(error))

        both = [threading.Thread(target=receive) for _ in range(2)]
        for thread in both:
            thread.start()
        deadline = time.monotonic() + 30
        while not found and time.monotonic() < deadline:
            time.sleep(0.001)
        assert "being read already" in found[0]
        pair[1].sendall(b"+OK\r\n")
        for thread in both:
            thread.join()
        assert len(found) == 2
        assert reader.gets() in (b"OK", "OK")

    def test_nothing_else_is_received_while_it_asks(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        """Neither before the command is sent: two that wait for bytes would write to one place in memory."""
        reader, refused = new_reader(twin), 0
        ours, theirs = pair

        class Asked:
            """A socket that another call is made on wherever this one may be interrupted."""

            def meanwhile(self) -> None:
                nonlocal refused
                refused += 1
                was_sent = reader.was_sent
                assert not reader.is_quiet(ours)
                for call in (reader.receive, reader.reply, lambda sock, timeout_s: reader.replies(sock, 1, timeout_s)):
                    with pytest.raises(RuntimeError, match="being read already"):
                        call(ours, 0)
                assert reader.ask(ours, ("GET", "k"), frozenset()) is NotImplemented
                assert reader.was_sent is was_sent

            def fileno(self) -> int:
                self.meanwhile()
                return ours.fileno()

            def gettimeout(self) -> float:
                self.meanwhile()
                theirs.sendall(b"+OK\r\n")
                return 5

            def __getattr__(self, name: str) -> Any:
                return getattr(ours, name)

        assert reader.ask(Asked(), ("PING",), frozenset()) in (b"OK", "OK")
        assert theirs.recv(100) == b"*1\r\n$4\r\nPING\r\n"
        assert reader.was_sent
        assert refused > 3

    def test_other_threads_run_meanwhile(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        threading.Timer(0.05, pair[1].sendall, [b"+OK\r\n"]).start()
        assert new_reader(twin).receive(pair[0], None)

    def test_number_of_a_closed_socket_is_not_used_again(self, twin: Any) -> None:
        """Another thread closes the socket, and the next connection gets its number: not a byte of that is taken."""

        def read(sock: socket.socket) -> None:
            with suppress(OSError):
                reader.receive(sock, 5)

        for _ in range(40):
            reader = new_reader(twin)
            ours, theirs = socket.socketpair()
            thread = threading.Thread(target=read, args=(ours,))
            thread.start()
            number = ours.fileno()
            ours.shutdown(socket.SHUT_RDWR)
            ours.close()
            other, peer = socket.socketpair()
            with other, peer, theirs:
                assert number in (other.fileno(), peer.fileno())
                for end in (other, peer):
                    end.sendall(b"+x\r\n")
                thread.join()
                assert twin.wait_readable(other, 0)
                assert twin.wait_readable(peer, 0)
            assert reader.has_data() is False

    def test_wait_readable(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        assert twin.wait_readable(ours, 0) is None
        begun = time.monotonic()
        assert twin.wait_readable(ours, 0.02) is None
        assert time.monotonic() - begun >= 0.02
        theirs.sendall(b"x")
        assert twin.wait_readable(ours, None) is True
        assert ours.recv(10) == b"x"
        theirs.close()
        assert twin.wait_readable(ours, 1) is False


def received_until(twin: Any, parts: List[bytes]) -> List[Any]:
    reader, found = new_reader(twin), []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for part in parts:
            theirs.sendall(part)
            assert reader.receive(ours, 1)
            found += all_of(reader)
    return found


def outcome(stream: bytes) -> Any:
    reader = hiredis.Reader(notEnoughData=MORE)
    reader.feed(stream)
    try:
        return reader.gets()
    except hiredis.HiredisError as error:
        return (type(error), str(error))


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def refusing_server(answer: bytes, reset: bool = False) -> Iterator[int]:
    """A server that gives each connection one answer, then closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(1)
                        client.sendall(answer)
                        if reset:
                            time.sleep(0.02)  # what was sent would be discarded with the connection
                            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


RINGS_S = 0.15
"""After this long a call waits that is to be interrupted, on a busy machine, too."""


@contextmanager
def alarm(after_s: float, handler: Callable[..., Any]) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, after_s, after_s)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Raised(BaseException):
    pass


def raise_it(*args: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)  # on a busy machine the next one would come while the test ends
    raise Raised


def interrupt(*args: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise KeyboardInterrupt


class TestSignals:
    """A handler runs while a call blocks; what it raises ends the call, and otherwise the time goes on."""

    @pytest.mark.parametrize("timeout_s", [None, 5])
    def test_handler_raises(
        self, twin: Any, pair: Tuple[socket.socket, socket.socket], timeout_s: Optional[float]
    ) -> None:
        ours, theirs = pair
        reader = new_reader(twin)
        theirs.sendall(b"$70000\r\n")
        reader.receive(ours, 1)
        calls: List[Callable[[], Any]] = [
            lambda: reader.receive(ours, timeout_s),
            lambda: twin.wait_readable(ours, timeout_s),
            lambda: twin.send_all(ours, [b"x" * 4_000_000], timeout_s),
        ]
        for call in calls:
            with pytest.raises(Raised), alarm(RINGS_S, raise_it):
                call()
        theirs.sendall(b"y" * 70_000 + b"\r\n")
        while reader.gets() is MORE and twin.wait_readable(ours, 0):
            reader.receive(ours, 1)

    def test_handler_of_a_signal_that_another_thread_got(
        self, twin: Any, pair: Tuple[socket.socket, socket.socket]
    ) -> None:
        """The system gives a signal to any thread; that does not wake up the one that waits and runs the handlers."""
        ours, _ = pair
        before = signal.signal(signal.SIGUSR1, raise_it)
        try:

            def get_it() -> None:
                time.sleep(0.05)
                signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

            thread = threading.Thread(target=get_it)

            def wait() -> None:
                thread.start()
                new_reader(twin).receive(ours, 20)

            begun = time.monotonic()
            with pytest.raises(Raised):
                wait()
            assert time.monotonic() - begun < 10
            thread.join()
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_handler_returns(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        ours.settimeout(0.1)
        calls: List[int] = []
        full = b"x" * 4_000_000
        for timeout_s in (0.1, None):
            begun = time.monotonic()
            if timeout_s is None:
                threading.Timer(0.1, theirs.sendall, [b"+OK\r\n"]).start()
            with alarm(0.015, lambda *args: calls.append(1)):
                if timeout_s:
                    with pytest.raises(socket.timeout):
                        new_reader(twin).receive(ours, timeout_s)
                else:
                    assert new_reader(twin).receive(ours, timeout_s)
            assert 0.09 <= time.monotonic() - begun < 4
            assert calls
            calls.clear()
        with alarm(0.015, lambda *args: calls.append(1)), pytest.raises(socket.timeout):
            twin.send_all(ours, [full], 0.1)
        assert calls

    @pytest.mark.parametrize("blocked", ["read", "write"])
    def test_connection_is_closed(self, selected: Any, blocked: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection: Any = FastConnection(port=listener.getsockname()[1], socket_timeout=5, **NO_HANDSHAKE)
            connection.connect()
            command = connection.pack_command("SET", "k", b"x" * 20_000_000)
            calls = {
                "read": connection.read_response,
                "write": lambda: connection.send_packed_command(command),
            }
            with pytest.raises(Raised), alarm(RINGS_S, raise_it):
                calls[blocked]()
            assert connection._sock is None


class TestSend:
    """Pieces arrive in order, whole, and are the caller's again after every outcome."""

    @pytest.mark.parametrize("timeout_s", [None, 5])
    @pytest.mark.parametrize("count", [1, 2, 8, 9, 1023, 1024, 1025, 3000])
    def test_arrives(self, twin: Any, pair: Tuple[socket.socket, socket.socket], count: int, timeout_s: Any) -> None:
        ours, theirs = pair
        ours.settimeout(timeout_s)
        chance = random.Random(count)
        kinds: List[Callable[[bytes], Any]] = [bytes, bytearray, memoryview]
        pieces = [kinds[at % 3](LARGE_BODY[: chance.choice([0, 1, 700])]) for at in range(count)]
        pieces[0] = LARGE_BODY * 5
        expected = b"".join(bytes(piece) for piece in pieces)
        found = bytearray()

        def drain() -> None:
            while len(found) < len(expected):
                found.extend(theirs.recv(50_000))

        thread = threading.Thread(target=drain)
        thread.start()
        twin.send_all(ours, pieces, timeout_s)
        thread.join()
        assert found == expected

    @pytest.mark.parametrize("room", [None, 4096, 70_000])
    @pytest.mark.parametrize("distance", [-1, 0, 1, 17, 31, 32])
    def test_large_one_behind_a_small_one(self, twin: Any, distance: int, room: Optional[int]) -> None:
        """However far a target of a copy that begins with a page is from the source: some distances are treated."""
        memory = mmap.mmap(-1, 400_000)
        memory[:] = (LARGE_BODY * 10)[:400_000]
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, socket.create_connection(listener.getsockname()) as ours, listener.accept()[0] as theirs:
            if room is not None:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
            with memory, memoryview(memory) as view, view[48:350_000] as large:
                pieces = [b"h" * (48 + distance), large, b"\r\n"]
                expected = b"".join(bytes(piece) for piece in pieces)
                found = bytearray()

                def drain() -> None:
                    while len(found) < len(expected):
                        found.extend(theirs.recv(50_000))

                thread = threading.Thread(target=drain)
                thread.start()
                twin.send_all(ours, pieces, 5)
                thread.join()
                assert found == expected

    def test_nothing_to_send(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        for pieces in ([], [b""], [b"", b""]):
            twin.send_all(pair[0], pieces, 1)
        assert twin.wait_readable(pair[1], 0) is None

    def test_slow_server(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        ours = pair[0]
        ours.settimeout(0.1)
        begun = time.monotonic()
        with pytest.raises(socket.timeout, match="timed out"):
            twin.send_all(ours, [b"a", b"x" * 4_000_000], 0.1)
        assert 0.1 <= time.monotonic() - begun < 4
        ours.settimeout(0)
        with pytest.raises(BlockingIOError):
            twin.send_all(ours, [b"x" * 4_000_000], 0)

    def test_buffers_are_given_back(self, twin: Any, pair: Tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        ours.settimeout(0.01)
        closed = socket.socket()
        closed.close()
        data, array = bytes(bytearray(4_000_000)), bytearray(4_000_000)
        pieces = [data, array] * 10
        references = sys.getrefcount(data), sys.getrefcount(array), sys.getrefcount(pieces)
        for sock, given in ((ours, pieces), (closed, pieces), (ours, [*pieces, "text"]), (ours, [*pieces, None])):
            with pytest.raises((OSError, TypeError)):
                twin.send_all(sock, given, 0.01)
        with pytest.raises(Raised), alarm(RINGS_S, raise_it):
            twin.send_all(ours, pieces, 5)
        theirs.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            twin.send_all(ours, pieces, 1)
        del given
        gc.collect()
        assert (sys.getrefcount(data), sys.getrefcount(array), sys.getrefcount(pieces)) == references
        array.append(1)  # BufferError while somebody holds it


class Text(str):
    pass


class Number(int):
    pass


ARGUMENTS: List[Any] = [
    "",
    "é",
    b"",
    b"\r\n$1",
    0,
    -1,
    2**70,
    1.5,
    1e300,
    float("inf"),
    True,
    None,
    Text("t"),
    Number(3),
    "\ud800",
    [1],
    "x" * CUTOFF_BYTES,
    "x" * (CUTOFF_BYTES + 1),
    "é" * CUTOFF_BYTES,
    b"x" * (CUTOFF_BYTES + 1),
    "\ud800" * (CUTOFF_BYTES + 1),
    bytearray(b"ba"),
    bytearray(CUTOFF_BYTES + 1),
    memoryview(b"mv"),
    memoryview(bytes(CUTOFF_BYTES + 1)),
]


def packed(pack: Callable[..., Any], *args: Any) -> Any:
    try:
        return b"".join(pack(*args))
    except (redis.DataError, UnicodeError, TypeError, AttributeError, IndexError) as error:
        return (type(error), str(error))


class TestPacking:
    """Commands are the bytes, and refusals the errors, of redis-py's own packer."""

    @pytest.mark.parametrize("kwargs", [{}, {"encoding": "latin-1"}, {"encoding_errors": "replace"}], ids=str)
    def test_is_that_of_redis_py(self, kwargs: Dict[str, Any]) -> None:
        ours: Any = FastConnection(**kwargs)
        stock: Any = Connection(**kwargs)
        for argument in ARGUMENTS:
            for args in (("SET", "k", argument), (b"SET", argument, b"x" * 7000, 1), ("GET", argument, b"s", 1.5)):
                assert packed(ours.pack_command, *args) == packed(stock.pack_command, *args)
        for name in ("CONFIG GET", " ", "", "GÉT", b"CONFIG GET", b"A\tB", "A\tB", 5, None, b"x" * 7000, "x" * 7000):
            assert packed(ours.pack_command, name, "v") == packed(stock.pack_command, name, "v")
            assert packed(ours.pack_command, name) == packed(stock.pack_command, name)
        commands: List[Any] = [("SET", "k", b"x" * size) for size in (1, 5999, 6000, 6001, 20_000, 3)] * 5
        assert b"".join(ours.pack_commands(commands)) == b"".join(stock.pack_commands(commands))

    def test_large_arguments_are_not_copied(self) -> None:
        data = b"x" * 100_000
        classes: List[Tuple[Any, Dict[str, Any]]] = [(FastConnection, {}), (FastUnixConnection, {"path": "/nowhere"})]
        for connection_class, kwargs in classes:
            connection = connection_class(**kwargs)
            assert any(piece is data for piece in connection.pack_command("SET", "k", data))
            assert any(piece is data for piece in connection.pack_commands([("SET", "k", data)]))

    def test_strided_memory_is_left_to_redis_py(self) -> None:
        for view in (memoryview(bytes(20_000))[::2], memoryview(bytes(20_000)).cast("i")):
            for module in (native, python):
                assert module.pack_commands([("SET", "k", view)], frozenset({memoryview})) is None

    def test_packer_of_the_user(self) -> None:
        if not hasattr(Connection(), "_command_packer"):
            pytest.skip("since redis-py 4.5")

        class Packer:
            def pack(self, *args: Any) -> List[bytes]:
                return [b"mine"]

        assert FastConnection(command_packer=Packer()).pack_command("GET", "k") == [b"mine"]


@contextmanager
def connected(server: RedisServer, connection_class: Any = FastConnection, **kwargs: Any) -> Iterator[Any]:
    place: Dict[str, Any] = (
        {"path": server.unix_path} if connection_class is FastUnixConnection else {"port": server.port}
    )
    pool: Any = redis.ConnectionPool(connection_class=connection_class, **place, **kwargs)
    try:
        yield redis.Redis(connection_pool=pool)
    finally:
        pool.disconnect()


PROTOCOLS = [2, 3] if REDIS_VERSION >= (5, 0) else [2]


def new_client_kwargs(protocol: int) -> Dict[str, Any]:
    return {"protocol": protocol} if REDIS_VERSION >= (5, 0) else {}


def server_name(client: Any) -> str:
    """Valkey tells its own name."""
    connection = taken(client)
    name = connection.handshake_metadata.get(b"server", b"redis").decode()
    client.connection_pool.release(connection)
    return str(name)


class TestConnection:
    """redis-py's promises hold on a real server and on hostile ones."""

    @pytest.mark.parametrize("connection_class", [FastConnection, FastUnixConnection])
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("decode", [False, True])
    def test_commands(
        self, selected: Any, raw: "redis.Redis", server: RedisServer, connection_class: Any, protocol: int, decode: bool
    ) -> None:
        kwargs = new_client_kwargs(protocol)
        if protocol == 3 and connection_class is FastUnixConnection and REDIS_VERSION[0] == 7:
            pytest.skip("redis-py 7 refuses its own Unix connections there, which have no host")
        with connected(server, connection_class, decode_responses=decode, **kwargs) as client:
            connection = taken(client)
            assert type(connection._parser) is FastParser
            assert connection._parser._fast is not None
            client.connection_pool.release(connection)
            for size in (0, 1, 5_999, 6_001, 65_535, 65_536, 65_537, 300_000):
                text = "é" * (size // 2)
                assert client.set("k", text)
                assert client.get("k") == (text if decode else text.encode())
                assert client.eval("return {redis.call('get', KEYS[1]), 1}", 1, "k")[1] == 1
            with client.pipeline() as pipeline:
                assert pipeline.set("a", "x" * 100_000).get("a").incr("n").execute()[2] == 1
            assert client.hset("h", "f", 1.5) == 1
            assert client.hgetall("h") == ({"f": "1.5"} if decode else {b"f": b"1.5"})
            with pytest.raises(redis.ResponseError, match="not an integer"):
                client.incr("k")
            with client.pipeline() as pipeline:
                pipeline.watch("a")
                raw.set("a", 2)
                pipeline.multi()
                pipeline.get("a")
                with pytest.raises(redis.WatchError):
                    pipeline.execute()

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_pubsub(self, selected: Any, raw: "redis.Redis", server: RedisServer, protocol: int) -> None:
        with connected(server, socket_timeout=5, **new_client_kwargs(protocol)) as client, client.pubsub() as pubsub:
            pubsub.subscribe("channel")
            assert pubsub.get_message(timeout=1)["type"] == "subscribe"
            begun = time.monotonic()
            assert pubsub.get_message(timeout=0.05) is None
            assert 0.04 < time.monotonic() - begun < 4
            assert pubsub.get_message() is None
            for size in (3, 100_000):
                raw.publish("channel", b"x" * size)
                assert pubsub.get_message(timeout=1)["data"] == b"x" * size
            assert pubsub.get_message(timeout=0.01) is None
            assert pubsub.connection._sock.gettimeout() == 5

    def test_monitor(self, selected: Any, raw: "redis.Redis", server: RedisServer) -> None:
        with connected(server) as client, client.monitor() as monitor:
            raw.set("seen", 1)
            assert "SET seen 1" in next(monitor.listen())["command"]

    def test_can_read_leaves_all_there(self, selected: Any, raw: "redis.Redis", server: RedisServer) -> None:
        for size in (5, 100_000):
            connection: Any = FastConnection(port=server.port)
            connection.connect()
            assert connection.can_read() is False
            connection.send_command("ECHO", b"x" * size)
            assert connection.can_read(timeout=5) is True
            assert connection.can_read() is True
            assert connection.read_response() == b"x" * size
            assert connection.can_read() is False
            raw.client_kill_filter(skipme=True)
            with pytest.raises(RedisConnectionError):
                connection.can_read(timeout=5)
            connection.disconnect()

    @pytest.mark.skipif(REDIS_VERSION < (8, 0), reason="since redis-py 8 as here")
    def test_client_side_caching(
        self, selected: Any, raw: "redis.Redis", server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from redis.cache import CacheConfig

        for name, needed in (("MIN_ALLOWED_VERSION", "0.0.0"), ("DEFAULT_SERVER_NAME", server_name(raw))):
            monkeypatch.setattr(f"redis.connection.CacheProxyConnection.{name}", needed)
        with connected(server, protocol=3, cache_config=CacheConfig()) as client:
            for value in (b"1", b"x" * 100_000, b"3"):
                raw.set("k", value)
                end = time.monotonic() + 10
                while client.get("k") != value and time.monotonic() < end:
                    time.sleep(0.001)  # until the server has said that what is cached is no longer so
                assert [client.get("k"), client.get("k")] == [value, value]

    def test_health_check(self, selected: Any, server: RedisServer) -> None:
        with connected(server, health_check_interval=1) as client:
            assert client.ping()
            connection = taken(client)
            connection.next_health_check = 1
            connection.send_command("ECHO", "x")
            assert connection.read_response() == b"x"
            assert connection.next_health_check > 1
            client.connection_pool.release(connection)

    def test_timeout_of_the_moment(self, selected: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection: Any = FastConnection(port=listener.getsockname()[1], socket_timeout=5, **NO_HANDSHAKE)
            connection.connect()
            connection._sock.settimeout(0.05)
            begun = time.monotonic()
            with pytest.raises(RedisTimeoutError, match="Timeout reading from "):
                connection.read_response()
            assert time.monotonic() - begun < 4
            assert connection._sock is None

    @pytest.mark.skipif(REDIS_VERSION < (7, 0), reason="since redis-py 7")
    def test_maintenance_changes_the_timeout_during_a_read(self, selected: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            kwargs = {**NO_HANDSHAKE, "protocol": 3}
            connection: Any = FastConnection(port=listener.getsockname()[1], socket_timeout=5, **kwargs)
            connection.connect()
            connection._parser.maintenance_push_handler_func = lambda notification: (
                connection.update_current_socket_timeout(0.05)
            )
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b">4\r\n+MIGRATING\r\n:1\r\n:10\r\n*0\r\n")
                begun = time.monotonic()
                with pytest.raises(RedisTimeoutError):
                    connection.read_response()
                assert time.monotonic() - begun < 4

    @pytest.mark.parametrize("answer", [b"$70000\r\nhalf", b"*3\r\n:1\r\n", b"", b"$5\r\nab", b"!bogus\r\n", b"?\r\n"])
    @pytest.mark.parametrize("reset", [False, True])
    def test_hostile_server(self, selected: Any, answer: bytes, reset: bool) -> None:
        found = {}
        before = open_descriptors()
        for connection_class in (Connection, FastConnection):
            with refusing_server(answer, reset) as port:
                connection: Any = connection_class(host="127.0.0.1", port=port, socket_timeout=5, **NO_HANDSHAKE)
                connection.connect()
                with connection._sock:  # which redis-py 3.5 does not close after a reset
                    connection.send_command("G")
                    with pytest.raises(redis.RedisError) as caught:
                        connection.read_response()
                    assert connection._sock is None
                found[connection_class] = (caught.type, str(caught.value).replace(str(port), "PORT"))
                del caught
        assert found[Connection] == found[FastConnection]
        assert none_left(before)

    def test_a_socket_that_the_server_has_reset_is_closed_at_once(self, selected: Any) -> None:
        with refusing_server(b"$5\r\nab", reset=True) as port:
            connection: Any = FastConnection(host="127.0.0.1", port=port, socket_timeout=5, **NO_HANDSHAKE)
            connection.connect()
            sock = connection._sock
            connection.send_command("G")
            with pytest.raises(redis.RedisError):
                connection.read_response()
            assert sock.fileno() == -1

    def test_write_errors(self, selected: Any) -> None:
        found = {}
        for connection_class in (Connection, FastConnection):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
                texts = []
                for act in ("timeout", "closed"):
                    connection: Any = connection_class(host="127.0.0.1", port=port, **GIVES_UP)
                    connection.connect()
                    if act == "closed":
                        connection._sock.close()
                    with pytest.raises(redis.RedisError) as caught:
                        connection.send_command("SET", "k", b"x" * 20_000_000)
                    texts.append((caught.type, str(caught.value)))
                    assert connection._sock is None
                found[connection_class] = texts
        assert found[Connection] == found[FastConnection]

    def test_reply_nobody_asked_for(self, selected: Any, server: RedisServer) -> None:
        with connected(server, **new_client_kwargs(2)) as client:
            connection = taken(client)
            connection.send_command("ECHO", "unread")
            assert connection.can_read(timeout=5)
            client.connection_pool.release(connection)
            assert client.echo("mine") == b"mine"

    def test_goes_on_after_a_timeout_that_does_not_disconnect(self, selected: Any) -> None:
        if not DISCONNECTS_WHEN_INTERRUPTED:
            pytest.skip("redis-py 3.5 and 4.5.3 always disconnect")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection: Any = FastConnection(port=listener.getsockname()[1], **GIVES_UP)
            connection.connect()
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"$70000\r\n" + b"x" * 30_000)
                with pytest.raises(RedisTimeoutError):
                    connection.read_response(disconnect_on_error=False)
                peer.sendall(b"x" * 40_000 + b"\r\n")
                assert connection.read_response() == b"x" * 70_000
            connection.disconnect()

    def test_threads(self, selected: Any, raw: "redis.Redis", server: RedisServer) -> None:
        wrong: List[Any] = []

        def work(number: int) -> None:
            for at in range(40):
                value = b"%d" % number * (1, 30_000)[at % 2]
                client.set(f"k{number}", value)
                if client.get(f"k{number}") != value:
                    wrong.append(number)

        with connected(server) as client:
            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_fork(self, selected: Any, server: RedisServer) -> None:
        with connected(server) as client:
            client.set("k", b"parent")
            child = os.fork()
            if child == 0:
                status = 1
                with suppress(BaseException):
                    status = 0 if client.echo("child") == b"child" else 2
                os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            assert client.get("k") == b"parent"

    def test_declines(self, monkeypatch: pytest.MonkeyPatch, server: RedisServer) -> None:
        class Patched(socket.socket):
            def recv_into(self, *args: Any, **kwargs: Any) -> int:
                return super().recv_into(*args, **kwargs)

        class Plain(socket.socket):
            pass

        for socket_class, expected in ((socket.socket, True), (Plain, True), (Patched, False), (type(None), False)):
            assert fastsock._has_plain_calls(socket_class) is expected
            assert fastsock.transfers(socket_class) is (expected and fastsock.IMPL == "native")
        monkeypatch.setattr(socket, "socket", Patched)
        with connected(server) as client:
            for size in (10_000, 100_000):
                assert client.set("k", b"x" * size)
                assert client.get("k") == b"x" * size
            connection = taken(client)
            with pytest.raises(TypeError):
                connection.send_packed_command([b"PING", "text", None])
            assert connection._parser._fast is None
            client.connection_pool.release(connection)

    def test_parser_of_the_user(self) -> None:
        class Mine(HiredisParser):
            pass

        assert type(FastConnection(parser_class=Mine)._parser) is Mine
        assert type(FastSSLConnection()._parser) is FastParser

    def test_probes(self) -> None:
        assert packed_buffers() <= {bytearray, memoryview}
        assert NOT_ENOUGH_DATA is (False if REDIS_VERSION < (5, 0) else NOT_ENOUGH_DATA)


class TestLeaks:
    """No path leaves a block of memory behind."""

    def test_native_paths(self, pair: Tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        stream = b"+OK\r\n" + bulk(LARGE_BODY) + b"*2\r\n:1\r\n$1\r\nx\r\n"
        closed = socket.socket()
        closed.close()
        not_pieces: Any = 5
        pieces = [b"a", bytearray(b"b"), b"c"] * 4
        reader = new_reader(native)

        def round_trip() -> None:
            theirs.sendall(stream)
            while native.wait_readable(ours, 0):
                reader.receive(ours, 1)
            assert len(all_of(reader)) == 3

        def sends() -> None:
            native.send_all(ours, pieces, 1)
            theirs.recv(100)

        def fails() -> None:
            fresh = new_reader(native)
            theirs.sendall(b"$70000\r\n")
            fresh.receive(ours, 1)
            for call in (
                lambda: fresh.receive(ours, 0),
                lambda: fresh.receive(closed, 1),
                lambda: fresh.receive(ours, -1),
                lambda: fresh.receive(ours, "x"),
                lambda: native.send_all(closed, pieces, 1),
                lambda: native.send_all(ours, [*pieces, "text"], 1),
                lambda: native.send_all(ours, not_pieces, 1),
                lambda: native.wait_readable(closed, 1),
                lambda: native.Reader(None, None, 1, None, None),
            ):
                with suppress(OSError, TypeError, ValueError, AttributeError):
                    call()

        for call, rounds in ((round_trip, 300), (sends, 2000), (fails, 500)):
            assert growth(call, rounds) <= 0
