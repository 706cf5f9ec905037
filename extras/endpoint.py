"""The options of a section of ``endpoints.yml`` that Rasa hands over as its ``EndpointConfig``, not one by one."""

from typing import Any, Dict, Sequence

from extras.errors import OptionError
from extras.options import TABLE, Options, default_of, parse

_OF_ENDPOINTS = ("params", "headers", "basic_auth", "token", "cafile", "actions_module")
"""What Rasa takes out of the options of any endpoint, so that it has to be looked for beside them."""


NO_LOCKS = ("record_exp", "scan_count", "read_unprefixed_keys", "min_replicas_ack", "publish", "stream", "maxlen")
"""Options that mean nothing for locks."""

OF_LOCKS = "is about conversations, and means nothing for their locks"

NO_BROKER = (
    *("key_prefix", "record_exp", "scan_count", "read_unprefixed_keys"),
    *("on_outage", "journal_path", "journal_max_bytes", "publish"),
)
"""Options of conversations, which mean nothing for their events."""

OF_EVENTS = "is about conversations, not about their events"


def given_in(endpoint_config: Any) -> Dict[str, Any]:
    """Return all options as they are given, the url among them. Raises ``OptionError`` where that is given twice."""
    given: Dict[str, Any] = dict(endpoint_config.kwargs)
    taken = {name: getattr(endpoint_config, name, None) for name in _OF_ENDPOINTS}
    given.update((name, value) for name, value in taken.items() if value)
    host = given.pop("host", None)  # which the stock lock store of Rasa Pro takes, too
    if host is not None and endpoint_config.url is not None:
        raise OptionError("url and host are both given, and mean the same; keep url")
    given["url"] = host if endpoint_config.url is None else endpoint_config.url
    return given


def parse_without(given: Dict[str, Any], names: Sequence[str], why: str) -> Options:
    """Check options, and refuse those of ``names``, also where a url holds them; ``why`` follows the option's name."""
    options = parse(given)
    for name in names:
        if name in given or getattr(options, name) != default_of(TABLE[name]):
            raise OptionError(f"{name} {why}; remove it here")
    return options
