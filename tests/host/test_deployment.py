"""The stack of ``deploy/`` does what it is for, and leaves nothing behind; actions and consumer by themselves."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
import redis
import yaml
from databases import missing

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "deploy"))

from here.stack import environment_of
from make_secrets import make
from topologies import cluster_port, until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RUN_S = 400
"""How long the stack may take: what it does take is three quarters of a minute, on a machine that is not busy."""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the script puts its files; PostgreSQL, which does not run as root, must get there, too."""
    with tempfile.TemporaryDirectory(prefix="stack-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def started(temporary: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-u", str(DEPLOY / "run_here.py")],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes(folder: Path) -> List[str]:
    """Return the commands of all processes that work in a folder, or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command + os.readlink(process / "cwd"):
                found.append(command)
    return found


def test_a_conversation_goes_through_the_whole_stack(temporary: Path) -> None:
    process = started(temporary)
    try:
        said, _ = process.communicate(timeout=RUN_S)
    finally:
        process.terminate()
        process.wait(120)
    print(said)
    if process.returncode == 2:
        missing(said)
    assert process.returncode == 0, said
    for seen in ("(rasa-1: Cup ", "(rasa-2: Cup ", ": 502)", "401 without a login", "each once, in order", "0 failed"):
        assert seen in said
    assert processes(temporary) == []
    assert list(temporary.iterdir()) == []


def test_it_stops_everything_when_it_is_interrupted(temporary: Path) -> None:
    process = started(temporary)
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if "postgresql is well" in line:
                break
        if process.poll() == 2:
            missing(said)
        assert len(processes(temporary)) >= 4, said
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        said += process.stdout.read()
        assert process.wait(60) == 130, said
    finally:
        process.terminate()
        process.communicate(timeout=120)
    assert processes(temporary) == []
    assert list(temporary.iterdir()) == []


def settings_of(file: str, name: str) -> Dict[str, str]:
    """Return what a ConfigMap holds."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text(encoding="utf-8"))
    (found,) = (each for each in documents if each["kind"] == "ConfigMap" and each["metadata"]["name"] == name)
    data: Dict[str, str] = found["data"]
    return data


def test_the_cluster_of_kubernetes_comes_up_and_serves_rasa(tmp_path: Path) -> None:
    """Its own settings, scripts and users, on six ports instead of in six pods."""
    for program in ("redis-server", "redis-cli"):
        if shutil.which(program) is None:
            missing(program)
    make(tmp_path / "secrets", ["localhost"])
    given = {name.name: name.read_text() for name in (tmp_path / "secrets").iterdir()}
    settings = settings_of("redis.yml", "redis")
    (tmp_path / "create.sh").write_text(settings["create.sh"])
    ports = [cluster_port() for _ in range(6)]
    with ExitStack() as stack:
        for port in ports:
            folder = tmp_path / str(port)
            folder.mkdir()
            own = {"0.0.0.0": "127.0.0.1", "port 6379": f"port {port}", "/data": str(folder)}
            own["/run/secrets/redis/users.acl"] = str(tmp_path / "secrets" / "redis_cluster_users")
            text = settings["redis.conf"]
            for there, here in own.items():
                assert there in text
                text = text.replace(there, here)
            (folder / "redis.conf").write_text(text)
            (folder / "start.sh").write_text(settings["start.sh"].replace("/etc/redis/", f"{folder}/"))
            pod = {**os.environ, "POD_IP": "127.0.0.1", "REPLICA_PASSWORD": given["redis_replica_password"]}
            process = subprocess.Popen(["sh", str(folder / "start.sh")], env=pod, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        nodes = [f"127.0.0.1:{port}" for port in ports]
        job = {**os.environ, "NODES": " ".join(nodes), "REDISCLI_AUTH": given["redis_admin_password"]}
        create = ["sh", str(tmp_path / "create.sh")]
        for has_to_be_made in (True, False):
            done = subprocess.run(create, env=job, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert ("All 16384 slots covered" in done.stdout) is has_to_be_made

        endpoints = tmp_path / "endpoints.yml"
        text = settings_of("rasa.yml", "rasa")["endpoints.yml"]
        named = "[redis-0.redis:6379, redis-1.redis:6379, redis-2.redis:6379]"
        assert text.count(named) == 2
        endpoints.write_text(text.replace(named, f"[{', '.join(nodes[:3])}]").partition("action_endpoint:")[0])
        admin = redis.Redis(port=ports[0], username="admin", password=given["redis_admin_password"])
        until("all replicas are there", lambda: admin.info("replication")["connected_slaves"] == 1)
        admin.connection_pool.disconnect()
        rasa = {**os.environ, "REDIS_PASSWORD": given["redis_password"]}
        command = [sys.executable, "-m", "extras", "doctor", str(endpoints)]
        done = subprocess.run(command, env=rasa, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "a scratch one was stored" in done.stdout


KUBECTL = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in *status*) if [ -e "$WELL" ]; then exit 0; else touch "$WELL"; exit 1; fi;; esac
"""
"""Says once that a rollout does not get well, unless it is told that all is well."""


@pytest.mark.parametrize("is_well", [True, False])
def test_an_image_with_which_the_cluster_does_not_get_well_is_taken_back(is_well: bool, tmp_path: Path) -> None:
    kubectl, calls, well = (tmp_path / name for name in ("kubectl", "calls", "well"))
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    if is_well:
        well.touch()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    script = ["sh", str(DEPLOY / "ci" / "rollout.sh"), "actions@sha256:12"]
    done = subprocess.run(script, env={**os.environ, "PATH": path, "CALLS": str(calls), "WELL": str(well)}, check=False)
    assert done.returncode == (0 if is_well else 1)
    called = [" ".join(line.split()[2:]) for line in calls.read_text().splitlines()]
    status = "rollout status deployment/actions --timeout=180s"
    first = ["set image deployment/actions actions=actions@sha256:12", status]
    assert called == (first if is_well else [*first, "rollout undo deployment/actions", status])


@pytest.mark.parametrize("name", ["actions", "events"])
def test_what_is_beside_rasa_works_by_itself(name: str) -> None:
    python = environment_of(DEPLOY / name / "requirements.txt", Path(sys.prefix) / "tea-room" / name)
    packages = next((python.parents[1] / "lib").glob("python*/site-packages"))
    environment: Dict[str, str] = {**os.environ, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    pytest_alone = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    done = subprocess.run(
        [*pytest_alone, "--rootdir", ".", "."],
        cwd=DEPLOY / name,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
