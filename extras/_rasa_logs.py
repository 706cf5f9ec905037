"""Logs in the style of the host: Rasa Pro's stores log through structlog, those of other Rasas through ``logging``.

The package logs through ``logging``, as libraries do. Where the host's own stores do not, and a server has set
structlog up, what it logs is handed on: with a key as Pro's events have one, in JSON where Pro's are, and with what Pro
has bound, such as the id of the conversation.
"""

import logging
from typing import Any

from rasa.core import lock_store as _lock_store

try:
    import structlog as _structlog
except ImportError:  # before Rasa 3.5
    _structlog = None

_ROOT = "extras"
_LOGS_THROUGH_STRUCTLOG = _structlog is not None and hasattr(_lock_store, "structlogger")


class _HandOn(logging.Handler):
    """Logs a record once more, through structlog, which ends in a logger that is not below ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        try:
            logger: Any = _structlog.get_logger(f"rasa_{record.name}")
            given = {"exc_info": record.exc_info} if record.exc_info else {}
            logger.log(record.levelno, f"{record.name}.{record.funcName}", event_info=record.getMessage(), **given)
        except Exception:
            self.handleError(record)


def begin() -> None:
    """Log as the host does from now on, if it has set that up, as servers do: then structlog ends in ``logging``."""
    ours = logging.getLogger(_ROOT)
    if not _LOGS_THROUGH_STRUCTLOG:
        return
    if not isinstance(_structlog.get_config()["logger_factory"], _structlog.stdlib.LoggerFactory):
        return
    if not any(isinstance(handler, _HandOn) for handler in ours.handlers):
        ours.addHandler(_HandOn())
        ours.propagate = False
