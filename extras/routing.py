"""Which commands may share a connection with others, and which may be sent again after a lost reply.

A command shares one unless it waits for something other than Redis' own work, changes what the connection is (its
protocol, subscriptions, transaction), or has a reply of another shape. AUTH and SELECT are shared, so that what comes
after them has that user and that database, as it has on redis-py's pool while one task uses it. Sources: "blocking" and
"connection" in https://redis.io/commands, and the flags of COMMAND INFO. A name that is not listed, such as a
module's, is shared and not repeated.
"""

from functools import lru_cache
from typing import Any, FrozenSet, Optional, Sequence, Union

_WAITING = (
    "BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN WAIT WAITAOF",
    "MIGRATE SAVE SHUTDOWN FAILOVER",  # hold up whoever comes after them for as long as they take
)
_STATE = (
    "MULTI EXEC DISCARD WATCH UNWATCH",
    "SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE MONITOR",
    "HELLO RESET QUIT CLIENT READONLY READWRITE ASKING",
    "SYNC PSYNC REPLCONF REPLICAOF SLAVEOF",
    "DEBUG SCRIPT",  # SCRIPT DEBUG turns the connection into a debugger's
    "HIMPORT",  # what it prepares belongs to the connection
)
OWN_CONNECTION: FrozenSet[str] = frozenset(" ".join(_WAITING + _STATE).split())
"""Commands that need a connection to themselves."""

BLOCKS_IF_ASKED: FrozenSet[str] = frozenset({"XREAD", "XREADGROUP"})
"""Commands that wait only where ``BLOCK`` is among their arguments."""

_READS = (
    "BITCOUNT BITFIELD_RO BITPOS DBSIZE DIGEST DUMP ECHO EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO INFO KEYS LCS",
    "GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE LASTSAVE LOLWUT",
    "HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS",
    "LINDEX LLEN LPOS LRANGE MGET OBJECT PEXPIRETIME PING PTTL RANDOMKEY ROLE SCAN SCARD SDIFF SDIFFCARD SINTER",
    "SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO SRANDMEMBER SSCAN STRLEN SUBSTR SUNION SUNIONCARD TIME TTL TYPE",
    "XINFO XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER",
    "ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION",
    "FT.EXPLAIN FT.INFO FT.SEARCH JSON.ARRINDEX JSON.ARRLEN JSON.GET JSON.MGET JSON.OBJKEYS JSON.OBJLEN JSON.RESP",
    "JSON.STRLEN JSON.TYPE",
)
REPEATABLE: FrozenSet[str] = frozenset(" ".join(_READS).split())
"""Commands that change nothing, so that it does not matter whether one whose reply was lost was carried out."""


@lru_cache(maxsize=4096)
def first_word(name: Union[str, bytes]) -> str:
    """Return a command's name in capitals; redis-py takes "config get" in one string."""
    words = (name if isinstance(name, str) else name.decode("latin-1")).upper().split(None, 1)
    return words[0] if words else ""


@lru_cache(maxsize=4096)
def is_name_shared(name: Union[str, bytes]) -> Optional[bool]:
    """Return whether a command of this name is shared, ``None`` where its arguments tell."""
    word = first_word(name)
    return None if word in BLOCKS_IF_ASKED else bool(word) and word not in OWN_CONNECTION


def is_shared(command: Sequence[Any]) -> bool:
    """Return whether a command (its name first) may go out on a connection that others use at the same time."""
    name = command[0]
    if type(name) is not str and type(name) is not bytes:
        return False
    shared = is_name_shared(name)
    return not _blocks(command) if shared is None else shared


def _blocks(command: Sequence[Any]) -> bool:
    for argument in command[1:]:
        word = argument.upper() if isinstance(argument, (str, bytes)) else None
        if word in ("STREAMS", b"STREAMS"):
            break
        if word in ("BLOCK", b"BLOCK"):
            return True
    return False


def is_repeatable(command: Sequence[Any]) -> bool:
    """Return whether a command may be sent again although it may have been carried out already."""
    return first_word(command[0]) in REPEATABLE
