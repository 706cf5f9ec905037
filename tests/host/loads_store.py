"""Let Rasa make the tracker store of an ``endpoints.yml``: ``loads_store.py FILE CASE ...``.

For each case, with its folders ``before`` and ``site`` first on Python's path, a line of JSON: what came and was said.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import List

from rasa.shared.exceptions import RasaException
from rasa.utils.endpoints import read_endpoint_config

try:
    from rasa.core.tracker_stores.tracker_store import TrackerStore  # Rasa Pro
except ImportError:
    from rasa.core.tracker_store import TrackerStore


class Said(logging.Handler):
    """Keeps what our modules log."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: List[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is logged by the package itself, not by its store about its options."""
        if record.name == "extras.loading":
            self.texts.append(record.getMessage())


def load(endpoints: str) -> "dict[str, str]":
    """Make the store; return what it is, or the kind of error, and what was logged or the error says."""
    said = Said()
    logging.getLogger().addHandler(said)
    try:
        store = TrackerStore.create(read_endpoint_config(endpoints, "tracker_store"))
    except RasaException as error:
        return {"came": "RasaException", "said": str(error)}
    except RuntimeError as error:
        return {"came": "RuntimeError", "said": str(error)}
    return {"came": type(getattr(store, "_tracker_store", store)).__name__, "said": "\n".join(said.texts)}


def main() -> None:
    """Load once for each case, each in a process of its own."""
    endpoints, *cases = sys.argv[1:]
    for case in cases:
        pid = os.fork()
        if pid == 0:
            folder = Path(endpoints).parent / case
            sys.path[:0] = [str(folder / "before"), str(folder / "site")]
            print(json.dumps({"case": case, **load(endpoints)}), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
