"""Which errors mean that Redis cannot do its work for now, as opposed to those that asking again will not mend."""

import re
from typing import Dict, List

from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras.refusals import RefusedError

_READS_TOO = {
    "LOADING": "BusyLoadingError",
    "MASTERDOWN": "MasterDownError",
    "CLUSTERDOWN": "ClusterDownError",
    "TRYAGAIN": "TryAgainError",
}
_WRITES_ONLY = {
    "READONLY": "ReadOnlyError",
    "OOM": "OutOfMemoryError",
    "MISCONF": "",  # it cannot persist
    "NOREPLICAS": "",  # too few replicas have what it has
}


def is_outage(error: BaseException) -> bool:
    """Return whether Redis cannot be reached, or says that it cannot take what it is given for now."""
    if isinstance(error, RefusedError) and error.__cause__ is not None:
        error = error.__cause__
    return stops_reads(error) or says(error, _WRITES_ONLY)


def stops_reads(error: BaseException) -> bool:
    """Return whether nothing can be read, either; a full or read-only Redis still answers."""
    if isinstance(error, RefusedError) and error.__cause__ is not None:
        error = error.__cause__
    # Wrong passwords are ConnectionErrors too, and certificates that are not trusted, which cannot be told apart.
    if isinstance(error, (RedisConnectionError, RedisTimeoutError)) and not isinstance(error, AuthenticationError):
        return type(error).__name__ not in ("AuthorizationError", "AuthenticationWrongNumberOfArgsError")
    return says(error, _READS_TOO)


def is_of_redis(error: BaseException) -> bool:
    """Return whether Redis, not what is stored in it, is to blame; a key of another type is what is stored."""
    return isinstance(error, RedisError) and "WRONGTYPE" not in _codes(error)


def says(error: BaseException, codes: Dict[str, str]) -> bool:
    """Return whether an error has one of these codes; beside each, the name of redis-py's class for it."""
    # redis-py takes the code away where it has a class for it.
    return isinstance(error, RedisError) and (
        type(error).__name__ in codes.values() or any(code in codes for code in _codes(error))
    )


def _codes(error: BaseException) -> List[str]:
    """Return what an error begins with; that of a script has it after its place, with a dash or without."""
    return re.findall(r"(?:^|-|: )([A-Z]+) ", str(error))
