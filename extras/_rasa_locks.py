"""The one place that knows how the lock stores of Rasa's versions, 2.0 to Pro 3.21, differ."""

from inspect import signature
from typing import Any

from rasa.core import lock_store as _stock
from rasa.core.lock import TicketLock

from extras._rasa_iam import with_iam

LockStore: Any = _stock.LockStore
LockError: Any = _stock.LockError
LOCK_LIFETIME: float = _stock.LOCK_LIFETIME
"""Seconds until a ticket expires; ``TICKET_LOCK_LIFETIME`` in the environment sets it."""

StockRedisLockStore: Any = _stock.RedisLockStore

STOCK_PREFIX: str = getattr(_stock, "DEFAULT_REDIS_LOCK_STORE_KEY_PREFIX", "")
"""What stands before the conversation id in a key; empty on Rasa 2.0."""

_config: Any = getattr(_stock, "RedisLockStoreConfig", None)
STOCK_DB: int = (
    _config.model_fields["db"].default if _config else signature(StockRedisLockStore.__init__).parameters["db"].default
)
"""The database of a lock store that names none: 1, on Rasa Pro 0."""

__all__ = [
    "LOCK_LIFETIME",
    "STOCK_DB",
    "STOCK_PREFIX",
    "LockError",
    "LockStore",
    "StockRedisLockStore",
    "TicketLock",
    "with_iam",
]
