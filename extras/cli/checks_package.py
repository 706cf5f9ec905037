"""Whether the package itself is whole, and what Rasa would import in its place if it were started here."""

import os
import sys
from pathlib import Path

from extras import fastsock, intact
from extras.cli.findings import FAILED, WARNING, Check, Finding, failed, ok, warning

_TITLE = "package"


def check_package() -> Check[None]:
    """Look at the files of rasa-extras, at what hides them, and at the other package of their name."""
    faults = list(intact.faults())
    for fault in faults:
        yield Finding(WARNING if fault.is_harmless else FAILED, _TITLE, fault.found, fault.way_out)
    stranger = intact.strangers()
    if stranger is not None:
        yield failed(_TITLE, stranger.found, stranger.way_out)
    # Rasa looks in the folder that it is started in before it looks where packages are installed.
    hiding = intact.hidden_by([os.getcwd(), *sys.path])
    if hiding is not None:
        yield failed(
            _TITLE,
            f"in {os.getcwd()}, import extras finds {hiding} and not {intact.PACKAGE}: Rasa finds no "
            f"extras.trackerstore there, and goes on in memory with a warning",
            f"rename {Path(hiding).name}, or start Rasa elsewhere",
        )
    other = intact.other_distribution()
    if other is not None:
        yield warning(
            _TITLE,
            f"the other package, extras {other}, is here too, but {intact.PACKAGE / '__init__.py'} is not its own: "
            f"those who import its functions (from extras import try_import) fail",
            f"pip install --force-reinstall --no-deps extras=={other}; rasa-extras works with its file as well",
        )
    if not faults and stranger is None and hiding is None:
        yield ok(_TITLE, f"{intact.described()}, {fastsock.IMPL}")
