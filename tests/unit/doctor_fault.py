"""What a fault planted for ``rasa-extras doctor`` is, and all of them by name."""

from typing import Any, Callable, Dict, NamedTuple

from doctor_place import Place


class Fault(NamedTuple):
    level: str
    title: str
    found: str
    plant: Callable[[Place], Any]


FAULTS: Dict[str, Fault] = {}
"""Name to what the doctor must find; ``plant`` returns the content of the file, or its ``tracker_store``."""


def fault(level: str, title: str, found: str) -> Callable[[Callable[[Place], Any]], Callable[[Place], Any]]:
    def planted(plant: Callable[[Place], Any]) -> Callable[[Place], Any]:
        FAULTS[plant.__name__] = Fault(level, title, found, plant)
        return plant

    return planted


def option(level: str, title: str, found: str, **options: Any) -> None:
    """Plant a fault that is nothing but other options of the tracker store."""
    FAULTS["-".join(f"{name}={value}" for name, value in options.items())] = Fault(
        level, title, found, lambda place: place.store(**options)
    )


def other(name: str, level: str, title: str, found: str, section: Callable[[Place], Any]) -> None:
    """Plant a fault in another section than the tracker store."""
    FAULTS[f"{title}-{found}"] = Fault(
        level, title, found, lambda place: {"tracker_store": place.store(), name: section(place)}
    )
