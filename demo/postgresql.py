"""A PostgreSQL of one's own on a free loopback port: no system service, nothing shared, nothing left behind."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from extras.bench.server import START_S, free_port


def find_postgresql() -> Optional[Path]:
    """Return the folder of PostgreSQL's programs: that of ``PATH``, or Debian's newest, which is not in it."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return folders[-1] if folders else None


class PostgreSQL:
    """A server with a data folder of its own, which may not run as root: then it runs as Debian's ``postgres``.

    ``user`` may do all.
    """

    USER, PASSWORD = "rasa", "s3cret-pg"

    def __init__(self, user: str = USER, password: str = PASSWORD, port: Optional[int] = None) -> None:
        self.user, self.password = user, password
        self.port = port or free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="extras-postgresql-"))
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> "PostgreSQL":
        """Make its data and start it. Raises ``RuntimeError`` with its log if it does not answer."""
        programs = find_postgresql()
        assert programs is not None
        data, password = self._folder / "data", self._folder / "password"
        password.write_text(self.password)
        if os.getuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            shutil.chown(password, "postgres", "postgres")
        with (self._folder / "log").open("wb") as log:
            made = [str(programs / "initdb"), "-D", str(data), "-U", self.user, "--pwfile", str(password), "--no-sync"]
            made += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
            subprocess.run(self._as_user(made), stdout=log, stderr=log, cwd="/", check=True, timeout=120)
            options = {
                "port": self.port,
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "fsync": "off",
            }
            command = [str(programs / "postgres"), "-D", str(data)]
            command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
            self._process = subprocess.Popen(self._as_user(command), stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if subprocess.run([str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode:
                time.sleep(0.05)
            else:
                return self
        text = (self._folder / "log").read_text()
        self.stop()
        raise RuntimeError(f"PostgreSQL did not start\n{text}")

    @staticmethod
    def _as_user(command: List[str]) -> List[str]:
        changed = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return [*changed, *command] if os.getuid() == 0 else command

    def options(self, database: str) -> Dict[str, Any]:
        """Return the ``tracker_store`` of a database that the host makes for itself, through ``login_db``."""
        place = {"type": "SQL", "dialect": "postgresql", "url": "127.0.0.1", "port": self.port, "db": database}
        return {**place, "username": self.user, "password": self.password, "login_db": "postgres"}

    def stop(self) -> None:
        """Stop it; its data is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        shutil.rmtree(self._folder, ignore_errors=True)
