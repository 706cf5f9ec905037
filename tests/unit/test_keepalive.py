"""Every system's liveness option means the same everywhere, and a wrong one is refused with the way out."""

import math
import socket
import sys
from dataclasses import FrozenInstanceError
from typing import Any, Dict, List, Tuple

import pytest

from extras import keepalive
from extras.errors import OptionError
from extras.keepalive import CONSTANTS, NAMES, SIO_KEEPALIVE_VALS, WITHOUT_MEANING, Keepalive, parse

KNOWN = (
    "SIO_KEEPALIVE_VALS, TCP_KEEPALIVE, TCP_KEEPALIVE_THRESHOLD, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, "
    "TCP_MAXRT, TCP_MAXRTMS, TCP_RXT_CONNDROPTIME, TCP_USER_TIMEOUT"
)
INT_MAX = 2**31 - 1

# Names as written for each system, and what they mean.
MEANINGS: List[Tuple[str, int, Keepalive]] = [
    # Linux tcp(7)
    ("TCP_KEEPIDLE", 30, Keepalive(idle_s=30)),
    ("TCP_KEEPINTVL", 5, Keepalive(interval_s=5)),
    ("TCP_KEEPCNT", 3, Keepalive(count=3)),
    ("TCP_USER_TIMEOUT", 45001, Keepalive(user_timeout_ms=45001)),
    # macOS tcp(4)
    ("TCP_KEEPALIVE", 30, Keepalive(idle_s=30)),
    ("TCP_RXT_CONNDROPTIME", 45, Keepalive(user_timeout_ms=45000)),
    # Windows ws2ipdef.h
    ("TCP_MAXRT", 45, Keepalive(user_timeout_ms=45000)),
    ("TCP_MAXRTMS", 45001, Keepalive(user_timeout_ms=45001)),
    # illumos tcp(4P): milliseconds, and a second that has begun counts
    ("TCP_KEEPALIVE_THRESHOLD", 30000, Keepalive(idle_s=30)),
    ("TCP_KEEPALIVE_THRESHOLD", 30001, Keepalive(idle_s=31)),
    ("TCP_KEEPALIVE_THRESHOLD", 29999, Keepalive(idle_s=30)),
    ("TCP_KEEPALIVE_THRESHOLD", 1001, Keepalive(idle_s=2)),
    ("TCP_KEEPALIVE_THRESHOLD", 1000, Keepalive(idle_s=1)),
    ("TCP_KEEPALIVE_THRESHOLD", 1, Keepalive(idle_s=1)),
]


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux's ranges, whatever runs the test."""
    monkeypatch.setattr(socket, "TCP_USER_TIMEOUT", 18, raising=False)


@pytest.fixture
def other_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranges of the systems without TCP_USER_TIMEOUT, whatever runs the test."""
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)


def refused(options: Dict[Any, Any]) -> str:
    """Return the message with which ``options`` are refused."""
    with pytest.raises(OptionError) as caught:
        parse(True, options)
    return str(caught.value)


@pytest.mark.parametrize(("name", "value", "meaning"), MEANINGS)
def test_name_of_any_system(name: str, value: int, meaning: Keepalive) -> None:
    assert parse(True, {name: value}) == (meaning, {meaning.given()[0]: name}, ())


def test_every_name_is_tried_above() -> None:
    assert {name for name, _, _ in MEANINGS} == set(NAMES)


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ([1, 30000, 5000], Keepalive(idle_s=30, interval_s=5)),
        ((True, 30001, 4999), Keepalive(idle_s=31, interval_s=5)),
        ([1, "1", "1000"], Keepalive(idle_s=1, interval_s=1)),
    ],
)
def test_windows_values(value: Any, meaning: Keepalive) -> None:
    names = {"idle_s": SIO_KEEPALIVE_VALS, "interval_s": SIO_KEEPALIVE_VALS}
    assert parse(True, {SIO_KEEPALIVE_VALS: value}) == (meaning, names, ())


@pytest.mark.parametrize(
    "value", [30000, "1,30000,5000", None, [], [1, 30000], [1, 30000, 5000, 3], {1: 2, 3: 4, 5: 6}]
)
def test_windows_values_of_the_wrong_shape(value: Any) -> None:
    assert refused({SIO_KEEPALIVE_VALS: value}) == (
        f"socket_keepalive_options: SIO_KEEPALIVE_VALS takes [on, idle in ms, interval in ms], not {value!r}"
    )


@pytest.mark.parametrize("value", [[1, 30.5, 5000], [1, 30000, None], [1, True, 5000], [1, 30000, "soon"]])
def test_windows_values_that_are_no_whole_numbers(value: Any) -> None:
    assert "socket_keepalive_options: SIO_KEEPALIVE_VALS must be a whole number, not " in refused(
        {SIO_KEEPALIVE_VALS: value}
    )


@pytest.mark.parametrize("on", [0, False, "on", None, [1]])
def test_windows_values_that_are_not_on(on: Any) -> None:
    """``socket_keepalive: false`` turns keepalive off; what says so here must not silently turn it on."""
    message = refused({SIO_KEEPALIVE_VALS: [on, 30000, 5000]})
    assert SIO_KEEPALIVE_VALS in message
    assert repr(on) in message


def test_all_names_of_a_system_together() -> None:
    linux_names: Dict[Any, Any] = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 6, "TCP_KEEPCNT": 7, "TCP_USER_TIMEOUT": 8000}
    macos_names: Dict[Any, Any] = {"TCP_KEEPALIVE": 5, "TCP_KEEPINTVL": 6, "TCP_KEEPCNT": 7, "TCP_RXT_CONNDROPTIME": 8}
    windows_names: Dict[Any, Any] = {SIO_KEEPALIVE_VALS: [1, 5000, 6000], "TCP_KEEPCNT": 7, "TCP_MAXRT": 8}
    expected = Keepalive(True, 5, 6, 7, 8000)
    assert parse(True, linux_names).keepalive == expected
    assert parse(True, macos_names).keepalive == expected
    assert parse(True, windows_names).keepalive == expected


def test_names_may_have_white_space_around() -> None:
    assert parse(True, {" TCP_KEEPIDLE ": 5}).keepalive.idle_s == 5


@pytest.mark.parametrize("options", [None, {}])
def test_nothing_given(options: Any) -> None:
    assert parse(True, options) == (Keepalive(), {}, ())


class TestIntegerKeys:
    """This system's own constants, as ``socket.TCP_KEEPIDLE`` gives them."""

    @pytest.mark.parametrize(("name", "constant"), CONSTANTS.items())
    def test_means_what_its_name_means(self, name: str, constant: int) -> None:
        assert parse(True, {constant: 7}) == parse(True, {name: 7})

    def test_beside_the_name_with_the_same_value(self) -> None:
        assert parse(True, {socket.TCP_KEEPCNT: 7, "TCP_KEEPCNT": 7}).keepalive == Keepalive(count=7)

    def test_beside_the_name_with_another_value(self) -> None:
        assert refused({socket.TCP_KEEPCNT: 7, "TCP_KEEPCNT": 8}) == (
            "socket_keepalive_options: TCP_KEEPCNT and TCP_KEEPCNT mean the same (count) but have different values; "
            "keep one of them"
        )

    @pytest.mark.parametrize("key", [9999, -1, 0, True, False, 1.5, 4.0, None, b"TCP_KEEPIDLE", (4,)])
    def test_no_constant_of_this_system(self, key: Any) -> None:
        here = ", ".join(f"{constant} ({name})" for name, constant in CONSTANTS.items())
        assert refused({key: 5}) == (
            f"socket_keepalive_options: {key!r} is not a liveness option of this system; write its name, such as "
            f"TCP_KEEPIDLE, or one of {here}"
        )

    @pytest.mark.skipif(sys.platform != "linux", reason="the numbers are those of linux/tcp.h")
    def test_numbers_on_linux(self) -> None:
        assert CONSTANTS == {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6, "TCP_USER_TIMEOUT": 18}

    def test_numbers_on_macos(self, monkeypatch: pytest.MonkeyPatch, other_system: None) -> None:
        """Python before 3.10 does not know ``TCP_KEEPALIVE``, none knows ``TCP_RXT_CONNDROPTIME``."""
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.delattr(socket, "TCP_KEEPIDLE", raising=False)
        monkeypatch.delattr(socket, "TCP_KEEPALIVE", raising=False)
        monkeypatch.setattr(socket, "TCP_KEEPINTVL", 0x101, raising=False)
        monkeypatch.setattr(socket, "TCP_KEEPCNT", 0x102, raising=False)
        constants = keepalive._constants()
        assert constants == {
            "TCP_KEEPALIVE": 0x10,
            "TCP_KEEPINTVL": 0x101,
            "TCP_KEEPCNT": 0x102,
            "TCP_RXT_CONNDROPTIME": 0x80,
        }
        monkeypatch.setattr(keepalive, "CONSTANTS", constants)
        assert parse(True, {0x10: 5, 0x101: 6, 0x102: 7, 0x80: 8}).keepalive == Keepalive(True, 5, 6, 7, 8000)


class TestRanges:
    """A value that the kernel would refuse is refused at start, with option, value and range."""

    @pytest.mark.usefixtures("linux")
    @pytest.mark.parametrize(
        ("name", "low", "high", "unit"),
        [
            ("TCP_KEEPIDLE", 1, 32767, " s"),
            ("TCP_KEEPALIVE", 1, 32767, " s"),
            ("TCP_KEEPINTVL", 1, 32767, " s"),
            ("TCP_KEEPCNT", 1, 127, ""),
            ("TCP_USER_TIMEOUT", 1, INT_MAX, " ms"),
            ("TCP_MAXRTMS", 1, INT_MAX, " ms"),
        ],
    )
    def test_on_linux(self, name: str, low: int, high: int, unit: str) -> None:
        self.check_bounds(name, low, high, f"{low} to {high}{unit}")

    @pytest.mark.usefixtures("other_system")
    @pytest.mark.parametrize(
        ("name", "low", "high", "unit"),
        [
            ("TCP_KEEPIDLE", 1, 2147483, " s"),
            ("TCP_KEEPALIVE", 1, 2147483, " s"),
            ("TCP_KEEPINTVL", 1, 2147483, " s"),
            ("TCP_KEEPCNT", 1, 255, ""),
            ("TCP_USER_TIMEOUT", 1, INT_MAX, " ms"),
            ("TCP_MAXRTMS", 1, INT_MAX, " ms"),
        ],
    )
    def test_on_other_systems(self, name: str, low: int, high: int, unit: str) -> None:
        self.check_bounds(name, low, high, f"{low} to {high}{unit}")

    def check_bounds(self, name: str, low: int, high: int, shown: str) -> None:
        for inside in (low, low + 1, high - 1, high, str(high), float(low)):
            assert parse(True, {name: inside}).keepalive.given() == [NAMES[name].field]
        for outside in (low - 1, -1, -high, high + 1, str(high + 1), 2**31, 2**64):
            assert refused({name: outside}) == (
                f"socket_keepalive_options: {name} is {outside!r}, outside what this kernel takes: {shown}"
            )

    @pytest.mark.usefixtures("linux")
    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [
            ("TCP_KEEPALIVE_THRESHOLD", 1, 32767000),
            ("TCP_RXT_CONNDROPTIME", 1, 2147483),
            ("TCP_MAXRT", 1, 2147483),
        ],
    )
    def test_of_names_in_another_unit(self, name: str, low: int, high: int) -> None:
        parse(True, {name: low})
        parse(True, {name: high})
        for outside in (low - 1, -high, high + 1):
            assert refused({name: outside}).startswith(f"socket_keepalive_options: {name} is {outside}")

    @pytest.mark.usefixtures("linux")
    @pytest.mark.parametrize(
        ("name", "value", "converted"),
        [
            ("TCP_KEEPALIVE_THRESHOLD", 32767001, "32768 s"),
            ("TCP_RXT_CONNDROPTIME", 2147484, "2147484000 ms"),
            ("TCP_MAXRT", 2147484, "2147484000 ms"),
            ("SIO_KEEPALIVE_VALS", [1, 0, 5000], "0 s"),
            ("SIO_KEEPALIVE_VALS", [1, 5000, 32767001], "32768 s"),
        ],
    )
    def test_value_is_shown_in_the_unit_of_the_range(self, name: str, value: Any, converted: str) -> None:
        """2147484 (s) is inside "1 to 2147483647 ms" for a reader who is not told the conversion."""
        assert refused({name: value}).startswith(
            f"socket_keepalive_options: {name} is {value!r} ({converted}), outside what this kernel takes: 1 to "
        )


class TestTwoNames:
    """Two names for one meaning."""

    @pytest.mark.parametrize(
        "options",
        [
            {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 5},
            {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE_THRESHOLD": 5000},
            {"TCP_KEEPIDLE": "5", "TCP_KEEPALIVE": 5.0},
            {"TCP_KEEPIDLE": 5, "SIO_KEEPALIVE_VALS": [1, 5000, 5000]},
            {"TCP_USER_TIMEOUT": 8000, "TCP_RXT_CONNDROPTIME": 8, "TCP_MAXRT": 8, "TCP_MAXRTMS": 8000},
        ],
    )
    def test_with_the_same_value(self, options: Dict[Any, Any]) -> None:
        parsed = parse(True, options)
        assert parsed.keepalive.idle_s in (5, None)
        assert parsed.keepalive.user_timeout_ms in (8000, None)
        assert next(iter(parsed.names.values())) == next(iter(options))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 6}, "TCP_KEEPIDLE and TCP_KEEPALIVE mean the same (idle)"),
            (
                {"TCP_KEEPALIVE": 5, "TCP_KEEPALIVE_THRESHOLD": 5},
                "TCP_KEEPALIVE and TCP_KEEPALIVE_THRESHOLD mean the same (idle)",
            ),
            (
                {"TCP_KEEPINTVL": 6, "SIO_KEEPALIVE_VALS": [1, 5000, 5000]},
                "TCP_KEEPINTVL and SIO_KEEPALIVE_VALS mean the same (interval)",
            ),
            (
                {"TCP_MAXRT": 8, "TCP_USER_TIMEOUT": 8},
                "TCP_MAXRT and TCP_USER_TIMEOUT mean the same (user timeout)",
            ),
        ],
    )
    def test_with_different_values(self, options: Dict[Any, Any], message: str) -> None:
        assert refused(options) == (f"socket_keepalive_options: {message} but have different values; keep one of them")


class TestUnknownNames:
    """A name of no system is refused; the nearest one is proposed."""

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("TCP_KEEPIDL", "TCP_KEEPIDLE"),
            ("tcp_keepidle", "TCP_KEEPIDLE"),
            ("KEEPINTVL", "TCP_KEEPINTVL"),
            ("TCP_KEEPCOUNT", "TCP_KEEPCNT"),
            ("TCP_USERTIMEOUT", "TCP_USER_TIMEOUT"),
            ("SIO_KEEPALIVE_VAL", "SIO_KEEPALIVE_VALS"),
        ],
    )
    def test_typo(self, name: str, meant: str) -> None:
        assert refused({name: 5}) == (
            f"socket_keepalive_options: unknown option {name!r}; did you mean {meant!r}? (known: {KNOWN})"
        )

    @pytest.mark.parametrize("name", ["", "4", "idle", "xyzzy"])
    def test_nothing_near(self, name: str) -> None:
        assert refused({name: 5}) == f"socket_keepalive_options: unknown option {name!r} (known: {KNOWN})"

    def test_list_of_known_names_is_complete(self) -> None:
        assert KNOWN.split(", ") == sorted([*NAMES, SIO_KEEPALIVE_VALS])


class TestValues:
    """What counts as a whole number, from YAML or as ``${VAR}`` gives it."""

    @pytest.mark.parametrize("value", [5, 5.0, "5", " 5 ", "+5", "05"])
    def test_taken(self, value: Any) -> None:
        assert parse(True, {"TCP_KEEPIDLE": value}).keepalive.idle_s == 5

    @pytest.mark.parametrize(
        "value", [True, False, 5.5, math.nan, math.inf, "5.0", "5s", "", "five", None, [5], {}, b"5", 5j]
    )
    def test_refused(self, value: Any) -> None:
        assert refused({"TCP_KEEPIDLE": value}) == (
            f"socket_keepalive_options: TCP_KEEPIDLE must be a whole number, not {value!r}"
        )


class TestIgnoredNames:
    """Liveness options of other systems that nothing here could apply."""

    @pytest.mark.parametrize("name", sorted(WITHOUT_MEANING))
    @pytest.mark.parametrize("enabled", [True, False])
    def test_is_handed_back(self, name: str, enabled: bool) -> None:
        assert parse(enabled, {name: "anything"}) == (Keepalive(enabled=enabled), {}, (name,))

    def test_does_not_touch_the_others(self) -> None:
        options: Dict[Any, Any] = {"TCP_KEEPINIT": 75, "TCP_KEEPIDLE": 5, "TCP_CONNECTIONTIMEOUT": 3}
        assert parse(True, options) == (
            Keepalive(idle_s=5),
            {"idle_s": "TCP_KEEPIDLE"},
            ("TCP_KEEPINIT", "TCP_CONNECTIONTIMEOUT"),
        )


class TestDisabled:
    """``socket_keepalive: false``."""

    def test_drops_the_values(self) -> None:
        assert parse(False, {"TCP_KEEPIDLE": 5, "TCP_USER_TIMEOUT": 8000}) == (Keepalive(enabled=False), {}, ())

    @pytest.mark.parametrize("options", [{"TCP_KEEPIDL": 5}, {"TCP_KEEPIDLE": 0}, {"TCP_KEEPIDLE": "x"}])
    def test_still_refuses_what_is_wrong(self, options: Dict[Any, Any]) -> None:
        with pytest.raises(OptionError, match="socket_keepalive_options: "):
            parse(False, options)

    def test_gets_no_defaults(self) -> None:
        off = Keepalive(enabled=False)
        assert off.with_defaults() is off
        assert str(off) == "keepalive off"
        assert str(Keepalive(False, 5, 5, 3, 20000)) == "keepalive off"


class TestWithDefaults:
    """What was not given is filled so that the values fit each other."""

    def test_all(self) -> None:
        assert Keepalive().with_defaults() == Keepalive(True, 30, 5, 3, 45000)

    @pytest.mark.parametrize(
        ("given", "filled"),
        [
            (Keepalive(idle_s=5), Keepalive(True, 5, 5, 3, 20000)),
            (Keepalive(interval_s=1), Keepalive(True, 30, 1, 3, 33000)),
            (Keepalive(count=10), Keepalive(True, 30, 5, 10, 80000)),
            (Keepalive(idle_s=5, interval_s=5, count=3), Keepalive(True, 5, 5, 3, 20000)),
            (Keepalive(user_timeout_ms=1), Keepalive(True, 30, 5, 3, 1)),
            (Keepalive(True, 1, 2, 3, 4), Keepalive(True, 1, 2, 3, 4)),
        ],
    )
    def test_some(self, given: Keepalive, filled: Keepalive) -> None:
        assert given.with_defaults() == filled
        assert filled.with_defaults() == filled

    @pytest.mark.parametrize("system", ["linux", "other_system"])
    def test_user_timeout_is_dead_after_in_ms(self, system: str, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue(system)
        for idle_s, interval_s, count in [(1, 1, 1), (7, 11, 13), (32767, 1, 127), (600, 600, 100)]:
            filled = Keepalive(True, idle_s, interval_s, count).with_defaults()
            assert filled.dead_after_s == idle_s + interval_s * count
            assert filled.user_timeout_ms == filled.dead_after_s * 1000

    @pytest.mark.parametrize("system", ["linux", "other_system"])
    def test_user_timeout_stays_in_range(self, system: str, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue(system)
        assert Keepalive(True, 32767, 32767, 127).with_defaults().user_timeout_ms == INT_MAX


class TestKeepalive:
    """The values themselves."""

    def test_dead_after(self) -> None:
        assert Keepalive(True, 5, 6, 7).dead_after_s == 47
        assert Keepalive(True, 30, 5, 3, 1).dead_after_s == 45

    @pytest.mark.parametrize(
        "value", [Keepalive(), Keepalive(True, None, 5, 3), Keepalive(True, 5, None, 3), Keepalive(True, 5, 5)]
    )
    def test_dead_after_is_unknown_while_the_kernel_decides(self, value: Keepalive) -> None:
        assert value.dead_after_s is None

    def test_dead_after_is_never_without_keepalive(self) -> None:
        assert Keepalive(False, 5, 6, 7).dead_after_s is None

    def test_only(self) -> None:
        full = Keepalive(True, 1, 2, 3, 4)
        assert full.only(["enabled", "idle_s", "count"]) == Keepalive(True, 1, None, 3, None)
        assert full.only({"enabled": 0, "idle_s": 0, "interval_s": 0, "count": 0, "user_timeout_ms": 0}) == full
        assert full.only([]) == Keepalive(True)
        assert Keepalive(False, 1).only(()) == Keepalive(False)
        assert Keepalive(idle_s=1).only(["count", "no such field"]) == Keepalive()

    def test_given(self) -> None:
        assert Keepalive().given() == []
        assert Keepalive(False).given() == []
        assert Keepalive(user_timeout_ms=0, idle_s=1).given() == ["idle_s", "user_timeout_ms"]
        assert Keepalive(True, 1, 2, 3, 4).given() == ["idle_s", "interval_s", "count", "user_timeout_ms"]

    def test_str(self) -> None:
        assert str(Keepalive()) == "keepalive on"
        assert str(Keepalive(count=3)) == "keepalive on, count 3"
        assert str(Keepalive(True, 30, 5, 3, 45000)) == (
            "keepalive on, idle 30 s, interval 5 s, count 3, user timeout 45000 ms"
        )

    def test_cannot_change_and_can_be_a_key(self) -> None:
        value = Keepalive(True, 1, 2, 3, 4)
        with pytest.raises(FrozenInstanceError):
            value.idle_s = 5  # type: ignore[misc]
        assert {value: 1}[Keepalive(True, 1, 2, 3, 4)] == 1
