"""Whether a folder holds a whole release, ``released.py FOLDER``, or a tag is its, ``released.py --tag TAG``."""

import re
import runpy
import sys
from pathlib import Path
from typing import List

PROJECT = Path(__file__).resolve().parents[2]
VERSION = str(runpy.run_path(str(PROJECT / "extras" / "_version.py"))["VERSION"])

SYSTEMS = {
    "manylinux x86_64": r"manylinux\w*_x86_64",
    "manylinux aarch64": r"manylinux\w*_aarch64",
    "musllinux x86_64": r"musllinux\w*_x86_64",
    "musllinux aarch64": r"musllinux\w*_aarch64",
    "macOS x86_64": r"macosx\w*_x86_64",
    "macOS arm64": r"macosx\w*_arm64",
    "Windows AMD64": r"win_amd64",
}


def missing(names: List[str]) -> List[str]:
    """Return what a release has and these file names do not, and what no release has."""
    pythons = re.findall(r'"(cp3\d+)-\*"', (PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    rest = set(names)
    lacking = []
    sdist = f"rasa_extras-{VERSION}.tar.gz"
    if sdist not in rest:
        lacking.append(f"no {sdist}")
    rest.discard(sdist)
    for python in pythons:
        for system, tag in SYSTEMS.items():
            pattern = re.compile(rf"rasa_extras-{re.escape(VERSION)}-{python}-{python}-(\S+\.)?{tag}(\.\S+)?\.whl")
            found = {name for name in rest if pattern.fullmatch(name)}
            if len(found) != 1:
                lacking.append(f"{len(found)} wheels for {python} on {system}")
            rest -= found
    return [*lacking, *(f"{name} is of no release" for name in sorted(rest))]


def main(arguments: List[str]) -> List[str]:
    """Return what is wrong."""
    if arguments[:1] == ["--tag"]:
        changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
        wrong = [] if arguments[1:] == [f"v{VERSION}"] else [f"{arguments[1:]} is not the tag of version {VERSION}"]
        dated = re.search(rf"^## {re.escape(VERSION)} - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)
        return wrong if dated else [*wrong, f"CHANGELOG.md has no date for {VERSION}"]
    return missing([path.name for path in Path(arguments[0]).iterdir()])


if __name__ == "__main__":
    sys.exit("\n".join(main(sys.argv[1:])) or 0)
