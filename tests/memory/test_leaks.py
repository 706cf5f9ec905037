"""No path through the native module leaves a block of memory, an allocation or a reference behind.

Two measures, because Python counts only what it has given out itself: its blocks, and the bytes that malloc has given
out to it, to hiredis and to the native module. 20,000 rounds of each path, after some to warm up, in four runs, each
of which must grow if there is a leak; fewer where :class:`paths.Path` says so, because a round takes many system calls
or moves many bytes.
"""

import ctypes
import gc
import inspect
import sys
from typing import Iterator, List

import builds
import paths
import pytest
from leaks import growths

from extras import _fastsock as native

ROUNDS = 20_000
RUNS = 4
RUN_PYTEST = "import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"


class Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and later, mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    ] + [("keepcost", ctypes.c_size_t)]


mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo


def allocated_bytes() -> int:
    """Return how many bytes malloc has given out, with those that it takes from the system one by one."""
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


PATHS = paths.Paths()
ALL = PATHS.all()


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # pytest's own objects, which the collector would go through six times for each path
    yield
    gc.unfreeze()
    PATHS.close()


def test_every_public_name_has_a_path() -> None:
    """A new native function is added to ``paths.py``."""
    callables = {name for name, value in vars(native).items() if not name.startswith("_") and callable(value)}
    callables -= {"PUSH"}  # a class of hiredis
    assert {path.of for path in ALL} == callables
    methods = {name for name, value in vars(native.Reader).items() if not name.startswith("_") and callable(value)}
    source = inspect.getsource(paths)
    assert not [name for name in methods if f".{name}" not in source and f'"{name}"' not in source]


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.of} {path.name}")
def test_path(path: paths.Path) -> None:
    rounds = max(int(ROUNDS // RUNS * path.share), 10)
    references: List[int] = [sys.getrefcount(each) for each in PATHS.handed_in]
    blocks, allocated = growths(path.call, rounds, sys.getallocatedblocks, allocated_bytes)
    assert blocks <= 0, f"{blocks} blocks in {rounds} rounds"
    assert allocated <= 0, f"{allocated} bytes of malloc in {rounds} rounds"
    gc.collect()
    assert [sys.getrefcount(each) for each in PATHS.handed_in] == references


@pytest.mark.parametrize(
    ("fault", "path", "said"),
    [
        ("block", "decode_json bad 1", " blocks in "),
        ("memory", "Reader forgotten half way", " bytes of malloc in "),
        ("text", "pack_commands the text buffer grows", " blocks in "),
        ("held", "send_all few", "sys.getrefcount(each) for each"),
    ],
)
def test_planted_fault_is_found(built: None, fault: str, path: str, said: str) -> None:
    command = [sys.executable, "-c", RUN_PYTEST, f"{__file__}::test_path[{path}]"]
    for on, expected in (("", 0), (fault, 1)):
        done = builds.run(command, builds.environment("faulty-plain", on), 60)
        assert done.returncode == expected, done.stdout
        assert not on or (said in done.stdout and "1 failed" in done.stdout), done.stdout
