"""Whether the files of this package are its own: all there, as they were installed, and hidden by nobody.

Another package on PyPI, ``extras``, installs a top-level ``extras`` too, and a folder of that name beside a bot hides
ours. What pip wrote down in ``RECORD`` (PEP 376, PEP 627) is compared with what is there.
"""

import base64
import csv
import hashlib
import os
import sys
from importlib import machinery
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional

from extras._version import VERSION

PACKAGE = Path(os.path.abspath(__file__)).parent
AGAIN = "pip install --force-reinstall --no-deps rasa-extras"
_INIT = "extras/__init__.py"
_NAMED_AT_MOST = 5


class Fault(NamedTuple):
    """What is not as it was installed. ``is_harmless``: all of ours works nevertheless."""

    is_harmless: bool
    found: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.found}; {self.way_out}"


def faults(package: Path = PACKAGE) -> Iterator[Fault]:
    """Yield what is wrong with the files of the package in a folder, as far as it was installed by pip or unpacked.

    Reads and hashes a hundred small files, some milliseconds. Nothing is said of a checkout, or where ``RECORD`` cannot
    be read.
    """
    records = sorted(package.parent.glob("rasa_extras-*.dist-info/RECORD"))
    if len(records) > 1:
        versions = " and ".join(record.parent.name.split("-")[1].replace(".dist", "") for record in records)
        yield Fault(
            False,
            f"rasa-extras {versions} lie over each other in {package.parent}",
            f"remove {package} and the folders rasa_extras-*.dist-info beside it, and install one of them",
        )
    if len(records) != 1:
        return
    try:
        recorded = _recorded(records[0])
    except (OSError, ValueError):
        return
    state = {name: _state(package.parent / name, digest) for name, digest in recorded.items()}
    init = state.pop(_INIT, "")
    if init == "changed":
        yield Fault(
            True,
            f"{package / '__init__.py'} is not ours but another package's, which is also called extras; "
            f"nothing of rasa-extras depends on it",
            "let both stay installed: uninstalling either takes away, or leaves behind, files of the other",
        )
    elif init == "missing":
        yield Fault(
            True,
            f"{package / '__init__.py'} is missing, as after pip uninstall extras; folders named extras elsewhere on "
            f"Python's path are now mixed with ours",
            AGAIN,
        )
    for how in ("missing", "changed"):
        names = [name for name, found in state.items() if found == how]
        if names:
            more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
            yield Fault(
                False,
                f"not what was installed in {package.parent}, {how} or of another version: "
                f"{', '.join(names[:_NAMED_AT_MOST])}{more}",
                AGAIN,
            )


def _recorded(record: Path) -> Dict[str, str]:
    """Return the digests of the package's files, by their paths in the folder it was installed to."""
    with record.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.reader(lines) if len(row) == 3]
    return {name: digest for name, digest, _ in rows if name.startswith("extras/") and digest.startswith("sha256=")}


def _state(path: Path, digest: str) -> str:
    try:
        found = hashlib.sha256(path.read_bytes()).digest()
    except FileNotFoundError:
        return "missing"
    except OSError:
        return ""
    return "" if base64.urlsafe_b64encode(found).rstrip(b"=").decode() == digest[len("sha256=") :] else "changed"


def strangers(package: Path = PACKAGE) -> Optional[Fault]:
    """Return whether modules that ours have imported came from elsewhere than from the folder of this file.

    That takes a folder ``extras`` earlier on Python's path, and no ``__init__.py`` in either (PEP 420).
    """
    found: List[str] = []
    for name, module in list(sys.modules.items()):
        top, _, rest = name.partition(".")
        path = getattr(module, "__file__", None)
        if top != "extras" or not rest or path is None:
            continue
        ours = package.joinpath(*rest.split("."))
        is_ours_too = ours.is_dir() or ours.with_suffix(".py").exists()
        if is_ours_too and not _is_below(path, package):
            found.append(path)
    if not found:
        return None
    return Fault(
        False,
        f"{', '.join(sorted(found)[:_NAMED_AT_MOST])}: not of rasa-extras, whose files are in {package}",
        f"rename the folder {Path(sorted(found)[0]).parent}, then {AGAIN}",
    )


def _is_below(path: str, folder: Path) -> bool:
    try:
        return os.path.realpath(path).startswith(os.path.join(os.path.realpath(str(folder)), ""))
    except OSError:
        return True


def hidden_by(path: Iterable[str], package: Path = PACKAGE) -> Optional[str]:
    """Return the file or folder that ``import extras`` would find, on a Python's path, instead of the package.

    ``importlib.machinery.PathFinder`` looks, but what it finds is not imported.
    """
    entries = [entry or os.getcwd() for entry in path]
    spec = machinery.PathFinder.find_spec(PACKAGE.name, entries)
    if spec is None:
        return None
    if spec.origin is not None and spec.origin != "namespace":
        is_package = spec.submodule_search_locations is not None
        found = str(Path(spec.origin).parent) if is_package else spec.origin
    else:
        found = next(iter(spec.submodule_search_locations or [str(package)]))
    return None if os.path.realpath(found) == os.path.realpath(str(package)) else found


def other_distribution() -> Optional[str]:
    """Return the version of the other package, PyPI's ``extras``, that is installed beside ours and lacks its file."""
    for record in PACKAGE.parent.glob("extras-*.dist-info/RECORD"):
        try:
            wanted = _recorded(record)
        except (OSError, ValueError):
            continue
        if _INIT in wanted and _state(PACKAGE / "__init__.py", wanted[_INIT]) != "":
            return record.parent.name[len("extras-") : -len(".dist-info")]
    return None


def described() -> str:
    """Return which version this is and where it lies."""
    return f"rasa-extras {VERSION} in {PACKAGE}"
