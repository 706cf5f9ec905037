"""Servers to try the documented rights on, and a user that has them."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Sequence, Tuple

import redis

from extras.bench.server import RedisServer, find_server

PASSWORD = "hunter2-of-least-privilege"


def servers() -> Tuple[str, ...]:
    """Return the binaries to try: the usual one and, where there is one, the system's Redis."""
    return tuple(dict.fromkeys(filter(None, (find_server(), shutil.which("redis-server")))))


@contextmanager
def binary_used(binary: str) -> Iterator[None]:
    """Let servers that start within be this one."""
    before = os.environ.get("REDIS_SERVER")
    os.environ["REDIS_SERVER"] = binary
    try:
        yield
    finally:
        os.environ.pop("REDIS_SERVER")
        if before is not None:
            os.environ["REDIS_SERVER"] = before


@contextmanager
def with_user(binary: str, folder: Path, rights: Sequence[str]) -> Iterator[Tuple[RedisServer, Any, Dict[str, Any]]]:
    """Run a server with a user ``rasa`` who has these rights and no other; its admin, and options to log in."""
    with binary_used(binary):
        server = RedisServer(folder / "server").start()
    admin: Any = redis.Redis(port=server.port, db=1)
    try:
        give(admin, rights)
        given = {"url": "127.0.0.1", "port": server.port, "db": 1, "username": "rasa", "password": PASSWORD}
        yield server, admin, given
    finally:
        admin.connection_pool.disconnect()
        server.stop()


def give(admin: Any, rights: Sequence[str]) -> None:
    """Let ``rasa`` have these rights and no other; who is logged in has to do it again."""
    admin.execute_command("ACL DELUSER", "rasa")
    admin.execute_command("ACL SETUSER", "rasa", "reset", "resetchannels", "on", f">{PASSWORD}", *rights)
