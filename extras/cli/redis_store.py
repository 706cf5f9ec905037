"""The Redis that ``endpoints.yml`` names for conversations, and the keys that Rasa has there."""

from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from extras.cli.endpoints_file import section
from extras.cli.host import load_host
from extras.cli.output import Unusable
from extras.configured import sync_client
from extras.conversation import TRACKER_INFIX, Conversations, UserIndex
from extras.errors import OptionError
from extras.options import TABLE, Options, parse
from extras.steps import run

UNREACHABLE = "its id begins like a key of another conversation"
_OUR_CLASS = "ExtraRedisTrackerStore"


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


def open_store(path: str) -> RedisStore:
    """Return the Redis store that the file's ``tracker_store`` names; it connects at the first command.

    Raises :class:`~extras.cli.output.Unusable`.
    """
    given = section(path, "tracker_store")
    if given is None:
        raise Unusable(f"{path!r} has no tracker_store")
    kind = str(given.get("type"))
    is_stock = kind.lower() == "redis"
    if not is_stock and not kind.endswith(_OUR_CLASS):
        raise Unusable(
            f"{path!r}: tracker_store is of type {kind!r}, and this command is for Redis; see rasa-extras migrate"
        )
    host = load_host()
    try:
        options = _options(given, is_stock, host)
    except OptionError as error:
        raise Unusable(f"{path!r}: tracker_store: {error}") from None
    stock_prefix = TRACKER_INFIX if host is None else host.STOCK_PREFIX
    prefix = prefix_of(options, is_stock, TRACKER_INFIX, stock_prefix)
    conversations = Conversations(prefix, options.scan_count, options.read_unprefixed_keys)
    return RedisStore(make_client(path, options), options, conversations, UserIndex(prefix))


def _options(given: Dict[str, Any], is_stock: bool, host: Optional[Any]) -> Options:
    taken = {option: value for option, value in given.items() if option != "type"}
    if is_stock:  # which passes over what it does not know
        taken = {option: value for option, value in taken.items() if option in TABLE}
    options = parse(taken)
    found: Options = options if host is None else host.with_iam(options, "tracker_store")
    return found


def prefix_of(options: Options, is_stock: bool, infix: str, stock_prefix: str) -> str:
    """Return what stands before a sender id in keys. ``stock_prefix``: that of the host without a ``key_prefix``."""
    own = options.key_prefix
    if not own or (is_stock and not own.isalnum()):  # the stock stores leave out such a prefix, with a warning
        return stock_prefix
    return f"{own}:{infix}"


def make_client(path: str, options: Options) -> Any:
    """Return a client, which connects at the first command. Raises :class:`~extras.cli.output.Unusable`."""
    try:
        return sync_client(options)
    except OptionError as error:
        raise Unusable(f"{path!r}: {error}") from None


def failed(reply: Any) -> Optional[Exception]:
    """Return the error that a command in a batch was answered with, or ``None``."""
    return reply if isinstance(reply, Exception) else None
