"""Who logs in: user and password, or a provider that is asked at each connect, for tokens that rotate."""

import importlib
from functools import lru_cache
from typing import Any, Dict, Tuple

from extras import _redis
from extras.errors import OptionError
from extras.in_thread import in_thread
from extras.options import Options


class CredentialsError(_redis.RedisError):
    """The provider of user and password has failed; the message names it, and holds nothing of what it said."""


class Known:
    """A provider, to redis-py, of what is known already."""

    def __init__(self, credentials: Tuple[Any, ...]) -> None:
        self._credentials = credentials

    def get_credentials(self) -> Tuple[Any, ...]:
        """Return the arguments of ``AUTH``."""
        return self._credentials


class Credentials(_redis.CredentialProvider or object):  # type: ignore[misc]
    """Asks somebody's provider, on an event loop without blocking it; ``name``: what errors call it."""

    def __init__(self, provider: Any, name: str) -> None:
        self._provider = provider
        self._name = name

    def get_credentials(self) -> Tuple[Any, ...]:
        """Return the arguments of ``AUTH``: user and password, or a password. Raises :class:`CredentialsError`."""
        try:
            return tuple(self._provider.get_credentials())
        except Exception as error:
            raise self._failed(error) from None  # whose text may hold a token

    async def get_credentials_async(self) -> Tuple[Any, ...]:
        """Do the same on an event loop, in a thread where the provider has no coroutine of its own."""
        own = getattr(type(self._provider), "get_credentials_async", None)
        if own is None or own is getattr(_redis.CredentialProvider, "get_credentials_async", None):
            return await in_thread(self.get_credentials)
        try:
            return tuple(await self._provider.get_credentials_async())
        except Exception as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> CredentialsError:
        return CredentialsError(
            f"{self._name} gave no user and password: {type(error).__name__}; see its own settings and log"
        )


async def asked_async(provider: Any) -> Tuple[Any, ...]:
    """Ask a provider, which may be redis-py's own, on an event loop."""
    if isinstance(provider, Credentials):
        return await provider.get_credentials_async()
    return tuple(provider.get_credentials())


def login_kwargs(options: Options) -> Dict[str, Any]:
    """Return the keyword arguments of a connection that are about who logs in. Raises ``OptionError``."""
    if options.iam is not None:
        return {"credential_provider": _of_iam(options.iam)}
    if options.credential_provider is not None:
        return {"credential_provider": _named(options.credential_provider)}
    return {"username": options.username, "password": options.password}


@lru_cache(maxsize=64)
def _of_iam(provider: Any) -> Credentials:
    return Credentials(provider, "the IAM login of Rasa Pro")


@lru_cache(maxsize=64)
def _named(path: str) -> Credentials:
    """Make the provider once for a process, so that stores with equal options can share their connections."""
    if _redis.CredentialProvider is None:
        raise OptionError(
            f"credential_provider: redis-py {_redis.VERSION} has none; pip install 'redis>=4.5.3', or give username "
            f"and password"
        )
    module_name, _, name = path.rpartition(".")
    try:
        make = getattr(importlib.import_module(module_name), name)
    except Exception as error:
        raise OptionError(
            f"credential_provider {path!r} cannot be loaded ({type(error).__name__}: {error}); name a class or "
            f"function that this Python can import"
        ) from error
    try:
        provider = make()
    except Exception as error:
        raise OptionError(
            f"credential_provider {path!r} cannot be made: {type(error).__name__}; it is called without arguments"
        ) from None
    if not callable(getattr(provider, "get_credentials", None)):
        raise OptionError(
            f"credential_provider {path!r} makes a {type(provider).__name__}, which has no get_credentials(); see "
            f"redis-py's CredentialProvider"
        )
    return Credentials(provider, f"credential_provider {path!r}")
