"""What clients are asked to do, and the values that they do it with, below a key prefix of the run."""

import hashlib
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, List, Sequence

PIPELINED = 50
LIST_ITEMS = 200
THREADS = 8
TASKS = (8, 64)
"""No more than redis.asyncio's pool has connections for, which is 100 since redis-py 8."""
SCRIPT = "return redis.call('STRLEN', KEYS[1]) + tonumber(ARGV[1])"
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode()).hexdigest()
SCRIPT_ARGUMENT = "5"

HEADLINE = frozenset(
    {"GET 100 B", "SET 10 KB", "pipeline of 50 SET 100 B", "GET 100 B, 8 threads", "GET 100 B, 64 tasks"}
)
"""The cases that say most, by name."""

_SIZES = {"100 B": 100, "10 KB": 10 * 1024, "200 KB": 200 * 1024, "1 MB": 1024 * 1024}


@dataclass(frozen=True)
class Case:
    """One thing that a client is asked to do.

    ``command``: ``get``, ``set``, ``pipeline``, ``lrange`` or ``evalsha``. ``size``: bytes of each value. ``workers``:
    threads or tasks that do it at the same time.
    """

    name: str
    command: str
    key: str
    size: int
    workers: int = 1

    @property
    def keys(self) -> List[str]:
        """All keys that are read or written."""
        return [f"{self.key}:{n}" for n in range(PIPELINED)] if self.command == "pipeline" else [self.key]

    @property
    def value(self) -> bytes:
        """The value that is written, or was put there to be read."""
        return value(self.size)

    @property
    def writes(self) -> bool:
        """Whether the keys hold what a client has written."""
        return self.command in ("set", "pipeline")


@lru_cache(maxsize=None)
def value(size: int) -> bytes:
    """Return so many bytes, of which a part taken from another place differs."""
    return (b"abcdefghijklmnopqrstuvwxyz" * (size // 26 + 1))[:size]


def blocking(prefix: str) -> List[Case]:
    """Return what blocking clients are asked to do."""
    return [
        *(_one("get", prefix, size) for size in _SIZES),
        *(_one("set", prefix, size) for size in _SIZES),
        _pipeline(prefix),
        Case(f"LRANGE {LIST_ITEMS} x 300 B", "lrange", f"{prefix}list", 300),
        Case("EVALSHA", "evalsha", f"{prefix}evalsha", 100),
        _one("get", prefix, "100 B", workers=THREADS, by="threads"),
    ]


def asynchronous(prefix: str) -> List[Case]:
    """Return what asyncio clients are asked to do."""
    return [
        _one("get", prefix, "100 B"),
        *(_one("get", prefix, "100 B", workers=tasks, by="tasks") for tasks in TASKS),
        _pipeline(prefix),
        _one("set", prefix, "1 MB"),
        _one("get", prefix, "1 MB"),
    ]


def _one(command: str, prefix: str, size: str, workers: int = 1, by: str = "") -> Case:
    name = f"{command.upper()} {size}" + (f", {workers} {by}" if by else "")
    return Case(name, command, f"{prefix}{command}:{_SIZES[size]}", _SIZES[size], workers)


def _pipeline(prefix: str) -> Case:
    return Case(f"pipeline of {PIPELINED} SET 100 B", "pipeline", f"{prefix}pipeline", 100)


def new_prefix() -> str:
    """Return a key prefix that nobody else has."""
    return f"extrasbench{uuid.uuid4().hex[:12]}:"


class Values:
    """The keys of cases on a server; ``with`` puts there what is read, and deletes all of them at the end.

    ``client``: a blocking redis-py client. Raises redis-py's errors.
    """

    def __init__(self, client: Any, cases: Sequence[Case]) -> None:
        self.client = client
        self.cases = cases

    def __enter__(self) -> "Values":
        self.client.script_load(SCRIPT)
        for case in self.cases:
            if case.command == "lrange":
                self.client.rpush(case.key, *[case.value] * LIST_ITEMS)
            elif not case.writes:
                self.client.set(case.key, case.value)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.client.delete(*(key for case in self.cases for key in case.keys))

    def forget(self, case: Case) -> None:
        """Delete what a client has written for a case."""
        if case.writes:
            self.client.delete(*case.keys)

    def written(self, case: Case) -> Dict[str, Any]:
        """Return what a client has written for a case, by key."""
        return {key: self.client.get(key) for key in case.keys} if case.writes else {}
