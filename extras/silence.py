"""Keeps what a host logs and warns of out of a command's output, and out of what is timed, and gives it back."""

import logging
import sys
import warnings
from contextlib import contextmanager
from typing import Any, Dict, Iterator


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off logging, structlog and the showing of warnings in this process, for a while."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.showwarning = lambda *_, **__: None  # a host sets filters of its own
        try:
            yield
        finally:
            logging.disable(disabled)


@contextmanager
def quiet_structlog() -> Iterator[None]:
    """Drop what is logged through structlog, which prints even debug lines until a server sets it up."""
    structlog: Any = sys.modules.get("structlog")
    if structlog is None:  # a Rasa before 3.5
        yield
        return
    configured: bool = structlog.is_configured()
    before: Dict[str, Any] = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        if configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()
