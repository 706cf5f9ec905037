"""How Redis is laid out: one server, a cluster, or a master that Sentinels watch; and where to ask for it.

Only what options say; what the nodes themselves say is :mod:`extras.cluster`'s and :mod:`extras.sentinel`'s.
"""

import ipaddress
from typing import Any, Callable, Dict, Mapping, Optional, Tuple
from urllib.parse import SplitResult, unquote, urlsplit

from extras.errors import OptionError

Address = Tuple[str, int]
"""Host and TCP port."""

STANDARD, CLUSTER, SENTINEL = "standard", "cluster", "sentinel"
SERVICE = "mymaster"
"""What the master is called where nobody says otherwise, by Redis' own example and by Rasa Pro."""

_PORTS = {CLUSTER: 6379, SENTINEL: 26379}
_OF_SENTINELS = ("sentinel_service", "sentinel_username", "sentinel_password", "sentinel_use_ssl")
_EXAMPLE = "write host:port, as in redis-1.internal:6379"


def host_and_port(text: str) -> Optional[Tuple[str, Optional[int]]]:
    """Take ``host``, ``host:port`` or ``[IPv6]:port`` apart; return ``None`` if it is none of these."""
    try:
        return str(ipaddress.IPv6Address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)), None
    except ValueError:
        pass
    try:
        parts = urlsplit("//" + text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    rebuilt = f"{host}:{port}" if port is not None else host
    if not host or text.lower() not in (rebuilt, f"[{host}]:{port}") or any(map(str.isspace, host)):
        return None
    return host, port


def endpoints(name: str, value: Any) -> Tuple[str, ...]:
    """Convert a list of ``host:port``, of mappings with ``host`` and ``port``, or a text with commas between them.

    The errors show no value: it may hold a password.
    """
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise OptionError(f"{name} must be a list of host:port, not {type(value).__name__}")
    return tuple(_endpoint(name, number, part) for number, part in enumerate(value, 1))


def _endpoint(name: str, number: int, value: Any) -> str:
    if isinstance(value, Mapping) and set(value) <= {"host", "port"} and isinstance(value.get("host"), str):
        port = value.get("port")
        host = f"[{value['host']}]" if ":" in value["host"] else value["host"]
        value = host if port in (None, "") else f"{host}:{port}"
    found = host_and_port(value) if isinstance(value, str) else None
    if found is None or found[1] == 0:
        raise OptionError(f"{name}: number {number} cannot be read; {_EXAMPLE}")
    return str(value)


def addresses(given: Tuple[str, ...], mode: str) -> Tuple[Address, ...]:
    """Return the addresses that checked ``endpoints`` name, each once."""
    found: Dict[Address, None] = {}
    for endpoint in given:
        host, port = host_and_port(endpoint) or ("", None)
        found[(host, port or _PORTS[mode])] = None
    return tuple(found)


def take_sentinel_url(values: Dict[str, Any], url: str, merge: Callable[[Dict[str, Any], str, Any], None]) -> str:
    """Take ``redis+sentinel://[user:password@]host:port[,host:port]/service[/db]`` apart; return its query.

    ``rediss+sentinel``: with TLS. ``merge`` takes a value for an option. Raises ``OptionError``, which shows no part
    of the URL that may be a password.
    """
    scheme = url.partition("://")[0]
    example = f"write {scheme}://host:26379,host:26379/{SERVICE}/0"
    try:
        parts: SplitResult = urlsplit(url)
    except ValueError:
        raise OptionError(f"url ({scheme}://...) has an address that cannot be read; {example}") from None
    login, at, hosts = parts.netloc.rpartition("@")
    if at:
        user, _, password = login.partition(":")
        for name, value in (("username", unquote(user)), ("password", unquote(password))):
            if value:
                merge(values, name, value)
    nodes = [part for part in hosts.split(",") if part]
    if parts.fragment or "@" in parts.query or not nodes or None in map(host_and_port, nodes):
        raise OptionError(f"url ({scheme}://...) has an address that cannot be read; {example}")
    service, _, db = unquote(parts.path).strip("/").partition("/")
    if db and not db.isdigit():
        raise OptionError(f"url ({scheme}://...): what follows the service must be a database number; {example}")
    given: Tuple[Tuple[str, Any], ...] = (
        ("deployment_mode", SENTINEL),
        ("endpoints", nodes),
        ("sentinel_service", service),
        ("db", db),
    )
    for name, value in (*given, ("use_ssl", scheme.startswith("rediss") or "")):
        if value != "":
            merge(values, name, value)
    del values["url"]
    return parts.query


def check(values: Dict[str, Any]) -> None:
    """Settle ``deployment_mode`` and ``cluster``, which mean the same; refuse what contradicts them."""
    mode = values.get("deployment_mode", STANDARD)
    if mode not in (STANDARD, CLUSTER, SENTINEL):
        raise OptionError(f"deployment_mode must be standard, cluster or sentinel, not {mode!r}")
    if values.get("cluster") and values.get("deployment_mode", CLUSTER) != CLUSTER:
        raise OptionError(f"cluster is on, but deployment_mode is {mode!r}; keep one of them")
    mode = CLUSTER if values.get("cluster") else mode
    values.update(deployment_mode=mode, cluster=mode == CLUSTER)
    if mode == STANDARD and values.get("endpoints"):
        raise OptionError(
            "endpoints is set, but deployment_mode is 'standard'; set deployment_mode: cluster or sentinel, or name "
            "the one server in url"
        )
    for name in _OF_SENTINELS:
        if mode != SENTINEL and values.get(name) is not None:
            raise OptionError(f"{name} is set, but deployment_mode is {mode!r}; set deployment_mode: sentinel")
    if mode != STANDARD and values.get("unix_path"):
        raise OptionError(f"deployment_mode is {mode!r}, but the url names a Unix socket; name hosts in endpoints")
    if mode == CLUSTER and values.get("db"):
        raise OptionError(f"db is {values['db']}, but a Redis Cluster has database 0 only; remove db")
    if mode == SENTINEL and not values.get("endpoints"):
        raise OptionError("deployment_mode is 'sentinel', but endpoints is empty; name the Sentinels there")
