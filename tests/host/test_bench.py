"""``python -m extras.bench`` in this host: figures come out, and nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import redis
from the_host import HAS_SERVER

from extras.bench.__main__ import main
from extras.bench.server import RedisServer, find_server, free_port

ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "SQLALCHEMY_SILENCE_UBER_WARNING": "1"}


def bench(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the benchmark; away from the checkout, so that it is the installed one."""
    return subprocess.run(
        [sys.executable, "-m", "extras.bench", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.fixture
def pid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the benchmark's own server leaves its process id."""
    program, written = tmp_path / "server.sh", tmp_path / "pid"
    program.write_text(f'#!/bin/sh\necho $$ > "{written}"\nexec "{find_server()}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "REDIS_SERVER", str(program))
    return written


def runs(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_on_a_server_of_its_own(tmp_path: Path, pid_file: Path) -> None:
    done = bench(
        tmp_path, "--tracker", "--rounds", "2", "--history", "17,100,1000/1000,200/100", "--json", "figures.json"
    )
    assert done.returncode == 0, done.stderr
    assert not runs(pid_file)
    data = json.loads((tmp_path / "figures.json").read_text())["runs"][0]["tracker"]
    assert {"machine", "Python", "Rasa", "redis-py", "hiredis", "server", "extras.fastsock"} <= set(data["header"])
    assert [(found["events"], found["events_per_session"]) for found in data["histories"]] == [
        (17, 60),
        (100, 60),
        (1000, 1000),
        (200, 100),
    ]
    for found in data["histories"]:
        check_history(found)
    for line in (*data["header"].values(), "17 in one session", "100 old + 100", "stock/ours"):
        assert line in done.stdout
    assert [line for line in done.stdout.splitlines() if "debug" in line.lower()] == []
    assert "flatness" not in done.stdout


def check_history(found: Dict[str, Any]) -> None:
    assert list(found["stores"]) == ["stock", "ours"]
    for store in found["stores"].values():
        assert store["rounds"] == 2
        for case in ("retrieve", "save", "turn"):
            times = store[f"{case}_ms"]
            assert 0 < times["median"] <= times["p99"]
            assert times["iqr"] >= 0
            assert found["times_as_fast"][case]["median"] > 0
    stock, ours = (found["stores"][name]["per_turn"] for name in ("stock", "ours"))
    assert stock["commands"] == ["GET", "GET", "SET"] or stock["commands"] == ["GET", "SET"]
    assert ours["commands"] in (["GETRANGE", "EVALSHA"], ["GET", "EVALSHA"])
    assert stock["bytes_to_redis"] > found["document_bytes"]
    assert 0 < ours["bytes_to_redis"] < stock["bytes_to_redis"]
    assert 0 < ours["bytes_from_redis"] < stock["bytes_from_redis"] + 100  # before 3.3 both read it all, once


def test_a_run_on_a_given_server_leaves_no_key_and_touches_none(
    tmp_path: Path, raw: Any, own_server: RedisServer
) -> None:
    client: Any = redis.Redis(port=own_server.port, db=3)
    client.set("tracker:alice", "hers")
    url = f"redis://127.0.0.1:{own_server.port}/3"
    done = bench(tmp_path, "--tracker", "--rounds", "1", "--history", "17", "--url", url)
    assert done.returncode == 0, done.stderr
    assert client.keys("*") == [b"tracker:alice"]
    assert client.get("tracker:alice") == b"hers"
    assert client.info("keyspace").keys() == {"db3"}
    assert client.info("commandstats").get("cmdstat_flushdb") is None
    client.connection_pool.disconnect()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_stops_its_server(tmp_path: Path, pid_file: Path, stop: signal.Signals) -> None:
    command: List[str] = [
        sys.executable,
        "-m",
        "extras.bench",
        "--tracker",
        "--history",
        "17,300",
        "--rounds",
        "10000",
    ]
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "17 in one session" in line and "rounds" in line:
                break
        assert runs(pid_file)
        process.send_signal(stop)
        rest = process.stderr.read()
        assert process.wait(60) == 128 + stop, rest
    assert "Traceback" not in rest
    assert not runs(pid_file)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}", "unix:///tmp/redis.sock", "http://127.0.0.1"])
def test_a_server_that_cannot_be_used_is_said(tmp_path: Path, url: str) -> None:
    done = bench(tmp_path, "--tracker", "--url", url.format(port=free_port()))
    assert done.returncode == 2
    assert "python -m extras.bench: " in done.stderr
    assert "Traceback" not in done.stderr


def test_it_can_be_as_loaded_as_a_server(tmp_path: Path) -> None:
    done = bench(tmp_path, "--tracker", "--rounds", "1", "--history", "17", "--like-server")
    if HAS_SERVER:
        assert done.returncode == 0, done.stderr
        assert "rasa.core.agent is loaded, with TensorFlow" in done.stdout
    elif done.returncode == 2:  # what tests/hosts leaves out
        assert "No module named" in done.stderr
    else:
        assert "rasa.core.agent is loaded, without TensorFlow" in done.stdout


def test_ours_does_not_differ_from_itself(tmp_path: Path) -> None:
    """Not a check of the machine: the intervals of few rounds are wide."""
    done = bench(tmp_path, "--tracker", "--selfcheck", "--rounds", "5", "--history", "17,100")
    assert done.returncode in (0, 4), done.stderr
    assert "ours again" in done.stdout
    assert "stock" not in done.stdout
    verdict = "no difference in 2 comparisons" if done.returncode == 0 else "FAILED"
    assert f"selfcheck: {verdict}" in done.stdout


class TestEndpoints:
    def measured(self, folder: Path, server: RedisServer, text: str) -> "subprocess.CompletedProcess[str]":
        (folder / "endpoints.yml").write_text(text.format(port=server.port))
        return bench(folder, "--endpoints", "endpoints.yml", "--json", "out.json")

    def test_own_options_are_measured_and_nothing_else_is_touched(
        self, tmp_path: Path, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(ENVIRONMENT, "BENCH_PASSWORD", "")
        client: Any = redis.Redis(port=own_server.port, db=4)
        client.set("tracker:alice", "hers")
        client.config_resetstat()
        done = self.measured(
            tmp_path,
            own_server,
            "tracker_store:\n  type: extras.trackerstore.ExtraRedisTrackerStore\n  url: 127.0.0.1\n  port: {port}\n"
            "  db: 4\n  password: ${{BENCH_PASSWORD}}\n",
        )
        assert done.returncode == 0, done.stderr
        used = {name[len("cmdstat_") :] for name in client.info("commandstats")}
        assert client.keys("*") == [b"tracker:alice"]
        assert not used & {"info", "monitor", "scan", "keys", "flushdb", "flushall"}
        client.connection_pool.disconnect()
        samples = json.loads((tmp_path / "out.json").read_text())["runs"][0]["endpoints"]["samples"]
        assert list(samples) == ["connect, login and PING", "PING", "retrieve", "save"]
        for found in samples.values():
            assert 0 < found["median"] <= found["p99"]
        for line in (*samples, "endpoints.yml", f"127.0.0.1:{own_server.port}, database 4"):
            assert line in done.stdout

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("action_endpoint:\n  url: http://localhost\n", "endpoints.yml' has no tracker_store"),
            ("tracker_store: [\n", "endpoints.yml' cannot be read"),
            ("tracker_store:\n  type: redis\n  url: 127.0.0.1\n  prot: 1\n", "unknown option 'prot'"),
        ],
    )
    def test_what_cannot_be_used_is_said(
        self, text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "endpoints.yml"  # Rasa Pro remembers what it has read under a name
        path.write_text(text)
        assert main(["--endpoints", str(path)]) == 2
        assert said in capsys.readouterr().err
