"""Every option of the store in one table: its type, unit, default and meaning, and how a given value is checked.

The fields of :class:`Options` are the table; the README's is checked against it. Values may come from YAML or, as
every ``${VAR}`` does, as strings. Nothing here opens a connection.
"""

import math
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from extras import keepalive, layout
from extras.errors import OptionError, did_you_mean

Convert = Callable[[str, Any], Any]
"""Takes an option's name and the value given, returns the value to use or raises ``OptionError``."""

MAX_SECONDS = 1_000_000_000
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})


def _wrong(name: str, value: Any, expected: str) -> OptionError:
    return OptionError(f"{name} must be {expected}, not {value!r}")


def text(name: str, value: Any) -> str:
    """Convert a value to text; YAML reads an unquoted ``123`` as a number, and that is meant as text here."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _wrong(name, value, "text")
    return value


def address(name: str, value: Any) -> str:
    """Convert to text, with an error that does not show the value: it may hold a password."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise OptionError(f"{name} must be text, not {type(value).__name__}")
    return str(value)


def secret(name: str, value: Any) -> str:
    """Take text only (YAML would drop a number's leading zeros), with an error that does not show the value."""
    if not isinstance(value, str):
        raise OptionError(f"{name} must be text, not {type(value).__name__}; quote it in YAML")
    return value


def flag(name: str, value: Any) -> bool:
    """Convert to bool: true/false, yes/no, on/off, 1/0, as YAML or as text."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise _wrong(name, value, "true or false")


def whole(low: int, high: Optional[int] = None) -> Convert:
    """Make a converter to an int from ``low`` to ``high``."""

    def convert(name: str, value: Any) -> int:
        number = keepalive.as_int(value)
        if number is None:
            raise _wrong(name, value, "a whole number")
        if number < low or (high is not None and number > high):
            raise _wrong(name, value, f"from {low} to {high}" if high is not None else f"{low} or more")
        return number

    return convert


def seconds(low: float, *, low_included: bool = True) -> Convert:
    """Make a converter to float seconds, at or above ``low`` (above it, where ``low`` itself makes no sense)."""

    def convert(name: str, value: Any) -> float:
        number = math.nan
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            except OverflowError:
                number = math.inf
        if math.isnan(number):
            raise _wrong(name, value, "a number of seconds")
        if number < low or number > MAX_SECONDS or (number == low and not low_included):
            bound = f"{low:g} or more" if low_included else f"more than {low:g}"
            raise _wrong(name, value, f"{bound} seconds, and at most {MAX_SECONDS}")
        return number

    return convert


def key_prefix(name: str, value: Any) -> str:
    """Convert to a key prefix; what the stock stores would drop with a warning (``my-bot``) is kept as it is."""
    prefix = text(name, value)
    if any(character.isspace() or not character.isprintable() for character in prefix):
        raise _wrong(name, value, "text without white space or control characters")
    return prefix


def tls_version(name: str, value: Any) -> str:
    """Convert to ``TLSv1.2`` or ``TLSv1.3``; ``1.2``, ``TLSv1_2`` and the like mean the same."""
    digits = text(name, value).lower().replace("tls", "").replace("v", "").replace("_", ".").strip()
    if digits not in ("1.2", "1.3"):
        raise _wrong(name, value, "TLSv1.2 or TLSv1.3")
    return f"TLSv{digits}"


def dotted_path(name: str, value: Any) -> str:
    """Convert to the full name of something in a module; it is looked for when a client is made."""
    path = text(name, value)
    if "." not in path or not all(part.isidentifier() for part in path.split(".")):
        raise _wrong(name, value, "a full name such as my_package.credentials.Provider")
    return path


def client_name(name: str, value: Any) -> str:
    """Convert to a connection name; CLIENT SETNAME takes no white space or control characters."""
    given = text(name, value)
    if any(not "!" <= character <= "~" for character in given):
        raise _wrong(name, value, "printable ASCII without spaces")
    return given


def keepalive_options(name: str, value: Any) -> Dict[Any, Any]:
    """Check a mapping of TCP liveness options; see :func:`extras.keepalive.parse`."""
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "a mapping such as {TCP_KEEPIDLE: 30, TCP_KEEPINTVL: 5, TCP_KEEPCNT: 3}")
    keepalive.parse(True, value)
    return dict(value)


def _option(
    default: Any, convert: Convert, kind: str, doc: str, *, unit: str = "", secret: bool = False, none: bool = False
) -> Any:
    """One row of the table; ``none``: an explicit null is a value of its own, not "take the default"."""
    metadata = {"convert": convert, "kind": kind, "doc": doc, "unit": unit, "secret": secret, "none": none}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True)
class Options:
    """The store's options, checked. Made by :func:`parse`; ``url`` holds the bare host once it is taken apart."""

    url: str = _option("localhost", address, "text", "Host, `host:port`, or a `redis://`, `rediss://` or `unix://` URL")
    port: int = _option(6379, whole(1, 65535), "int", "TCP port")
    db: int = _option(0, whole(0), "int", "Database number")
    username: Optional[str] = _option(None, text, "text", "ACL user (Redis 6 and later)")
    password: Optional[str] = _option(None, secret, "text", "Password; never logged", secret=True)
    credential_provider: Optional[str] = _option(
        None,
        dotted_path,
        "text",
        "Instead of user and password: class or function that makes redis-py's `CredentialProvider`, as `module.Name`",
    )
    use_ssl: bool = _option(False, flag, "bool", "Connect with TLS; a `rediss://` URL does too")
    ssl_keyfile: Optional[str] = _option(None, text, "path", "Private key of the client certificate")
    ssl_certfile: Optional[str] = _option(None, text, "path", "Client certificate")
    ssl_ca_certs: Optional[str] = _option(None, text, "path", "CA certificates to trust instead of the system's")
    ssl_ca_path: Optional[str] = _option(
        None, text, "path", "Folder of CA certificates to trust instead, under the names that `openssl rehash` makes"
    )
    ssl_check_hostname: bool = _option(True, flag, "bool", "Refuse a certificate made for another host name")
    ssl_min_version: str = _option(
        "TLSv1.2", tls_version, "text", "Oldest TLS version to accept: `TLSv1.2` or `TLSv1.3`"
    )
    key_prefix: Optional[str] = _option(
        None, key_prefix, "text", "Keys become `<key_prefix>:tracker:<sender_id>`; any printable text, used as it is"
    )
    read_unprefixed_keys: bool = _option(
        False, flag, "bool", "Also find conversations that a Rasa 2.0 store left under their bare sender id"
    )
    record_exp: Optional[float] = _option(
        None, seconds(0), "number", "A conversation expires this long after its last turn; 0 or unset: never", unit="s"
    )
    scan_count: int = _option(1000, whole(1, 10_000_000), "int", "Keys that one `SCAN` step of `keys()` looks at")
    max_connections: Optional[int] = _option(
        None,
        whole(1, 65535),
        "int",
        "Rasa 2: most connections, a call waits `socket_timeout` for a free one; Rasa 3 shares one for each event loop",
    )
    client_name: Optional[str] = _option(None, client_name, "text", "Name shown by `CLIENT LIST`")
    socket_timeout: Optional[float] = _option(
        2.0, seconds(0, low_included=False), "number", "Longest wait for a reply; null: forever", unit="s", none=True
    )
    socket_connect_timeout: Optional[float] = _option(
        2.0,
        seconds(0, low_included=False),
        "number",
        "Longest wait to connect; null: as `socket_timeout`",
        unit="s",
        none=True,
    )
    call_timeout: Optional[float] = _option(
        5.0,
        seconds(0, low_included=False),
        "number",
        "Longest that one call of the store takes in all: name look-up, connecting, attempts, replies; null: no limit",
        unit="s",
        none=True,
    )
    retries: int = _option(
        3,
        whole(0, 1000),
        "int",
        "How often a command is repeated while Redis is down or loading, within `call_timeout`; with a cluster or "
        "Sentinels as often as there is time, unless 0",
    )
    socket_keepalive: bool = _option(True, flag, "bool", "Probe an idle connection, so that a dead peer is noticed")
    socket_keepalive_options: Dict[Any, Any] = _option(
        {}, keepalive_options, "mapping", "TCP liveness by name (any system's) or by this system's integer constant"
    )
    retry_on_timeout: bool = _option(
        False, flag, "bool", "Repeat commands after a timeout, too; always with a cluster or Sentinels"
    )
    health_check_interval: float = _option(
        0.0, seconds(0), "number", "`PING` before use when idle for longer; 0: never", unit="s"
    )
    on_outage: str = _option(
        "raise", text, "text", "While Redis is away: `raise`, or `journal` to keep turns on the disk; see Outages"
    )
    journal_path: Optional[str] = _option(None, text, "path", "The journal's file, with `on_outage: journal`")
    journal_max_bytes: int = _option(
        67108864, whole(1024), "int", "The journal takes no more than this; a save fails then", unit="bytes"
    )
    publish: str = _option(
        "host", text, "text", "How events get to the event broker: as the `host` does it, or by an `outbox`; see Events"
    )
    stream: str = _option("rasa_core_events", text, "text", "Event broker: key of the stream that events are added to")
    maxlen: Optional[int] = _option(
        1_000_000, whole(1), "int", "Event broker: about so many events are kept in the stream; null: all", none=True
    )
    cluster: bool = _option(False, flag, "bool", "Redis Cluster, as `deployment_mode: cluster`")
    deployment_mode: str = _option("standard", text, "text", "`standard`, `cluster` or `sentinel`")
    endpoints: Tuple[str, ...] = _option(
        (),
        layout.endpoints,
        "list",
        "`host:port` of some nodes of the cluster, or of all Sentinels; for a cluster `url` will do",
    )
    sentinel_service: Optional[str] = _option(None, text, "text", "What the Sentinels call the master; unset: mymaster")
    sentinel_username: Optional[str] = _option(None, text, "text", "ACL user of the Sentinels themselves")
    sentinel_password: Optional[str] = _option(
        None, secret, "text", "Password of the Sentinels themselves", secret=True
    )
    sentinel_use_ssl: Optional[bool] = _option(None, flag, "bool", "TLS to the Sentinels; unset: as `use_ssl`")
    min_replicas_ack: int = _option(
        0, whole(0, 100), "int", "A save succeeds only when so many replicas have it (`WAIT`); see Cluster and Sentinel"
    )

    unix_path: Optional[str] = None
    """Path of the Unix socket that a ``unix://`` URL names."""
    iam: Any = None
    """What the host's own IAM settings make to log in with, in place of user and password: a ``CredentialProvider``."""

    @property
    def nodes(self) -> Tuple[layout.Address, ...]:
        """Addresses at which to ask where conversations are: of nodes of a cluster, or of Sentinels."""
        if self.deployment_mode == layout.STANDARD:
            return ()
        return layout.addresses(self.endpoints, self.deployment_mode) or ((self.url, self.port),)

    @property
    def asks_with_ssl(self) -> bool:
        """Whether those who are asked where conversations are speak TLS, too: Sentinels may have it otherwise."""
        return self.use_ssl if self.sentinel_use_ssl is None else self.sentinel_use_ssl

    @property
    def where(self) -> str:
        """What is named to be connected to, for people to read."""
        nodes = ", ".join(f"{host}:{port}" for host, port in self.nodes)
        if self.deployment_mode == layout.SENTINEL:
            return f"the master {self.service!r} of the Sentinels {nodes}"
        return f"the cluster of {nodes}" if nodes else self.unix_path or f"{self.url}:{self.port}"

    @property
    def service(self) -> str:
        """What the Sentinels call the master."""
        return self.sentinel_service or layout.SERVICE

    @property
    def liveness(self) -> keepalive.Parsed:
        """What ``socket_keepalive`` and ``socket_keepalive_options`` ask for."""
        return keepalive.parse(self.socket_keepalive, self.socket_keepalive_options)

    def contradictions(self) -> List[str]:
        """Return a text for each value that cannot have the effect it is given for, with the way out."""
        found: List[str] = []
        if self.call_timeout is not None:
            for name in ("socket_timeout", "socket_connect_timeout"):
                timeout_s = getattr(self, name)
                if timeout_s is not None and timeout_s > self.call_timeout:
                    found.append(
                        f"{name} is {timeout_s:g} s, but call_timeout ends a call after {self.call_timeout:g} s; raise "
                        f"call_timeout above it, or lower {name}"
                    )
        asked = self.liveness.keepalive.with_defaults()
        dead_after_s = None if self.unix_path else asked.dead_after_s
        if dead_after_s is not None and (asked.user_timeout_ms or 0) > dead_after_s * 1000:
            found.append(
                f"socket_keepalive_options: the user timeout, {asked.user_timeout_ms} ms, is above idle + interval x "
                f"count = {asked.idle_s} + {asked.interval_s} x {asked.count} = {dead_after_s} s, and puts off what "
                f"they promise; set TCP_USER_TIMEOUT to {dead_after_s * 1000} or less, or leave it out"
            )
        return found


TABLE: Dict[str, "Field[Any]"] = {f.name: f for f in fields(Options) if f.metadata}
"""Option name to its row: ``kind``, ``unit``, ``doc`` and so on are in the field's ``metadata``."""

_NEED_TLS = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path", "ssl_min_version")
_NEVER_IN_URL = (
    "url",
    "port",
    "username",
    "password",
    "credential_provider",
    "use_ssl",
    "socket_keepalive_options",
    "journal_path",
    "cluster",
    "deployment_mode",
    "endpoints",
    "sentinel_service",
    "sentinel_password",
)


def default_of(row: "Field[Any]") -> Any:
    """Return the default of a row of :data:`TABLE`."""
    if row.default_factory is not MISSING:
        return row.default_factory()
    return row.default


def parse(given: Mapping[str, Any]) -> Options:
    """Check options as given in ``endpoints.yml`` and return them converted, with defaults for the rest.

    Empty text, as an unset ``${VAR}`` leaves it, counts as not given. Raises
    :class:`~extras.errors.OptionError` for the first that is unknown, ill-typed, out of range or contradictory.
    """
    values: Dict[str, Any] = {}
    for name, value in given.items():
        if name not in TABLE:
            raise OptionError(f"unknown option {name!r}{did_you_mean(str(name), TABLE)} (known: {', '.join(TABLE)})")
        _take(values, name, value)
    _take_url(values)
    _check_together(values)
    return Options(**values)


def _take(values: Dict[str, Any], name: str, value: Any) -> None:
    metadata = TABLE[name].metadata
    if value is None and metadata["none"]:
        values[name] = None
    elif value is not None and value != "":
        values[name] = metadata["convert"](name, value)


def _take_url(values: Dict[str, Any]) -> None:
    url = values.get("url")
    if url is None:
        return
    scheme, separator, _ = url.partition("://")
    if not separator:
        values["url"], port = _host_and_port(url)
        if port is not None:
            _merge(values, "port", port)
        return
    if scheme in ("redis+sentinel", "rediss+sentinel"):
        _take_query(values, layout.take_sentinel_url(values, url, _merge))
        return
    if scheme not in ("redis", "rediss", "unix"):
        shown = f" {scheme + '://'!r}" if scheme.isalnum() else ""  # what is no scheme may hold a password
        raise OptionError(
            f"url: unknown scheme{shown}; use redis://, rediss:// (TLS), redis+sentinel://, unix:// or a host name"
        )
    parts = _split(url)
    if parts is None:
        raise OptionError(f"url ({scheme}://...) has a port or address that cannot be read; {_ENCODE}")
    _take_url_parts(values, parts, parts.hostname, parts.port)


def _split(url: str) -> Optional[SplitResult]:
    """Take ``url`` apart, or return ``None``: urllib's errors show user name and password, so they end here."""
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError:
        return None
    return parts


_ENCODE = "percent-encode special characters of the user name and password, or give them as options of their own"


def _take_url_parts(values: Dict[str, Any], parts: SplitResult, host: Optional[str], port: Optional[int]) -> None:
    if parts.fragment:
        raise OptionError(f"url ({parts.scheme}://...) has a '#' part; {_ENCODE}")
    if "@" in parts.query:  # most likely the rest of a password, so it is not shown
        raise OptionError(f"url ({parts.scheme}://...) has an '@' after a '?'; {_ENCODE}")
    if parts.username:
        _merge(values, "username", unquote(parts.username))
    if parts.password:
        _merge(values, "password", unquote(parts.password))
    if parts.scheme == "unix":
        path = (host or "") + unquote(parts.path)
        if not path.startswith("/"):
            raise OptionError("url: write the socket's absolute path, as in unix:///run/redis/redis.sock")
        if "port" in values:
            raise OptionError(f"port is {values['port']}, but the url names a Unix socket, which has none; remove it")
        values["url"], values["unix_path"] = path, path
    else:
        if not host:
            raise OptionError(f"url ({parts.scheme}://...) names no host; write {parts.scheme}://host:6379/0")
        if any(map(str.isspace, host)):
            raise OptionError(f"url ({parts.scheme}://...) has white space in its host name; {_ENCODE}")
        values["url"] = host
        if port is not None:
            _merge(values, "port", port)
        if parts.scheme == "rediss":
            _merge(values, "use_ssl", True)
        path = unquote(parts.path).strip("/")
        if path:
            if not path.isdigit():
                raise OptionError(f"url ({parts.scheme}://{host}/...): what follows the host must be a database number")
            _merge(values, "db", path)
    _take_query(values, parts.query)


def _take_query(values: Dict[str, Any], query: str) -> None:
    allowed = [name for name in TABLE if name not in _NEVER_IN_URL]
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            hint = "; give it as an option of its own" if name in TABLE else did_you_mean(name, allowed)
            raise OptionError(f"url: option {name!r} cannot be used in a URL{hint}")
        if value != "":
            _merge(values, name, value)


def _merge(values: Dict[str, Any], name: str, value: Any) -> None:
    """Take a value out of the url, unless the option of the same name says otherwise."""
    converted = TABLE[name].metadata["convert"](name, value)
    if values.setdefault(name, converted) != converted:
        shown = "" if TABLE[name].metadata["secret"] else f": {values[name]!r} and, in the url, {converted!r}"
        raise OptionError(f"{name} is given twice with different values{shown}; keep one of them")


def _host_and_port(url: str) -> Tuple[str, Optional[int]]:
    found = layout.host_and_port(url)
    if found is None:
        raise OptionError(
            "url is neither a host name nor a URL; write redis.internal, redis.internal:6380 or "
            "redis://user:password@redis.internal:6380/0"
        )
    return found


def _check_together(values: Dict[str, Any]) -> None:
    layout.check(values)
    _check_journal(values)
    for name in ("username", "password"):
        if values.get("credential_provider") and values.get(name):
            raise OptionError(f"credential_provider and {name} are both given; keep one of them")
    if values.get("publish", "host") not in ("host", "outbox"):
        raise OptionError(f"publish must be host or outbox, not {values['publish']!r}")
    if values.get("use_ssl") and values.get("unix_path"):
        raise OptionError("use_ssl is on, but the url names a Unix socket, which has no TLS; remove one of them")
    if not values.get("use_ssl") and not values.get("sentinel_use_ssl"):
        given: List[str] = [name for name in _NEED_TLS if values.get(name)]
        if given:
            raise OptionError(f"{given[0]} is set, but use_ssl is off; set use_ssl: true, or use a rediss:// url")
    elif values.get("ssl_keyfile") and not values.get("ssl_certfile"):
        raise OptionError(
            "ssl_keyfile is set without ssl_certfile; a client certificate needs both, or one file with both"
        )


def _check_journal(values: Mapping[str, Any]) -> None:
    policy = values.get("on_outage", "raise")
    if policy not in ("raise", "journal"):
        raise OptionError(f"on_outage must be raise or journal, not {policy!r}")
    if policy == "journal" and not values.get("journal_path"):
        raise OptionError("on_outage is 'journal', but there is no journal_path; name a file on a disk of this machine")
    for name in ("journal_path", "journal_max_bytes"):
        if policy == "raise" and name in values:
            raise OptionError(f"{name} is set, but on_outage is 'raise'; set on_outage: journal, or remove {name}")
