"""The command line of ``rasa-extras``; each of its commands is a module beside this one."""

import argparse
import sys
from typing import Any, List, Optional, Tuple

from extras._version import VERSION
from extras.cli import conversations, doctor, migrate

COMMANDS: Tuple[Any, ...] = (doctor, conversations, migrate)
"""Modules with ``add_to``, which adds a parser whose default ``run`` takes the arguments and returns the exit code."""


def make_parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(prog="rasa-extras", description=__doc__)
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Carry out a command; return its exit code."""
    arguments = make_parser().parse_args(argv)
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
