"""What ``make lint`` and pre-commit run: format, style, types, the stub of the native module, Cython style.

Works on the checkout, from an environment that has the tools and the built package.
"""

import os
import subprocess
import sys
from pathlib import Path

TOOLS = Path(sys.executable).parent
PYTHON = ["extras", "tests", "demo", "deploy", "docs", "examples", "setup.py"]

COMMANDS = [
    ["ruff", "format", "--check", *PYTHON],
    ["ruff", "check", *PYTHON],
    ["mypy", "extras", "setup.py", "demo"],
    ["mypy", "tests/cells.py", "tests/lint.py", "tests/release", "tests/conftest.py", "tests/unit"],
    ["mypy", "tests/host"],
    ["mypy", "tests/memory"],
    ["mypy", "tests/docs", "docs"],
    ["mypy", "deploy"],
    ["cython-lint", "--max-line-length=120", "src/_fastsock"],
]


def main() -> int:
    """Run every command, and say which failed."""
    failed = []
    os.environ["PATH"] = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"  # cython-lint starts pycodestyle by its name
    for command in COMMANDS:
        print("$", *command, flush=True)
        if subprocess.run([str(TOOLS / command[0]), *command[1:]], check=False).returncode != 0:
            failed.append(" ".join(command))
    # From elsewhere than the checkout, so that the installed native module is what the stub is compared with.
    print("$ stubtest extras._fastsock", flush=True)
    stubtest = [str(TOOLS / "stubtest"), "extras._fastsock"]
    if subprocess.run(stubtest, cwd=sys.prefix, check=False).returncode != 0:
        failed.append("stubtest extras._fastsock")
    print("failed: " + "; ".join(failed) if failed else "all clean")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
