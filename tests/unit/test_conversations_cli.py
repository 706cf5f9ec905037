"""``rasa-extras conversations`` on a real server, by the documents that Rasa writes and without Rasa."""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import redis

from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED, Shape, conversation, recorded_events
from extras.cli import conversations_list, conversations_tail
from extras.cli.endpoints_file import section
from extras.cli.main import main
from extras.cli.output import Unusable
from extras.cli.redis_store import open_store

Run = Callable[..., Any]
EVENTS: List[Any] = recorded_events()
SENDERS = ["alice", "Grüße 👋", "a:b:c", "user_trackers:x", "line\nbreak", "\x1b[31mred"]


def document(sender_id: str, events: List[Any], **members: Any) -> bytes:
    return json.dumps({"events": events, "name": sender_id, **members}).encode()


def long_document(sender_id: str, events: int) -> bytes:
    return document(sender_id, conversation(Shape(events), EVENTS))


@pytest.fixture
def endpoints(server: RedisServer, raw: "redis.Redis", tmp_path: Path) -> Callable[..., str]:
    """Write an endpoints.yml that names the server."""

    def write(**options: Any) -> str:
        kind = "extras.trackerstore.ExtraRedisTrackerStore"
        store = {"type": kind, "url": "127.0.0.1", "port": server.port, **options}
        path = tmp_path / "endpoints.yml"
        path.write_text(json.dumps({"tracker_store": store, "lock_store": {**store, "type": "redis", "db": 1}}))
        return str(path)

    return write


@pytest.fixture
def command(endpoints: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Carry out an action; return exit code, what it printed, and what it remarked."""

    def run(action: str, *arguments: str, **options: Any) -> Any:
        code = main(["conversations", action, endpoints(**options), *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def rows(printed: str) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_list_tells_size_and_last_activity_by_the_end_of_each_document(raw: "redis.Redis", command: Run) -> None:
    for number, sender_id in enumerate(SENDERS, 17):
        raw.set(f"tracker:{sender_id}", long_document(sender_id, number))
    raw.set("other", "no conversation")
    code, out, err = command("list", "--json")
    assert (code, err) == (0, "")
    by_id = {row["sender_id"]: row for row in rows(out)}
    assert sorted(by_id) == sorted(SENDERS)
    for number, sender_id in enumerate(SENDERS, 17):
        stored = long_document(sender_id, number)
        last_s = json.loads(stored)["events"][-1]["timestamp"]
        assert by_id[sender_id] == {
            "sender_id": sender_id,
            "last_activity_s": last_s,
            "size_bytes": len(stored),
        }
    code, out, _ = command("list")
    assert code == 0
    assert len(out.splitlines()) == len(SENDERS)
    assert "\\x1b[31mred" in out
    assert "\x1b" not in out
    assert "2023-11-14T22:13:" in out


def test_list_takes_some_and_reads_further_back_for_a_long_last_event(raw: "redis.Redis", command: Run) -> None:
    long_text = {"event": "bot", "timestamp": 5.0, "text": '{"event": "bot", ' * 2000, "data": {}, "metadata": {}}
    raw.set("tracker:long-1", document("long-1", [*EVENTS, long_text]))
    raw.set("tracker:long-2", b'{"name": "long-2", "events": []}')
    raw.set("tracker:broken", b"\xff nonsense")
    raw.rpush("tracker:list", "x")
    code, out, _ = command("list", "--json", "--match", "long-*")
    assert code == 0
    assert {row["sender_id"]: row["last_activity_s"] for row in rows(out)} == {"long-1": 5.0, "long-2": None}
    code, out, _ = command("list", "--json")
    assert code == 1
    assert [row["sender_id"] for row in rows(out) if "error" in row] == ["list"]
    code, out, _ = command("list", "--limit", "2")
    assert len(out.splitlines()) == 2


def test_list_reads_no_more_than_the_ends(raw: "redis.Redis", command: Run) -> None:
    for number in range(20):
        raw.set(f"tracker:{number}", long_document(str(number), 1000))
    before: Any = raw.info("stats")
    assert command("list")[0] == 0
    after: Any = raw.info("stats")
    sent = after["total_net_output_bytes"] - before["total_net_output_bytes"]
    assert sent < 20 * 2 * conversations_list._TAIL_BYTES
    assert int(raw.strlen("tracker:1")) > 200_000


def test_show_is_a_chat_of_the_last_session_or_all(raw: "redis.Redis", command: Run) -> None:
    raw.set("tracker:alice", long_document("alice", 100))
    code, out, _ = command("show", "alice")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("alice: ")
    assert "its last session, 40 events" in lines[0]
    assert lines[1] == "Tuesday, 2023-11-14 (UTC)"
    assert any("  user  hello   <greet 1.00" in line for line in lines)
    assert any("  bot   Hey! How are you?" in line for line in lines)
    assert any("[utter_greet]" in line for line in lines)
    code, out, _ = command("show", "alice", "--all-sessions")
    assert "all of it, 100 events" in out
    assert out.count("a session begins") == 2
    code, out, _ = command("show", "alice", "--all-sessions", "--events")
    assert rows(out) == conversation(Shape(100), EVENTS)
    raw.pexpire("tracker:alice", 60_000)
    code, out, _ = command("show", "alice", "--json")
    (shown,) = rows(out)
    assert shown["events"] == conversation(Shape(100), EVENTS)[60:]
    assert shown["members"] == {"name": "alice"}
    assert 50 < shown["expires_after_s"] <= 60


def test_show_obeys_nothing_that_people_have_said(raw: "redis.Redis", command: Run) -> None:
    said = [
        {
            "event": "user",
            "timestamp": 1.0,
            "text": "\x1b]0;owned\x07\r",
            "parse_data": {"entities": [{"entity": "e"}]},
        },
        {"event": "bot", "timestamp": 2.0, "text": "one\ntwo", "data": {"buttons": [{"title": "yes"}], "image": "x"}},
        {"event": "slot", "timestamp": "soon", "name": "city", "value": "Zürich"},
        {"event": "user", "timestamp": None, "text": None, "parse_data": None},
        {"event": "restart"},
        "no event",
        {"event": "unheard_of", "name": 5},
    ]
    raw.set("tracker:mallory", document("mallory", said))
    code, out, _ = command("show", "mallory")
    assert code == 0
    assert "\x1b" not in out
    assert "\\x1b]0;owned" in out
    assert 'city = "Zürich"' in out
    assert "\n                two\n" in out
    for text in ("[yes]", "starts over", "no JSON object", "(unheard_of)"):
        assert text in out


def test_show_says_what_is_not_there_or_unreadable_without_showing_it(raw: "redis.Redis", command: Run) -> None:
    code, out, err = command("show", "nobody")
    assert (code, out) == (1, "")
    assert "no conversation 'nobody'" in err
    raw.set("tracker:broken", b'{"events": [{"text": "my secret')
    for more in ([], ["--all-sessions"]):
        code, out, err = command("show", "broken", *more)
        assert (code, out) == (1, "")
        assert "secret" not in err
        assert "not a conversation" in err


def test_exported_and_imported_is_byte_for_byte_the_same(raw: "redis.Redis", command: Run, tmp_path: Path) -> None:
    for sender_id in SENDERS:
        raw.set(f"tracker:{sender_id}", document(sender_id, EVENTS))
    raw.set("tracker:odd", b'{"name": "odd",\n "events": [] }')
    raw.pexpire("tracker:odd", 90_000)
    pro = document("of a user", EVENTS, user_id="u1")
    raw.set("tracker:of a user", pro)
    before = {key: raw.get(key) for key in raw.scan_iter()}
    file = str(tmp_path / "all.jsonl")
    code, out, _ = command("export", file)
    assert (code, out) == (0, f"{len(SENDERS) + 2} exported\n")
    assert os.stat(file).st_mode & 0o777 == 0o600
    raw.flushall()
    code, out, _ = command("import", file, "--dry-run")
    assert code == 0
    assert raw.dbsize() == 0
    code, out, _ = command("import", file)
    assert out.startswith(f"{len(SENDERS) + 2} imported")
    assert raw.zscore("user_trackers:u1", "of a user") == float("inf")
    raw.delete("user_trackers:u1")
    assert {key: raw.get(key) for key in raw.scan_iter()} == before
    assert 80_000 < int(raw.pttl("tracker:odd")) <= 90_000
    code, out, _ = command("import", file, "--json")
    assert rows(out)[0]["unchanged"] == len(SENDERS) + 2


def test_an_export_that_was_cut_anywhere_is_completed(raw: "redis.Redis", command: Run, tmp_path: Path) -> None:
    for number in range(30):
        raw.set(f"tracker:{number}", document(str(number), EVENTS[: number + 1]))
    file = tmp_path / "all.jsonl"
    assert command("export", str(file))[0] == 0
    whole = file.read_bytes()
    lines = sorted(whole.splitlines())
    code, _, err = command("export", str(file))
    assert code == 2
    assert "--resume" in err
    assert file.read_bytes() == whole
    for cut in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        file.write_bytes(whole[:cut])
        code, out, _ = command("export", str(file), "--resume", "--json")
        assert code == 0
        assert sorted(file.read_bytes().splitlines()) == lines
        assert sum(rows(out)[0].values()) == 30


def test_export_says_what_it_could_not_take(raw: "redis.Redis", command: Run, tmp_path: Path) -> None:
    raw.set("tracker:good", RECORDED)
    raw.rpush("tracker:list", "x")
    code, out, err = command("export", str(tmp_path / "some.jsonl"))
    assert (code, out) == (1, "1 exported, 1 failed\n")
    assert "list: its key holds no text" in err
    raw.delete("tracker:list")
    raw.set("tracker:tracker:good", RECORDED)
    code, _, err = command("export", str(tmp_path / "others.jsonl"))
    assert code == 1
    assert "begins like a key" in err
    code, out, _ = command("list", "--json")
    assert code == 1
    assert [row["sender_id"] for row in rows(out) if "error" in row] == ["tracker:good"]


@pytest.mark.parametrize(
    ("existing", "result", "count"),
    [("skip", 5, "skipped"), ("merge", 7, "merged"), ("replace", 6, "replaced")],
)
@pytest.mark.parametrize("spelling", ["stock", "another"])
def test_what_is_there_is_skipped_merged_or_replaced(
    raw: "redis.Redis", command: Run, tmp_path: Path, existing: str, result: int, count: str, spelling: str
) -> None:
    file = str(tmp_path / "some.jsonl")
    raw.set("tracker:alice", document("alice", EVENTS[:4] + EVENTS[5:7]))
    assert command("export", file)[0] == 0
    there = document("alice", EVENTS[:5])
    raw.set("tracker:alice", there if spelling == "stock" else there.replace(b": [", b":  [", 1), px=60_000)
    for is_second in (False, True):
        code, out, _ = command("import", file, "--existing", existing, "--json")
        assert code == 0
        assert rows(out)[0]["skipped" if existing == "skip" else "unchanged" if is_second else count] == 1
        stored = json.loads(raw.get("tracker:alice") or b"")
        assert len(stored["events"]) == result
        assert stored["name"] == "alice"
        assert (int(raw.pttl("tracker:alice")) > 0) == (existing != "replace")
    if existing == "merge":
        assert stored["events"] == EVENTS[:7]


def test_conversations_of_rasa_2_0_are_found_and_moved_to_their_new_key(
    raw: "redis.Redis", command: Run, tmp_path: Path
) -> None:
    stored = document("old", EVENTS[:4])
    raw.set("old", stored)
    raw.set("other", "no conversation")
    options = {"read_unprefixed_keys": True}
    (row,) = rows(command("list", "--json", **options)[1])
    assert (row["sender_id"], row["size_bytes"]) == ("old", len(stored))
    assert rows(command("stats", "--json", **options)[1])[0]["total_bytes"] == len(stored)
    assert "4 events" in command("show", "old", **options)[1]
    file = tmp_path / "some.jsonl"
    assert command("export", str(file), **options)[1] == "1 exported\n"
    file.write_text(
        json.dumps({"sender_id": "old", "document": document("old", EVENTS[:6]).decode(), "ttl_ms": None}) + "\n"
    )
    assert command("import", str(file), "--existing", "merge", **options)[1].startswith("0 imported, 1 merged")
    assert raw.get("tracker:old") == document("old", EVENTS[:6])
    assert raw.get("old") == stored


def test_import_takes_what_is_whole_and_says_which_lines_are_not(
    raw: "redis.Redis", command: Run, tmp_path: Path
) -> None:
    good = json.dumps({"sender_id": "good", "document": RECORDED, "ttl_ms": None})
    bad = [
        "{",
        "[]",
        '{"sender_id": 5, "document": "{}"}',
        json.dumps({"sender_id": "secretive", "document": '{"events": "hush"}', "ttl_ms": None}),
        json.dumps({"sender_id": "x", "document": RECORDED, "ttl_ms": "soon"}),
    ]
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join([*bad, good, good.replace("good", "cut")]))
    code, out, err = command("import", str(file))
    assert code == 1
    assert out.startswith("1 imported, 6 failed")
    assert [line.split(":")[0] for line in err.splitlines()] == [f"line {n}" for n in (1, 2, 3, 4, 5, 7)]
    assert "hush" not in err
    assert raw.keys() == [b"tracker:good"]
    assert command("import", str(tmp_path / "none.jsonl"))[0] == 2


def test_delete_erases_every_key_and_leaves_a_receipt(
    server: RedisServer, raw: "redis.Redis", command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = document("alice", EVENTS, user_id="u1")
    raw.set("bot:tracker:alice", stored)
    raw.set("alice", RECORDED)
    raw.zadd("bot:user_trackers:u1", {"alice": 5, "bob": 6})
    with redis.Redis(port=server.port, db=1) as locks:
        locks.set("bot:lock:alice", "{}")
        locks.set("bot:lock:bob", "{}")
        options = {"key_prefix": "bot", "read_unprefixed_keys": True}
        code, out, _ = command("delete", "alice", "--dry-run", **options)
        assert code == 0
        dry = rows(out)[0]
        assert dry["dry_run"] is True
        assert raw.dbsize() == 3
        monkeypatch.setattr(sys, "stdin", io.StringIO("alicia\n"))
        code, out, err = command("delete", "alice", **options)
        assert (code, out) == (1, "")
        assert "not confirmed" in err
        assert raw.dbsize() == 3
        monkeypatch.setattr(sys, "stdin", io.StringIO("alice\n"))
        code, out, _ = command("delete", "alice", **options)
        receipt = rows(out)[0]
        assert code == 0
        assert receipt["keys"] == dry["keys"]
        assert [(key["key"], key["what"]) for key in receipt["keys"]] == [
            ("bot:tracker:alice", "document"),
            ("alice", "document"),
            ("bot:user_trackers:u1", "user index entry"),
            ("bot:lock:alice", "lock"),
        ]
        assert receipt["keys"][0]["bytes"] == len(stored)
        assert receipt["not_erased"] == []
        assert any("journal" in what for what in receipt["not_erasable_from_here"])
        assert raw.keys() == [b"bot:user_trackers:u1"]
        assert raw.zrange("bot:user_trackers:u1", 0, -1) == [b"bob"]
        assert locks.keys() == [b"bot:lock:bob"]
    code, out, err = command("delete", "alice", "--yes", **options)
    assert code == 1
    assert rows(out)[0]["keys"] == []
    assert "no conversation 'alice'" in err
    raw.connection_pool.disconnect()


def test_delete_erases_events_that_are_not_published_yet(raw: "redis.Redis", command: Run) -> None:
    raw.set("tracker:alice", document("alice", EVENTS))
    raw.rpush("{tracker:alice}:outbox:tracker:alice", "one", "two")
    code, out, _ = command("delete", "alice", "--yes", "--dry-run", publish="outbox")
    assert raw.dbsize() == 2
    code, out, _ = command("delete", "alice", "--yes", publish="outbox")
    assert code == 0
    assert [key["what"] for key in rows(out)[0]["keys"]] == ["document", "unpublished events"]
    assert raw.keys() == []


def test_delete_says_what_it_could_not_erase(raw: "redis.Redis", command: Run) -> None:
    raw.set("tracker:broken", "nonsense")
    raw.rpush("tracker:list", "x")
    code, out, _ = command("delete", "broken", "list", "--yes")
    assert code == 1
    broken, other = rows(out)
    assert len(broken["keys"]) == 1
    assert "unreadable" in broken["not_erased"][0]
    assert other["keys"] == []
    assert "a list" in other["not_erased"][0]
    assert raw.keys() == [b"tracker:list"]


def test_delete_tells_of_locks_out_of_reach_and_still_gives_the_receipt(
    raw: "redis.Redis", command: Run, endpoints: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    raw.set("tracker:alice", RECORDED)
    path = Path(endpoints())
    file = json.loads(path.read_text())
    file["lock_store"] = {"type": "redis", "url": "127.0.0.1", "port": 1}
    path.write_text(json.dumps(file))
    assert main(["conversations", "delete", str(path), "alice", "--yes"]) == 1
    receipt = rows(capsys.readouterr().out)[0]
    assert [key["key"] for key in receipt["keys"]] == ["tracker:alice"]
    assert receipt["not_erased"][0].startswith("the lock: ")


def test_stats_and_growth(raw: "redis.Redis", command: Run, tmp_path: Path) -> None:
    code, out, _ = command("stats", "--json")
    assert rows(out)[0]["conversations"] == 0
    sizes = []
    for number in range(150):
        stored = document(str(number), EVENTS[: 1 + number % 10])
        sizes.append(len(stored))
        raw.set(f"tracker:{number}", stored)
    raw.set("tracker:big", document("big", EVENTS * 3))
    code, out, _ = command("stats", "--json")
    found = rows(out)[0]
    assert code == 0
    assert found["conversations"] == 151
    assert found["total_bytes"] == sum(sizes) + len(document("big", EVENTS * 3))
    assert found["largest"] == "big"
    assert found["median_bytes"] in sizes
    assert found["sampled"] == 100
    assert found["memory_bytes"] > found["total_bytes"] / 2
    (tmp_path / "before.json").write_text(out)
    raw.set("tracker:new", RECORDED)
    code, out, _ = command("stats", "--since", str(tmp_path / "before.json"))
    assert code == 0
    assert "+1 conversations" in out
    assert f"+{len(RECORDED):,} B" in out
    (tmp_path / "before.json").write_text("{}")
    assert command("stats", "--since", str(tmp_path / "before.json"))[0] == 2


def test_stats_without_leave_to_ask_for_memory(raw: "redis.Redis", command: Run) -> None:
    raw.set("tracker:alice", RECORDED)
    raw.execute_command("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@read", "-memory", "+ping")
    try:
        code, out, _ = command("stats", "--json", username="reader", password="s3cret")
    finally:
        raw.execute_command("ACL", "DELUSER", "reader")
    found = rows(out)[0]
    assert code == 0
    assert found["memory_bytes"] is None
    assert "memory" in found["memory_refused"]
    assert found["events"] == len(EVENTS)


def follower(store: Any, *arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    conversations_tail.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    return conversations_tail.Follower(store, parser.parse_args(list(arguments)))


def test_tail_shows_what_is_appended_and_reads_little_else(
    raw: "redis.Redis", endpoints: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(endpoints())
    try:
        history = conversation(Shape(1000), EVENTS)
        raw.set("tracker:alice", document("alice", history))
        one, everyone = follower(store, "alice", "--json"), follower(store, "--all", "--json")
        assert one.look() == 1
        assert rows(capsys.readouterr().out) == history[-10:]
        assert everyone.look() == 1
        assert capsys.readouterr().out == ""

        before: Any = raw.info("stats")
        for number in range(1, 4):
            raw.set("tracker:alice", document("alice", history + EVENTS[:number]))
            one.look()
            assert rows(capsys.readouterr().out) == [EVENTS[number - 1]]
        after: Any = raw.info("stats")
        assert after["total_net_output_bytes"] - before["total_net_output_bytes"] < 20_000
        one.look()
        assert capsys.readouterr().out == ""

        raw.set("tracker:bob", document("bob", EVENTS[:2]))
        assert everyone.look() == 2
        shown = rows(capsys.readouterr().out)
        assert [row["event"] for row in shown if row["sender_id"] == "alice"] == EVENTS[:3]
        assert [row["event"] for row in shown if row["sender_id"] == "bob"] == EVENTS[:2]

        raw.set("tracker:alice", document("alice", EVENTS[:1]))
        one.look()
        assert "written anew" in capsys.readouterr().err
        raw.delete("tracker:alice")
        one.look()
        raw.set("tracker:alice", document("alice", EVENTS[:2]))
        one.look()
        assert rows(capsys.readouterr().out) == EVENTS[:2]
    finally:
        store.close()


@contextmanager
def killed_at_last(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()


def test_ctrl_c_ends_tail_quietly(raw: "redis.Redis", endpoints: Callable[..., str]) -> None:
    raw.set("tracker:alice", document("alice", EVENTS[:5]))
    command = [sys.executable, "-m", "extras", "conversations", "tail", endpoints(), "alice", "--interval", "0.05"]
    # Whoever runs the tests in the background of a shell has it ignored, and so would the command.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process, killed_at_last(process):
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().decode().startswith("Saturday, 2026-11-21")
        while b"following" not in process.stderr.readline():
            pass
        raw.set("tracker:alice", document("alice", [*EVENTS[:5], EVENTS[6]]))
        deadline = time.monotonic() + 30
        while b"bot" not in process.stdout.readline():
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_a_reader_who_has_seen_enough_is_no_error(raw: "redis.Redis", endpoints: Callable[..., str]) -> None:
    for number in range(3000):
        raw.set(f"tracker:{number:050}", RECORDED[:1])
    command = [sys.executable, "-m", "extras", "conversations", "list", endpoints()]
    # Whoever runs the tests in the background of a shell has it ignored, and so would the command.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process, killed_at_last(process):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_the_stock_stores_prefix_rule_and_options(raw: "redis.Redis", command: Run) -> None:
    raw.set("tracker:alice", RECORDED)
    raw.set("bot1:tracker:bob", RECORDED)
    stock = {"type": "redis", "unheard_of": True}
    assert rows(command("list", "--json", key_prefix="bot1", **stock)[1])[0]["sender_id"] == "bob"
    assert rows(command("list", "--json", key_prefix="my-bot", **stock)[1])[0]["sender_id"] == "alice"
    assert command("list", "--json", key_prefix="my-bot")[1] == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"type": "SQL"}, "of type 'SQL'"),
        ({"prot": 5}, "did you mean 'port'"),
        ({"password": ["s3cret"]}, "password"),
        ({"port": 1}, "ConnectionError"),
        ({"username": "nobody", "password": "s3cret"}, "invalid username-password"),
        ({"cluster": True}, "cluster"),
    ],
)
def test_what_cannot_be_used_is_said_without_secrets(options: Dict[str, Any], says: str, command: Run) -> None:
    code, out, err = command("list", **options)
    assert (code, out) == (2, "")
    assert says in err
    assert "s3cret" not in err
    assert len(err.splitlines()) == 1


YAML = """
# password: ${COMMENTED}
tracker_store:
  type: redis
  url: ${HOST_HERE}:${PORT_HERE}
  key_prefix: '${QUOTED}'
  password: ${PASSWORD_HERE}
  record_exp: 60
"""


def test_variables_are_expanded_as_rasa_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "endpoints.yml"
    path.write_text(YAML)
    monkeypatch.setenv("HOST_HERE", "redis.internal")
    monkeypatch.setenv("PORT_HERE", "6380")
    with pytest.raises(Unusable, match=r"not set: PASSWORD_HERE$"):
        section(str(path), "tracker_store")
    monkeypatch.setenv("PASSWORD_HERE", "s3cret")
    assert section(str(path), "tracker_store") == {
        "type": "redis",
        "url": "redis.internal:6380",
        "key_prefix": "${QUOTED}",
        "password": "s3cret",
        "record_exp": 60,
    }
    assert section(str(path), "lock_store") is None
    path.write_text('a: "s3cret\nb: [')
    with pytest.raises(Unusable, match=r"is no YAML that Rasa could read \(line 2") as caught:
        section(str(path), "tracker_store")
    assert "s3cret" not in str(caught.value)
    path.write_text("tracker_store: text")
    with pytest.raises(Unusable, match="no mapping"):
        section(str(path), "tracker_store")
    with pytest.raises(Unusable, match=r"none\.yml: cannot be read: No such file"):
        section(str(tmp_path / "none.yml"), "tracker_store")
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    path.write_text(YAML)
    with pytest.raises(Unusable, match=r"reading YAML needs ruamel\.yaml"):
        section(str(path), "tracker_store")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["tail", "x.yml"],
        ["tail", "x.yml", "alice", "--all"],
        ["tail", "x.yml", "alice", "--rate", "0"],
        ["tail", "x.yml", "alice", "--interval", "soon"],
        ["list", "x.yml", "--limit", "-1"],
        ["dance", "x.yml"],
    ],
)
def test_a_wrong_command_line(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: Any = main(["conversations", *arguments])
    except SystemExit as leaving:
        code = leaving.code
    assert code == 2
    assert capsys.readouterr().err
