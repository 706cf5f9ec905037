"""Rasa Pro's login by IAM (AWS ElastiCache): set up as its own stores have it set up, by environment variables.

``IAM_CLOUD_PROVIDER=aws``, ``ELASTICACHE_REDIS_AWS_IAM_ENABLED=true``, ``AWS_ELASTICACHE_CLUSTER_NAME`` and
``AWS_DEFAULT_REGION``; the user is the option ``username``. Source: ``rasa.core.redis_connection_factory``.
"""

import os
from dataclasses import replace
from functools import lru_cache
from typing import Any, Optional

from extras.errors import OptionError
from extras.options import Options

try:
    from rasa.core.iam_credentials_providers import credentials_provider_protocol as _iam
except ImportError:  # every Rasa but Pro since 3.14
    _iam = None

_CLUSTER_NAME = "AWS_ELASTICACHE_CLUSTER_NAME"


def with_iam(options: Options, service: str) -> Options:
    """Return options that log in by IAM if Rasa Pro's settings say so, for a ``tracker_store`` or a ``lock_store``.

    As in the host's own stores, IAM takes the place of a password. Raises ``OptionError`` where it cannot be set up.
    """
    if _iam is None or os.environ.get("IAM_CLOUD_PROVIDER") is None:
        return options
    provider = _provider(service, options.username, os.environ.get(_CLUSTER_NAME))
    if provider is None:
        return options
    if options.credential_provider is not None:
        raise OptionError(
            "credential_provider is set, and so is IAM_CLOUD_PROVIDER in the environment; keep one of them"
        )
    return replace(options, iam=provider)


@lru_cache(maxsize=16)
def _provider(service: str, username: Optional[str], cluster_name: Optional[str]) -> Any:
    """Make a provider once for a process, so that stores with equal options can share their connections."""
    asked = _iam.IAMCredentialsProviderInput(
        service_type=_iam.SupportedServiceType(service),
        service_name="redis",
        username=username,
        cluster_name=cluster_name,
    )
    try:
        return _iam.create_iam_credentials_provider(asked)
    except Exception as error:
        raise OptionError(
            f"IAM_CLOUD_PROVIDER: the login cannot be set up ({type(error).__name__}: {error}); see AWS_DEFAULT_REGION "
            f"and the credentials of AWS"
        ) from error
