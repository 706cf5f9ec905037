"""The native module and its Python twin do the same to a socket, fail alike, and leak nothing.

The tests need the compiled module: run them against an installed package, with ``pytest`` or from another folder,
because ``python -m pytest`` puts the sources, where nothing is compiled, first on the path.
"""

import ast
import errno
import inspect
import os
import random
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from leaks import growth

from extras import _fastsock as native
from extras import _fastsock_py as python
from extras import fastsock
from extras.keepalive import Keepalive

FIELDS = ("enabled", "idle_s", "interval_s", "count", "user_timeout_ms")
Values = Tuple[Any, Any, Any, Any, Any]
"""Arguments of ``set_keepalive`` after the descriptor."""

NOTHING: Values = (True, None, None, None, None)
GIVEN: Values = (True, 33, 7, 4, 61000)
INT_MAX = 2**31 - 1
UNIT = {"TCP_RXT_CONNDROPTIME": 1000}

each_twin = pytest.mark.parametrize("twin", [native, python], ids=["native", "python"])
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the ranges are those of Linux, net/ipv4/tcp.c")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


FAMILIES = [
    pytest.param(socket.AF_INET, id="IPv4"),
    pytest.param(
        socket.AF_INET6, id="IPv6", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
    ),
]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[False, True], ids=["unconnected", "connected"])
def sock(request: pytest.FixtureRequest, family: int) -> Iterator[socket.socket]:
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(family))
        if request.param:
            listener = stack.enter_context(socket.socket(family))
            listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
            listener.listen()
            sock.connect(listener.getsockname())
        yield sock


def held(sock: socket.socket) -> Tuple[Any, ...]:
    """Return what the kernel holds, asked without either twin."""
    found: List[Any] = []
    for field in FIELDS:
        name, constant = native.SPELLING.get(field, ("", 0))
        if name in ("", "SIO_KEEPALIVE_VALS"):
            found.append(None)
            continue
        level = socket.SOL_SOCKET if field == "enabled" else socket.IPPROTO_TCP
        value = sock.getsockopt(level, constant)
        found.append(bool(value) if field == "enabled" else value * UNIT.get(name, 1))
    return tuple(found)


def on_this_system(values: Values) -> Values:
    """Leave out what this system has no option for."""
    given = [value if field in native.SPELLING else None for field, value in zip(FIELDS, values)]
    return given[0], given[1], given[2], given[3], given[4]


def outcome(call: Callable[..., Any], *arguments: Any) -> Tuple[Any, ...]:
    """Return what a call gave, or all that a caller sees of its error."""
    try:
        return ("result", call(*arguments))
    except (OSError, OverflowError) as error:
        return (type(error), getattr(error, "errno", None), str(error))
    except (TypeError, ValueError) as error:  # the texts are those of Python and Cython, and change with them
        return (type(error),)


def lowest_free_fd() -> int:
    """Return the descriptor that the next ``open()`` will get: a leaked one would be lower."""
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    return fd


class TestSpelling:
    """The options this system has."""

    def test_is_the_same(self) -> None:
        assert native.SPELLING == python.SPELLING == fastsock.SPELLING
        assert list(native.SPELLING) == list(python.SPELLING)
        assert set(native.SPELLING) <= set(FIELDS)

    @pytest.mark.parametrize(
        ("platform", "expected"),
        [
            (
                "linux",  # linux/tcp.h
                {
                    "idle_s": ("TCP_KEEPIDLE", 4),
                    "interval_s": ("TCP_KEEPINTVL", 5),
                    "count": ("TCP_KEEPCNT", 6),
                    "user_timeout_ms": ("TCP_USER_TIMEOUT", 18),
                },
            ),
            (
                "darwin",  # netinet/tcp.h
                {
                    "idle_s": ("TCP_KEEPALIVE", 0x10),
                    "interval_s": ("TCP_KEEPINTVL", 0x101),
                    "count": ("TCP_KEEPCNT", 0x102),
                    "user_timeout_ms": ("TCP_RXT_CONNDROPTIME", 0x80),
                },
            ),
        ],
    )
    def test_is_the_kernels(self, platform: str, expected: Dict[str, Tuple[str, int]]) -> None:
        if sys.platform != platform:
            pytest.skip(f"the numbers are those of {platform}")
        assert {"enabled": ("SO_KEEPALIVE", socket.SO_KEEPALIVE), **expected} == native.SPELLING

    def test_impl(self) -> None:
        assert (native.IMPL, python.IMPL) == ("native", "python")


class TestEffects:
    """What is set is what the kernel holds."""

    @each_twin
    def test_all_values(self, twin: Any, sock: socket.socket) -> None:
        given = on_this_system(GIVEN)
        assert twin.set_keepalive(sock.fileno(), *given) is None
        assert held(sock) == given
        assert native.get_keepalive(sock.fileno()) == given
        assert python.get_keepalive(sock.fileno()) == given
        assert [type(value) for value in native.get_keepalive(sock.fileno())] == [
            type(value) for value in python.get_keepalive(sock.fileno())
        ]

    @each_twin
    def test_what_was_set_without_it(self, twin: Any, sock: socket.socket) -> None:
        assert twin.get_keepalive(sock.fileno()) == held(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9)
        assert twin.get_keepalive(sock.fileno()) == held(sock)
        assert twin.get_keepalive(sock.fileno())[0] is True

    @each_twin
    def test_none_leaves_an_option_alone(self, twin: Any, sock: socket.socket) -> None:
        before = held(sock)
        twin.set_keepalive(sock.fileno(), *NOTHING)
        assert held(sock) == (True, *before[1:])
        for index in range(1, len(FIELDS)):
            if FIELDS[index] in native.SPELLING:
                before = held(sock)
                only: List[Any] = list(NOTHING)
                only[index] = GIVEN[index]
                twin.set_keepalive(sock.fileno(), *only)
                assert held(sock) == (*before[:index], GIVEN[index], *before[index + 1 :])

    @each_twin
    def test_off_and_on_again(self, twin: Any, sock: socket.socket) -> None:
        given = on_this_system(GIVEN)
        twin.set_keepalive(sock.fileno(), *given)
        twin.set_keepalive(sock.fileno(), False, None, None, None, None)
        assert held(sock) == (False, *given[1:])
        twin.set_keepalive(sock.fileno(), *NOTHING)
        assert held(sock) == given

    @each_twin
    def test_option_that_this_system_does_not_have(self, twin: Any) -> None:
        absent = [field for field in FIELDS[1:] if field not in native.SPELLING]
        if not absent:
            pytest.skip("this system has them all")
        with socket.socket() as sock:
            for field in absent:
                only = [True] + [5 if name == field else None for name in FIELDS[1:]]
                with pytest.raises(OSError, match=rf"setsockopt\({field}=5\)") as caught:
                    twin.set_keepalive(sock.fileno(), *only)
                assert caught.value.errno == errno.ENOPROTOOPT

    def test_option_that_another_system_does_not_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(python.SPELLING, "count")
        with socket.socket() as sock:
            with pytest.raises(OSError, match=r"setsockopt\(count=5\)") as caught:
                python.set_keepalive(sock.fileno(), True, None, None, 5, None)
            assert caught.value.errno == errno.ENOPROTOOPT
            assert python.get_keepalive(sock.fileno())[3] is None

    @pytest.mark.parametrize(("value_ms", "kernel_s"), [(1, 1), (999, 1), (1000, 1), (1001, 2), (INT_MAX, 2147484)])
    def test_option_in_seconds(self, monkeypatch: pytest.MonkeyPatch, value_ms: int, kernel_s: int) -> None:
        """macOS: rounded up, so that what is not 0 stays so, and read back as the kernel has it."""
        if "user_timeout_ms" not in python.SPELLING:
            pytest.skip("this system has no user timeout")
        constant = python.SPELLING["user_timeout_ms"][1]
        monkeypatch.setitem(python.SPELLING, "user_timeout_ms", ("TCP_RXT_CONNDROPTIME", constant))
        with socket.socket() as sock:
            python.set_keepalive(sock.fileno(), True, None, None, None, value_ms)
            assert sock.getsockopt(socket.IPPROTO_TCP, constant) == kernel_s
            assert python.get_keepalive(sock.fileno())[4] == kernel_s * 1000

    def test_options_that_are_set_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Older Windows: idle and interval in one call or not at all, and not to be read back."""
        calls: List[Tuple[int, int]] = []
        monkeypatch.setattr(
            python, "_windows_values", lambda sock, idle_s, interval_s: calls.append((idle_s, interval_s))
        )
        for field in ("idle_s", "interval_s"):
            monkeypatch.setitem(python.SPELLING, field, ("SIO_KEEPALIVE_VALS", 0))
        with socket.socket() as sock:
            before = held(sock)
            python.set_keepalive(sock.fileno(), True, 30, None, 4, None)
            python.set_keepalive(sock.fileno(), True, None, 5, None, None)
            assert calls == []
            python.set_keepalive(sock.fileno(), True, 30, 5, None, None)
            assert calls == [(30, 5)]
            assert held(sock) == (True, before[1], before[2], 4, before[4])
            assert python.get_keepalive(sock.fileno())[:4] == (True, None, None, 4)

    @pytest.mark.skipif(not hasattr(os, "get_blocking"), reason="this Python cannot tell whether a socket blocks")
    @pytest.mark.parametrize("default_s", [None, 0.0, 5.0])
    @pytest.mark.parametrize("timeout_s", [None, 0.0, 5.0])
    @each_twin
    def test_blocking_mode_is_left_alone(
        self, twin: Any, timeout_s: Optional[float], default_s: Optional[float]
    ) -> None:
        """Code elsewhere in the process may have called ``socket.setdefaulttimeout``."""
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(default_s)
        try:
            with socket.socket() as sock:
                sock.settimeout(timeout_s)
                for call, arguments in ((twin.set_keepalive, NOTHING), (twin.get_keepalive, ())):
                    call(sock.fileno(), *arguments)
                    assert os.get_blocking(sock.fileno()) is (timeout_s is None)
                    assert sock.gettimeout() == timeout_s
        finally:
            socket.setdefaulttimeout(before)

    @each_twin
    def test_descriptor_stays_open(self, twin: Any) -> None:
        with socket.socket() as sock:
            fd = sock.fileno()
            for values in (NOTHING, (True, -1, None, None, None), (True, 2**40, None, None, None)):
                outcome(twin.set_keepalive, fd, *values)
                outcome(twin.get_keepalive, fd)
                os.fstat(fd)
            assert sock.fileno() == fd


def closed_fd(stack: ExitStack) -> int:
    sock = socket.socket()
    fd = sock.fileno()
    sock.close()
    return fd


def negative_fd(stack: ExitStack) -> int:
    return -1


def very_negative_fd(stack: ExitStack) -> int:
    return -(2**31)


def pipe_fd(stack: ExitStack) -> int:
    ends = os.pipe()
    for fd in ends:
        stack.callback(os.close, fd)
    return ends[0]


def file_fd(stack: ExitStack) -> int:
    return stack.enter_context(open(os.devnull, "rb")).fileno()


def unix_fd(stack: ExitStack) -> int:
    ends = socket.socketpair()
    for end in ends:
        stack.enter_context(closing(end))
    return ends[0].fileno()


def udp_fd(stack: ExitStack) -> int:
    return stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).fileno()


def tcp_fd(stack: ExitStack) -> int:
    return stack.enter_context(socket.socket()).fileno()


FdMaker = Callable[[ExitStack], int]


class TestErrors:
    """Both fail with the same class, errno and text."""

    @pytest.mark.parametrize(
        ("make", "codes", "option"),
        [
            (closed_fd, {errno.EBADF}, "SO_KEEPALIVE"),
            (negative_fd, {errno.EBADF}, "SO_KEEPALIVE"),
            (very_negative_fd, {errno.EBADF}, "SO_KEEPALIVE"),
            (pipe_fd, {errno.ENOTSOCK}, "SO_KEEPALIVE"),
            (file_fd, {errno.ENOTSOCK}, "SO_KEEPALIVE"),
            (unix_fd, {errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EINVAL}, None),
            (udp_fd, {errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EINVAL}, None),
        ],
    )
    @pytest.mark.parametrize("enabled", [True, False])
    def test_descriptor(self, make: FdMaker, codes: Any, option: Optional[str], enabled: bool) -> None:
        option = option or native.SPELLING["idle_s"][0]
        value = int(enabled) if option == "SO_KEEPALIVE" else 5
        with ExitStack() as stack:
            fd = make(stack)
            failed = outcome(native.set_keepalive, fd, enabled, 5, 5, 5, None)
            assert failed == outcome(python.set_keepalive, fd, enabled, 5, 5, 5, None)
            assert failed[0] is OSError
            assert failed[1] in codes
            assert failed[2] == f"[Errno {failed[1]}] setsockopt({option}={value}): {os.strerror(failed[1])}"

            failed = outcome(native.get_keepalive, fd)
            assert failed == outcome(python.get_keepalive, fd)
            assert failed[0] is OSError
            assert failed[1] in codes
            assert failed[2] == f"[Errno {failed[1]}] getsockopt({option}): {os.strerror(failed[1])}"

    @pytest.mark.parametrize("make", [unix_fd, udp_fd])
    def test_keepalive_alone_on_another_socket(self, make: FdMaker) -> None:
        with ExitStack() as stack:
            fd = make(stack)
            assert outcome(native.set_keepalive, fd, *NOTHING) == outcome(python.set_keepalive, fd, *NOTHING)

    @on_linux
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            *((field, value) for field in ("idle_s", "interval_s") for value in (0, -1, 32768, INT_MAX, -(2**31))),
            *(("count", value) for value in (0, -1, 128, INT_MAX, -(2**31))),
            *(("user_timeout_ms", value) for value in (-1, -(2**31))),
        ],
    )
    @each_twin
    def test_out_of_range(self, twin: Any, sock: socket.socket, field: str, value: int) -> None:
        values = (True, *(value if name == field else None for name in FIELDS[1:]))
        before = held(sock)
        with pytest.raises(OSError, match="setsockopt") as caught:
            twin.set_keepalive(sock.fileno(), *values)
        assert type(caught.value) is OSError
        assert caught.value.errno == errno.EINVAL
        name = native.SPELLING[field][0]
        assert str(caught.value) == f"[Errno {errno.EINVAL}] setsockopt({name}={value}): {os.strerror(errno.EINVAL)}"
        assert held(sock) == (True, *before[1:])

    @on_linux
    @pytest.mark.parametrize(
        "values", [(False, 1, 1, 1, 1), (True, 32767, 32767, 127, INT_MAX), (True, None, None, None, 0)]
    )
    @each_twin
    def test_bounds_are_in_range(self, twin: Any, values: Values) -> None:
        with socket.socket() as sock:
            before = held(sock)
            twin.set_keepalive(sock.fileno(), *values)
            assert held(sock) == tuple(old if new is None else new for old, new in zip(before, values))

    @on_linux
    def test_what_stands_before_the_refused_option_is_applied(self) -> None:
        for twin in (native, python):
            with socket.socket() as sock:
                before = held(sock)
                assert outcome(twin.set_keepalive, sock.fileno(), True, 5, 40000, 3, 1)[:2] == (OSError, errno.EINVAL)
                assert held(sock) == (True, 5, *before[2:])

    @pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**32, 2**32 + 5, 2**63, -(2**63) - 1, 2**64 + 5, 10**30])
    @pytest.mark.parametrize("field", FIELDS[1:])
    @each_twin
    def test_no_c_int(self, twin: Any, field: str, value: int) -> None:
        """Nothing is cut to 32 bits, and nothing at all is applied."""
        values = (True, *(value if name == field else None for name in FIELDS[1:]))
        with socket.socket() as sock:
            before = held(sock)
            with pytest.raises(OverflowError) as caught:
                twin.set_keepalive(sock.fileno(), *values)
            name = native.SPELLING.get(field, (field, 0))[0]
            assert str(caught.value) == f"{name}={value} does not fit the C int that setsockopt takes"
            assert held(sock) == before

    @pytest.mark.parametrize("make", [tcp_fd, closed_fd, negative_fd, pipe_fd, unix_fd])
    @pytest.mark.parametrize(
        "values", [(True, 0, None, 2**31, None), (True, 40000, None, None, 2**40), (True, 2**31, -1, 2**32, None)]
    )
    def test_two_wrong_values(self, make: FdMaker, values: Values) -> None:
        with ExitStack() as stack:
            fd = make(stack)
            assert outcome(native.set_keepalive, fd, *values) == outcome(python.set_keepalive, fd, *values)

    @pytest.mark.parametrize("value", [5.5, 5.0, "5", b"5", [], object()])
    @pytest.mark.parametrize("field", FIELDS[1:])
    @each_twin
    def test_value_of_another_type(self, twin: Any, field: str, value: Any) -> None:
        """As for the socket module, a float is not cut to an int."""
        values = (True, *(value if name == field else None for name in FIELDS[1:]))
        with socket.socket() as sock:
            before = held(sock)
            with pytest.raises(TypeError):
                twin.set_keepalive(sock.fileno(), *values)
            assert held(sock) == before

    @pytest.mark.parametrize("enabled", [0, 1, 2, None, "", "x", [], 2**40])
    def test_enabled_by_truth(self, enabled: Any) -> None:
        for twin in (native, python):
            with socket.socket() as sock:
                twin.set_keepalive(sock.fileno(), enabled, None, None, None, None)
                assert held(sock)[0] is bool(enabled)

    @pytest.mark.parametrize("fd", [None, 5.5, "5", b"5", socket])
    @each_twin
    def test_descriptor_of_another_type(self, twin: Any, fd: Any) -> None:
        """``None`` in particular, for which ``socket.socket(fileno=None)`` would make a new socket."""
        free = lowest_free_fd()
        with pytest.raises(TypeError):
            twin.set_keepalive(fd, *NOTHING)
        with pytest.raises(TypeError):
            twin.get_keepalive(fd)
        assert lowest_free_fd() == free

    @pytest.mark.parametrize("offset", [2**31, 2**32, 2**40, 2**64, -(2**32), -(2**64)])
    def test_descriptor_that_is_no_c_int(self, offset: int) -> None:
        """Cut to 32 bits it would be another open socket."""
        with socket.socket() as sock:
            before = held(sock)
            fd = sock.fileno() + offset
            failed = outcome(native.set_keepalive, fd, *NOTHING)
            assert failed[0] is OverflowError
            assert failed == outcome(python.set_keepalive, fd, *NOTHING)
            assert outcome(native.get_keepalive, fd) == outcome(python.get_keepalive, fd)
            assert held(sock) == before


BOUNDARIES = [0, 1, 127, 255, 256, 1000, 32767, 65535, 2147483, INT_MAX, 2**32, 2**63, 2**64]


def test_random_values() -> None:
    """2,000 calls around the boundaries: same outcome, and the same left in the kernel."""
    chance = random.Random(20240229)

    def value() -> Optional[int]:
        kind = chance.random()
        if kind < 0.25:
            return None
        if kind < 0.6:
            return chance.randint(1, 200)
        return chance.choice([1, 1, -1]) * chance.choice(BOUNDARIES) + chance.randint(-2, 2)

    differences: List[Any] = []
    results = {"result": 0, OSError: 0, OverflowError: 0}
    families = [socket.AF_INET, socket.AF_INET6] if has_ipv6() else [socket.AF_INET]
    for _ in range(2000):
        family = chance.choice(families)
        values = (chance.random() < 0.8, value(), value(), value(), value())
        seen = []
        for twin in (native, python):
            with socket.socket(family) as sock:
                fd = sock.fileno()
                seen.append((outcome(twin.set_keepalive, fd, *values), held(sock), twin.get_keepalive(fd)))
        results[seen[0][0][0]] += 1
        if seen[0] != seen[1]:
            differences.append((values, seen[0], seen[1]))
    assert min(results.values()) > 200, results
    assert not differences, f"{len(differences)} differences, the first: {differences[0]}"


def failing(call: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
    def run() -> None:
        try:
            call(*arguments)
        except (OSError, OverflowError, TypeError):
            return
        raise AssertionError("the call was to fail")

    return run


class TestLeaks:
    """No path leaves memory or a descriptor behind."""

    @pytest.fixture(params=[native, python], ids=["native", "python"])
    def twin(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    def check(self, twin: Any, call: Callable[[], Any]) -> None:
        rounds = 1_000 if twin is native else 300
        free = lowest_free_fd()
        assert growth(call, rounds) <= 0
        assert lowest_free_fd() == free

    def test_set(self, twin: Any) -> None:
        given = on_this_system(GIVEN)
        with socket.socket() as sock:
            fd = sock.fileno()
            self.check(twin, lambda: twin.set_keepalive(fd, *given))

    def test_get(self, twin: Any) -> None:
        with socket.socket() as sock:
            fd = sock.fileno()
            twin.set_keepalive(fd, *on_this_system(GIVEN))
            self.check(twin, lambda: twin.get_keepalive(fd))

    @pytest.mark.parametrize("make", [closed_fd, negative_fd, pipe_fd, unix_fd, udp_fd])
    def test_descriptor(self, twin: Any, make: FdMaker) -> None:
        with ExitStack() as stack:
            fd = make(stack)
            self.check(twin, failing(twin.set_keepalive, fd, True, 5, None, None, None))
            self.check(twin, failing(twin.get_keepalive, fd))

    @pytest.mark.parametrize(
        "values",
        [
            (True, -1, None, None, None),
            (True, 5, 5, -1, None),
            (True, 2**31, None, None, None),
            (True, 5, None, None, 2**70),
            (True, "5", None, None, None),
        ],
    )
    def test_value(self, twin: Any, values: Values) -> None:
        with socket.socket() as sock:
            self.check(twin, failing(twin.set_keepalive, sock.fileno(), *values))

    @pytest.mark.parametrize("arguments", [(), (None,), ("5",), (2**70,), (1, 2, 3)])
    def test_arguments(self, twin: Any, arguments: Tuple[Any, ...]) -> None:
        try:
            twin.get_keepalive(*arguments)
        except (TypeError, OverflowError):
            self.check(twin, failing(twin.get_keepalive, *arguments))
        else:
            raise AssertionError(f"get_keepalive took {arguments}")

    def test_references_to_the_arguments(self, twin: Any) -> None:
        """Counted apart: a reference that is never given back leaks no block while the object lives elsewhere."""
        numbers = [int(text) for text in ("1001", "1002", str(2**40), "-1003")]
        before = [sys.getrefcount(number) for number in numbers]
        with socket.socket() as sock:
            for _ in range(100):
                outcome(twin.set_keepalive, sock.fileno(), True, numbers[0], numbers[1], None, None)
                outcome(twin.set_keepalive, sock.fileno(), True, numbers[0], None, numbers[2], None)
                outcome(twin.set_keepalive, sock.fileno(), True, numbers[3], None, None, numbers[1])
        assert [sys.getrefcount(number) for number in numbers] == before

    def test_measure_finds_a_leak(self) -> None:
        kept: List[Any] = []
        assert sys.getallocatedblocks() > 0
        assert growth(lambda: kept.append(object()), 100) >= 100


class TestSelector:
    """``EXTRAS_FASTSOCK`` and what is compiled decide which of the two runs."""

    HIDE = "import sys; sys.modules['extras._fastsock'] = None\n"
    BREAK = (
        "import sys\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'extras._fastsock':\n"
        "            raise ImportError('libfoo.so.6: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Broken())\n"
    )
    SHOW = "from extras import fastsock; print(fastsock.IMPL, fastsock._impl.__name__)"

    def run(self, folder: Path, code: str, forced: Optional[str]) -> "subprocess.CompletedProcess[str]":
        environment = {name: value for name, value in os.environ.items() if name != "EXTRAS_FASTSOCK"}
        if forced is not None:
            environment["EXTRAS_FASTSOCK"] = forced
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=str(folder),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @pytest.mark.parametrize(
        ("forced", "expected"),
        [
            (None, "native extras._fastsock"),
            ("", "native extras._fastsock"),
            ("native", "native extras._fastsock"),
            ("python", "python extras._fastsock_py"),
        ],
    )
    def test_choice(self, tmp_path: Path, forced: Optional[str], expected: str) -> None:
        done = self.run(tmp_path, self.SHOW, forced)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, expected, "")

    @pytest.mark.parametrize("hidden", [HIDE, BREAK], ids=["not built", "cannot be loaded"])
    @pytest.mark.parametrize("forced", [None, "", "python"])
    def test_falls_back(self, tmp_path: Path, hidden: str, forced: Optional[str]) -> None:
        done = self.run(tmp_path, hidden + self.SHOW, forced)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "python extras._fastsock_py", "")

    @pytest.mark.parametrize(
        ("hidden", "reason"),
        [(HIDE, "extras._fastsock"), (BREAK, "libfoo.so.6")],
        ids=["not built", "cannot be loaded"],
    )
    def test_native_insists(self, tmp_path: Path, hidden: str, reason: str) -> None:
        done = self.run(tmp_path, hidden + self.SHOW, "native")
        assert done.returncode == 1
        assert done.stdout == ""
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(
            "ImportError: EXTRAS_FASTSOCK=native, but the compiled module extras._fastsock cannot be loaded ("
        )
        assert reason in last
        assert last.endswith("; install a rasa-extras wheel made for this Python and system, or unset EXTRAS_FASTSOCK")

    @pytest.mark.parametrize("forced", ["bogus", "Native", "1", " python"])
    def test_unknown_value(self, tmp_path: Path, forced: str) -> None:
        done = self.run(tmp_path, self.SHOW, forced)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.strip().splitlines()[-1] == (
            f"extras.errors.OptionError: EXTRAS_FASTSOCK is {forced!r}; set it to 'native' or 'python', or unset it"
        )

    @each_twin
    @pytest.mark.parametrize(
        "keepalive",
        [
            Keepalive(True, 33, 7, 4, 61000),
            Keepalive(False, 33, 7, 4, 61000),
            Keepalive().with_defaults(),
            Keepalive(True, 5),
            Keepalive(False),
        ],
        ids=str,
    )
    def test_round_trip(self, monkeypatch: pytest.MonkeyPatch, twin: Any, keepalive: Keepalive) -> None:
        monkeypatch.setattr(fastsock, "_impl", twin)
        keepalive = keepalive.only(fastsock.SPELLING)
        with socket.socket() as sock:
            untouched = fastsock.read_keepalive(sock.fileno())
            fastsock.apply_keepalive(sock.fileno(), keepalive)
            found = fastsock.read_keepalive(sock.fileno())
            assert found.only(keepalive.given()) == keepalive
            rest = [name for name in untouched.given() if name not in keepalive.given()]
            assert found.only(rest).given() == rest
            assert [getattr(found, name) for name in rest] == [getattr(untouched, name) for name in rest]


class TestInterface:
    """``_fastsock.pyi`` describes both modules."""

    STUB = ast.parse(Path(fastsock.__file__).with_name("_fastsock.pyi").read_text(encoding="utf-8"))
    TWIN = ast.parse(Path(python.__file__).read_text(encoding="utf-8"))

    @staticmethod
    def defined(tree: ast.Module) -> Dict[str, ast.AST]:
        """Return the public names that a module defines itself."""
        found: Dict[str, ast.AST] = {}
        for statement in tree.body:
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                found[statement.name] = statement
            elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                found.update({target.id: statement for target in targets if isinstance(target, ast.Name)})
        return {name: statement for name, statement in found.items() if not name.startswith("_")}

    def test_public_names(self) -> None:
        described = set(self.defined(self.STUB))
        constants = {"IMPL", "VERSION", "SPELLING", "BULK_MAX_BYTES", "CUTOFF_BYTES", "LARGE_BYTES", "PUSH"}
        functions = {"set_keepalive", "get_keepalive", "decode_json", "pack_commands", "wait_readable"}
        functions |= {"send_all", "send_command", "send_some"}
        assert described == {*constants, *functions, "Reader"}
        assert set(self.defined(self.TWIN)) == described
        names = {name for name, value in vars(native).items() if not name.startswith("_")}
        assert {name for name in names if not inspect.ismodule(getattr(native, name))} == described

    @pytest.mark.parametrize(
        "name", ["set_keepalive", "get_keepalive", "decode_json", "wait_readable", "send_all", "send_command"]
    )
    def test_signatures(self, name: str) -> None:
        stub, twin = self.defined(self.STUB)[name], self.defined(self.TWIN)[name]
        assert isinstance(stub, ast.FunctionDef)
        assert isinstance(twin, ast.FunctionDef)
        assert stub.returns is not None
        assert twin.returns is not None
        assert ast.dump(twin.args) == ast.dump(stub.args)
        assert ast.dump(twin.returns) == ast.dump(stub.returns)

        def parameters(module: Any) -> List[Tuple[Any, ...]]:
            signature = inspect.signature(getattr(module, name))
            return [(each.name, each.kind, each.default) for each in signature.parameters.values()]

        assert parameters(native) == parameters(python)
        assert [each[0] for each in parameters(native)] == [argument.arg for argument in stub.args.args]

    def test_arguments_by_name(self) -> None:
        given = dict(zip(FIELDS, on_this_system(GIVEN)))
        for twin in (native, python):
            with socket.socket() as sock:
                call: Any = twin.set_keepalive
                call(fd=sock.fileno(), **given)
                assert twin.get_keepalive(fd=sock.fileno()) == tuple(given.values())
