"""Clients that all stores with equal options use together, so that making a store again opens nothing new.

Rasa Pro makes its store anew after any exception, and every Rasa wraps it in another. What is shared lives as long as
one of those who use it, and is closed by the last of them to be closed; a store that is used again after its
``close()`` is a user again.
"""

import os
import threading
from typing import Any, Callable, Hashable, Mapping, Tuple, TypeVar
from weakref import WeakValueDictionary

Client = TypeVar("Client")


class _Key:
    """Options that are equal. Their values, a password among them, are in no ``repr``."""

    __slots__ = ("_hash", "_values")

    def __init__(self, values: Hashable) -> None:
        self._values = values
        self._hash = hash(values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._values == other._values

    def __hash__(self) -> int:
        return self._hash


_lock = threading.RLock()  # what is shared may be made of what is shared, too
_clients: "WeakValueDictionary[_Key, Any]" = WeakValueDictionary()


def _after_fork() -> None:
    """Share nothing with what was the parent's, whose other threads may have held the lock."""
    global _lock, _clients
    _lock, _clients = threading.RLock(), WeakValueDictionary()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def shared(make: Callable[..., Client], kwargs: Mapping[str, Any], *others: Hashable) -> Client:
    """Return what ``make(kwargs, *others)`` has made for somebody who still uses it, or makes now."""
    key = _Key((make, _frozen(kwargs), others))
    with _lock:
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = make(kwargs, *others)
        made: Client = client
        return made


def _frozen(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        pairs: Tuple[Any, ...] = tuple((repr(name), _frozen(inner)) for name, inner in value.items())
        return tuple(sorted(pairs, key=lambda pair: pair[0]))
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
