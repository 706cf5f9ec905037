"""The native module's objects end without a crash, a word or a reference too many, however the interpreter ends.

Each case is a process of its own in Python's development mode, with warnings as errors: it must exit with 0 and say
nothing. References to what is handed in are counted after each path by ``test_leaks.py``, and here when objects end.
"""

import sys

import builds
import pytest

BEGIN = """
import gc, socket, sys, threading, time, weakref
import hiredis
import paths
from extras import _fastsock as native

ours, theirs = socket.socketpair()
"""

HALF = """
reader = paths.Paths.new_reader(encoding="utf-8")
theirs.sendall(b"$70000\\r\\nabc")
reader.receive(ours, 1)
"""

CASES = {
    "every path walked": """
walked = paths.Paths()
for path in walked.all():
    path.call()
walked.close()
""",
    "a reply under way": HALF,
    "a reader that is not made": "reader = native.Reader.__new__(native.Reader)",
    "in a cycle": HALF
    + """
class Inner:
    gets = feed = has_data = print
inner = Inner()
inner.reader = native.Reader(inner, inner, 4096, None, None)
inner.has_data = inner.reader.has_data
gone = weakref.ref(inner)
del inner
gc.collect()
assert gone() is None
""",
    "in a cycle at the end": """
class Inner:
    gets = feed = has_data = print
    def __del__(self):
        assert self.reader.has_data is not None
inner = Inner()
inner.reader = native.Reader(inner, inner, 4096, None, None)
""",
    "a finalizer that uses the module": HALF
    + """
class Last:
    def __init__(self):
        self.calls = reader.gets, reader.has_data, native.decode_json, paths.MORE
    def __del__(self):
        gets, has_data, decode, more = self.calls
        assert gets() is more and has_data() and decode(b"[1]", 0) == ([1], 3)
last = Last()
""",
    "a thread that waits": """
reader = paths.Paths.new_reader()
threading.Thread(target=reader.receive, args=(ours, None), daemon=True).start()
threading.Thread(target=native.wait_readable, args=(theirs, None), daemon=True).start()
time.sleep(0.05)
""",
    "a thread that sends": """
pieces = [bytes(4_000_000), bytearray(4_000_000)] * 10
threading.Thread(target=native.send_all, args=(ours, pieces, None), daemon=True).start()
time.sleep(0.05)
""",
    "a thread that goes on": """
def work():
    reader = paths.Paths.new_reader()
    reader.receive(ours, 5)
    assert reader.gets() == b"OK"
threading.Thread(target=work).start()
threading.Timer(0.1, theirs.sendall, [b"+OK\\r\\n"]).start()
""",
    "an exception kept": """
import errno
try:
    native.send_all(ours, [b"a", "text"], 1)
except TypeError as error:
    kept = error
try:
    paths.Paths.new_reader().receive(ours, 0)
except BlockingIOError as error:
    kept.__context__ = error
""",
    "memory is given back with the reader": """
import ctypes
import test_leaks
before = test_leaks.allocated_bytes()
reader = paths.Paths.new_reader(buffer_bytes=30_000_000)
theirs.sendall(b"$30000000\\r\\nabc")
reader.receive(ours, 1)
reader.gets()
assert test_leaks.allocated_bytes() > before + 59_000_000
del reader
assert test_leaks.allocated_bytes() < before + 100_000
""",
    "what is handed in is given back with the reader": """
more, inner, name = object(), hiredis.Reader(), "".join(["utf", "-8"])
counted = lambda: [sys.getrefcount(each) for each in (more, inner, name, ours)]
before = counted()
reader = native.Reader(inner, more, 4096, name, name)
theirs.sendall(b"$70000\\r\\nabc")
reader.receive(ours, 1)
assert reader.gets() is more and counted() != before
del reader
assert counted() == before, (counted(), before)
""",
    "pieces are given back": """
pieces = [bytes(1000), bytearray(1000)] * 10
before = [sys.getrefcount(each) for each in pieces]
closed = socket.socket()
closed.close()
for sock, given in ((ours, pieces), (closed, pieces), (ours, [*pieces, "text"])):
    try:
        native.send_all(sock, given, 1)
    except (OSError, TypeError):
        pass
del given
assert [sys.getrefcount(each) for each in pieces] == before
pieces[1].append(1)
""",
    "constants keep their references": """
constants = [None, True, False]
for data in (b"[null, true, false]", b"[null, true, false", b'{"a": null, "b"}'):
    before = [sys.getrefcount(each) for each in constants]
    for _ in range(1000):
        try:
            native.decode_json(data, 0)
        except ValueError:
            pass
    after = [sys.getrefcount(each) for each in constants]
    assert all(abs(now - then) < 100 for now, then in zip(after, before)), (before, after)
""",
    "forked": HALF
    + """
import os
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
""",
}


def ended(case: str, build: str = "", fault: str = "") -> "tuple[int, str]":
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::ResourceWarning", "-c", BEGIN + CASES[case]]
    done = builds.run(command, builds.environment(build, fault), 30)
    return done.returncode, done.stdout


@pytest.mark.parametrize("case", CASES)
def test_ends_quietly(case: str) -> None:
    assert ended(case) == (0, "")


@pytest.mark.parametrize(
    ("fault", "case"), [("lost", "constants keep their references"), ("held", "pieces are given back")]
)
def test_planted_fault_is_found(built: None, fault: str, case: str) -> None:
    assert ended(case, "faulty-plain") == (0, "")
    status, said = ended(case, "faulty-plain", fault)
    assert status != 0, said
    assert said
