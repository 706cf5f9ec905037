"""One round of every path through the native module: each type of reply, each outcome, each error.

All jobs walk these: leaks over thousands of rounds, valgrind and the sanitizers over a few. A round checks what it gets
and leaves its sockets as it found them. ``python tests/memory/paths.py 3 JSON`` walks those whose name starts so.

A new native function needs a row in :meth:`Paths.all`; ``test_leaks.py`` fails while a public name has none.
"""

import json
import mmap
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import hiredis

from extras import _fastsock as native

MORE = object()
BODY = bytes(range(256)) * (native.LARGE_BYTES // 256 + 20)
TEXT = "aé€" * (native.LARGE_BYTES // 6 + 100)
ARGUMENT = bytes(range(250)) * (native.CUTOFF_BYTES // 250 + 1)
LARGE = [b"ab", BODY, [b"cd"]]
BUFFERS = frozenset({bytearray, memoryview})


class Path(NamedTuple):
    """A path: what it is of, its name, one round of it, and what part of the usual rounds there is time for."""

    of: str
    name: str
    call: Callable[[], Any]
    share: float = 1


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def command(*args: Any) -> bytes:
    """Return the bytes of a command."""
    parts = [repr(arg).encode() if isinstance(arg, (int, float)) else arg for arg in args]
    parts = [bulk(part.encode() if isinstance(part, str) else bytes(part)) for part in parts]
    return b"*%d\r\n%s" % (len(parts), b"".join(parts))


REPLIES: Dict[str, bytes] = {
    "RESP2 simple string": b"+OK\r\n",
    "RESP2 error": b"-ERR no\r\n",
    "RESP2 integer": b":123456\r\n",
    "RESP2 bulk": bulk(b"some bytes"),
    "RESP2 empty bulk": bulk(b""),
    "RESP2 null": b"$-1\r\n",
    "RESP2 null array": b"*-1\r\n",
    "RESP2 large bulk": bulk(BODY),
    "RESP2 array": b"*3\r\n:1000\r\n+ab\r\n" + bulk(b"cd"),
    "RESP2 empty array": b"*0\r\n",
    "RESP2 nested": b"*2\r\n*2\r\n*1\r\n:7000\r\n+ab\r\n*2\r\n-ERR no\r\n$-1\r\n",
    "RESP2 large bulk in an array": b"*2\r\n" + bulk(BODY) + b":1000\r\n",
    "RESP2 several at once": b"+OK\r\n" + bulk(BODY) + b":1000\r\n" + bulk(BODY),
    "RESP3 null": b"_\r\n",
    "RESP3 boolean": b"#t\r\n#f\r\n",
    "RESP3 double": b",1.25\r\n,inf\r\n",
    "RESP3 big number": b"(3492890328409238509324850943850943825024385\r\n",
    "RESP3 verbatim": b"=8\r\ntxt:abcd\r\n",
    "RESP3 map": b"%2\r\n+a\r\n:1000\r\n+b\r\n*1\r\n:2000\r\n",
    "RESP3 set": b"~3\r\n:1000\r\n:2000\r\n+ab\r\n",
    "RESP3 push": b">2\r\n+invalidate\r\n*1\r\n+key\r\n",
    "RESP3 push before a large bulk": b">2\r\n+invalidate\r\n_\r\n" + bulk(BODY),
}

REFUSED = {  # by hiredis, to which the native Reader leaves them
    "zeros": b"$070000\r\n",
    "negative": b"$-2\r\n",
    "too large": b"$99999999999999999999\r\n",
    "no digits": b"$7e4\r\n",
    "no type": b"!?\r\n",
}

GOOD_JSON = [
    b'{"events": [{"event": "user", "n": [0.1, -1.5e-07, 1e300, 12345678901234567890, NaN, -Infinity]}], "a": null}',
    '["plain", "pläin", "\\ud83d\\ude00 \\n", "€\\u20ac", true, false, [], {}, "plain"]'.encode(),
    b"1e99999999999999999999",
]
BAD_JSON = [
    b'{"a": [1, "long text\\n", "x',
    b'{"name": 1, "name" 2}',
    b'["ab", "\\ud83d\\uzz"]',
    b'["ab\xff\\n"]',
    b'["ab"]\xff',
    b"[" * 150,
    b"9" * 5000,
    b"",
]


class Fixed:
    """Something with a descriptor."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def fileno(self) -> Any:
        return self.number


class Raising:
    """What raises where it is asked."""

    def __init__(self, count: int = 2) -> None:
        self.count = count

    def fileno(self) -> int:
        raise Failed

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        raise Failed


class RaisingMeta(type):
    def __hash__(cls) -> int:
        raise Failed


class Unhashable(metaclass=RaisingMeta):
    """An argument whose class cannot be looked up."""


class Lying(List[Any]):
    """A command that is not as long as it says."""

    def __len__(self) -> int:
        return 2


class Text(str):
    """Text of a class that is the caller's own."""


class Scripted:
    """A socket on which something happens where its descriptor or its timeout is asked for.

    One thread is enough then to have the reply come after the command was sent, or the connection end meanwhile.
    """

    def __init__(self, sock: socket.socket, timeout_s: Any = 1, asked: Any = None, numbered: Any = None) -> None:
        self.number = sock.fileno()
        self.timeout_s = timeout_s
        self.asked = asked
        self.numbered = numbered
        self.times = 0

    def gettimeout(self) -> Any:
        if self.asked is not None:
            self.asked()
        return self.timeout_s

    def fileno(self) -> int:
        self.times += 1
        if self.numbered is not None:
            self.numbered(self.times)
        return self.number


class Failed(Exception):
    pass


def raise_it(*args: Any) -> None:
    raise Failed


def fails(expected: Any, call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except expected:
        return
    raise AssertionError(f"{call} was to raise {expected}")


def comparable(reply: Any) -> Any:
    """Errors are equal if class and text are."""
    if isinstance(reply, (list, tuple)):
        return [comparable(each) for each in reply]
    return (type(reply), str(reply)) if isinstance(reply, Exception) else reply


class Paths:
    """The paths, on a pair of sockets of their own."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.tcp = socket.socket()
        self.closed = socket.socket()
        self.closed.close()
        self.reader = self.new_reader()
        self.wide = self.new_reader(buffer_bytes=2 * len(BODY))
        self.pieces = [bytes(range(100)), bytearray(b"piece"), memoryview(bytes(range(50)))]
        self.full = bytes(bytearray(4_000_000))
        self.packable: List[Any] = ["SET", b"key", "väl", 2**70, -1.5, *self.pieces, ARGUMENT, bytearray(ARGUMENT)]
        self.handed_in: List[Any] = [MORE, self.ours, self.pieces, *self.pieces, self.full, BODY, *GOOD_JSON]
        self.handed_in += [self.packable, *self.packable, BUFFERS, bytearray, memoryview]

    def close(self) -> None:
        for sock in (self.ours, self.theirs, self.tcp):
            sock.close()

    @staticmethod
    def new_reader(buffer_bytes: int = 4096, **kwargs: Any) -> Any:
        inner = hiredis.Reader(notEnoughData=MORE, **kwargs)
        return native.Reader(inner, MORE, buffer_bytes, kwargs.get("encoding"), kwargs.get("errors"))

    def all(self) -> List[Path]:
        """Return every path."""
        found = [
            Path("Reader", f"reply, {name}", self.reply(stream), 0.1 if BODY in stream else 1)
            for name, stream in REPLIES.items()
        ]
        found += [Path("Reader", f"header refused, {name}", self.refused(head)) for name, head in REFUSED.items()]
        found += [
            Path("Reader", f"asked, {name}", self.asked_for(stream), 0.1 if BODY in stream else 0.5)
            for name, stream in REPLIES.items()
        ]
        found += [Path("Reader", *path) for path in self.of_reader()]
        found += [Path("Reader", f"ask, {name}", *path) for name, *path in self.of_ask()]
        found += [Path("Reader", f"replies, {name}", *path) for name, *path in self.of_replies()]
        found += [Path("pack_commands", *path) for path in self.of_pack_commands()]
        found += [Path("send_all", *path) for path in self.of_send_all()]
        found += [Path("send_command", *path) for path in self.of_send_command()]
        found += [Path("send_some", *path) for path in self.of_send_some()]
        found += [Path("Reader", f"room, {name}", *path) for name, *path in self.of_room()]
        found += [Path("Reader", f"is_quiet or reply, {name}", *path) for name, *path in self.of_reply()]
        found += [Path("wait_readable", *path) for path in self.of_wait_readable()]
        found += [Path("decode_json", *path) for path in self.of_decode_json()]
        given = (True, 33, 7, 4, 61000)
        fd = self.tcp.fileno()
        found += [
            Path("set_keepalive", "all", lambda: native.set_keepalive(fd, *given)),
            Path(
                "set_keepalive", "refused", lambda: fails(OSError, native.set_keepalive, fd, True, -1, None, None, None)
            ),
            Path("set_keepalive", "text", lambda: fails(TypeError, native.set_keepalive, fd, True, "5", 1, 1, 1)),
            Path("set_keepalive", "too large", lambda: fails(OverflowError, native.set_keepalive, fd, *[2**40] * 5)),
            Path("get_keepalive", "all", lambda: native.get_keepalive(fd)),
            Path("get_keepalive", "closed", lambda: fails(OSError, native.get_keepalive, -1)),
            Path("get_keepalive", "arguments", lambda: fails(TypeError, native.get_keepalive)),
        ]
        return found

    def replies(self, reader: Any, stream: bytes) -> List[Any]:
        self.theirs.sendall(stream)
        found: List[Any] = []
        while native.wait_readable(self.ours, 0):
            assert reader.receive(self.ours, 1) is True
            while True:
                reply = reader.gets()
                if reply is MORE:
                    break
                found.append(reply)
        return found

    def reply(self, stream: bytes) -> Callable[[], None]:
        plain = hiredis.Reader(notEnoughData=MORE)
        plain.feed(stream)
        expected = comparable(list(iter(plain.gets, MORE)))
        assert expected

        def call() -> None:
            assert comparable(self.replies(self.reader, stream)) == expected

        return call

    def refused(self, head: bytes) -> Callable[[], None]:
        return lambda: fails(hiredis.ProtocolError, self.replies, self.new_reader(), head)

    def asked_for(self, stream: bytes) -> Callable[[], None]:
        """Have the same replies by ``ask``, and those after the first by ``replies``."""
        plain = hiredis.Reader(notEnoughData=MORE)
        plain.feed(stream)
        expected = comparable(list(iter(plain.gets, MORE)))
        sock = Scripted(self.ours, 1, lambda: self.theirs.sendall(stream))
        sent = command("GET", "key")

        def call() -> None:
            found = [self.reader.ask(sock, ("GET", "key"), BUFFERS)]
            while len(found) < len(expected):
                found += self.reader.replies(sock, len(expected) - len(found), 1)
            assert comparable(found) == expected
            assert self.reader.was_sent
            assert not self.reader.has_data()
            assert self.theirs.recv(100) == sent

        return call

    def of_ask(self) -> List[Tuple[Any, ...]]:
        ours, new = self.ours, self.new_reader
        get = ("GET", "key")
        silent = Scripted(ours, 1e-9)
        too_long = [*self.packable, self.full]
        return [
            ("arguments of each kind", self.asked(self.packable), 0.3),
            ("text buffer grows", self.asked(["MGET", *["k" * 50] * 100]), 0.3),
            ("large arguments", self.asked(["SET", BODY, ARGUMENT]), 0.1),
            ("large text", self.asked(["SET", TEXT]), 0.1),
            ("reply cut", self.asked_and_cut, 0.1),
            ("large text, not in the encoding", self.asked_undecodable, 0.1),
            ("refused by hiredis", self.asked_refused, 0.1),
            ("unread bytes", self.asked_unread),
            ("unread reply", self.asked_under_way),
            ("unread large reply", self.asked_under_way_large, 0.1),
            ("unpackable", lambda: self.declined(silent, ("GET", None))),
            ("unpackable after much", lambda: self.declined(silent, [*self.packable, *["k" * 500] * 10, None])),
            ("no command", lambda: self.declined(silent, ())),
            ("command raises", lambda: fails(Failed, new().ask, silent, Raising(), BUFFERS)),
            ("timeout", lambda: self.unanswered(socket.timeout, 1e-9)),
            ("nothing there", lambda: self.unanswered(BlockingIOError, 0)),
            ("timeout half way", lambda: self.unanswered(socket.timeout, 1e-3, b"$70000\r\nabc"), 0.01),
            ("timeout of sending", lambda: self.unasked(socket.timeout, 1e-9, too_long), 0.05),
            ("full", lambda: self.unasked(BlockingIOError, 0, too_long), 0.05),
            ("end", self.asked_and_ended, 0.1),
            ("reset", self.asked_and_reset, 0.05),
            ("closed by the server", self.asked_too_late, 0.1),
            ("closed", lambda: fails(OSError, new().ask, self.closed, get, BUFFERS)),
            ("no descriptor", lambda: fails(AttributeError, new().ask, None, get, BUFFERS)),
            ("descriptor raises", lambda: fails(Failed, new().ask, Raising(), get, BUFFERS)),
            ("descriptor raises later", self.asked_and_gone),
            ("time raises", lambda: fails(Failed, new().ask, Scripted(ours, 1, raise_it), get, BUFFERS)),
            ("time is text", lambda: fails(TypeError, new().ask, Scripted(ours, "x"), get, BUFFERS)),
            ("time is negative", lambda: fails(ValueError, new().ask, Scripted(ours, -1), get, BUFFERS)),
            ("arguments", lambda: fails(TypeError, new().ask, ours, get)),
            ("busy", self.asked_meanwhile, 0.3),
            ("not made", self.asked_not_made),
        ]

    def asked(self, args: Any) -> Callable[[], None]:
        expected = command(*args)
        sock = Scripted(self.ours, 1, lambda: self.theirs.sendall(b"+OK\r\n"))

        def call() -> None:
            assert self.reader.ask(sock, args, BUFFERS) == b"OK"
            assert self.theirs.recv(len(expected) + 1) == expected

        return call

    def asked_and_cut(self) -> None:
        stream = b"*3\r\n:1000\r\n+ab\r\n" + bulk(BODY)
        rest = [stream[:9], stream[9:99], stream[99:]]

        def next_part(times: int) -> None:
            if times > 1:  # after that for what is unread
                self.next_of(rest)

        sock = Scripted(self.ours, None, None, next_part)
        assert self.new_reader().ask(sock, ("GET", "key"), BUFFERS) == [1000, b"ab", BODY]
        assert not rest
        assert self.theirs.recv(100) == command("GET", "key")

    def next_of(self, rest: List[bytes]) -> None:
        """Have the next part come when the one before it was taken."""
        if rest and native.wait_readable(self.ours, 0) is None:
            self.theirs.sendall(rest.pop(0))

    def asked_undecodable(self) -> None:
        reader = self.new_reader(encoding="ascii")
        stream = bulk(b"x" * native.LARGE_BYTES + b"\xff")
        sock = Scripted(self.ours, 1, lambda: self.theirs.sendall(stream))
        fails(UnicodeDecodeError, reader.ask, sock, ("GET", "key"), BUFFERS)
        self.discard()

    def asked_refused(self) -> None:
        for head in REFUSED.values():
            sock = Scripted(self.ours, 1, lambda head=head: self.theirs.sendall(head))
            fails(hiredis.ProtocolError, self.new_reader().ask, sock, ("GET", "key"), BUFFERS)
        self.discard()

    def declined(self, sock: Any, args: Any, reader: Any = None) -> None:
        assert (reader or self.reader).ask(sock, args, BUFFERS) is NotImplemented
        assert not (reader or self.reader).was_sent
        assert native.wait_readable(self.theirs, 0) is None

    def asked_unread(self) -> None:
        self.theirs.sendall(b"+OK\r\n")
        self.declined(self.ours, ("GET", "key"))
        assert self.ours.recv(100) == b"+OK\r\n"

    def asked_under_way(self) -> None:
        for stream in (b"*2\r\n:1\r\n", b"+OK\r\n"):
            reader = self.new_reader()
            self.theirs.sendall(stream)
            reader.receive(self.ours, 1)
            self.declined(self.ours, ("GET", "key"), reader)

    def asked_under_way_large(self) -> None:
        reader = self.new_reader()
        assert self.replies(reader, b"$70000\r\nabc") == []
        self.declined(self.ours, ("GET", "key"), reader)

    def unanswered(self, expected: Any, timeout_s: Any, stream: bytes = b"", numbered: Any = None) -> None:
        reader = self.new_reader()
        sock = Scripted(self.ours, timeout_s, lambda: self.theirs.sendall(stream) if stream else None, numbered)
        fails(expected, reader.ask, sock, ("GET", "key"), BUFFERS)
        assert reader.was_sent
        assert self.theirs.recv(100) == command("GET", "key")

    def asked_and_gone(self) -> None:
        self.unanswered(Failed, 1, b"+O", self.raise_third)
        assert self.ours.recv(10) == b"+O"

    def unasked(self, expected: Any, timeout_s: float, args: Any) -> None:
        reader = self.new_reader()
        fails(expected, reader.ask, Scripted(self.ours, timeout_s), args, BUFFERS)
        assert not reader.was_sent
        self.discard()

    @staticmethod
    def raise_third(times: int) -> None:
        if times == 3:  # after those for what is unread, and for sending
            raise Failed

    @staticmethod
    def asked_and_ended() -> None:
        for stream in (b"", b"*2\r\n+ab\r\n", b"$70000\r\nabc"):
            ours, theirs = socket.socketpair()
            with ours, theirs:

                def answer(theirs: socket.socket = theirs, stream: bytes = stream) -> None:
                    theirs.sendall(stream)
                    theirs.shutdown(socket.SHUT_WR)

                reader = Paths.new_reader()
                fails(ConnectionAbortedError, reader.ask, Scripted(ours, None, answer), ("GET", "key"), BUFFERS)
                assert reader.was_sent

    @staticmethod
    def asked_and_reset() -> None:
        for before, timeout_s, expected in ((3, 0, ConnectionResetError), (2, 1, BrokenPipeError)):
            ours, theirs = socket.socketpair()
            with ours:

                def close(times: int, at: int = before, theirs: socket.socket = theirs) -> None:
                    if times == at:
                        theirs.close()

                sock, reader = Scripted(ours, timeout_s, None, close), Paths.new_reader()
                fails(expected, reader.ask, sock, ("GET", "key"), BUFFERS)
                assert reader.was_sent == (expected is ConnectionResetError)

    @staticmethod
    def asked_too_late() -> None:
        for unread in (b"", b"never read"):
            ours, theirs = socket.socketpair()
            with ours:
                ours.sendall(unread)
                theirs.close()
                assert Paths.new_reader().ask(ours, ("GET", "key"), BUFFERS) is NotImplemented

    def asked_meanwhile(self) -> None:
        reader = self.new_reader()

        def again(times: int) -> None:
            assert reader.ask(self.ours, ("GET", "key"), BUFFERS) is NotImplemented
            fails(RuntimeError, reader.receive, self.ours, 1)
            fails(RuntimeError, reader.replies, self.ours, 1, 1)

        def answer() -> None:
            again(0)
            self.theirs.sendall(b"+OK\r\n")

        assert reader.ask(Scripted(self.ours, 1, answer, again), ("GET", "key"), BUFFERS) == b"OK"
        assert self.theirs.recv(100) == command("GET", "key")

    def asked_not_made(self) -> None:
        reader = native.Reader.__new__(native.Reader)
        assert reader.ask(self.ours, ("GET", "key"), BUFFERS) is NotImplemented
        fails(RuntimeError, reader.replies, self.ours, 1, 1)

    def of_send_command(self) -> List[Tuple[Any, ...]]:
        send, ours = native.send_command, self.ours
        too_long = [*self.packable, self.full]
        return [
            ("small", lambda: self.told(("GET", "key"))),
            ("arguments of each kind", lambda: self.told(self.packable), 0.3),
            ("text buffer grows", lambda: self.told(["MGET", *["k" * 50] * 100]), 0.3),
            ("declined", lambda: self.equal(send(ours, ("GET", None), BUFFERS, 1), False)),
            ("timeout", lambda: self.untold(too_long, 1e-9), 0.05),
            ("closed", lambda: fails(OSError, send, self.closed, ("PING",), BUFFERS, 1)),
            ("closed, large argument", lambda: fails(OSError, send, self.closed, ("SET", ARGUMENT), BUFFERS, 1)),
            ("no descriptor", lambda: fails(AttributeError, send, None, ("PING",), BUFFERS, 1)),
            ("command raises", lambda: fails(Failed, send, ours, Raising(), BUFFERS, 1)),
            ("time is negative", lambda: fails(ValueError, send, ours, ("PING",), BUFFERS, -1)),
        ]

    @staticmethod
    def equal(found: Any, expected: Any) -> None:
        assert found == expected

    def told(self, args: Any) -> None:
        expected = command(*args)
        assert native.send_command(self.ours, args, BUFFERS, 1) is True
        received = b""
        while len(received) < len(expected):
            received += self.theirs.recv(len(expected))
        assert received == expected

    @staticmethod
    def untold(args: Any, timeout_s: float) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            fails(socket.timeout, native.send_command, ours, args, BUFFERS, timeout_s)

    def of_send_some(self) -> List[Tuple[Any, ...]]:
        send = native.send_some
        return [
            ("small", self.some_sent),
            ("more than there is room for", self.some_left, 0.05),
            ("broken", self.none_sent),
            ("closed", lambda: fails(OSError, send, self.closed, b"PING")),
            ("no descriptor", lambda: fails(AttributeError, send, None, b"PING")),
            ("no bytes", lambda: fails(TypeError, send, self.ours, bytearray(b"PING"))),
            ("nothing", lambda: fails(TypeError, send, self.ours, None)),
        ]

    def some_sent(self) -> None:
        assert native.send_some(self.ours, b"PING") == 4
        assert self.theirs.recv(10) == b"PING"

    def some_left(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert 0 < native.send_some(ours, self.full) < len(self.full)

    @staticmethod
    def none_sent() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            theirs.close()
            assert native.send_some(ours, b"PING") == 0

    def of_room(self) -> List[Tuple[Any, ...]]:
        reader, new = self.reader, self.new_reader
        large = bulk(b"ab") + bulk(BODY) + b"*1\r\n+cd\r\n"
        return [
            ("whole", lambda: self.put(reader, [b"+OK\r\n" + bulk(b"ab")], [b"OK", b"ab"])),
            ("a byte at a time", lambda: self.put(reader, [b"%c" % byte for byte in bulk(b"abc")], [b"abc"]), 0.2),
            ("large", lambda: self.put(new(), [large[at : at + 999] for at in range(0, len(large), 999)], LARGE), 0.1),
            ("full", lambda: self.put(new(5), [b"*2\r\n", b":1", b"\r\n:", b"2\r\n"], [[1, 2]])),
            ("too much", lambda: fails(ValueError, reader.received, 1_000_000)),
            ("negative", lambda: fails(ValueError, reader.received, -1)),
            ("text", lambda: fails(TypeError, reader.received, "1")),
            ("not made", lambda: fails(RuntimeError, native.Reader.__new__(native.Reader).room)),
            ("received, not made", lambda: fails(RuntimeError, native.Reader.__new__(native.Reader).received, 0)),
        ]

    def put(self, reader: Any, parts: List[bytes], expected: List[Any]) -> None:
        found: List[Any] = []
        for part in parts:
            while part:
                room = reader.room(-1)
                size = min(len(room), len(part))
                room[:size] = part[:size]
                reader.received(size)
                part = part[size:]
                found += iter(reader.gets, MORE)
        assert found == expected

    def of_reply(self) -> List[Tuple[Any, ...]]:
        reader, ours, new = self.reader, self.ours, self.new_reader
        return [
            ("quiet", lambda: self.equal(reader.is_quiet(ours), True)),
            ("not quiet", self.heard),
            ("of a closed socket", lambda: fails(OSError, reader.is_quiet, self.closed)),
            ("timeout", lambda: fails(socket.timeout, reader.reply, ours, 1e-9)),
            ("nothing there", lambda: fails(BlockingIOError, reader.reply, ours, 0)),
            ("closed", lambda: fails(OSError, new().reply, self.closed, 1)),
            ("time is negative", lambda: fails(ValueError, reader.reply, ours, -1)),
            ("refused", self.heard_refused),
        ]

    def heard(self) -> None:
        self.theirs.sendall(b"$3\r\nabc\r\n")
        assert not self.reader.is_quiet(self.ours)
        assert self.reader.reply(self.ours, 1) == b"abc"

    def heard_refused(self) -> None:
        self.theirs.sendall(b"$-2\r\n")
        fails(hiredis.ProtocolError, self.new_reader().reply, self.ours, 1)

    def of_replies(self) -> List[Tuple[Any, ...]]:
        replies, ours, new = self.reader.replies, self.ours, self.new_reader
        stream = b"+OK\r\n:1000\r\n" + bulk(b"some")
        return [
            ("of each kind", self.of_each_kind(), 0.1),
            ("cut anywhere", self.cut_anywhere, 0.005),
            ("by few bytes", lambda: self.in_a_row(new(3), [stream], [b"OK", 1000, b"some"]), 0.2),
            ("more than asked for", self.more_than_asked_for),
            ("errors", self.errors_between, 0.3),
            ("push between", self.push_between),
            ("text", self.text_between, 0.5),
            ("not in the encoding", self.later_undecodable),
            ("refused", self.later_refused),
            ("none asked for", lambda: replies(ours, 0, 1)),
            ("fewer than none asked for", lambda: replies(ours, -1, None)),
            ("timeout", lambda: fails(socket.timeout, replies, ours, 1, 1e-9)),
            ("timeout half way", lambda: self.silence(socket.timeout, 1e-9)),
            ("nothing there", lambda: fails(BlockingIOError, replies, ours, 1, 0)),
            ("nothing there half way", lambda: self.silence(BlockingIOError, 0)),
            ("end", self.end_of_replies, 0.1),
            ("reset", self.reset_of_replies, 0.1),
            ("closed", lambda: fails(OSError, replies, self.closed, 1, 1)),
            ("no descriptor", lambda: fails(AttributeError, replies, None, 1, 1)),
            ("descriptor raises", lambda: fails(Failed, replies, Raising(), 1, 1)),
            ("descriptor raises half way", lambda: self.silence(Failed, 1, Scripted(ours, 1, None, self.raise_third))),
            ("number is text", lambda: fails(TypeError, replies, ours, "1", 1)),
            ("number is too large", lambda: fails(OverflowError, replies, ours, 2**70, 1)),
            ("time is text", lambda: fails(TypeError, replies, ours, 1, "x")),
            ("time is negative", lambda: fails(ValueError, replies, ours, 1, -1)),
            ("time is no number", lambda: fails(ValueError, replies, ours, 1, float("nan"))),
            ("arguments", lambda: fails(TypeError, replies, ours, 1)),
        ]

    def in_a_row(self, reader: Any, parts: List[bytes], expected: List[Any]) -> None:
        rest = list(parts)
        sock = Scripted(self.ours, 1, None, lambda times: self.next_of(rest))
        found = reader.replies(sock, len(expected), None)
        assert comparable(found) == comparable(expected), found
        assert not rest

    def of_each_kind(self) -> Callable[[], None]:
        stream = b"".join([each for each in REPLIES.values() if BODY not in each] + [bulk(BODY)])
        plain = hiredis.Reader(notEnoughData=MORE)
        plain.feed(stream)
        expected = comparable(list(iter(plain.gets, MORE)))

        def call() -> None:
            found: List[Any] = []
            self.theirs.sendall(stream)
            while len(found) < len(expected):  # several times, because of the pushes
                found += self.reader.replies(self.ours, len(expected) - len(found), 1)
            assert comparable(found) == expected

        return call

    def cut_anywhere(self) -> None:
        stream = b"$2\r\nab\r\n$%d\r\n" % len(BODY)
        whole = stream + BODY + b"\r\n*1\r\n+cd\r\n"
        for at in [*range(1, len(stream) + 2), *range(len(whole) - 12, len(whole))]:
            self.in_a_row(self.new_reader(), [whole[:at], whole[at:]], [b"ab", BODY, [b"cd"]])

    def more_than_asked_for(self) -> None:
        self.theirs.sendall(b"+a\r\n+b\r\n+c\r\n")
        for expected in ([b"a", b"b"], [b"c"]):
            assert self.reader.replies(self.ours, len(expected), 1) == expected

    def errors_between(self) -> None:
        error = hiredis.ReplyError
        self.in_a_row(self.new_reader(), [b"-ERR a\r\n+b", b"\r\n*1\r\n-c\r\n"], [error("ERR a"), b"b", [error("c")]])

    def push_between(self) -> None:
        self.theirs.sendall(b"+a\r\n>1\r\n+p\r\n+b\r\n")
        assert self.reader.replies(self.ours, 2, 1) == [b"a", [b"p"]]
        assert self.reader.replies(self.ours, 1, 1) == [b"b"]

    def text_between(self) -> None:
        reader = self.new_reader(encoding="utf-8", errors="replace")
        self.in_a_row(reader, [bulk("ä".encode()), b":1\r\n" + bulk(b"\xff")], ["ä", 1, "\ufffd"])

    def later_undecodable(self) -> None:
        self.theirs.sendall(b"+a\r\n" + bulk(b"\xff"))
        fails(UnicodeDecodeError, self.new_reader(encoding="utf-8").replies, self.ours, 2, 1)

    def later_refused(self) -> None:
        self.theirs.sendall(b"+a\r\n!?\r\n")
        fails(hiredis.ProtocolError, self.new_reader().replies, self.ours, 2, 1)

    def silence(self, expected: Any, timeout_s: float, sock: Any = None) -> None:
        self.theirs.sendall(b"+a\r\n*2\r\n+b\r\n")
        fails(expected, self.new_reader().replies, sock or self.ours, 2, timeout_s)

    @staticmethod
    def end_of_replies() -> None:
        for stream in (b"", b"+a\r\n", b"+a\r\n$70000\r\nabc"):
            ours, theirs = socket.socketpair()
            with ours:
                theirs.sendall(stream)
                theirs.close()
                fails(ConnectionAbortedError, Paths.new_reader().replies, ours, 2, 1)

    @staticmethod
    def reset_of_replies() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            ours.send(b"never read")
            theirs.close()
            fails(ConnectionResetError, Paths.new_reader().replies, ours, 1, 1)

    def of_pack_commands(self) -> List[Tuple[Any, ...]]:
        pack: Any = native.pack_commands
        released = memoryview(b"some")
        released.release()
        strided, wide = memoryview(bytes(50))[::2], memoryview(bytes(48)).cast("i")
        packed: Dict[str, List[Any]] = {
            "text": [("SET", "key", "välue", "")],
            "bytes": [(b"SET", b"key", b"\0\xff", b"")],
            "integers": [("SET", 0, -1, 1000, 2**63 - 1, -(2**63), 2**63, -(2**200))],
            "floats": [("SET", 0.0, -0.0, 1.5, 1e300, float("inf"), float("nan"))],
            "buffers": [("SET", *self.pieces, bytearray(), memoryview(b""))],
            "nothing": [],
            "a name alone": [("PING",), [b""]],
            "several": [("SET", "key", 1)] * 20,
            "the text buffer grows": [("MSET", *["k" * size for size in range(1, 300, 7)])],
            "the text buffer is full": [("GET", "x" * 1002)],  # to its last byte, of 1024
            "the text buffer is too small": [("GET", "x" * 1004)],  # by two bytes
            "largest that is copied": [("SET", bytes(native.CUTOFF_BYTES), "x" * native.CUTOFF_BYTES)] * 2,
            "large bytes": [("SET", ARGUMENT, ARGUMENT), ("GET", "key")],
            "large text": [("SET", TEXT)],
            "large buffers": [("SET", bytearray(ARGUMENT), memoryview(ARGUMENT), "x")],
            "large name": [(ARGUMENT.replace(b" ", b""),)],
        }
        refused: Dict[str, Any] = {
            "no text or number": ("SET", None),
            "a truth value": ("SET", True),
            "text of a class": ("SET", Text("value")),
            "a name of two words": ("CONFIG GET", "a"),
            "a name of two lines": ("CONFIG\nGET", "a"),
            "a name in bytes of two words": (b"CONFIG GET", "a"),
            "no name": ("", "a"),
            "a number as a name": (5, "a"),
            "empty": (),
            "lone surrogates": ("SET", "a\ud800"),
            "lone surrogates in a name": ("\udc80", "a"),
            "lone surrogates after much": ("SET", *["k" * 500] * 5, ARGUMENT, "a\ud800"),
            "digits without end": ("SET", 10**5000),
            "strided memory": ("SET", strided),
            "memory of integers": ("SET", wide),
            "memory of no dimension": ("SET", memoryview(b"a").cast("B", ())),
            "released memory": ("SET", released),
            "a number": 5,
            "nothing": None,
            "no sequence": iter(("SET", "a")),
            "longer than it says": Lying(["SET", "a", "b"]),
            "shorter than it says": Lying(["SET"]),
        }
        self.handed_in += [strided, wide]
        found: List[Tuple[Any, ...]] = []
        for name, commands in packed.items():
            expected = b"".join(command(*args) for args in commands)
            found.append((name, self.packed(commands, expected), 0.1 if len(expected) > 2000 else 0.5))
        for name, args in refused.items():
            found.append((f"refused, {name}", self.unpacked([("SET", "key", 1), args]), 0.5))
        return [
            *found,
            ("of each kind", self.packed([self.packable], command(*self.packable)), 0.1),
            ("an iterator", lambda: pack(iter([("GET", "key")]), BUFFERS)),
            ("an iterator that raises", lambda: fails(Failed, pack, self.raising_late(), BUFFERS)),
            ("a command that raises", lambda: fails(Failed, pack, [self.packable, Raising()], BUFFERS), 0.5),
            ("a command whose length is negative", self.unpacked([Raising(-1)])),
            ("a class that raises", lambda: fails(Failed, pack, [("SET", Unhashable())], BUFFERS)),
            ("no commands", lambda: fails(TypeError, pack, 5, BUFFERS)),
            ("buffers are not taken", lambda: pack([("SET", self.pieces[1])], frozenset())),
            ("buffers are no set", lambda: pack([("SET", self.pieces[1])], 5)),
            ("arguments", lambda: fails(TypeError, pack, [])),
        ]

    @staticmethod
    def packed(commands: List[Any], expected: bytes) -> Callable[[], None]:
        def call() -> None:
            pieces = native.pack_commands(commands, BUFFERS)
            assert pieces is not None
            assert b"".join(pieces) == expected
            for args in commands:
                for arg in args:
                    if type(arg) is bytearray:
                        arg.append(1)  # refused where a buffer was not given back
                        arg.pop()

        return call

    @staticmethod
    def unpacked(commands: List[Any]) -> Callable[[], None]:
        def call() -> None:
            assert native.pack_commands(commands, BUFFERS) is None

        return call

    def raising_late(self) -> Iterator[Any]:
        yield self.packable
        yield ("GET", "key")
        raise Failed

    def of_reader(self) -> List[Tuple[Any, ...]]:
        receive, ours = self.reader.receive, self.ours
        return [
            ("received at once", lambda: self.replies(self.wide, bulk(BODY) + bulk(b"ab")), 0.1),
            ("one byte at a time", self.one_byte_at_a_time, 0.1),
            ("large text", lambda: self.replies(self.new_reader(encoding="utf-8"), bulk(TEXT.encode())), 0.1),
            ("large text, not in the encoding", self.undecodable, 0.1),
            ("small text, not in the encoding", self.undecodable_small),
            ("large text, encoding unknown", self.encoding_unknown, 0.1),
            ("bytes where text is decoded", self.not_decoded),
            ("forgotten half way", lambda: self.replies(self.new_reader(), b"$70000\r\nabc")),
            ("forgotten half way, an array", lambda: self.replies(self.new_reader(), b"*3\r\n*2\r\n+ab\r\n")),
            ("header cut", self.header_cut),
            ("longest", lambda: self.replies(self.new_reader(), b"$%d\r\nabc" % native.BULK_MAX_BYTES), 0.1),
            ("timeout", lambda: fails(socket.timeout, receive, ours, 1e-9)),
            ("timeout half way", self.timeout_half_way),
            ("nothing there", lambda: fails(BlockingIOError, receive, ours, 0)),
            ("end", self.end, 0.1),
            ("reset", self.reset, 0.1),
            ("closed", lambda: fails(OSError, receive, self.closed, 1)),
            ("number of a closed one", lambda: fails(OSError, receive, Fixed(10_000), 1)),
            ("no socket", lambda: fails(OSError, receive, Fixed(sys.__stdin__.fileno() if sys.__stdin__ else 0), 1)),
            ("no descriptor", lambda: fails(AttributeError, receive, None, 1)),
            ("descriptor is text", lambda: fails(TypeError, receive, Fixed("5"), 1)),
            ("descriptor too large", lambda: fails(OverflowError, receive, Fixed(2**40), 1)),
            ("descriptor raises", lambda: fails(Failed, receive, Raising(), 1)),
            ("time is text", lambda: fails(TypeError, receive, ours, "x")),
            ("time is negative", lambda: fails(ValueError, receive, ours, -1)),
            ("arguments", lambda: fails(TypeError, receive, ours)),
            ("busy", self.busy),
            ("feed raises", self.feed_raises),
            ("signal handler raises", self.handler_raises, 0.01),
            ("made of nothing", lambda: fails(AttributeError, native.Reader, None, MORE, 1, None, None)),
            ("made of too little", lambda: fails(TypeError, native.Reader, None)),
            ("made with a buffer of text", lambda: fails(ValueError, self.new_reader, "x")),
            ("made with an endless buffer", lambda: fails((MemoryError, OverflowError), self.new_reader, 2**62)),
            ("made twice", self.made_twice),
            ("not made", self.not_made),
        ]

    def one_byte_at_a_time(self) -> None:
        stream = b"+OK\r\n$70000\r\n"
        reader = self.new_reader()
        for at in range(len(stream)):
            self.replies(reader, stream[at : at + 1])

    def undecodable(self) -> None:
        reader = self.new_reader(encoding="ascii")
        fails(UnicodeDecodeError, self.replies, reader, bulk(b"x" * native.LARGE_BYTES + b"\xff"))
        self.discard()

    def undecodable_small(self) -> None:
        fails(UnicodeDecodeError, self.replies, self.new_reader(encoding="ascii"), b"$1\r\n\xff\r\n")

    def encoding_unknown(self) -> None:
        reader = native.Reader(hiredis.Reader(notEnoughData=MORE), MORE, 4096, "no-such", None)
        fails(LookupError, self.replies, reader, bulk(BODY))
        self.discard()

    def not_decoded(self) -> None:
        reader = self.new_reader(encoding="utf-8")
        self.theirs.sendall(b"$1\r\n\xff\r\n")
        reader.receive(self.ours, 1)
        assert reader.gets(False) == b"\xff"

    def header_cut(self) -> None:
        reader = self.new_reader()
        for part in (b"$700", b"00\r\nab"):
            assert self.replies(reader, part) == []
        assert reader.has_data()

    def timeout_half_way(self) -> None:
        reader = self.new_reader()
        self.replies(reader, b"$70000\r\nabc")
        fails(socket.timeout, reader.receive, self.ours, 1e-9)

    @staticmethod
    def end() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            theirs.close()
            assert Paths.new_reader().receive(ours, 1) is False
            fails(BrokenPipeError, native.send_all, ours, [b"x"], 1)

    @staticmethod
    def reset() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            ours.send(b"never read")
            theirs.close()
            fails(ConnectionResetError, Paths.new_reader().receive, ours, 1)

    def busy(self) -> None:
        class Nested(Fixed):
            def fileno(self) -> Any:
                return self.number.receive(self, 1)

        fails(RuntimeError, self.reader.receive, Nested(self.reader), 1)

    def feed_raises(self) -> None:
        class Inner:
            gets = has_data = staticmethod(lambda: False)
            feed = raise_it

        self.theirs.sendall(b"-ERR\r\n")
        reader = native.Reader(Inner(), MORE, 4096, None, None)
        reader.receive(self.ours, 1)
        fails(Failed, reader.gets)

    def handler_raises(self) -> None:
        reader = self.new_reader()
        for call in (
            lambda: reader.receive(self.ours, 5),
            lambda: native.wait_readable(self.ours, None),
            lambda: reader.replies(self.ours, 2, None),
            lambda: reader.ask(self.ours, ("GET", "key"), BUFFERS),
            lambda: reader.ask(self.ours, ("SET", "key", self.full), BUFFERS),
            lambda: native.send_all(self.ours, [self.full, *self.pieces], 5),
        ):
            fails(Failed, self.interrupted, call)
        self.discard()

    @staticmethod
    def interrupted(call: Callable[[], Any]) -> None:
        before = signal.signal(signal.SIGALRM, raise_it)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005)
            call()
        finally:
            signal.signal(signal.SIGALRM, before)

    def made_twice(self) -> None:
        reader = self.new_reader()
        fails(RuntimeError, reader.__init__, hiredis.Reader(), MORE, 1, None, None)

    def not_made(self) -> None:
        for call in ("gets", "has_data"):
            fails(TypeError, getattr(native.Reader.__new__(native.Reader), call))
        fails(RuntimeError, native.Reader.__new__(native.Reader).receive, self.ours, 1)

    def discard(self) -> None:
        for sock in (self.ours, self.theirs):
            with suppress(BlockingIOError):
                while sock.recv(1_000_000, socket.MSG_DONTWAIT):
                    pass

    def of_send_all(self) -> List[Tuple[Any, ...]]:
        send, ours, pieces = native.send_all, self.ours, self.pieces
        strided = memoryview(bytes(50))[::2]
        return [
            ("nothing", lambda: send(ours, [], 1)),
            ("one", lambda: self.sent(pieces[:1])),
            ("few", lambda: self.sent(pieces)),
            ("many", lambda: self.sent(pieces * 20)),
            ("more than one call takes", lambda: self.sent([b"a"] * 1100), 0.05),
            ("a large one behind a small one", self.sent_behind_small, 0.05),
            ("an iterator", lambda: self.sent(iter(pieces))),
            ("an iterator that raises", lambda: fails(Failed, send, ours, Raising(), 1)),
            ("no pieces", lambda: fails(TypeError, send, ours, 5, 1)),
            ("text among many", lambda: fails(TypeError, send, ours, [*pieces * 20, "text"], 1)),
            ("text among few", lambda: fails(TypeError, send, ours, [*pieces, "text"], 1)),
            ("strided", lambda: fails(BufferError, send, ours, [*pieces * 20, strided], 1)),
            ("closed", lambda: fails(OSError, send, self.closed, pieces * 20, 1)),
            ("time is text", lambda: fails(TypeError, send, ours, pieces, "x")),
            ("time is negative", lambda: fails(ValueError, send, ours, pieces, -1)),
            ("timeout", lambda: self.unsent(socket.timeout, 1e-9), 0.05),
            ("full", lambda: self.unsent(BlockingIOError, 0), 0.05),
        ]

    def sent(self, pieces: Any) -> None:
        native.send_all(self.ours, pieces, 1)
        assert self.theirs.recv(10_000)

    def sent_behind_small(self) -> None:
        with mmap.mmap(-1, 70_000) as memory, memoryview(memory) as view, view[48:] as large:
            native.send_all(self.ours, [bytes(65), large], 1)  # 17 bytes further into its page than the source
        self.discard()

    def unsent(self, expected: Any, timeout_s: float) -> None:
        fails(expected, native.send_all, self.ours, [*self.pieces * 5, self.full, self.pieces[1]], timeout_s)
        self.discard()

    def of_wait_readable(self) -> List[Tuple[Any, ...]]:
        wait, ours = native.wait_readable, self.ours
        return [
            ("nothing", lambda: wait(ours, 0)),
            ("timeout", lambda: wait(ours, 1e-9)),
            ("something", self.something),
            ("closed", lambda: fails(OSError, wait, self.closed, 1)),
            ("number of a closed one", lambda: fails(OSError, wait, Fixed(10_000), 1)),
            ("time is text", lambda: fails(TypeError, wait, ours, "x")),
            ("descriptor raises", lambda: fails(Failed, wait, Raising(), 1)),
        ]

    def something(self) -> None:
        self.theirs.send(b"x")
        assert native.wait_readable(self.ours, None) is True
        self.ours.recv(1)

    def of_decode_json(self) -> List[Tuple[Any, ...]]:
        decode = native.decode_json
        good = [(f"good {at}", lambda data=data: decode(data, 0), 0.5) for at, data in enumerate(GOOD_JSON)]
        bad = [
            (f"bad {at}", lambda data=data: fails(ValueError, decode, data, 0), 0.3) for at, data in enumerate(BAD_JSON)
        ]
        return [
            *good,
            *bad,
            ("in an array", lambda: decode(b'1, "ab", "ab\\n"] x', 0, True)),
            ("in an array, cut", lambda: fails(ValueError, decode, b'1, "ab", "ab\\n"', 0, True)),
            ("start outside", lambda: fails(ValueError, decode, b"12", 3)),
            ("start is text", lambda: fails(TypeError, decode, b"12", "0")),
            ("no bytes", lambda: fails(TypeError, decode, bytearray(b"12"), 0)),
            ("scratch", self.scratch),
            ("null", lambda: decode(b"[null, true, false]", 0)),
        ]

    @staticmethod
    def scratch() -> None:
        text = '"\\n' + "€" * 40 + '\\u20ac"'
        assert native.decode_json(text.encode(), 0)[0] == json.loads(text)


def main() -> int:
    rounds, chosen = int(sys.argv[1]), sys.argv[2:]
    paths = Paths()
    walked = 0
    for path in paths.all():
        if not chosen or f"{path.of} {path.name}".startswith(tuple(chosen)):
            for _ in range(rounds):
                path.call()
            walked += 1
    paths.close()
    print(f"{walked} paths, {rounds} rounds each")
    return int(not walked)


if __name__ == "__main__":
    sys.exit(main())
