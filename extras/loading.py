"""What all classes that Rasa loads by name have in common: which errors may leave them, and which may not.

Rasa takes an ``ImportError`` or ``AttributeError`` from a custom class for "not found": it goes on with a tracker store
in memory, or says of a lock store that its path is wrong. Neither may leave a module that it loads.
"""

import difflib
import logging
from contextlib import contextmanager
from typing import Iterator, Set, Tuple, Type

from extras import intact
from extras.errors import HostError, OptionError

try:
    from rasa.shared.exceptions import RasaException
except (ImportError, AttributeError) as error:
    raise HostError(
        f"the stores of rasa-extras are loaded by Rasa 2.0 or later, which this Python does not have ({error})"
    ) from error

__all__ = ["RasaException", "nothing_swallowed", "refuse_misspelt"]

_looked_at: Set[Tuple[str, str]] = set()
"""What has been done with nobody else's modules: hosts make their stores again and again, and looking takes time."""

_FAULTS = tuple(intact.faults())
for _fault in _FAULTS:
    logging.getLogger(__name__).warning("%s", _fault)


@contextmanager
def nothing_swallowed(store: str, raised: Type[Exception], doing: str) -> Iterator[None]:
    """Turn what Rasa would swallow, and errors in options, into errors that it reports, of the class ``raised``.

    So are modules that another folder has put in the place of ours.
    """
    try:
        yield
    except OptionError as error:
        raise raised(f"{store}: {error}") from error
    except (ImportError, AttributeError) as error:
        raise raised(
            f"{store}: {doing} failed with {type(error).__name__}: {error}. {_why()}Reinstall the package and "
            f"its dependencies (pip install --force-reinstall rasa-extras); if that does not help, this version of "
            f"Rasa or redis-py is not supported"
        ) from error
    if (store, doing) not in _looked_at:
        stranger = intact.strangers()
        if stranger is not None:
            raise raised(f"{store}: {doing}: {stranger}")
        _looked_at.add((store, doing))


def _why() -> str:
    """Return, as sentences, what is wrong with the package's files, which may be why they fail."""
    stranger = intact.strangers()
    return "".join(f"{fault.found}. " for fault in [*([] if stranger is None else [stranger]), *_FAULTS])


def refuse_misspelt(module: str, name: str, store: str, raised: Type[Exception]) -> None:
    """Refuse what is not in a module (PEP 562): as a misspelt ``store`` where it looks like one."""
    if difflib.SequenceMatcher(None, name.lower(), store.lower()).ratio() > 0.7:
        raise raised(f"there is no {module}.{name}; did you mean {store}?")
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
