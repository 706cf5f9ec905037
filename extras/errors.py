"""Errors that can be raised before any host or client library is loaded."""

import difflib
from typing import Iterable


class OptionError(ValueError):
    """An option cannot be used as given; the message names it, its value and the way out.

    Raised before any connection is made. Never holds a secret: values of secret options are not printed.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to ``name``, or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[nearest[0]]!r}?" if nearest else ""


class HostError(RuntimeError):
    """Rasa is missing or too old; no ``ImportError``, because Rasa takes that for leave to store in memory."""
