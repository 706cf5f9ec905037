"""The floor under all clients: the same cases in C on hiredis, compiled on the spot, in a process that stays alive.

A floor for small values: of large ones hiredis makes copies that others avoid.
"""

import atexit
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import AsyncExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, List, Optional

from extras.bench.cases import LIST_ITEMS, PIPELINED, SCRIPT_ARGUMENT, SCRIPT_SHA, Case
from extras.bench.interleaved import Contender, Cost
from extras.bench.missing import Missing
from extras.bench.peers import Address

SOURCE = Path(__file__).with_name("floor.c")


def build() -> Path:
    """Return the program, compiled once for this process. Raises :class:`Missing` if that cannot be done."""
    compiler = next(filter(None, map(shutil.which, [os.environ.get("CC") or "cc", "gcc", "clang"])), None)
    if compiler is None:
        raise Missing("there is no C compiler")
    return _compiled(compiler)


@lru_cache(maxsize=None)
def _compiled(compiler: str) -> Path:
    folder = tempfile.mkdtemp(prefix="extras-floor-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = Path(folder, "floor")
    done = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(SOURCE), *_flags()], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Missing(f"{compiler} could not make it, is libhiredis-dev installed? {done.stderr.strip()[:200]}")
    return program


def _flags() -> List[str]:
    """Return what pkg-config says of hiredis, else what mostly works."""
    try:
        asked = ["pkg-config", "--cflags", "--libs", "hiredis"]
        return shlex.split(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return ["-lhiredis"]


async def open_floor(address: Address, stack: AsyncExitStack) -> "Floor":
    """Start the program, which the stack stops. Raises :class:`Missing`."""
    floor = Floor(build(), address)
    stack.callback(floor.close)
    return floor


class Floor:
    """The running program, connected to a server: it takes a case a line, and answers in JSON."""

    def __init__(self, program: Path, address: Address) -> None:
        numbers = map(str, (address.port, address.db, PIPELINED, LIST_ITEMS))
        self._process = subprocess.Popen(
            [str(program), address.host, *numbers, SCRIPT_SHA, SCRIPT_ARGUMENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the program."""
        self._process.communicate()

    def contender(self, side: str, case: Case) -> Optional[Contender]:
        """Return how the program does a case, ``None`` for those of several threads, which it has not."""
        if case.workers > 1:
            return None

        async def once() -> Any:
            return _reply(self._ask(case, 0))

        async def many(operations: int) -> Cost:
            cost = self._ask(case, operations)
            return Cost(cost["wall_s"], cost["cpu_s"])

        return Contender(side, once, many)

    def _ask(self, case: Case, operations: int) -> Any:
        """Have a case done so many times and return the cost; 0 times: once, and return its reply."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        with suppress(BrokenPipeError):  # told below, with the reason
            self._process.stdin.write(f"{case.command} {case.key} {case.size} {operations}\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the C client has ended: {self._process.stderr.read().strip()}")
        return json.loads(line)


def _reply(sent: Any) -> Any:
    """Return a reply from its JSON, in which texts are hexadecimal and OK is ``true``."""
    if isinstance(sent, list):
        return [_reply(item) for item in sent]
    return bytes.fromhex(sent) if isinstance(sent, str) else sent
