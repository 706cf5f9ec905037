"""The Redis that ``endpoints.yml`` names for locks, and the keys that Rasa has there for a conversation."""

from contextlib import suppress
from typing import Any, Dict, List, NamedTuple, Optional

from extras.cli.endpoints_file import section
from extras.cli.host import load_host, quiet
from extras.cli.output import Unusable
from extras.cli.redis_store import make_client, prefix_of
from extras.conversation import Conversations
from extras.endpoint import NO_LOCKS, OF_LOCKS, parse_without
from extras.errors import OptionError
from extras.options import TABLE, Options, parse
from extras.steps import run
from extras.tickets import LOCK_INFIX

CONCURRENT = "concurrent_redis"
"""Rasa Pro's lock store with a key for each ticket."""

_CONCURRENT_INFIX = "concurrent_lock:"
_DB = 1
_OUR_CLASS = "ExtraRedisLockStore"


class Locks(NamedTuple):
    """A client of the Redis that holds the locks. ``prefix``: what stands before a sender id in their keys."""

    client: Any
    options: Options
    prefix: str
    has_tickets: bool

    def keys(self, sender_id: str) -> List[bytes]:
        """Return the keys of a conversation's lock: one, or one for each ticket, and those that are there."""
        key = self.prefix + sender_id
        if not self.has_tickets:
            return [key.encode("utf-8", "surrogateescape")]
        tickets = Conversations(f"{key}:", self.options.scan_count, False)
        return [tickets.key(name) for name in run(self.client, tickets.sender_ids())]

    def close(self) -> None:
        """Close all connections."""
        self.client.connection_pool.disconnect()


def open_locks(path: str) -> Optional[Locks]:
    """Return where the file's ``lock_store`` has its locks, ``None`` if that is no Redis.

    Raises :class:`~extras.cli.output.Unusable`.
    """
    given = section(path, "lock_store")
    kind = "" if given is None else str(given.get("type"))
    if given is None or not (kind.lower() in ("redis", CONCURRENT) or is_ours(kind)):
        return None
    try:
        options = lock_options(given)
    except OptionError as error:
        raise Unusable(f"{path!r}: lock_store: {error}") from None
    return Locks(make_client(path, options), options, prefix_of_locks(kind, options), kind.lower() == CONCURRENT)


def is_ours(kind: str) -> bool:
    """Return whether a ``type`` names the lock store of this package."""
    return kind.endswith(_OUR_CLASS)


def prefix_of_locks(kind: str, options: Options) -> str:
    """Return what stands before a sender id in the keys of a lock store of this ``type``."""
    host = load_host()
    stock_prefix = "" if host is not None and host.STOCK_PREFIX == "" else LOCK_INFIX
    infix = LOCK_INFIX
    if kind.lower() == CONCURRENT:
        infix = stock_prefix = _CONCURRENT_INFIX
    return prefix_of(options, not is_ours(kind), infix, stock_prefix)


def lock_options(given: Dict[str, Any]) -> Options:
    """Check a lock store's section; its database is that of the host's where none is given, or none can be.

    Raises ``OptionError``.
    """
    kind = str(given.get("type"))
    taken = {name: value for name, value in given.items() if name != "type"}
    named = taken.pop("host", None)
    if kind.lower() == CONCURRENT:
        taken["url"] = named  # which is all that it takes
    elif named is not None:
        if taken.get("url") is not None:
            raise OptionError("url and host are both given, and mean the same; keep url")
        taken["url"] = named
    if not is_ours(kind):  # the stock stores pass over what they do not know
        taken = {name: value for name, value in taken.items() if name in TABLE}
        options = parse(taken)
    else:
        options = parse_without(taken, NO_LOCKS, OF_LOCKS)
    if taken.get("db") in (None, ""):
        with suppress(OptionError):  # the url names another, or a cluster has but one
            options = parse({**taken, "db": _default_db(kind)})
    host = load_host()
    found: Options = options if host is None else host.with_iam(options, "lock_store")
    return found


def _default_db(kind: str) -> int:
    if kind.lower() == CONCURRENT or load_host() is None:
        return _DB
    with quiet():
        from extras._rasa_locks import STOCK_DB
    return STOCK_DB
