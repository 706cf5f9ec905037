"""The journal of ``on_outage: journal``: whether it can be written here, and what waits in it."""

import os
import shutil
from pathlib import Path

from extras.cli.checks_options import Target
from extras.cli.findings import Check, failed, ok, warning
from extras.cli.journal_records import turns_without_owner
from extras.cli.output import size
from extras.journal import beside, is_foreign, refused_path

_TITLE = "journal"


def check_journal(target: Target) -> Check[None]:
    """Look at the journals on this machine; what a running Rasa has, it keeps."""
    options = target.options
    if options.journal_path is None:
        return
    path = Path(options.journal_path).absolute()
    if not os.access(path.parent, os.W_OK):
        found = f"journal_path: the folder {path.parent} is not there or cannot be written"
        yield failed(_TITLE, found, "make it, for the user that Rasa runs as; Rasa does not start without it")
        return
    foreign = [found for found in beside(path) if is_foreign(found.read_bytes())]
    for other in foreign:
        yield failed(_TITLE, f"{other} holds something else", "name another file in journal_path")
    free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < options.journal_max_bytes:
        yield warning(
            _TITLE,
            f"{size(free_bytes)} are free in {path.parent}, less than journal_max_bytes: {options.journal_max_bytes}",
            "make room, or an outage of Redis ends in errors",
        )
    turns = turns_without_owner(path)
    if turns:
        yield warning(
            _TITLE,
            f"{turns} turns wait in {path}, and no Rasa has it",
            "start a Rasa with this file, which brings them to Redis",
        )
    refused = refused_path(path)
    if refused.exists() and refused.stat().st_size:
        yield warning(
            _TITLE, f"{refused} holds what could not be brought to Redis", "see why in Rasa's log, then delete the file"
        )
    if not foreign and not turns:
        yield ok(_TITLE, f"{path}, at most {size(options.journal_max_bytes)}")
