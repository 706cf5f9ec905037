"""The comparison of clients compares what does the same, says what it leaves out, and leaves nothing behind."""

import asyncio
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
import redis

from extras import _redis
from extras.bench import __main__ as command
from extras.bench import async_wire, cases, comparison, floor, groups, interleaved, pinning, wire
from extras.bench.cases import Case, Values
from extras.bench.interleaved import Compared, Contender, Cost, Maker, Samples
from extras.bench.loop import run_on_asyncio, run_on_fastest
from extras.bench.missing import Missing
from extras.bench.peers import BASELINE, OURS, Address, open_all
from extras.bench.pinning import Plan
from extras.bench.progress import Progress
from extras.bench.rounds import DifferentResults
from extras.bench.server import RedisServer

GROUPS = ["wire", pytest.param("async", marks=pytest.mark.skipif(not _redis.HAS_ASYNCIO, reason="no redis.asyncio"))]
ALWAYS = {
    "wire": {BASELINE, "redis-py, no hiredis", "FastConnection", "FastRedis"},
    "async": {BASELINE, "redis-py, no hiredis", "AsyncFastConnection", "AsyncFastRedis"},
}
OPENERS = {"wire": wire.OPENERS, "async": async_wire.OPENERS}


@pytest.fixture
def little_garbage() -> Iterator[None]:
    gc.freeze()  # all that the tests have imported would be looked at before each sample
    yield
    gc.unfreeze()


@pytest.fixture
def short_samples(little_garbage: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaved, "SAMPLE_S", 0.0005)


def only_first_case(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    group = groups.GROUPS[name]
    monkeypatch.setitem(groups.GROUPS, name, group._replace(cases=lambda prefix: group.cases(prefix)[:1]))


def url_of(server: RedisServer) -> str:
    return f"redis://127.0.0.1:{server.port}/2"


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "chosen"),
        [
            ([], ["tracker", "wire", "async"]),
            (["--tracker"], ["tracker"]),
            (["--wire"], ["wire"]),
            (["--async", "--wire"], ["wire", "async"]),
            (["--async", "--tracker"], ["tracker", "async"]),
            (["--all"], ["tracker", "wire", "async", "faults"]),
        ],
    )
    def test_groups_are_those_asked_for_and_a_short_run_of_all_otherwise(
        self, arguments: List[str], chosen: List[str]
    ) -> None:
        assert command._arguments(arguments).groups == chosen
        assert command._arguments(arguments).headline is (arguments == [])

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--tracker", "--pin", "same-core"], "for --wire and --async"),
            (["--wire", "--pin", "all-cores"], "invalid choice"),
            (["--wire", "--rounds", "0"], "--rounds"),
        ],
    )
    def test_wrong_argument_is_refused(
        self, arguments: List[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            command.main(arguments)
        assert said in capsys.readouterr().err

    @pytest.mark.parametrize("url", ["rediss://localhost", "redis://:secret@localhost", "unix:///tmp/redis.sock"])
    def test_server_that_clients_are_not_compared_on_is_refused(
        self, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main(["--wire", "--url", url]) == 2
        printed = capsys.readouterr()
        assert "without TLS or a password" in printed.err
        assert "secret" not in printed.err

    def test_redis_py_without_asyncio_is_said(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(_redis, "HAS_ASYNCIO", False)
        assert command.main(["--async"]) == 2
        said = f"--async: redis-py {redis.__version__} has no asyncio support; pip install 'redis>=4.5.3'"
        assert said in capsys.readouterr().err


class TestPinning:
    @pytest.mark.parametrize(
        ("asked", "own_server", "cores", "planned"),
        [
            (None, True, [0, 3], Plan(3, 3)),
            (None, False, [0, 3], Plan(None, None)),
            (None, True, [], Plan(None, None)),
            ("none", True, [0, 3], Plan(None, None)),
            ("same-core", True, [3], Plan(3, 3)),
            ("split-core", True, [0, 1, 3], Plan(3, 1)),
        ],
    )
    def test_plan(
        self,
        asked: Optional[str],
        own_server: bool,
        cores: List[int],
        planned: Plan,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(pinning, "_cores", lambda: cores)
        assert pinning.plan(asked, own_server) == planned

    @pytest.mark.parametrize(
        ("asked", "own_server", "cores", "said"),
        [
            ("same-core", False, [0, 1], "the server of --url cannot be pinned"),
            ("same-core", True, [], "has no os.sched_setaffinity; use --pin none"),
            ("split-core", True, [3], "may run on one core only; use --pin same-core"),
        ],
    )
    def test_what_cannot_be_done_is_refused(
        self, asked: str, own_server: bool, cores: List[int], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pinning, "_cores", lambda: cores)
        with pytest.raises(Missing, match=f"--pin {asked}: .*|{said}") as refused:
            pinning.plan(asked, own_server)
        assert said in str(refused.value)

    def test_plans_are_told_apart(self) -> None:
        said = [str(plan) for plan in (Plan(None, None), Plan(1, 1), Plan(1, 0))]
        assert [text.split(",")[0] for text in said] == list(reversed(("split-core", "same-core", "none")))

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no os.sched_setaffinity")
    def test_processes_started_meanwhile_are_held_to_the_core(self) -> None:
        before = os.sched_getaffinity(0)
        core = max(before)
        with pinning.pinned(core):
            inherited = subprocess.check_output(
                [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True
            )
        assert inherited.strip() == str({core})
        assert os.sched_getaffinity(0) == before

    def test_a_run_on_a_server_of_its_own_is_pinned_where_that_can_be_done(
        self, short_samples: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        only_first_case(monkeypatch, "wire")
        assert command.main(["--wire", "--rounds", "1"]) == 0
        pinned = "same-core" if hasattr(os, "sched_setaffinity") else "none"
        assert f"pinning: {pinned}, " in capsys.readouterr().out


class TestRun:
    @pytest.mark.parametrize("name", GROUPS)
    def test_it_has_figures_of_every_side_and_leaves_no_key(
        self,
        name: str,
        server: RedisServer,
        raw: "redis.Redis",
        short_samples: None,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "out.json"
        raw.set("alice", "hers")
        assert command.main([f"--{name}", "--url", url_of(server), "--rounds", "2", "--json", str(out)]) == 0
        assert raw.keys("*") == [b"alice"]
        info: Any = raw.info("keyspace")
        assert list(info) == ["db0"]
        printed = capsys.readouterr()
        (data,) = json.loads(out.read_text())["runs"]
        assert list(data) == [name]
        data = data[name]
        assert data["header"]["pinning"].startswith("none")
        present = OPENERS[name].keys() - data["skipped"].keys()
        assert present >= ALWAYS[name]
        assert [case["case"] for case in data["cases"]] == [case.name for case in groups.GROUPS[name].cases("")]
        for case in data["cases"]:
            assert case["sides"].keys() == present - ({"C hiredis"} if case["workers"] > 1 else set())
            for side in case["sides"].values():
                assert side["rounds"] == 2
                assert side["operations_per_round"] % case["workers"] == 0
                assert len(side["wall_us"]["samples"]) == 2
                assert side["wall_us"]["median"] > 0
                assert side["cpu_us"]["median"] >= 0
                assert side["server_cpu_us"]["median"] >= 0
                low, high = side["wall_us"]["times_as_fast"]["interval"]
                assert low <= side["wall_us"]["times_as_fast"]["median"] <= high
            assert case["sides"][BASELINE]["wall_us"]["times_as_fast"]["median"] == 1
            assert f"{case['case']}: 2 rounds" in printed.err
        titles = ("time", "CPU time of the client, all its threads", "CPU time of the server, by its own count")
        for line in (*titles, *data["header"].values()):
            assert line in printed.out

    @pytest.mark.parametrize("name", GROUPS)
    def test_what_is_missing_is_said_and_skipped(
        self,
        name: str,
        server: RedisServer,
        raw: "redis.Redis",
        short_samples: None,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for package in ("glide", "glide_sync", "coredis"):
            monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setattr(shutil, "which", lambda name: None)
        only_first_case(monkeypatch, name)
        assert command.main([f"--{name}", "--url", url_of(server), "--rounds", "1"]) == 0
        printed = capsys.readouterr().out
        assert "skipped: valkey-glide: ModuleNotFoundError: " in printed
        assert ("skipped: coredis: ModuleNotFoundError: " in printed) is (name == "async")
        assert "skipped: C hiredis: Missing: there is no C compiler" in printed

    @pytest.mark.parametrize("name", GROUPS)
    def test_different_results_are_refused_before_anything_is_timed(
        self,
        name: str,
        server: RedisServer,
        raw: "redis.Redis",
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        class Liar:
            def operation(self, case: Case) -> Any:
                async def answer() -> Any:
                    return b"other"

                return answer if name == "async" else lambda: b"other"

        async def liar(address: Address, stack: AsyncExitStack) -> Any:
            return Liar()

        monkeypatch.setitem(OPENERS[name], "liar", liar)
        monkeypatch.setattr(interleaved, "_measure", None)
        assert command.main([f"--{name}", "--url", url_of(server)]) == 1
        printed = capsys.readouterr()
        assert (
            "the clients' results differ, so their times are not compared: GET 100 B, reply: redis-py and liar"
            in printed.err
        )
        assert printed.out == ""
        assert redis.Redis(port=server.port, db=2).dbsize() == 0

    @pytest.mark.skipif(os.name == "nt", reason="no POSIX signals")
    @pytest.mark.parametrize("name", GROUPS)
    def test_a_run_that_is_stopped_deletes_its_keys(self, name: str, server: RedisServer, tmp_path: Path) -> None:
        client: Any = redis.Redis(port=server.port, db=2)
        arguments = [sys.executable, "-m", "extras.bench", f"--{name}", "--url", url_of(server), "--rounds", "10000"]
        with subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "10000 rounds" in line:
                    break
            assert client.dbsize() > 0
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert process.wait(60) == 128 + signal.SIGINT, rest
        assert "Traceback" not in rest
        assert client.dbsize() == 0
        client.connection_pool.disconnect()


class _StoppedWhileDropped:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_stop_that_python_drops_is_made_at_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: "pytest.CaptureFixture[str]"
) -> None:
    reached = []

    def measure(*arguments: Any) -> None:
        _StoppedWhileDropped()
        reached.append("behind the destructor")
        arguments[-1].within("a case", 0.5)
        reached.append("behind the step")

    hook = sys.unraisablehook
    monkeypatch.setattr(groups, "measure", measure)
    with pytest.raises(SystemExit) as stopped:
        command.main(["--wire"])
    assert stopped.value.code == 128 + signal.SIGINT
    assert reached == ["behind the destructor"]
    assert "SystemExit" not in capsys.readouterr().err
    assert sys.unraisablehook is hook


ONE = Case("GET", "get", "key", 3)


def lying(side: str, reply: Any) -> Contender:
    async def once() -> Any:
        return reply

    async def many(operations: int) -> Cost:
        return Cost(operations * 0.001, operations * 0.0005)

    return Contender(side, once, many)


def test_error_of_ours_is_not_taken_for_something_missing() -> None:
    async def broken(address: Address, stack: AsyncExitStack) -> Any:
        raise TypeError("a bug")

    async def opened(name: str) -> Tuple[Dict[str, Any], Dict[str, str]]:
        async with AsyncExitStack() as stack:
            return await open_all({name: broken}, Address("127.0.0.1", 1, 0), stack)

    assert asyncio.run(opened("theirs")) == ({}, {"theirs": "TypeError: a bug"})
    for name in (BASELINE, *OURS):
        with pytest.raises(TypeError, match="a bug"):
            asyncio.run(opened(name))


class TestInterleaved:
    @pytest.mark.parametrize("reply", [True, "OK", b"OK"])
    def test_ok_by_any_name_is_the_same(self, reply: Any, raw: "redis.Redis") -> None:
        sides = [lying("one", [True]), lying("other", (reply,))]
        asyncio.run(interleaved.check(ONE, sides, Values(raw, [ONE])))

    def test_what_was_not_written_is_found(self, raw: "redis.Redis") -> None:
        case = Case("SET", "set", "key", 3)

        async def once() -> Any:
            return raw.set("key", case.value)

        honest = lying("one", True)._replace(once=once)
        with pytest.raises(DifferentResults, match="SET, key: one and other differ: b'abc' and None"):
            asyncio.run(interleaved.check(case, [honest, lying("other", True)], Values(raw, [case])))

    def test_each_round_has_clients_of_its_own_in_any_order_and_samples_are_long_enough(
        self, raw: "redis.Redis", little_garbage: None
    ) -> None:
        log: List[Tuple[str, str, int]] = []

        def logged(side: str) -> Maker:
            async def make(stack: AsyncExitStack) -> Contender:
                is_open = [True]

                async def many(operations: int) -> Cost:
                    assert is_open
                    log.append((side, "does", operations))
                    return Cost(operations * 0.001, operations * 0.0005)

                log.append((side, "made", 0))
                stack.callback(is_open.clear)
                return lying(side, b"abc")._replace(many=many)

            return make

        case = Case("GET", "get", "key", 3, workers=4)
        sides = {case: {side: logged(side) for side in ("one", "other")}}
        rounds = 40
        (compared,) = asyncio.run(
            interleaved.compare(sides, Values(raw, [case]), rounds, Progress(1), random.Random(1))
        )
        samples = compared.samples["other"]
        assert samples.operations == 32
        assert samples.wall_us() == pytest.approx([1000] * rounds)
        assert samples.cpu_us() == pytest.approx([500] * rounds)
        made_first, timed_first = [], []
        for start in range(len(log) - 6 * rounds, len(log), 6):
            made, done = log[start : start + 2], log[start + 2 : start + 6]
            assert sorted(made) == [("one", "made", 0), ("other", "made", 0)]
            assert [(what, operations) for _, what, operations in done] == [("does", 8), ("does", 32)] * 2
            assert [side for side, *_ in done] in (["one", "one", "other", "other"], ["other", "other", "one", "one"])
            made_first.append(made[0][0])
            timed_first.append(done[0][0])
        for first in (made_first, timed_first):
            assert 10 < first.count("one") < 30
        assert made_first != timed_first


def test_data_has_medians_spread_and_the_median_of_the_rounds_ratios() -> None:
    def samples(*wall_s: float) -> Samples:
        return Samples(10, [Cost(each, each / 2) for each in wall_s])

    found = Compared(ONE, {BASELINE: samples(0.001, 0.002, 0.009), "ours": samples(0.001, 0.001, 0.003)})
    data = json.loads(json.dumps(comparison.as_data("clients", {"Python": "3"}, {"theirs": "no"}, [found])))
    ours = data["cases"][0]["sides"]["ours"]
    assert ours["wall_us"]["samples"] == pytest.approx([100, 100, 300])
    assert ours["wall_us"]["median"] == pytest.approx(100)
    assert ours["wall_us"]["iqr"] == pytest.approx(100)
    assert ours["wall_us"]["times_as_fast"]["median"] == pytest.approx(2)
    assert ours["wall_us"]["times_as_fast"]["interval"] == pytest.approx([1, 3])
    assert ours["cpu_us"]["median"] == pytest.approx(50)
    assert ours["server_cpu_us"] is None
    text = comparison.as_text(data)
    assert "skipped: theirs: no" in text
    assert "CPU time of the server" not in text


def test_c_client_does_the_same(raw: "redis.Redis", server: RedisServer) -> None:
    async def compare() -> None:
        async with AsyncExitStack() as stack:
            address = Address("127.0.0.1", server.port, 0)
            program = await floor.open_floor(address, stack)
            stock = await wire.OPENERS[BASELINE](address, stack)
            kept = stack.enter_context(Values(raw, cases.blocking(cases.new_prefix())))
            for case in kept.cases:
                contenders = [wire.contender(BASELINE, stock, case), program.contender("C", case)]
                sides = [contender for contender in contenders if contender is not None]
                await interleaved.check(case, sides, kept)
                assert len(sides) == (2 if case.workers == 1 else 1)
                cost = await sides[-1].many(case.workers)
                assert cost.wall_s > 0

    try:
        run_on_asyncio(compare())
    except Missing as missing:
        pytest.skip(str(missing))


def test_c_client_that_ends_says_why() -> None:
    try:
        program = floor.build()
    except Missing as missing:
        pytest.skip(str(missing))
    client = floor.Floor(program, Address("127.0.0.1", 1, 0))
    contender = client.contender("C", ONE)
    assert contender is not None
    with pytest.raises(RuntimeError, match="the C client has ended: Connection refused"):
        asyncio.run(contender.once())
    client.close()


def test_a_loop_that_is_left_lets_its_work_clean_up() -> None:
    log: Dict[str, bool] = {}

    async def work() -> None:
        asyncio.get_running_loop().call_soon(leave)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            log["cleaned up"] = True

    def leave() -> None:
        raise SystemExit(7)

    with pytest.raises(SystemExit, match="7"):
        run_on_fastest(work())
    assert log
