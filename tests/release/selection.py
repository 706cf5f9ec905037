"""What cibuildwheel would make on the machines of ``wheels.yml`` is what a release has, for each Python and system.

cibuildwheel itself is asked, in the version that the workflow has; nothing is built.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import released
import workflows
import yaml
from cells import RELEASE_TOOLS

KINDS: Dict[str, Tuple[str, str]] = {
    "ubuntu-24.04": ("linux", "x86_64"),
    "ubuntu-24.04-arm": ("linux", "aarch64"),
    "macos-15-intel": ("macos", "x86_64"),
    "macos-15": ("macos", "arm64"),
    "windows-2025": ("windows", "AMD64"),
}
"""System and processor of GitHub's machines, by their labels."""


def main() -> List[str]:
    """Return what is wrong."""
    text = (workflows.WORKFLOWS / "wheels.yml").read_text(encoding="utf-8")
    used = re.findall(r"pypa/cibuildwheel@\w+ # v(\S+)", text)
    if [f"cibuildwheel=={version}" for version in used] != [
        tool for tool in RELEASE_TOOLS if tool.startswith("cibuildwheel")
    ]:
        return [f"wheels.yml has cibuildwheel {used}, tests/cells.py another"]
    runners = yaml.safe_load(text)["jobs"]["wheels"]["strategy"]["matrix"]["runner"]
    program = str(Path(sys.executable).with_name("cibuildwheel"))
    names = [f"rasa_extras-{released.VERSION}.tar.gz"]
    for runner in runners:
        system, machine = KINDS[runner]
        command = [program, "--print-build-identifiers", "--platform", system, "--archs", machine]
        command.append(str(workflows.PROJECT))
        for line in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
            python, _, tag = line.partition("-")
            names.append(f"rasa_extras-{released.VERSION}-{python}-{python}-{tag}.whl")
    return [f"cibuildwheel: {fault}" for fault in released.missing(names)]


if __name__ == "__main__":
    sys.exit("\n".join(main()) or 0)
