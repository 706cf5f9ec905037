"""The files of ``--json`` and ``--append``: runs of the benchmark, whose groups each have the header of their own."""

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence

from extras.bench.missing import Missing

FORMAT = 2
"""Of the JSON. Format 1 was the one run by itself."""

Run = Dict[str, Any]
"""What was measured at once, by the name of the group."""


def read(path: Path) -> List[Run]:
    """Return the runs of a file. Raises :class:`Missing` that names the file and says what is wrong."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Missing(f"{str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    written = data.get("format") if isinstance(data, dict) else None
    if written == 1:
        return [{name: group for name, group in data.items() if name != "format"}]
    if written != FORMAT:
        raise Missing(f"{str(path)!r} is not what --json of this version writes; measure again")
    runs: List[Run] = data["runs"]
    return runs


def only(path: Path, names: Sequence[str]) -> List[Run]:
    """Return the runs of a file, of these groups alone if any is named.

    Raises :class:`Missing` as :func:`read`, and if one of them is not there.
    """
    runs = read(path)
    there = as_one(runs)
    for name in names:
        if name not in there:
            raise Missing(f"{str(path)!r} has no figures of --{name}; it has those of {', '.join(there)}")
    chosen = [{name: group for name, group in run.items() if not names or name in names} for run in runs]
    return [run for run in chosen if run]


def as_one(runs: Iterable[Run]) -> Run:
    """Return the groups of all runs. A file has each group once, and each group its own header."""
    return {name: group for run in runs for name, group in run.items()}


def may_append(path: Path, names: Iterable[str]) -> None:
    """Raise :class:`Missing` if runs of these groups cannot be added to a file: if it has one of them already."""
    there = as_one(read(path)) if path.exists() else {}
    twice = [name for name in names if name in there]
    if twice:
        raise Missing(
            f"--append: {str(path)!r} has {', '.join(twice)} already, and nothing in it is replaced; name the groups "
            "that are to be added, or take another file, or --json to begin it anew"
        )


def append(path: Path, runs: List[Run]) -> None:
    """Add runs to those of a file, which is made if it is not there. Raises as :func:`may_append`."""
    may_append(path, as_one(runs))
    write(path, [*(read(path) if path.exists() else []), *runs])


def write(path: Path, runs: List[Run]) -> None:
    """Write a file; what was there is whole until the new one is."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_text(json.dumps({"format": FORMAT, "runs": runs}, indent=1) + "\n", encoding="utf-8")
        new.replace(path)
    finally:
        if new.exists():
            new.unlink()
