"""A name costs no more than its own look-up, and a dead address of it a quarter of a second; nothing is left open."""

import asyncio
import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List

import pytest
from leaks import none_left, none_left_async, open_descriptors
from scripted import LOOPS, PATIENCE_S, black_hole, descriptors_of_a_running_loop, outcome, outcomes, run_on

from extras import resolver
from extras.bench.server import free_port
from extras.dialling import HEAD_START_S, aconnect, connect, interleaved
from extras.resolver import alook_up, look_up

SIDES = ["blocking", *LOOPS]


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def address(host: str, port: int, family: int = socket.AF_INET) -> Any:
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[Any]:
    with socket.create_server((host, 0), backlog=64) as listener:
        yield address(host, listener.getsockname()[1])


@contextmanager
def dead(host: str = "127.0.0.2") -> Iterator[Any]:
    """An address that never answers."""
    with black_hole(host) as port:
        yield address(host, port)


def refusing(host: str = "127.0.0.3") -> Any:
    return address(host, free_port())


def new_socket(info: Any) -> socket.socket:
    return socket.socket(*info[:3])


def connected(side: str, addresses: List[Any], timeout_s: float = PATIENCE_S) -> Any:
    """Connect; return the peer's address, or the error, and close the socket."""
    if side == "blocking":
        try:
            with connect(addresses, new_socket, timeout_s) as sock:
                return sock.getpeername()
        except OSError as error:
            return error
    found: List[Any] = []

    async def work() -> None:
        before = await descriptors_of_a_running_loop()
        result = await outcome(asyncio.wait_for(aconnect(addresses, new_socket), timeout_s))
        if isinstance(result, socket.socket):
            found.append(result.getpeername())
            result.close()
        else:
            found.append(result)
        assert await none_left_async(before)

    run_on(LOOPS[side], work)
    return found[0]


def test_families_take_turns() -> None:
    six = [address(f"::{number}", 1, socket.AF_INET6) for number in range(3)]
    four = [address(f"127.0.0.{number}", 1) for number in range(1, 3)]
    assert interleaved([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert interleaved([*four, *six]) == [four[0], six[0], four[1], six[1], six[2]]
    assert interleaved(four) == four


class TestRace:
    def test_a_dead_first_address_costs_a_head_start(self, side: str) -> None:
        before = open_descriptors()
        with dead() as first, listening() as second:
            started = time.monotonic()
            assert connected(side, [first, second]) == second[4]
            assert HEAD_START_S * 0.9 < time.monotonic() - started < PATIENCE_S
        assert side != "blocking" or none_left(before)  # a loop opens what it needs, and is looked at above

    def test_after_one_that_refuses_the_next_is_tried_at_once(self, side: str) -> None:
        before = open_descriptors()
        with dead() as third, listening() as last:
            started = time.monotonic()
            assert connected(side, [*(refusing() for _ in range(60)), last, third]) == last[4]
            assert time.monotonic() - started < 60 * HEAD_START_S - 3
        assert side != "blocking" or none_left(before)  # a loop opens what it needs, and is looked at above

    def test_the_first_one_is_preferred(self, side: str) -> None:
        with listening() as first, listening("127.0.0.2") as second:
            for _ in range(5):
                assert connected(side, [first, second]) == first[4]

    def test_if_all_are_dead_the_time_is_theirs_together(self, side: str) -> None:
        before = open_descriptors()
        with dead() as first, dead("127.0.0.4") as second:
            started = time.monotonic()
            error = connected(side, [first, second, first, second], 0.6)
            assert isinstance(error, (socket.timeout, asyncio.TimeoutError))
            assert 0.55 < time.monotonic() - started < PATIENCE_S
        assert side != "blocking" or none_left(before)  # a loop opens what it needs, and is looked at above

    def test_if_all_refuse_that_is_the_error(self, side: str) -> None:
        before = open_descriptors()
        assert isinstance(connected(side, [refusing(), refusing(), refusing()]), ConnectionRefusedError)
        assert isinstance(connected(side, [refusing()]), ConnectionRefusedError)
        assert side != "blocking" or none_left(before)  # a loop opens what it needs, and is looked at above

    def test_what_is_no_os_error_ends_it(self, side: str) -> None:
        made: List[socket.socket] = []

        def broken(info: Any) -> socket.socket:
            if made:
                raise KeyError("key")
            made.append(new_socket(info))
            return made[0]

        with dead() as first, listening() as second:
            if side == "blocking":
                with pytest.raises(KeyError):
                    connect([first, second], broken, PATIENCE_S)
            else:

                async def work() -> None:
                    with pytest.raises(KeyError):
                        await aconnect([first, second], broken)

                run_on(LOOPS[side], work)
        assert made[0].fileno() == -1

    @pytest.mark.parametrize("loop_class", list(LOOPS.values()), ids=list(LOOPS))
    @pytest.mark.parametrize("after_s", [0, 0.05, HEAD_START_S + 0.05])
    def test_a_cancelled_race_leaves_nothing_open(self, loop_class: Any, after_s: float) -> None:
        with dead() as first, dead("127.0.0.4") as second:

            async def work() -> None:
                before = await descriptors_of_a_running_loop()
                task = asyncio.ensure_future(aconnect([first, second], new_socket))
                await asyncio.sleep(after_s)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await none_left_async(before)

            run_on(loop_class, work)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """A resolver that hangs until the test's end or for a while; returns how often it was asked."""
    goes_on = threading.Event()
    asked: List[Any] = []

    def getaddrinfo(*args: Any) -> Any:
        asked.append(args)
        goes_on.wait(0.4 if args[0] == "soon.example" else PATIENCE_S)
        if args[0] == "unknown.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [address("127.0.0.1", args[1])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield lambda: len(asked)
    goes_on.set()
    deadline = time.monotonic() + PATIENCE_S
    while resolver._under_way and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not resolver._under_way


class TestLookUp:
    def test_of_an_address_takes_no_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threading, "Thread", None)
        assert look_up("127.0.0.1", 6379, 0, 1)[0][4] == ("127.0.0.1", 6379)
        assert look_up("::1", 6379, 0, 1)[0][4][:2] == ("::1", 6379)

    def test_is_made_anew_each_time(self, slow: Callable[[], int]) -> None:
        for times in (1, 2, 3):
            assert look_up("soon.example", 6379, 0, PATIENCE_S) == [address("127.0.0.1", 6379)]
            assert slow() == times

    def test_is_shared_by_all_who_wait(self, slow: Callable[[], int]) -> None:
        found: List[Any] = []
        threads = [
            threading.Thread(target=lambda: found.append(look_up("soon.example", 6379, 0, PATIENCE_S)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [[address("127.0.0.1", 6379)]] * 20
        assert slow() == 1

    def test_nobody_waits_longer_than_they_want(self, slow: Callable[[], int]) -> None:
        before = threading.active_count()
        for _ in range(5):
            with pytest.raises(socket.timeout):
                look_up("late.example", 6379, 0, 0.05)
        assert slow() == 1
        assert threading.active_count() == before + 1
        assert all(not one.waiting for under_way in resolver._under_way.values() for one in under_way)

    def test_one_that_hangs_keeps_the_name_from_nobody_who_comes_later(
        self, slow: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resolver, "STALE_S", 0.0)
        before = threading.active_count()
        for _ in range(resolver.MOST + 3):
            with pytest.raises(socket.timeout):
                look_up("late.example", 6379, 0, 0.01)
        assert slow() == resolver.MOST
        assert threading.active_count() == before + resolver.MOST

    def test_an_error_is_everybodys_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*args: Any) -> Any:
            time.sleep(0.2)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)

        async def work() -> None:
            first, second = await outcomes(alook_up("unknown.example", 1), alook_up("unknown.example", 1))
            assert first is not second
            for error in (first, second):
                assert type(error) is socket.gaierror
                assert error.args == (socket.EAI_NONAME, "Name or service not known")

        run_on(asyncio.SelectorEventLoop, work)

    def test_a_name_that_is_none_is_an_error(self) -> None:
        with pytest.raises(OSError, match="is no host name"):
            look_up("a" * 70 + ".example", 6379, 0, PATIENCE_S)

    def test_no_more_threads_is_an_error_that_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_left(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            with pytest.raises(OSError, match="can't start new thread"):
                look_up("localhost", 6379, 0, PATIENCE_S)
        assert look_up("localhost", 6379, 0, PATIENCE_S)

    @pytest.mark.parametrize("loop_class", list(LOOPS.values()), ids=list(LOOPS))
    def test_the_loop_goes_on_meanwhile(self, loop_class: Any, slow: Callable[[], int]) -> None:
        async def work() -> None:
            asked = [asyncio.ensure_future(alook_up("soon.example", 6379)) for _ in range(3)]
            cancelled = asyncio.ensure_future(alook_up("late.example", 6379))
            ticks = 0
            while not asked[0].done():
                await asyncio.sleep(0.01)
                ticks += 1
            assert ticks > 5
            assert await outcomes(*asked) == [[address("127.0.0.1", 6379)]] * 3
            cancelled.cancel()
            assert isinstance((await outcomes(cancelled))[0], asyncio.CancelledError)

        run_on(loop_class, work)
        assert slow() == 2

    def test_a_loop_that_is_closed_meanwhile_is_left_alone(self, slow: Callable[[], int]) -> None:
        loop = asyncio.new_event_loop()

        async def give_up() -> None:
            task = asyncio.ensure_future(alook_up("soon.example", 6379))
            await asyncio.sleep(0.05)
            task.cancel()

        loop.run_until_complete(give_up())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    def test_a_child_process_asks_for_itself(self, slow: Callable[[], int]) -> None:
        with pytest.raises(socket.timeout):
            look_up("soon.example", 6379, 0, 0.01)
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if look_up("soon.example", 6379, 0, PATIENCE_S) and slow() == 2 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
