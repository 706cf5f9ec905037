"""The Rasa in this environment, if there is one, kept quiet."""

from contextlib import contextmanager
from typing import Any, Iterator, Optional

from extras import silence


def load_host() -> Optional[Any]:
    """Return :mod:`extras._rasa`, or ``None`` where there is no Rasa."""
    with quiet():
        try:
            from extras import _rasa
        except Exception:  # no Rasa, or one that cannot be loaded: whatever its imports raise
            return None
    return _rasa


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what a host logs and warns of: its errors reach the caller by themselves, without people's words."""
    with silence.quiet(), silence.quiet_structlog():
        yield
