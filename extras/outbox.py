"""Events that are stored with their turn and wait in Redis for the event broker, as steps without I/O.

One list for each conversation, of the events' JSON in the order of the conversation; the script that appends a turn to
the document adds to the list, too. Beside it is a lease, so that one process at a time publishes from a list.
"""

from binascii import crc_hqx
from itertools import count
from typing import List, NamedTuple, Optional, Tuple

from extras.steps import Script, Steps

LEASE_S = 30.0
"""How long one process has a list to itself; what it publishes after that, another may have published already."""

MOST_EVENTS = 100
"""Of a conversation that are published under one lease."""

_SLOTS = 16384
_LEASE = b":lease"

# Answers [-1] while another than ARGV[1] holds the lease KEYS[2], else [events in the list KEYS[1], its first ARGV[3]
# events], and takes the lease for ARGV[2] milliseconds where there are any.
CLAIM = Script(
    """
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return {-1} end
local size = redis.call('LLEN', KEYS[1])
if size == 0 then
  redis.call('DEL', KEYS[2])
  return {0}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {size, redis.call('LRANGE', KEYS[1], 0, ARGV[3] - 1)}
"""
)

# Takes ARGV[2] events off the list KEYS[1] and ends the lease KEYS[2], if ARGV[1] holds it: once, however often it is
# called. Answers how many are left.
RELEASE = Script(
    """
if redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('LTRIM', KEYS[1], ARGV[2], -1)
  redis.call('DEL', KEYS[2])
end
return redis.call('LLEN', KEYS[1])
"""
)


class Claim(NamedTuple):
    """The first events of a conversation that wait, as JSON, and how many wait in all."""

    size: int
    bodies: List[bytes]


def outbox_key(key: bytes) -> bytes:
    """Return the key of the list of a document's unpublished events, which is in the document's slot of a cluster.

    It begins with the tag that decides upon the slot: of the document's own key, or all of that. Where no tag can be
    like the key, as ``}`` ends one, a number stands for it. Source: "Hash tags" in
    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec.
    """
    _, _, rest = key.partition(b"{")
    tag, ends, _ = rest.partition(b"}")
    if not (tag and ends):
        tag = key
        if b"}" in key:
            slot = crc_hqx(key, 0) % _SLOTS
            tag = next(number for number in map(b"%d".__mod__, count()) if crc_hqx(number, 0) % _SLOTS == slot)
    return b"{" + tag + b"}:outbox:" + key


def document_key(key: bytes) -> Optional[bytes]:
    """Return the key of the document to which an outbox belongs, ``None`` if a key is of no outbox."""
    _, infix, document = key.partition(b"}:outbox:")
    return document if infix and outbox_key(document) == key else None


def outbox_keys(key: bytes) -> Tuple[bytes, bytes]:
    """Return all keys of a document's outbox: its list, and the lease of who publishes from it.

    Who has the lease takes off as many events as it has published: of a list that is new by then it would take others.
    So whoever deletes the list takes the lease with it.
    """
    list_key = outbox_key(key)
    return list_key, list_key + _LEASE


def erase_outbox(key: bytes) -> Steps[None]:
    """Delete the events of a document that are not published yet, which will not be then."""
    yield ("DEL", *outbox_keys(key))


class Outbox:
    """The outboxes of documents whose keys begin with ``prefix``. ``scan_count``: keys that one SCAN step looks at."""

    def __init__(self, prefix: bytes, scan_count: int) -> None:
        self._prefix = prefix
        self._scan_count = scan_count

    def claim(self, key: bytes, owner: str) -> Steps[Optional[Claim]]:
        """Return the first events of an outbox for ``owner``, a name used once; ``None`` while another has it."""
        list_key = outbox_key(key)
        found = yield from CLAIM.call(list_key, owner, round(LEASE_S * 1000), MOST_EVENTS, another=list_key + _LEASE)
        return None if found[0] < 0 else Claim(found[0], found[1] if found[0] else [])

    def release(self, key: bytes, owner: str, published: int) -> Steps[int]:
        """Take off so many events and let others at the rest, of which the number is returned."""
        list_key = outbox_key(key)
        left: int = yield from RELEASE.call(list_key, owner, published, another=list_key + _LEASE)
        return left

    def some(self, cursor: int) -> Steps[Tuple[int, List[bytes]]]:
        """Return keys of documents with an outbox that one SCAN step finds, and before them the next step's cursor."""
        then, keys = yield ("SCAN", cursor, "MATCH", b"{*}:outbox:*", "COUNT", self._scan_count)
        found = filter(None, map(document_key, keys))
        return int(then), [key for key in found if key.startswith(self._prefix)]
