"""Look through the workflows of GitHub: their schema, their safety, and that every action is one known commit."""

import re
import subprocess
import sys
from pathlib import Path
from typing import List

PROJECT = Path(__file__).resolve().parents[2]
WORKFLOWS = PROJECT / ".github" / "workflows"
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def main() -> List[str]:
    """Return what is wrong."""
    wrong: List[str] = []
    files = sorted(WORKFLOWS.glob("*.yml"))
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if re.search(r"\buses: (?!\./)", line) and not PINNED.search(line):
                wrong.append(f"{file.name}:{number}: not a commit with its version behind it: {line.strip()}")
        if "permissions: {}" not in lines:
            wrong.append(f"{file.name}: has no permissions: {{}} for the jobs that need none")
    scripts = Path(sys.executable).parent
    names = [str(file) for file in files]
    commands = [
        [str(scripts / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *names],
        [
            str(scripts / "check-jsonschema"),
            "--builtin-schema",
            "vendor.dependabot",
            str(WORKFLOWS.with_name("dependabot.yml")),
        ],
        [str(scripts / "zizmor"), "--offline", "--no-progress", "--persona", "pedantic", *names],
        [
            str(scripts / "yamllint"),
            "--strict",
            "-d",
            "{extends: default, rules: {line-length: {max: 120}, "
            "document-start: disable, truthy: {check-keys: false}, comments: {min-spaces-from-content: 1}}}",
            *names,
        ],
    ]
    for command in commands:
        if subprocess.run(command, check=False).returncode != 0:
            wrong.append(f"{Path(command[0]).name} has something against the workflows")
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(main()) or 0)
