"""``rasa-extras conversations``: what is stored in Redis, without Rasa: look at it, copy it, erase it."""

import argparse
import os
import sys
from typing import Any, Dict

from extras._redis import RedisError
from extras.cli import (
    conversations_delete,
    conversations_export,
    conversations_import,
    conversations_list,
    conversations_show,
    conversations_stats,
    conversations_tail,
)
from extras.cli.output import DONE, NOT_ALL, UNUSABLE, Unusable, lesson, remark, told
from extras.cli.redis_store import open_store

ACTIONS: Dict[str, Any] = {
    "list": conversations_list,
    "show": conversations_show,
    "tail": conversations_tail,
    "export": conversations_export,
    "import": conversations_import,
    "delete": conversations_delete,
    "stats": conversations_stats,
}
"""Modules with ``EXAMPLES``, ``add_arguments`` and ``run_action``, which returns the exit code."""


def add_to(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "conversations", help="look at conversations in Redis, copy or erase them", description=__doc__
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, action in ACTIONS.items():
        summary = str(action.__doc__).splitlines()[0].split(": ", 1)[1]
        sub = actions.add_parser(
            name,
            help=summary,
            description=action.__doc__,
            epilog=lesson(*action.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("endpoints", metavar="ENDPOINTS", help="an endpoints.yml whose tracker_store is in Redis")
        action.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(run=run, action=action)


def run(arguments: argparse.Namespace) -> int:
    """Carry out an action; return its exit code."""
    if getattr(arguments, "all", None) is not None and arguments.all == (arguments.sender_id is not None):
        remark("rasa-extras: tail follows one SENDER, or --all")
        return UNUSABLE
    try:
        store = open_store(arguments.endpoints)
        try:
            return int(arguments.action.run_action(store, arguments))
        finally:
            store.close()
    except Unusable as error:
        remark(f"rasa-extras: {error}")
        return UNUSABLE
    except RedisError as error:
        remark(f"rasa-extras: {told(error)}")
        return UNUSABLE
    except BrokenPipeError:  # whoever read this has seen enough, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        remark("interrupted")
        return NOT_ALL
