"""The Redis that ``endpoints.yml`` names for conversations and for locks, and the keys that Rasa has there."""

from contextlib import suppress
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from extras.cli.endpoints_file import section
from extras.cli.host import load_host
from extras.cli.output import Unusable
from extras.configured import sync_client
from extras.conversation import TRACKER_INFIX, Conversations, UserIndex
from extras.errors import OptionError
from extras.options import TABLE, Options, parse
from extras.steps import run

LOCK_INFIX = "lock:"
UNREACHABLE = "its id begins like a key of another conversation"
_STOCK_LOCK_DB = 1


class RedisStore(NamedTuple):
    """A client of the Redis that holds the conversations, and their keys."""

    client: Any
    options: Options
    conversations: Conversations
    users: UserIndex

    def pages(self) -> Iterator[List[str]]:
        """Yield the sender ids of all conversations, those of one SCAN step at a time."""
        cursor = 0
        while True:
            cursor, sender_ids = run(self.client, self.conversations.some_sender_ids(cursor))
            if sender_ids:
                yield sender_ids
            if cursor == 0:
                return

    def key(self, sender_id: str) -> bytes:
        """Return the key that holds a conversation: that of Rasa 2.0 where it is read, and there is no other."""
        key = self.conversations.key(sender_id)
        if self.options.read_unprefixed_keys and not self.client.execute_command("EXISTS", key):
            bare_key = sender_id.encode("utf-8", "surrogateescape")
            return bare_key if run(self.client, self.conversations.holds_document(bare_key)) else key
        return key

    def reaches(self, sender_id: str) -> bool:
        """Return whether a listed conversation can be asked for: an id that begins like a key is taken for that key."""
        return self.conversations.bare(sender_id) == sender_id

    def close(self) -> None:
        """Close all connections."""
        self.client.connection_pool.disconnect()


class Locks(NamedTuple):
    """A client of the Redis that holds the locks, and what stands before a sender id in their keys."""

    client: Any
    prefix: str


def open_store(path: str) -> RedisStore:
    """Return the Redis store that the file's ``tracker_store`` names; it connects at the first command.

    Raises :class:`~extras.cli.output.Unusable`.
    """
    given = section(path, "tracker_store")
    if given is None:
        raise Unusable(f"{path!r} has no tracker_store")
    options, is_stock = _options(path, "tracker_store", given, "ExtraRedisTrackerStore")
    host = load_host()
    stock_prefix = TRACKER_INFIX if host is None else host.STOCK_PREFIX
    prefix = _prefix(options, is_stock, TRACKER_INFIX, stock_prefix)
    conversations = Conversations(prefix, options.scan_count, options.read_unprefixed_keys)
    return RedisStore(_client(path, options), options, conversations, UserIndex(prefix))


def open_locks(path: str) -> Optional[Locks]:
    """Return where the file's ``lock_store`` has its locks, ``None`` if that is no Redis."""
    given = section(path, "lock_store")
    if given is None or not _is_redis(str(given.get("type")), "RedisLockStore"):
        return None
    options, is_stock = _options(path, "lock_store", given, "RedisLockStore")
    host = load_host()
    stock_prefix = "" if host is not None and host.STOCK_PREFIX == "" else LOCK_INFIX
    return Locks(_client(path, options), _prefix(options, is_stock, LOCK_INFIX, stock_prefix))


def _is_redis(kind: str, our_class: str) -> bool:
    return kind.lower() == "redis" or kind.endswith(our_class)


def _options(path: str, name: str, given: Dict[str, Any], our_class: str) -> Any:
    kind = str(given.get("type"))
    if not _is_redis(kind, our_class):
        raise Unusable(f"{path!r}: {name} is of type {kind!r}, and this command is for Redis; see rasa-extras migrate")
    is_stock = kind.lower() == "redis"
    taken = {option: value for option, value in given.items() if option != "type"}
    if is_stock or name == "lock_store":  # the stock stores pass over what they do not know
        taken = {option: value for option, value in taken.items() if option in TABLE}
    try:
        return (with_lock_db(taken) if name == "lock_store" else parse(taken)), is_stock
    except OptionError as error:
        raise Unusable(f"{path!r}: {name}: {error}") from None


def with_lock_db(given: Dict[str, Any]) -> Options:
    """Check a lock store's options; its database is that of the stock lock store where none is given, or none can be.

    Raises ``OptionError``.
    """
    options = parse(given)
    if given.get("db") in (None, ""):
        with suppress(OptionError):  # the url names another, or a cluster has but one
            options = parse({**given, "db": _STOCK_LOCK_DB})
    return options


def _prefix(options: Options, is_stock: bool, infix: str, stock_prefix: str) -> str:
    own = options.key_prefix
    if not own or (is_stock and not own.isalnum()):  # the stock stores leave out such a prefix, with a warning
        return stock_prefix
    return f"{own}:{infix}"


def _client(path: str, options: Options) -> Any:
    try:
        return sync_client(options)
    except OptionError as error:
        raise Unusable(f"{path!r}: {error}") from None


def failed(reply: Any) -> Optional[Exception]:
    """Return the error that a command in a batch was answered with, or ``None``."""
    return reply if isinstance(reply, Exception) else None
