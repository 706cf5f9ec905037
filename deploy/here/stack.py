"""The processes of the stack, started as ``compose.yml`` says, and all of them stopped, whatever happens."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from postgresql import PostgreSQL, find_postgresql
from rabbitmq import SERVER as RABBITMQ_SERVER
from rabbitmq import RabbitMQ, missing

from here.layout import Layout, Service

START_S = 180
"""How long a service may take to be well: what it takes is seconds, on a machine that is not busy."""
LEFT_OUT = {"duckling": "it has no package but its image; Rasa goes on without it"}


def absent() -> Optional[str]:
    """Return the packages of the distribution that are missing for the stack, ``None`` if all is there."""
    programs = {"nginx": "nginx", "redis-server": "redis-server", "redis-cli": "redis-tools", "curl": "curl"}
    programs.update({"openssl": "openssl", "psql": "postgresql-client"})
    found = [package for program, package in programs.items() if _program(program) is None]
    found += filter(None, [missing(), None if find_postgresql() else "postgresql"])
    return " ".join(dict.fromkeys(found)) or None


def _program(name: str) -> Optional[str]:
    return shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


def environment_of(requirements: Path, folder: Path) -> Path:
    """Return the Python of an environment with these packages, which is made if it is not there as it should be."""
    python, installed = folder / "bin" / "python", folder / "requirements.txt"
    if not installed.exists() or installed.read_bytes() != requirements.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-qq", "--no-deps", "-r", str(requirements)], check=True)
        shutil.copy2(requirements, installed)
    return python


class Stack:
    """All services of a layout. ``pythons``: for a service's ``python``, the one that is to be in its place."""

    def __init__(self, layout: Layout, pythons: Mapping[str, Path], folders: Mapping[str, Path]) -> None:
        self.layout = layout
        self._pythons = pythons
        self._folders = folders
        self._stack = ExitStack()
        self._rabbitmq: Optional[RabbitMQ] = None
        self.processes: Dict[str, subprocess.Popen[bytes]] = {}
        self._given_up = threading.Event()

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for process in self.processes.values():
            _end(process, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                _end(process, signal.SIGKILL)
                process.wait(20)
        self._stack.close()

    def service(self, name: str) -> Service:
        """Return a service."""
        return self.layout.services[name]

    def log(self, name: str) -> Path:
        """Return what a service has printed so far."""
        return self.layout.services[name].folder / "log"

    def python(self, name: str) -> Path:
        """Return the Python of a service."""
        return Path(self._pythons.get(name, sys.executable))

    def port(self, name: str, port: int) -> int:
        """Return the port here of one that a service has."""
        return self.layout.port(name, port)

    def start(self, name: str) -> None:
        """Start a service, as its image would; it need not be well yet."""
        service = self.service(name)
        if name == "rabbitmq":
            configuration = service.path("/etc/rabbitmq/rabbitmq.conf").read_text()
            self._rabbitmq = RabbitMQ(service.folder / "base", configuration, self.port(name, 5672))
            self._stack.callback(self._rabbitmq.stop)
            self._rabbitmq.start()
            return
        if name == "postgresql":
            self._start_postgresql(service)
            return
        folder = self._folders.get(name, service.folder)
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self._here(service, service.command),
                cwd=folder,
                env=self._environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def give_up(self) -> None:
        """Let nobody wait any longer for what is being started by other threads."""
        self._given_up.set()
        if self._rabbitmq is not None:
            self._rabbitmq.stop()

    def _start_postgresql(self, service: Service) -> None:
        """Make the database, as the image does it with what is in ``/docker-entrypoint-initdb.d``."""
        secret = (service.path("/run/secrets") / "postgresql_password").read_text()
        server = PostgreSQL("postgres", secret, self.port("postgresql", 5432))
        self._stack.callback(server.stop)
        server.start()
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGPASSWORD": secret}
        database = service.settings["environment"]["POSTGRES_DB"]
        schema = str(service.path("/docker-entrypoint-initdb.d/schema.sql"))
        psql = ["psql", "-qX", "-v", "ON_ERROR_STOP=1"]
        for command in ([*psql, "-c", f"CREATE DATABASE {database}", "postgres"], [*psql, "-f", schema, database]):
            subprocess.run(command, env={**os.environ, **place}, check=True, timeout=60)

    def _environment(self, service: Service) -> Dict[str, str]:
        quiet = {"PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1", "SQLALCHEMY_SILENCE_UBER_WARNING": "1"}
        quiet["TF_CPP_MIN_LOG_LEVEL"] = "3"
        erlang = self._rabbitmq.environment if service.name == "rabbitmq" and self._rabbitmq else {}
        return {**os.environ, **quiet, **erlang, **service.environment}

    def _here(self, service: Service, words: List[str]) -> List[str]:
        """Return a command with the programs of this machine in the place of those of the image."""
        own = {"python": str(self.python(service.name))}
        own["rasa"] = str(Path(sys.executable).with_name("rasa"))
        own["rabbitmq-diagnostics"] = str(RABBITMQ_SERVER.with_name("rabbitmq-diagnostics"))
        command = [own.get(word, word) for word in words]
        if command[0] == "nginx":  # which has its configuration elsewhere, and as root would give up the right to read
            user = "user root; " if os.getuid() == 0 else ""
            command = [_program("nginx") or "nginx", "-p", str(service.folder), "-e", "stderr"]
            command += ["-c", str(service.path("/etc/nginx/nginx.conf")), "-g", f"{user}daemon off;"]
        return command

    def check(self, name: str) -> "subprocess.CompletedProcess[bytes]":
        """Carry out the health check that the file has for a service."""
        service = self.service(name)
        command = self._here(service, service.health_check)
        return subprocess.run(
            command, env=self._environment(service), cwd=service.folder, capture_output=True, timeout=60, check=False
        )

    def wait(self, name: str) -> None:
        """Wait until a service is well. Raises ``RuntimeError`` with what it printed if it does not become so."""
        deadline = time.monotonic() + START_S
        while (done := self.check(name)).returncode != 0:
            process = self.processes.get(name)
            has_ended = process is not None and process.poll() is not None
            if has_ended or self._given_up.is_set() or time.monotonic() > deadline:
                said = self.log(name).read_text(errors="replace")[-5000:] if self.log(name).exists() else ""
                raise RuntimeError(f"{name} is not well: {(done.stdout + done.stderr).decode()}\n{said}")
            time.sleep(0.3)

    def kill(self, name: str) -> None:
        """Kill a service, as the kernel does when memory is short."""
        process = self.processes[name]
        process.kill()
        process.wait(20)


def _end(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal to a process that is still there, and all that it has started; what is stopped goes on and ends."""
    if process.poll() is None:
        os.killpg(process.pid, number)
        os.killpg(process.pid, signal.SIGCONT)
