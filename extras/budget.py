"""How long one call of the store may take in all, and how often a command of it is repeated meanwhile.

redis-py's timeouts are for one wait each: a reply that drips in, a pool, a few attempts, and the name before them add
up. A :class:`Budget` is for all of it. :mod:`extras.steps` gives the running call one, and whatever waits for something
below asks it for what is left.
"""

import random
import socket
import ssl
from contextvars import ContextVar
from time import monotonic
from typing import Any, NamedTuple, Optional, Tuple, Type

from redis.exceptions import AuthenticationError, BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extras import _redis, telemetry

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

OUTAGES = (RedisConnectionError, RedisTimeoutError)
"""What is raised while Redis cannot be reached, among it what is no outage; :func:`_is_outage` tells."""

_A_REPLY = "its reply"


class CallTimeoutError(RedisTimeoutError):
    """A call took longer than ``call_timeout``; the message says for what it waited, ``__cause__`` what failed last."""


class ClosedError(RedisConnectionError):
    """The connection was closed on purpose while a command was under way, which is not to open another."""


class UnsettledError(RedisConnectionError):
    """A server says, or nobody says, where a command is to go for now; it is repeated as after a lost connection.

    ``replied``: what the server has answered, which is what the caller sees when repeating has not helped.
    """

    def __init__(self, text: str, replied: Optional[Exception] = None) -> None:
        super().__init__(text)
        self.replied = replied


_NO_OUTAGES: Tuple[Type[Exception], ...] = (ClosedError, AuthenticationError, *_redis.AUTHORIZATION_ERRORS)


def is_distrusted(error: Exception) -> bool:
    """Whether a connection failed for the server's certificate, which another attempt does not change."""
    return isinstance(error.__cause__ or error.__context__, ssl.SSLCertVerificationError)


class Limits(NamedTuple):
    """What a client's calls may take; made of :class:`~extras.options.Options`, by whose names they go.

    ``retries``: how often each command is repeated after an outage, after a timeout only if ``retry_on_timeout``.
    """

    call_timeout_s: Optional[float] = None
    retries: int = 0
    retry_on_timeout: bool = False
    longest_pause_s: float = LONGEST_PAUSE_S
    """Between two attempts."""


class Budget:
    """What is left of one call. ``waiting_for``: on what, as the error is to say. ``error``: what failed last."""

    __slots__ = ("_deadline", "_limits", "command", "error", "waiting_for")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._deadline = None if limits.call_timeout_s is None else monotonic() + limits.call_timeout_s
        self.command = ""
        self.waiting_for = _A_REPLY
        self.error: Optional[Exception] = None

    def renew(self) -> None:
        """Begin anew, with as much time as at first."""
        if self._limits.call_timeout_s is not None:
            self._deadline = monotonic() + self._limits.call_timeout_s

    def begin(self, command: Any) -> None:
        """Note which command is carried out now."""
        self.command = command[0]
        self.waiting_for = _A_REPLY

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self._deadline is not None and monotonic() >= self._deadline

    def within(self, timeout_s: Optional[float]) -> Optional[float]:
        """Return ``timeout_s``, or less where less is left. Raises ``socket.timeout`` where nothing is."""
        if self._deadline is None:
            return timeout_s
        left_s = self._deadline - monotonic()
        if left_s <= 0:
            raise socket.timeout("timed out")
        return left_s if timeout_s is None or left_s < timeout_s else timeout_s

    def pause_s(self, error: Exception, failures: int) -> Optional[float]:
        """Return how long to wait before a command is repeated that failed so often, ``None`` if it is not to be.

        With full jitter, so that those who lost one server together do not come back together (AWS Architecture Blog,
        "Exponential Backoff And Jitter"). Where the pause would be longer than what is left, the error is a better
        answer than a timeout. Raises :class:`CallTimeoutError` where nothing is left. That the wait for a reply was cut
        short says no more than that itself, so what failed before it is the cause then.
        """
        if self.is_spent:
            has_timed_out = isinstance(error, RedisTimeoutError) and self.error is not None
            raise self.exceeded() from (self.error if has_timed_out else error)
        if failures > self._limits.retries or not self._is_outage(error):
            return None
        pause_s = random.uniform(0, min(self._limits.longest_pause_s, FIRST_PAUSE_S * 2 ** min(failures - 1, 30)))
        if self._deadline is not None and monotonic() + pause_s >= self._deadline:
            return None
        if telemetry.hooks is not None:
            telemetry.hooks.retried(self.command, error)
        self.error = error
        self.waiting_for = f"another attempt after {type(error).__name__}"
        return pause_s

    def _is_outage(self, error: Exception) -> bool:
        """Whether Redis may be there again at the next attempt."""
        if isinstance(error, RedisTimeoutError):
            return self._limits.retry_on_timeout
        if isinstance(error, BusyLoadingError):
            return True
        if self.waiting_for == FREE_CONNECTION or isinstance(error, _NO_OUTAGES):
            return False
        return not is_distrusted(error)

    def exceeded(self) -> CallTimeoutError:
        """Make the error that says so."""
        error = CallTimeoutError(
            f"given up after {self._limits.call_timeout_s:g} s, the call_timeout of one call: "
            f"{self.command} was waiting for {self.waiting_for}"
        )
        error.__cause__ = self.error
        return error


FREE_CONNECTION = "a free connection (max_connections)"

_current: "ContextVar[Optional[Budget]]" = ContextVar("extras_budget", default=None)
current = _current.get
"""Return the running call's budget, ``None`` where the caller has set no limit."""
enter = _current.set


def leave(budget: Budget) -> None:
    """End what :data:`enter` began; a coroutine that nobody finishes may end in the midst of another call."""
    if _current.get() is budget:
        _current.set(None)
    budget.error = None  # whose traceback holds on to the call


def within(timeout_s: Optional[float]) -> Optional[float]:
    """Return ``timeout_s``, or what is left to the running call if that is less; see :meth:`Budget.within`."""
    budget = _current.get()
    return timeout_s if budget is None else budget.within(timeout_s)


def waiting_for(what: str) -> None:
    """Note for what the running call waits from now on."""
    budget = _current.get()
    if budget is not None:
        budget.waiting_for = what


def waiting_for_a_reply() -> None:
    """Note that nothing else is in the way any more."""
    waiting_for(_A_REPLY)
