"""The judge of the faults can fail, the tables say what the data say, and random schedules can be repeated."""

import struct
import time
from collections import defaultdict
from typing import Any, DefaultDict, Dict, List, Optional

import pytest

from extras.bench import __main__ as command
from extras.bench import faults_jobs, faults_liveness, faults_names, faults_schedules, faults_suite, faults_table
from extras.bench.faults import FAULTS
from extras.bench.faults_jobs import Job
from extras.bench.faults_judge import Bounds, Judged, event_ids, judge
from extras.bench.faults_turns import TURNS_A_SESSION, turn
from extras.bench.missing import Missing

ACKNOWLEDGED = {("alice", "a"): ["a0", "a1", "a2"], ("alice", "b"): ["b0", "b1"], ("bob", "a"): ["a3"]}


@pytest.mark.parametrize(
    ("alice", "bob", "lost", "doubled", "disordered"),
    [
        (["a0", "b0", "a1", "b1", "a2"], ["a3"], 0, 0, 0),
        (["b0", "b1", "a0", "a1", "a2"], ["a3", "unacknowledged"], 0, 0, 0),
        (["a0", "b0", "a1", "a2"], ["a3"], 1, 0, 0),
        (["a0", "b0", "a1", "b1", "a2"], [], 1, 0, 0),
        (["a0", "b0", "a1", "b1", "a2"], ["a3", "a3"], 0, 1, 0),
        (["a0", "b0", "a0", "a1", "b1", "b1", "b1", "a2"], ["a3"], 0, 2, 0),
        (["a0", "b0", "a1", "b1", "a2"], ["a3", "x", "x"], 0, 1, 0),
        (["a1", "a0", "b0", "b1", "a2"], ["a3"], 0, 0, 1),
        (["a2", "b1", "a1", "b0", "a0"], ["a3"], 0, 0, 3),
        (["a2", "b0", "a0", "b0"], ["a3"], 2, 1, 1),
    ],
)
def test_what_is_lost_doubled_or_out_of_order_is_found(
    alice: List[str], bob: List[str], lost: int, doubled: int, disordered: int
) -> None:
    judged = judge(ACKNOWLEDGED, {"alice": alice, "bob": bob})
    assert judged == Judged(6, lost, doubled, disordered)
    assert judged.is_right == (lost == doubled == disordered == 0)


def test_an_event_of_another_conversation_is_lost_in_its_own() -> None:
    assert judge({("alice", "a"): ["a0"]}, {"bob": ["a0"]}).lost == 1
    assert judge({("alice", "a"): ["a0"]}, {}).lost == 1


def test_turns_have_ids_of_their_own_and_sessions_begin_in_time() -> None:
    ids = [identity for number in range(25) for identity in event_ids(turn("a-alice", number))]
    assert len(set(ids)) == len(ids) == 25 * 2 + 3 * 3
    starts = [number for number in range(25) if "session_started" in {e["event"] for e in turn("a", number)}]
    assert starts == [0, TURNS_A_SESSION, 2 * TURNS_A_SESSION]


GOOD: Dict[str, Any] = {
    **{"error": "TimeoutError", "message": "no answer for 2 s", "after_s": 2.05, "longest_s": 2.1, "pause_s": 0.004},
    **{"back_s": 0.03, "acknowledged": 170, "lost": 0, "doubled": 0, "disordered": 0},
}
BOUNDS = Bounds(call_s=5.3, pause_s=0.05)


@pytest.mark.parametrize(
    ("planted", "broken"),
    [
        ({}, []),
        ({"error": None, "message": "", "after_s": 0.2}, []),
        ({"lost": 2}, ["2 lost"]),
        ({"doubled": 1}, ["1 doubled"]),
        ({"disordered": 3}, ["3 disordered"]),
        ({"acknowledged": 0}, ["nothing acknowledged"]),
        ({"longest_s": 5.31}, ["call of 5.3 s"]),
        ({"pause_s": 0.051}, ["loop held 51 ms"]),
        ({"back_s": None}, ["not back"]),
        ({"failed": "Traceback"}, ["failed"]),
        ({"lost": 1, "pause_s": 2.0, "back_s": None}, ["1 lost", "loop held 2000 ms", "not back"]),
    ],
)
def test_a_bound_that_is_broken_is_said(planted: Dict[str, Any], broken: List[str]) -> None:
    found = {**GOOD, **planted}
    assert BOUNDS.broken(found) == broken
    data = measured(found)
    assert faults_suite.is_right(data) is (not broken)
    assert (", ".join(broken) or "yes") in faults_table.as_text(data)


def test_where_a_store_promises_less_less_is_asked_of_it() -> None:
    assert Bounds(None, None).broken({**GOOD, "longest_s": 60.0, "pause_s": 60.0}) == []
    assert str(Bounds(None, None)).startswith("every acknowledged event")
    assert str(BOUNDS).startswith("a call ends within 5.3 s; the event loop is never held for more than 50 ms; ")


def measured(ours: Dict[str, Any], **more: Any) -> Dict[str, Any]:
    stock = {**GOOD, "error": None, "after_s": None, "back_s": None, "pause_s": 20.0, "lost": 1, "disordered": 2}
    row = {"fault": "frozen | still", "contenders": {"stock": stock, "ours": ours}, "broken": BOUNDS.broken(ours)}
    return {
        "header": {"server": "Valkey 9"},
        "skipped": {"redis-py": "it is away"},
        "not_run": {"RST": "no namespaces"},
        "bounds": str(BOUNDS),
        "rows": [row],
        "liveness": {"cases": []},
        **more,
    }


def test_the_table_shows_contenders_side_by_side() -> None:
    text = faults_table.as_text(measured(GOOD))
    row = next(line for line in text.splitlines() if line.startswith("| frozen"))
    cells = [cell.strip() for cell in row.replace("\\|", "/").strip("|").split("|")]
    assert cells == [
        "frozen / still",
        *("> 20 s", "20.0 s", "1, 0, 2 out of order", "> 20 s"),
        *("TimeoutError 2.0 s", "4 ms", "0, 0", "0.03 s"),
        "yes",
    ]
    assert "skipped: redis-py: it is away" in text
    assert "not run: RST: no namespaces" in text
    assert "TimeoutError: no answer for 2 s" in text


def test_a_table_without_our_store_has_no_verdict() -> None:
    data = measured(GOOD, bounds=None)
    del data["rows"][0]["broken"]
    assert "Kept" not in faults_table.as_text(data)
    assert faults_suite.is_right(data)


@pytest.mark.parametrize("contender", ["stock", "ours"])
def test_a_run_that_failed_is_no_pass(contender: str) -> None:
    data = measured(GOOD)
    data["rows"][0]["contenders"][contender] = {"failed": "Traceback\nOSError: no such thing\n"}
    assert not faults_suite.is_right(data)
    assert "OSError: no such thing" in faults_table.as_text(data)


@pytest.mark.parametrize(
    ("case", "after_s", "is_kept"),
    [
        (0, 4.0, True),
        (0, 3.4, False),
        (0, 5.1, False),
        (0, None, False),
        (1, 4.4, True),
        (1, 5.1, False),
        (1, None, False),
        (2, None, True),
        (2, 9.0, False),
    ],
)
def test_liveness_has_two_bounds(case: int, after_s: Optional[float], is_kept: bool) -> None:
    chosen = faults_liveness.CASES[case]
    assert faults_liveness.is_kept(chosen, after_s) is is_kept
    found = {"connection": "FastConnection", "case": chosen.name, "error": "TimeoutError", "after_s": after_s}
    data = measured(GOOD, liveness={"cases": [{**found, "bound": "4 s", "is_kept": is_kept}]})
    assert faults_suite.is_right(data) is is_kept
    assert faults_table.as_text(data).splitlines()[-1].endswith("| yes  |" if is_kept else "| NO   |")


def test_a_seed_repeats_a_schedule() -> None:
    first, again, other = (faults_schedules.told(faults_schedules.schedule(seed, True)) for seed in ("1", "1", "2"))
    assert first == again != other


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("has_network", [True, False])
def test_a_schedule_heals_what_it_injects_and_one_fault_of_a_kind_at_a_time(seed: int, has_network: bool) -> None:
    steps = faults_schedules.schedule(str(seed), has_network)
    under: DefaultDict[bool, List[str]] = defaultdict(list)
    for step in steps:
        assert 0 < step.at_s <= faults_schedules.SECONDS
        assert step.fault.is_random
        assert has_network or not step.fault.network
        if step.is_healed:
            assert under[step.fault.network].pop() == step.fault.name
        else:
            assert not under[step.fault.network]
            under[step.fault.network].append(step.fault.name)
    assert steps
    assert not any(under.values())


@pytest.mark.parametrize(
    ("planted", "is_right"),
    [({}, True), ({"lost": 1}, False), ({"is_back": False}, False), ({"failed": "Traceback"}, False)],
)
def test_the_table_of_schedules_shows_the_steps_of_those_that_went_wrong(
    planted: Dict[str, Any], is_right: bool
) -> None:
    found: Dict[str, Any] = {
        **{"seed": "7.1", "acknowledged": 1234, "lost": 0, "doubled": 0, "disordered": 0, "failed_calls": 5},
        **{"longest_s": 2.0, "is_back": True, "is_right": is_right, "steps": ["1.00 s inject RST"], **planted},
    }
    data: Dict[str, Any] = {"header": {}, "without network": None, "schedules": [found]}
    text = faults_table.schedules_as_text(data)
    assert faults_suite.is_right(data) is is_right
    assert ("NO" in text) is (not is_right)
    assert ("inject RST" in text or "Traceback" in text) is (not is_right)
    assert "7.1" in text


def test_every_fault_has_a_name_of_its_own() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert faults_suite.chosen(None) == FAULTS
    assert [fault.name for fault in faults_suite.chosen(["RST"])] == ["RST"]
    with pytest.raises(Missing, match="'earthquake'"):
        faults_suite.chosen(["RST", "earthquake"])


QUESTION = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\5redis\4test\0"


def test_the_name_server_answers_as_told() -> None:
    address, other = QUESTION + struct.pack(">HH", 1, 1), QUESTION + struct.pack(">HH", 28, 1)
    answered = faults_names.answer(address, "address")
    assert answered[:2] == address[:2]
    assert struct.unpack(">HHHHH", answered[2:12]) == (0x8180, 1, 1, 0, 0)
    assert answered[12:].startswith(address[12:])
    assert answered.endswith(bytes([10, 99, 0, 1]))
    assert struct.unpack(">HHHHH", faults_names.answer(other, "address")[2:12]) == (0x8180, 1, 0, 0, 0)
    assert struct.unpack(">HHHHH", faults_names.answer(address, "no such name")[2:12]) == (0x8183, 1, 0, 0, 0)


def test_jobs_go_by_side_by_side_and_their_failures_are_told() -> None:
    def fail() -> Dict[str, Any]:
        raise ValueError("as planned")

    jobs = [Job(str(number), lambda number=number: {"number": number}, False) for number in range(5)]  # type: ignore[misc]
    said: List[str] = []
    results = faults_jobs.carry_out([*jobs, Job("fails", fail, False)], 2, said.append)
    assert results[:5] == [{"number": number} for number in range(5)]
    assert "ValueError: as planned" in results[5]["failed"]
    assert said == [*"01234", "fails"]


def test_a_job_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults_jobs, "SECONDS_FOR_A_RUN", 0.5)

    def hang() -> Dict[str, Any]:
        time.sleep(60)
        return {}

    begun = time.monotonic()
    assert "longer than" in faults_jobs.carry_out([Job("hangs", hang, False)], 1, lambda name: None)[0]["failed"]
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    "arguments", [["--contenders", "nobody"], ["--contenders", ""], ["--schedules", "0"], ["--url", "redis://a"]]
)
def test_what_cannot_be_asked_for_is_refused(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--faults", *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_row_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--faults", "--rows", "earthquake"]) == 2
    assert "no fault's name holds 'earthquake'" in capsys.readouterr().err
