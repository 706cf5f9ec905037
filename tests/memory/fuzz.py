"""Fuzzes the sanitized native module by coverage of its own code, with atheris (libFuzzer).

``replies``: the input is options, how the stream is cut, and the stream. What the native Reader gives, or raises, is
what its Python twin gives for the same parts, and what hiredis gives for all of it at once; receiving raises nothing.
In some inputs they are had by ``replies``, several at once.
``json``: ``decode_json`` gives what ``json`` gives, and refuses what that refuses, with a ``ValueError``.
``pack``: ``pack_commands`` gives the pieces that its twin does, which are the bytes of redis-py's own packer.

``python tests/memory/fuzz.py json 600`` builds, fuzzes for ten minutes and keeps what it found worth while in
``build/memory/json``; with ``--hex 00ff`` it runs one input. A failure prints its input in that form.
"""

import argparse
import os
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import builds

LARGE = 16
LONGEST = 1000
MORE = object()

# What hiredis itself cannot be given here: it makes a list of as many elements as a header says before any has come,
# and its 3.5.0 reads four bytes behind a verbatim string, which may be the end of its buffer.
LEFT_OUT = re.compile(rb"[*%~>|]\+?0*[1-9][0-9]{3}|=[0-9]")


def unpacked(packed: bytes) -> bytes:
    """Return the stream: byte 1 or 2 and a length stand for a whole bulk string, so that lengths are mostly right."""
    stream, at = bytearray(), 0
    while at < len(packed):
        if packed[at] in (1, 2) and at + 1 < len(packed):
            size, body = packed[at + 1], (b"x" if packed[at] == 1 else b"\xc3\xa9") * 255
            stream += b"$%d\r\n%b\r\n" % (size, body[:size])
            at += 2
        else:
            stream.append(packed[at])
            at += 1
    return bytes(stream)


def replies_target() -> Callable[[bytes], None]:
    from extras import _fastsock_py as python

    # Before the native module takes them over: small, so that short inputs are large replies.
    python.LARGE_BYTES, python.BULK_MAX_BYTES = LARGE, LONGEST
    import hiredis

    from extras import _fastsock as native

    ours, theirs = socket.socketpair()
    seen: Dict[str, Any] = {"broken": False}
    refusals = (hiredis.ProtocolError, TypeError)  # TypeError: a map whose name is a list

    def gotten(reader: Any, decode: bool, found: List[Any]) -> None:
        while not seen["broken"]:
            try:
                reply = reader.gets() if decode else reader.gets(False)
            except UnicodeDecodeError as error:
                reply = error
            except refusals as error:
                seen["broken"] = True  # nothing is promised of what comes after it
                reply = error
            if reply is MORE:
                return
            found.append(comparable(reply))

    def by(twin: Any, parts: List[bytes], buffer_bytes: int, decode: bool, kwargs: Dict[str, Any]) -> List[Any]:
        inner = hiredis.Reader(notEnoughData=MORE, **kwargs)
        reader = twin.Reader(inner, MORE, buffer_bytes, kwargs.get("encoding"), kwargs.get("errors"))
        found: List[Any] = []
        seen["broken"] = False
        for part in parts:
            theirs.sendall(part)
            left = len(part)
            while left:
                before = left
                assert reader.receive(ours, None) is True
                left = int.from_bytes(fcntl.ioctl(ours, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
                assert left < before
                gotten(reader, decode, found)
        found.append(("has data", seen["broken"] or reader.has_data()))
        return found

    def at_once(twin: Any, parts: List[bytes], buffer_bytes: int, count: int, kwargs: Dict[str, Any]) -> List[Any]:
        """Have ``count`` replies with each call, until there are no more."""
        inner = hiredis.Reader(notEnoughData=MORE, **kwargs)
        reader = twin.Reader(inner, MORE, buffer_bytes, kwargs.get("encoding"), kwargs.get("errors"))
        found: List[Any] = []
        seen["broken"] = False
        for part in parts:
            theirs.sendall(part)
            while not seen["broken"]:
                try:
                    found += comparable(reader.replies(ours, count, 0))
                except BlockingIOError:
                    break
                except UnicodeDecodeError as error:
                    found.append(comparable(error))
                except refusals as error:
                    seen["broken"] = True
                    found.append(comparable(error))
        while twin.wait_readable(ours, 0):
            ours.recv(LONGEST)
        found.append(("has data", seen["broken"] or reader.has_data()))
        return found

    def left(plain: List[Any], count: int) -> List[Any]:
        """Return the replies that are there by so many at once: those before an error and before silence are lost."""
        found: List[Any] = []
        held: List[Any] = []
        for reply in plain:
            if type(reply) is tuple and reply[0] in (UnicodeDecodeError, *refusals):
                found.append(reply)
                held = []
                continue
            held.append(reply)
            if len(held) == count or (type(reply) is tuple and reply[0] is hiredis.PushNotification):
                found += held
                held = []
        return found

    import fcntl
    import termios

    def target(data: bytes) -> None:
        if len(data) < 4:
            return
        options, cuts = data[0], data[2] % 8
        stream = unpacked(data[3 + cuts :])
        if LEFT_OUT.search(stream) or len(stream) > LONGEST:
            return
        few = len(stream) // 16  # system calls are what takes the time
        buffer_bytes = max(1 + data[1], few)
        sizes = [max(1 + size, few) for size in data[3 : 3 + cuts]] or [LONGEST]
        kwargs: Dict[str, Any] = {}
        if options & 3:
            kwargs["encoding"] = ("utf-8", "latin-1", "ascii")[(options & 3) - 1]
            kwargs["errors"] = ("strict", "replace", "surrogateescape", "ignore")[options >> 2 & 3]
        decode = not options & 16
        count = options >> 6  # by replies(), if not 0
        at = 0
        parts: List[bytes] = []
        while at < len(stream):
            size = sizes[len(parts) % len(sizes)]
            parts.append(stream[at : at + size])
            at += size
        if count:
            parts = parts if count == 1 else [stream]  # where one part ends, no reply is lost of one at a time
            decode = True
            found = at_once(native, parts, buffer_bytes, count, kwargs)
            twins = at_once(python, parts, buffer_bytes, count, kwargs)
        else:
            found = by(native, parts, buffer_bytes, decode, kwargs)
            twins = by(python, parts, buffer_bytes, decode, kwargs)
        assert found == twins, (parts, buffer_bytes, kwargs, decode, found, twins)
        plain: List[Any] = []
        seen["broken"] = False
        reader = hiredis.Reader(notEnoughData=MORE, **kwargs)
        reader.feed(stream)
        gotten(reader, decode, plain)
        plain = left(plain, count) if count else plain
        assert found[:-1] == plain, (parts, buffer_bytes, count, kwargs, decode, found, plain)

    return target


def comparable(reply: Any) -> Any:
    """Errors are equal if class and text are, and floats that are no number."""
    if type(reply).__name__ == "PushNotification":
        return (type(reply), [comparable(each) for each in reply])
    if isinstance(reply, (list, tuple)):
        return [comparable(each) for each in reply]
    if isinstance(reply, dict):
        return [comparable(pair) for pair in reply.items()]
    return (type(reply), str(reply) if isinstance(reply, (Exception, float)) else reply)


def json_target() -> Callable[[bytes], None]:
    import test_decode_json

    from extras import _fastsock as native

    def target(data: bytes) -> None:
        if data:
            start, in_array = data[0] >> 1 & 3, bool(data[0] & 1)
            expected = test_decode_json.oracle(data[1:], start, in_array) if start < len(data) else None
            found = test_decode_json.outcome(native, data[1:], start, in_array)
            assert (found is None) == (expected is None), (data, found, expected)
            if found is not None and expected is not None:
                assert found[1] == expected[1], (data, found, expected)
                assert test_decode_json.difference(found[0], expected[0]) is None, (data, found, expected)

    return target


ARGUMENTS: List[Callable[[bytes, bytes], Any]] = [
    lambda body, large: body,
    lambda body, large: body.decode("utf-8", "ignore"),
    lambda body, large: body.decode("latin-1"),
    lambda body, large: body.decode("utf-16", "surrogatepass") if len(body) % 2 == 0 else "SET",
    lambda body, large: bytearray(body),
    lambda body, large: memoryview(body),
    lambda body, large: memoryview(body)[::2],
    lambda body, large: int.from_bytes(body[:8], "little", signed=True),
    lambda body, large: int.from_bytes(body, "big", signed=True),
    lambda body, large: struct.unpack("d", body[:8].ljust(8, b"\0"))[0],
    lambda body, large: large,
    lambda body, large: large.decode("latin-1"),
    lambda body, large: bytearray(large),
    lambda body, large: memoryview(large),
    lambda body, large: None,
]


def arguments(data: bytes) -> List[List[Any]]:
    """Make commands of an input: a kind, a length, and so many bytes, or a large argument of them."""
    commands: List[List[Any]] = [[]]
    at = 0
    while at + 1 < len(data):
        kind, size = data[at] % 16, data[at + 1]
        body = data[at + 2 : at + 2 + size % 64]
        at += 2 + len(body)
        large = (body or b"x") * size
        if kind == 0:
            commands.append([])
        else:
            commands[-1].append(ARGUMENTS[kind - 1](body, large))
    return commands


def pack_target() -> Callable[[bytes], None]:
    from redis.connection import Connection, PythonRespSerializer

    from extras import _fastsock as native
    from extras import _fastsock_py as python

    new: Any = PythonRespSerializer
    stock = new(native.CUTOFF_BYTES, Connection().encoder.encode)
    both, neither = frozenset({bytearray, memoryview}), frozenset[type]()

    def target(data: bytes) -> None:
        if not data:
            return
        try:
            commands = arguments(data[1:])
        except UnicodeDecodeError:
            return
        buffers = neither if data[0] & 1 else both
        found = native.pack_commands(commands, buffers)
        twins = python.pack_commands(commands, buffers)
        assert (found is None) == (twins is None), (commands, found, twins)
        if found is not None and twins is not None:
            assert list(map(bytes, found)) == list(map(bytes, twins)), (commands, found, twins)
            for arg in (arg for args in commands for arg in args):
                if type(arg) in (bytes, *buffers) and len(arg) > native.CUTOFF_BYTES:
                    assert any(piece is arg for piece in found), commands
            packed = b"".join(piece for args in commands for piece in stock.pack(*args))
            assert b"".join(found) == packed, (commands, found, packed)

    return target


def seeds(name: str) -> List[bytes]:
    """Return what to begin with."""
    if name == "json":
        import test_decode_json

        texts = [*test_decode_json.GOOD, *test_decode_json.BAD, test_decode_json.SAMPLE.decode()]
        return [b"\0" + text.encode() for text in texts if len(text) < 400]
    if name == "pack":
        command = b"\x03\x03SET\x02\x04\xc3\xa9ab"
        rest = [bytes([kind, 4]) + b"\x01ab\xff" for kind in range(1, 16)]
        rest += [bytes([kind, 253]) + b"abcdefgh" * 7 for kind in range(11, 15)]
        return [b"\0" + (command + each) * count for each in rest for count in (1, 3)] + [b"\0", b"\1" + command]
    import paths

    streams = [stream for stream in paths.REPLIES.values() if len(stream) < 200]
    streams += [
        b"\x01\x20",
        b"\x02\x20:1\r\n",
        b"*2\r\n\x01\x20:1\r\n",
        b"+a\r\n\x01\x20\x01\x21\x02\x05-E\r\n",
        b"$40\r\nab",
    ]
    streams += list(paths.REFUSED.values())
    cut = [b"\0\xff\0", b"\0\x08\x01\x04", b"\x01\x40\x02\x00\x05", b"\x03\xff\x01\x20", b"\x16\xff\x01\x10"]
    cut += [b"\x40\x08\x01\x04", b"\xc1\xff\0", b"\x80\x04\0"]  # by replies()
    return [start + stream for stream in streams for start in cut]


TARGETS: Dict[str, Tuple[Callable[[], Callable[[bytes], None]], int]] = {
    "replies": (replies_target, 100),
    "json": (json_target, 400),
    "pack": (pack_target, 300),
}
"""Each target, and the longest input."""


def fuzz(name: str, seconds: int, corpus: Path, near: Optional[bytes]) -> None:
    """Fuzz in this process, which ends with the first failure."""
    import atheris

    make, longest = TARGETS[name]
    longest = longest if near is None else len(near)
    target = make()

    def one(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            print(f"failed: fuzz.py {name} 1 --hex {data.hex()}", file=sys.stderr, flush=True)
            raise

    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name) if near is None else [near]):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-max_len={longest}", f"-artifact_prefix={corpus.parent}/failed-"]
    options += ["-timeout=20", "-rss_limit_mb=4000", "-print_final_stats=1", "-reload=0", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    """Build if need be, and start this again with the sanitizers' runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--hex", help="run this one input")
    parser.add_argument("--seed", help="begin with this input alone, in hex, and stay as short")
    parser.add_argument("--corpus", type=Path, help="where to keep inputs")
    chosen = parser.parse_args()
    if "LD_PRELOAD" not in os.environ:
        builds.all_builds()
        os.execve(sys.executable, [sys.executable, *sys.argv], builds.sanitizing())
    if chosen.hex is not None:
        TARGETS[chosen.target][0]()(bytes.fromhex(chosen.hex))
        return 0
    near = None if chosen.seed is None else bytes.fromhex(chosen.seed)
    fuzz(chosen.target, chosen.seconds, chosen.corpus or builds.SCRATCH / chosen.target, near)
    return 0


if __name__ == "__main__":
    sys.exit(main())
