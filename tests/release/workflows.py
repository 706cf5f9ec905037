"""Look through the workflows of GitHub: their schema, their safety, and that every action is one known commit."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Iterable, Iterator, List, Sequence, Union

PROJECT = Path(__file__).resolve().parents[2]
sys.path.append(str(PROJECT / "tests"))

from cells import RELEASE_TOOLS  # noqa: E402

WORKFLOWS = PROJECT / ".github" / "workflows"
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


ZIZMOR = ["zizmor", "--offline", "--no-progress", "--persona", "pedantic"]
YAMLLINT = [
    *("yamllint", "--strict", "-d"),
    "{extends: default, rules: {line-length: {max: 120}, document-start: disable, truthy: {check-keys: false}, "
    "comments: {min-spaces-from-content: 1}}}",
]


def unpinned(file: Path) -> Iterator[str]:
    """Yield what a workflow uses that is no known commit, and whether it gives rights to all its jobs."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if re.search(r"\buses: (?!\./)", line) and not PINNED.search(line):
            yield f"{file.name}:{number}: not a commit with its version behind it: {line.strip()}"
    if "permissions: {}" not in lines:
        yield f"{file.name}: has no permissions: {{}} for the jobs that need none"


def other_tools(file: Path) -> Iterator[str]:
    """Yield what a workflow installs for itself in no version, or in another than the cell ``build``."""
    pinned = dict(tool.split("==") for tool in RELEASE_TOOLS if "==" in tool)
    for line in re.findall(r"python -m pip install (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE):
        for tool in shlex.split(line):
            name, _, version = tool.partition("==")
            if not version or version != pinned.get(name, version):
                yield f"{file.name}: {tool}: another version than in tests/cells.py, or none"


def refused(commands: Iterable[Sequence[Union[str, Path]]], what: str) -> Iterator[str]:
    """Run programs that are beside this Python, and yield which of them has something against a thing."""
    for program, *arguments in commands:
        command = [str(Path(sys.executable).with_name(str(program))), *map(str, arguments)]
        if subprocess.run(command, check=False).returncode != 0:
            yield f"{program} has something against {what}"


def main() -> List[str]:
    """Return what is wrong."""
    files = sorted(WORKFLOWS.glob("*.yml"))
    schema = ["check-jsonschema", "--builtin-schema"]
    commands: List[Sequence[Union[str, Path]]] = [
        [*schema, "vendor.github-workflows", *files],
        [*schema, "vendor.dependabot", WORKFLOWS.with_name("dependabot.yml")],
        [*ZIZMOR, *files],
        [*YAMLLINT, *files],
    ]
    wrong = [fault for file in files for fault in (*unpinned(file), *other_tools(file))]
    return [*wrong, *refused(commands, "the workflows")]


if __name__ == "__main__":
    sys.exit("\n".join(main()) or 0)
