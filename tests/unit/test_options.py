"""Options are converted, checked together and refused with the way out, and a password is never shown."""

import math
import traceback
from typing import Any, Dict, List, Set, Tuple

import pytest

from extras.errors import OptionError
from extras.keepalive import Keepalive
from extras.options import TABLE, Options, default_of, parse

SECRET = "hunter2"
KNOWN = ", ".join(TABLE)

DEFAULTS: Dict[str, Any] = {
    "url": "localhost",
    "port": 6379,
    "db": 0,
    "username": None,
    "password": None,
    "credential_provider": None,
    "use_ssl": False,
    "ssl_keyfile": None,
    "ssl_certfile": None,
    "ssl_ca_certs": None,
    "ssl_ca_path": None,
    "ssl_check_hostname": True,
    "ssl_min_version": "TLSv1.2",
    "key_prefix": None,
    "read_unprefixed_keys": False,
    "record_exp": None,
    "scan_count": 1000,
    "max_connections": None,
    "client_name": None,
    "socket_timeout": 2.0,
    "socket_connect_timeout": 2.0,
    "socket_keepalive": True,
    "socket_keepalive_options": {},
    "call_timeout": 5.0,
    "retries": 3,
    "retry_on_timeout": False,
    "health_check_interval": 0.0,
    "on_outage": "raise",
    "journal_path": None,
    "journal_max_bytes": 67108864,
    "publish": "host",
    "stream": "rasa_core_events",
    "maxlen": 1_000_000,
    "cluster": False,
    "deployment_mode": "standard",
    "endpoints": (),
    "sentinel_service": None,
    "sentinel_username": None,
    "sentinel_password": None,
    "sentinel_use_ssl": None,
    "min_replicas_ack": 0,
}


def options(**changed: Any) -> Options:
    """Return the defaults with some fields changed."""
    return Options(**changed)


def refused(given: Dict[Any, Any]) -> str:
    """Return the message with which ``given`` is refused, after a look for the secret in all that an error shows."""
    with pytest.raises(OptionError) as caught:
        parse(given)
    error = caught.value
    for shown in everything_shown(error):
        assert SECRET not in shown
    return str(error)


def everything_shown(error: BaseException) -> List[str]:
    """Return all texts that a log could hold: the traceback, and each error of the chain, suppressed or not."""
    shown = traceback.format_exception(type(error), error, error.__traceback__)
    seen: Set[int] = set()
    left: List[BaseException] = [error]
    while left:
        each = left.pop()
        if id(each) not in seen:
            seen.add(id(each))
            shown += [str(each), repr(each), repr(each.args)]
            left += [linked for linked in (each.__cause__, each.__context__) if linked is not None]
    return shown


class TestDefaults:
    """What holds when nothing is said."""

    def test_values(self) -> None:
        assert {name: getattr(parse({}), name) for name in TABLE} == DEFAULTS
        assert parse({}).unix_path is None

    def test_table_says_the_same(self) -> None:
        assert {name: default_of(row) for name, row in TABLE.items()} == DEFAULTS

    def test_every_row_is_described(self) -> None:
        for name, row in TABLE.items():
            assert row.metadata["kind"], name
            assert row.metadata["doc"], name

    def test_are_not_shared(self) -> None:
        assert parse({}).socket_keepalive_options is not parse({}).socket_keepalive_options

    @pytest.mark.parametrize("name", TABLE)
    def test_empty_text_is_not_given(self, name: str) -> None:
        assert parse({name: ""}) == Options()

    @pytest.mark.parametrize("name", TABLE)
    def test_null(self, name: str) -> None:
        if name in ("socket_timeout", "socket_connect_timeout", "call_timeout", "maxlen"):
            assert parse({name: None}) == options(**{name: None})
        else:
            assert parse({name: None}) == Options()

    def test_liveness(self) -> None:
        assert parse({}).liveness == (Keepalive(), {}, ())
        assert parse({"socket_keepalive": "no"}).liveness == (Keepalive(enabled=False), {}, ())
        assert parse({"socket_keepalive_options": {"TCP_KEEPIDLE": "5", "TCP_KEEPINIT": 1}}).liveness == (
            Keepalive(idle_s=5),
            {"idle_s": "TCP_KEEPIDLE"},
            ("TCP_KEEPINIT",),
        )


STRINGS: List[Tuple[str, str, Any]] = [
    ("url", "redis.internal", "redis.internal"),
    ("port", "6380", 6380),
    ("port", " 6380 ", 6380),
    ("port", "1", 1),
    ("port", "65535", 65535),
    ("db", "3", 3),
    ("db", "0", 0),
    ("username", "bot", "bot"),
    ("username", "007", "007"),
    ("password", SECRET, SECRET),
    ("password", " 0123 ", " 0123 "),
    ("credential_provider", "my_package.tokens.Provider", "my_package.tokens.Provider"),
    ("ssl_check_hostname", "false", False),
    ("key_prefix", "my-bot:1", "my-bot:1"),
    ("read_unprefixed_keys", "true", True),
    ("record_exp", "3600", 3600.0),
    ("record_exp", "0.5", 0.5),
    ("record_exp", "0", 0.0),
    ("record_exp", "1e3", 1000.0),
    ("scan_count", "500", 500),
    ("max_connections", "10", 10),
    ("client_name", "rasa-1", "rasa-1"),
    ("socket_timeout", "1.5", 1.5),
    ("socket_connect_timeout", " 3 ", 3.0),
    ("call_timeout", "0.5", 0.5),
    ("retries", "0", 0),
    ("socket_keepalive", "false", False),
    ("retry_on_timeout", "true", True),
    ("health_check_interval", "30", 30.0),
    ("use_ssl", "true", True),
    ("on_outage", "raise", "raise"),
    ("publish", "outbox", "outbox"),
    ("stream", "events", "events"),
    ("maxlen", "1000", 1000),
    ("cluster", "false", False),
    ("deployment_mode", "standard", "standard"),
    ("endpoints", ",", ()),
    ("min_replicas_ack", "2", 2),
]
NOT_FROM_ONE_STRING = {
    "ssl_keyfile",  # needs two others: test_tls_files
    "ssl_certfile",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_min_version",  # needs use_ssl: test_tls_versions
    "socket_keepalive_options",  # a mapping of strings: test_liveness
    "journal_path",  # needs another: test_journal
    "journal_max_bytes",
    "sentinel_service",  # these need two others: TestLayout
    "sentinel_username",
    "sentinel_password",
    "sentinel_use_ssl",
}


def test_publish_is_one_of_two() -> None:
    assert refused({"publish": "later"}) == "publish must be host or outbox, not 'later'"


class TestConversion:
    """Every ``${VAR}`` arrives as text; YAML gives numbers and booleans."""

    @pytest.mark.parametrize(("name", "text", "expected"), STRINGS)
    def test_text(self, name: str, text: str, expected: Any) -> None:
        taken = getattr(parse({name: text}), name)
        assert taken == expected
        assert type(taken) is type(expected)

    def test_every_option_is_tried_above(self) -> None:
        assert {name for name, _, _ in STRINGS} | NOT_FROM_ONE_STRING == set(TABLE)

    @pytest.mark.parametrize("name", ["username", "password"])
    def test_who_logs_in_is_said_once(self, name: str) -> None:
        said = refused({"credential_provider": "a.b", name: SECRET})
        assert said == f"credential_provider and {name} are both given; keep one of them"

    @pytest.mark.parametrize("text", ["TLSv1.3", "tls 1.3", "1.3", 1.3, "TLSv1_3"])
    def test_tls_versions(self, text: Any) -> None:
        assert parse({"use_ssl": True, "ssl_min_version": text}).ssl_min_version == "TLSv1.3"

    @pytest.mark.parametrize("text", ["true", "True", "TRUE", "t", "yes", "Y", "on", "1", " true "])
    def test_true(self, text: str) -> None:
        assert parse({"retry_on_timeout": text}).retry_on_timeout is True

    @pytest.mark.parametrize("text", ["false", "False", "FALSE", "f", "no", "N", "off", "0", " false "])
    def test_false(self, text: str) -> None:
        assert parse({"ssl_check_hostname": text}).ssl_check_hostname is False

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("retry_on_timeout", 1, True),
            ("ssl_check_hostname", 0, False),
            ("port", 6380.0, 6380),
            ("record_exp", 3600, 3600.0),
            ("socket_timeout", 1_000_000_000, 1e9),
            ("scan_count", 10_000_000, 10_000_000),
            ("username", 123, "123"),
            ("key_prefix", 123, "123"),
            ("client_name", 1.5, "1.5"),
            ("socket_keepalive_options", {"TCP_KEEPIDLE": 5}, {"TCP_KEEPIDLE": 5}),
            ("endpoints", [], ()),
        ],
    )
    def test_yaml(self, name: str, value: Any, expected: Any) -> None:
        taken = getattr(parse({name: value}), name)
        assert taken == expected
        assert type(taken) is type(expected)

    def test_tls_files(self) -> None:
        files = {"ssl_keyfile": "key.pem", "ssl_certfile": "cert.pem", "ssl_ca_certs": "ca.pem"}
        assert parse({"use_ssl": "yes", **files}) == options(use_ssl=True, **files)
        assert parse({"url": "rediss://h", **files}) == options(url="h", use_ssl=True, **files)
        assert parse({"use_ssl": True, "ssl_certfile": "both.pem"}).ssl_certfile == "both.pem"

    def test_journal(self) -> None:
        journal = {"on_outage": "journal", "journal_path": "/var/lib/rasa/journal"}
        assert parse(journal) == options(**journal)
        assert parse({**journal, "journal_max_bytes": "4096"}) == options(**journal, journal_max_bytes=4096)
        assert parse({"url": "redis://h?on_outage=journal", "journal_path": "j"}).on_outage == "journal"

    def test_mapping_is_copied(self) -> None:
        mine = {"TCP_KEEPIDLE": 5}
        taken = parse({"socket_keepalive_options": mine}).socket_keepalive_options
        mine["TCP_KEEPIDLE"] = 6
        assert taken == {"TCP_KEEPIDLE": 5}


URLS: List[Tuple[str, Dict[str, Any]]] = [
    ("redis.internal", {"url": "redis.internal"}),
    ("redis.internal:6380", {"url": "redis.internal", "port": 6380}),
    ("Redis.Internal", {"url": "redis.internal"}),
    ("my_redis-1", {"url": "my_redis-1"}),
    ("10.0.0.1", {"url": "10.0.0.1"}),
    ("10.0.0.1:1", {"url": "10.0.0.1", "port": 1}),
    ("::1", {"url": "::1"}),
    ("[::1]", {"url": "::1"}),
    ("[::1]:6380", {"url": "::1", "port": 6380}),
    ("2001:DB8::1", {"url": "2001:db8::1"}),
    ("redis://redis.internal", {"url": "redis.internal"}),
    ("redis://redis.internal/", {"url": "redis.internal"}),
    ("redis://redis.internal:6380", {"url": "redis.internal", "port": 6380}),
    ("redis://redis.internal:6380/2", {"url": "redis.internal", "port": 6380, "db": 2}),
    ("redis://redis.internal/0", {"url": "redis.internal"}),
    ("redis://[::1]/3", {"url": "::1", "db": 3}),
    ("redis://[2001:db8::1]:6380", {"url": "2001:db8::1", "port": 6380}),
    ("redis://bot@h", {"url": "h", "username": "bot"}),
    ("redis://bot:hunter2@h", {"url": "h", "username": "bot", "password": "hunter2"}),
    ("redis://:hunter2@h", {"url": "h", "password": "hunter2"}),
    ("redis://b%40t:p%2Fa%3Fs%23s%25%3A@h", {"url": "h", "username": "b@t", "password": "p/a?s#s%:"}),
    ("redis://bot:p@ss@h", {"url": "h", "username": "bot", "password": "p@ss"}),
    ("redis://:p+s%20s@h", {"url": "h", "password": "p+s s"}),
    ("redis://:%C3%BC@h", {"url": "h", "password": "\u00fc"}),
    ("redis://@h", {"url": "h"}),
    ("redis://:@h", {"url": "h"}),
    ("rediss://h", {"url": "h", "use_ssl": True}),
    ("rediss://bot:hunter2@h:6380/1", {"url": "h", "use_ssl": True, "port": 6380, "db": 1, "username": "bot"}),
    ("unix:///run/redis.sock", {"url": "/run/redis.sock", "unix_path": "/run/redis.sock"}),
    ("unix:///run/my%20redis.sock", {"url": "/run/my redis.sock", "unix_path": "/run/my redis.sock"}),
    ("unix://:hunter2@/run/r.sock?db=3", {"url": "/run/r.sock", "unix_path": "/run/r.sock", "db": 3}),
    ("redis://h?db=3", {"url": "h", "db": 3}),
    ("redis://h/3?db=3", {"url": "h", "db": 3}),
    (
        "redis://h?socket_timeout=1.5&retry_on_timeout=yes",
        {"url": "h", "socket_timeout": 1.5, "retry_on_timeout": True},
    ),
    ("redis://h?client_name=", {"url": "h"}),
    ("redis://h?key_prefix=my%2Dbot&scan_count=5", {"url": "h", "key_prefix": "my-bot", "scan_count": 5}),
    ("rediss://h?ssl_check_hostname=false", {"url": "h", "use_ssl": True, "ssl_check_hostname": False}),
]


class TestUrl:
    """All forms that ``url`` may have."""

    @pytest.mark.parametrize(("url", "expected"), URLS)
    def test_form(self, url: str, expected: Dict[str, Any]) -> None:
        if SECRET in url:
            expected = {**expected, "password": SECRET}
        assert parse({"url": url}) == options(**expected)

    def test_separate_options_that_agree(self) -> None:
        url = "rediss://bot:hunter2@h:6380/2?socket_timeout=1"
        given = {"port": "6380", "db": 2, "username": "bot", "password": SECRET, "use_ssl": "on", "socket_timeout": 1}
        assert parse({"url": url, **given}) == parse({"url": url})

    def test_separate_options_add_to_it(self) -> None:
        assert parse({"url": "redis://h", "port": 6380, "db": 1, "password": SECRET}) == options(
            url="h", port=6380, db=1, password=SECRET
        )

    @pytest.mark.parametrize("url", ["redis://my host", "redis://my host:6379/0", "rediss://h\u00a0"])
    def test_white_space_in_the_host(self, url: str) -> None:
        """As for a bare host name; the error would else be an obscure one when the store connects."""
        assert "url" in refused({"url": url})


ENCODE = "percent-encode special characters of the user name and password, or give them as options of their own"
UNREADABLE = f"url (redis://...) has a port or address that cannot be read; {ENCODE}"
NO_HOST = "url (redis://...) names no host; write redis://host:6379/0"
DATABASE = "url (redis://h/...): what follows the host must be a database number"
NEITHER = (
    "url is neither a host name nor a URL; write redis.internal, redis.internal:6380 or "
    "redis://user:password@redis.internal:6380/0"
)
SCHEMES = "use redis://, rediss:// (TLS), redis+sentinel://, unix:// or a host name"
UNIX = "url: write the socket's absolute path, as in unix:///run/redis/redis.sock"
TLS_OFF = "use_ssl is off; set use_ssl: true, or use a rediss:// url"
KEY_ALONE = "ssl_keyfile is set without ssl_certfile; a client certificate needs both, or one file with both"
NO_JOURNAL = "on_outage is 'journal', but there is no journal_path; name a file on a disk of this machine"
RAISES = "{0} is set, but on_outage is 'raise'; set on_outage: journal, or remove {0}"
MAPPING = "a mapping such as {TCP_KEEPIDLE: 30, TCP_KEEPINTVL: 5, TCP_KEEPCNT: 3}"


def unknown(name: Any, hint: str = "") -> str:
    return f"unknown option {name!r}{hint and f'; did you mean {hint!r}?'} (known: {KNOWN})"


def twice(name: str, given: Any, in_url: Any) -> str:
    return f"{name} is given twice with different values: {given!r} and, in the url, {in_url!r}; keep one of them"


ENDPOINT = "endpoints: number {} cannot be read; write host:port, as in redis-1.internal:6379"
SENTINEL_URL = (
    "url (redis+sentinel://...) has an address that cannot be read; write "
    "redis+sentinel://host:26379,host:26379/mymaster/0"
)
BAD: List[Tuple[Dict[Any, Any], str]] = [
    # Typos.
    ({"sockettimeout": 1}, unknown("sockettimeout", "socket_timeout")),
    ({"socket_time_out": 1}, unknown("socket_time_out", "socket_timeout")),
    ({"keyprefix": "x"}, unknown("keyprefix", "key_prefix")),
    ({"Url": "h"}, unknown("Url", "url")),
    ({"record_expiry": 5}, unknown("record_expiry", "record_exp")),
    ({"max_connection": 3}, unknown("max_connection", "max_connections")),
    ({"pasword": SECRET}, unknown("pasword", "password")),
    ({"socket_keepalive_option": {}}, unknown("socket_keepalive_option", "socket_keepalive_options")),
    # Names of other clients and stores.
    ({"host": "h"}, unknown("host")),
    ({"ssl": True}, unknown("ssl", "use_ssl")),
    ({"use_tls": True}, unknown("use_tls", "use_ssl")),
    ({"decode_responses": True}, unknown("decode_responses")),
    ({"redis_password": SECRET}, unknown("redis_password", "password")),
    ({"timeout": 3}, unknown("timeout", "call_timeout")),
    ({"retry": 3}, unknown("retry", "retries")),
    ({"unix_path": "/x"}, unknown("unix_path", "journal_path")),
    ({"unix_socket_path": "/x"}, unknown("unix_socket_path")),
    ({5: 1}, unknown(5)),
    ({None: 1}, unknown(None)),
    # Whole numbers.
    ({"port": 0}, "port must be from 1 to 65535, not 0"),
    ({"port": 65536}, "port must be from 1 to 65535, not 65536"),
    ({"port": "-1"}, "port must be from 1 to 65535, not '-1'"),
    ({"port": "six"}, "port must be a whole number, not 'six'"),
    ({"port": "6379.0"}, "port must be a whole number, not '6379.0'"),
    ({"port": True}, "port must be a whole number, not True"),
    ({"port": 6379.5}, "port must be a whole number, not 6379.5"),
    ({"port": [6379]}, "port must be a whole number, not [6379]"),
    ({"port": math.nan}, "port must be a whole number, not nan"),
    ({"db": -1}, "db must be 0 or more, not -1"),
    ({"db": "zero"}, "db must be a whole number, not 'zero'"),
    ({"scan_count": 0}, "scan_count must be from 1 to 10000000, not 0"),
    ({"scan_count": 10_000_001}, "scan_count must be from 1 to 10000000, not 10000001"),
    ({"max_connections": 0}, "max_connections must be from 1 to 65535, not 0"),
    ({"max_connections": "many"}, "max_connections must be a whole number, not 'many'"),
    # True or false.
    ({"use_ssl": "maybe"}, "use_ssl must be true or false, not 'maybe'"),
    ({"use_ssl": 2}, "use_ssl must be true or false, not 2"),
    ({"use_ssl": 1.0}, "use_ssl must be true or false, not 1.0"),
    ({"use_ssl": []}, "use_ssl must be true or false, not []"),
    ({"socket_keepalive": "si"}, "socket_keepalive must be true or false, not 'si'"),
    ({"retry_on_timeout": " "}, "retry_on_timeout must be true or false, not ' '"),
    ({"ssl_check_hostname": -1}, "ssl_check_hostname must be true or false, not -1"),
    # Seconds.
    ({"socket_timeout": 0}, "socket_timeout must be more than 0 seconds, and at most 1000000000, not 0"),
    ({"socket_timeout": -1}, "socket_timeout must be more than 0 seconds, and at most 1000000000, not -1"),
    ({"call_timeout": 0}, "call_timeout must be more than 0 seconds, and at most 1000000000, not 0"),
    ({"retries": -1}, "retries must be from 0 to 1000, not -1"),
    ({"socket_timeout": "soon"}, "socket_timeout must be a number of seconds, not 'soon'"),
    ({"socket_timeout": True}, "socket_timeout must be a number of seconds, not True"),
    ({"socket_timeout": "nan"}, "socket_timeout must be a number of seconds, not 'nan'"),
    ({"socket_timeout": math.inf}, "socket_timeout must be more than 0 seconds, and at most 1000000000, not inf"),
    (
        {"socket_connect_timeout": "0"},
        "socket_connect_timeout must be more than 0 seconds, and at most 1000000000, not '0'",
    ),
    ({"socket_connect_timeout": [1]}, "socket_connect_timeout must be a number of seconds, not [1]"),
    ({"record_exp": -1}, "record_exp must be 0 or more seconds, and at most 1000000000, not -1"),
    ({"record_exp": "1h"}, "record_exp must be a number of seconds, not '1h'"),
    (
        {"health_check_interval": -0.5},
        "health_check_interval must be 0 or more seconds, and at most 1000000000, not -0.5",
    ),
    # Text.
    ({"password": 12345}, "password must be text, not int; quote it in YAML"),
    ({"password": [SECRET]}, "password must be text, not list; quote it in YAML"),
    ({"password": {SECRET: SECRET}}, "password must be text, not dict; quote it in YAML"),
    ({"password": SECRET.encode()}, "password must be text, not bytes; quote it in YAML"),
    ({"username": ["a"]}, "username must be text, not ['a']"),
    ({"key_prefix": "my bot"}, "key_prefix must be text without white space or control characters, not 'my bot'"),
    ({"key_prefix": "a\nb"}, "key_prefix must be text without white space or control characters, not 'a\\nb'"),
    ({"key_prefix": True}, "key_prefix must be text, not True"),
    ({"client_name": "my bot"}, "client_name must be printable ASCII without spaces, not 'my bot'"),
    ({"client_name": "b\u00f6t"}, "client_name must be printable ASCII without spaces, not 'b\u00f6t'"),
    ({"client_name": {}}, "client_name must be text, not {}"),
    # TCP liveness; the rest is in test_keepalive.py.
    ({"socket_keepalive_options": "5"}, f"socket_keepalive_options must be {MAPPING}, not '5'"),
    ({"socket_keepalive_options": [5]}, f"socket_keepalive_options must be {MAPPING}, not [5]"),
    (
        {"socket_keepalive_options": {"TCP_KEEPIDLE": None}},
        "socket_keepalive_options: TCP_KEEPIDLE must be a whole number, not None",
    ),
    (
        {"socket_keepalive": False, "socket_keepalive_options": {"TCP_KEEPCNT": "many"}},
        "socket_keepalive_options: TCP_KEEPCNT must be a whole number, not 'many'",
    ),
    # TLS.
    ({"ssl_keyfile": "k.pem"}, f"ssl_keyfile is set, but {TLS_OFF}"),
    ({"ssl_certfile": "c.pem"}, f"ssl_certfile is set, but {TLS_OFF}"),
    ({"ssl_ca_certs": "ca.pem"}, f"ssl_ca_certs is set, but {TLS_OFF}"),
    ({"use_ssl": "false", "ssl_ca_certs": "ca.pem"}, f"ssl_ca_certs is set, but {TLS_OFF}"),
    ({"url": "redis://h?ssl_ca_certs=ca.pem"}, f"ssl_ca_certs is set, but {TLS_OFF}"),
    ({"use_ssl": True, "ssl_keyfile": "k.pem"}, KEY_ALONE),
    ({"url": "rediss://h", "ssl_keyfile": "k.pem"}, KEY_ALONE),
    ({"ssl_ca_certs": True}, "ssl_ca_certs must be text, not True"),
    ({"ssl_ca_path": "ca"}, f"ssl_ca_path is set, but {TLS_OFF}"),
    ({"use_ssl": 1, "ssl_min_version": "TLSv1.1"}, "ssl_min_version must be TLSv1.2 or TLSv1.3, not 'TLSv1.1'"),
    ({"use_ssl": 1, "ssl_min_version": True}, "ssl_min_version must be text, not True"),
    (
        {"credential_provider": "Provider"},
        "credential_provider must be a full name such as my_package.credentials.Provider, not 'Provider'",
    ),
    # The journal.
    ({"on_outage": "wait"}, "on_outage must be raise or journal, not 'wait'"),
    ({"on_outage": "journal"}, NO_JOURNAL),
    ({"on_outage": "journal", "journal_path": ""}, NO_JOURNAL),
    ({"journal_path": "j"}, RAISES.format("journal_path")),
    ({"journal_max_bytes": 4096}, RAISES.format("journal_max_bytes")),
    ({"on_outage": "journal", "journal_max_bytes": 100}, "journal_max_bytes must be 1024 or more, not 100"),
    (
        {"url": "redis://h?journal_path=j"},
        "url: option 'journal_path' cannot be used in a URL; give it as an option of its own",
    ),
    # Cluster and Sentinel.
    ({"cluster": "perhaps"}, "cluster must be true or false, not 'perhaps'"),
    ({"deployment_mode": "single"}, "deployment_mode must be standard, cluster or sentinel, not 'single'"),
    (
        {"cluster": True, "deployment_mode": "sentinel"},
        "cluster is on, but deployment_mode is 'sentinel'; keep one of them",
    ),
    ({"cluster": True, "db": 1}, "db is 1, but a Redis Cluster has database 0 only; remove db"),
    ({"cluster": True, "url": "redis://h/2"}, "db is 2, but a Redis Cluster has database 0 only; remove db"),
    (
        {"cluster": True, "url": "unix:///r.sock"},
        "deployment_mode is 'cluster', but the url names a Unix socket; name hosts in endpoints",
    ),
    (
        {"endpoints": ["a:1"]},
        "endpoints is set, but deployment_mode is 'standard'; set deployment_mode: cluster or sentinel, or name the "
        "one server in url",
    ),
    (
        {"deployment_mode": "sentinel"},
        "deployment_mode is 'sentinel', but endpoints is empty; name the Sentinels there",
    ),
    (
        {"sentinel_service": "mymaster"},
        "sentinel_service is set, but deployment_mode is 'standard'; set deployment_mode: sentinel",
    ),
    (
        {"cluster": True, "sentinel_use_ssl": "false"},
        "sentinel_use_ssl is set, but deployment_mode is 'cluster'; set deployment_mode: sentinel",
    ),
    ({"cluster": True, "endpoints": ["a:1", "b:x"]}, ENDPOINT.format(2)),
    ({"cluster": True, "endpoints": ["redis://a:1"]}, ENDPOINT.format(1)),
    ({"cluster": True, "endpoints": [{"host": "a", "password": SECRET}]}, ENDPOINT.format(1)),
    ({"cluster": True, "endpoints": [True]}, ENDPOINT.format(1)),
    ({"cluster": True, "endpoints": {"a": 1}}, "endpoints must be a list of host:port, not dict"),
    ({"cluster": True, "endpoints": 5}, "endpoints must be a list of host:port, not int"),
    ({"min_replicas_ack": -1}, "min_replicas_ack must be from 0 to 100, not -1"),
    ({"url": f"redis+sentinel://:{SECRET}@h:x/m"}, SENTINEL_URL),
    ({"url": f"redis+sentinel://:{SECRET}@"}, SENTINEL_URL),
    ({"url": f"redis+sentinel://:{SECRET}#@h/m"}, SENTINEL_URL),
    (
        {"url": f"redis+sentinel://:{SECRET}@h/m/zero"},
        "url (redis+sentinel://...): what follows the service must be a database number; write "
        "redis+sentinel://host:26379,host:26379/mymaster/0",
    ),
    # URLs.
    ({"url": "http://h"}, f"url: unknown scheme 'http://'; {SCHEMES}"),
    ({"url": "valkey://h"}, f"url: unknown scheme 'valkey://'; {SCHEMES}"),
    ({"url": "redis://"}, NO_HOST),
    ({"url": "redis:///0"}, NO_HOST),
    ({"url": "redis://:6379"}, NO_HOST),
    ({"url": f"redis://:{SECRET}@"}, NO_HOST),
    ({"url": f"redis://:{SECRET}@:6379/0"}, NO_HOST),
    ({"url": "redis://h:port"}, UNREADABLE),
    ({"url": "redis://h:99999"}, UNREADABLE),
    ({"url": "redis://[::1"}, UNREADABLE),
    ({"url": "redis://h:0"}, "port must be from 1 to 65535, not 0"),
    ({"url": "redis://h/zero"}, DATABASE),
    ({"url": f"redis://:{SECRET}@h/zero"}, DATABASE),
    ({"url": "redis://h/0/1"}, DATABASE),
    ({"url": "redis://h/-1"}, DATABASE),
    ({"url": f"redis://:{SECRET}@h#x"}, f"url (redis://...) has a '#' part; {ENCODE}"),
    ({"url": "redis://h?port=1"}, "url: option 'port' cannot be used in a URL; give it as an option of its own"),
    (
        {"url": f"redis://h?password={SECRET}"},
        "url: option 'password' cannot be used in a URL; give it as an option of its own",
    ),
    (
        {"url": "redis://h?cluster=true"},
        "url: option 'cluster' cannot be used in a URL; give it as an option of its own",
    ),
    (
        {"url": "redis://h?sockettimeout=1"},
        "url: option 'sockettimeout' cannot be used in a URL; did you mean 'socket_timeout'?",
    ),
    ({"url": "redis://h?xyzzy="}, "url: option 'xyzzy' cannot be used in a URL"),
    ({"url": "redis://h?socket_timeout=soon"}, "socket_timeout must be a number of seconds, not 'soon'"),
    ({"url": "redis://h?db=x"}, "db must be a whole number, not 'x'"),
    ({"url": "redis://h/1?db=2"}, twice("db", 1, 2)),
    ({"url": "unix://run/redis.sock"}, UNIX),
    ({"url": f"unix://:{SECRET}@run/redis.sock"}, UNIX),
    ({"url": "unix://"}, UNIX),
    ({"url": "my host"}, NEITHER),
    ({"url": " "}, NEITHER),
    ({"url": "h:port"}, NEITHER),
    ({"url": "h:99999"}, NEITHER),
    ({"url": "h:"}, NEITHER),
    ({"url": "h/0"}, NEITHER),
    ({"url": "h?db=1"}, NEITHER),
    ({"url": "//h"}, NEITHER),
    ({"url": "1:2:3"}, NEITHER),
    ({"url": "redis:h"}, NEITHER),
    ({"url": "unix:/run/redis.sock"}, NEITHER),
    ({"url": f"bot:{SECRET}@h"}, NEITHER),
    ({"url": f"rediss//:{SECRET}@h"}, NEITHER),
    # A URL against options of their own.
    ({"url": "redis://h/1", "db": 2}, twice("db", 2, 1)),
    ({"url": "redis://h:6380", "port": 6379}, twice("port", 6379, 6380)),
    ({"url": "h:6380", "port": 6379}, twice("port", 6379, 6380)),
    ({"url": "redis://u@h", "username": "v"}, twice("username", "v", "u")),
    ({"url": "rediss://h", "use_ssl": False}, twice("use_ssl", False, True)),
    ({"url": "redis://h?socket_timeout=1", "socket_timeout": 2}, twice("socket_timeout", 2.0, 1.0)),
    (
        {"url": f"redis://:{SECRET}@h", "password": f"{SECRET}x"},
        "password is given twice with different values; keep one of them",
    ),
    (
        {"url": "unix:///r.sock", "port": 6379},
        "port is 6379, but the url names a Unix socket, which has none; remove it",
    ),
    (
        {"url": "unix:///r.sock", "use_ssl": "on"},
        "use_ssl is on, but the url names a Unix socket, which has no TLS; remove one of them",
    ),
]


class TestBad:
    """One message for each way to be wrong: the option, its value or the way out, and no secret."""

    @pytest.mark.parametrize(("given", "message"), BAD)
    def test_alone(self, given: Dict[Any, Any], message: str) -> None:
        assert refused(given) == message

    @pytest.mark.parametrize(("given", "message"), BAD)
    def test_beside_a_password(self, given: Dict[Any, Any], message: str) -> None:
        assert refused({"password": SECRET, **given}) == message

    @pytest.mark.parametrize("name", ["record_exp", "socket_timeout", "health_check_interval", "port", "db"])
    def test_number_beyond_all_floats(self, name: str) -> None:
        if name == "db":
            assert parse({name: 10**400}).db == 10**400
        else:
            assert refused({name: 10**400}).startswith(f"{name} must be ")


class TestLayout:
    """Where a cluster's nodes and the Sentinels are."""

    @pytest.mark.parametrize("given", [{"cluster": "yes"}, {"deployment_mode": "cluster"}])
    def test_cluster_has_two_names(self, given: Dict[str, Any]) -> None:
        taken = parse(given)
        assert (taken.cluster, taken.deployment_mode, taken.nodes) == (True, "cluster", (("localhost", 6379),))
        assert parse({**given, "url": "h:7000"}).nodes == (("h", 7000),)

    @pytest.mark.parametrize(
        "endpoints",
        ["a:7001, b, [::1]:7003", ["a:7001", "b", "[::1]:7003"], [{"host": "a", "port": "7001"}, "b", "[::1]:7003"]],
    )
    def test_endpoints(self, endpoints: Any) -> None:
        taken = parse({"cluster": True, "endpoints": endpoints})
        assert taken.nodes == (("a", 7001), ("b", 6379), ("::1", 7003))
        assert taken.where == "the cluster of a:7001, b:6379, ::1:7003"

    def test_sentinels(self) -> None:
        taken = parse({"deployment_mode": "sentinel", "endpoints": ["a", "b:7"], "sentinel_use_ssl": "yes", "db": 3})
        assert (taken.nodes, taken.service, taken.db) == ((("a", 26379), ("b", 7)), "mymaster", 3)
        assert (taken.sentinel_use_ssl, taken.use_ssl) == (True, False)
        named = parse({"deployment_mode": "sentinel", "endpoints": "a", "sentinel_service": "bots"})
        assert named.where == "the master 'bots' of the Sentinels a:26379"

    def test_sentinel_url(self) -> None:
        taken = parse({"url": f"redis+sentinel://bot:{SECRET}@a:1,b/bots/3?socket_timeout=4"})
        assert (taken.nodes, taken.service, taken.db) == ((("a", 1), ("b", 26379)), "bots", 3)
        assert (taken.username, taken.password, taken.socket_timeout) == ("bot", SECRET, 4.0)
        assert parse({"url": "redis+sentinel://a"}).service == "mymaster"
        assert parse({"url": "rediss+sentinel://a"}).use_ssl

    def test_a_password_of_sentinels_is_shown_nowhere(self) -> None:
        taken = parse({"url": "redis+sentinel://a", "sentinel_username": "u", "sentinel_password": SECRET})
        assert taken.sentinel_password == SECRET
        assert SECRET not in repr(taken) + taken.where


PASTED: List[Any] = [
    f"redis://:{SECRET}#x@h",
    f"redis://:{SECRET}?x@h",
    f"redis://:{SECRET}/x@h",
    f"redis://:x/{SECRET}@h",
    f"redis://:x?{SECRET}@h",
    f"redis://:x#{SECRET}@h",
    f"redis://bot:1234/{SECRET}@h:6379/0",
    f"redis://bot:1234?{SECRET}@h:6379/0",
    f"redis://bot:?{SECRET}@h",
    f"redis://bot:1234?a&{SECRET}@h",
    f"redis://bot:?db={SECRET}@h",
    f"redis://:{SECRET}@[::1",
    f"redis://:{SECRET}]@h",
    f"redis://[{SECRET}@h",
    f"redis://:{SECRET}@h:port",
    f"redis://:{SECRET}@h:99999",
    f"redis://bot:{SECRET}@ho\u2100st",
    f"unix://:{SECRET}@ho\u2100st/r.sock",
    f"bot:{SECRET}@ho\u2100st",
    f"bot:{SECRET}@redis://h",
    f"bot:{SECRET}://@h",
    f"http://bot:{SECRET}@h",
    f"redis+sentinel://:{SECRET}@h:port",
    [f"redis://:{SECRET}@h"],
    {"host": "h", "password": SECRET},
    f"redis://:{SECRET}@h".encode(),
]


class TestSecret:
    """A password is in no message, no chained error and no ``repr``."""

    @pytest.mark.parametrize("url", PASTED, ids=str)
    def test_url_that_cannot_be_read(self, url: Any) -> None:
        assert "url" in refused({"url": url})

    @pytest.mark.parametrize(
        "endpoints", [f"redis://:{SECRET}@a:1", [f"redis://:{SECRET}@a:1"], [{"password": SECRET}], {"a": SECRET}]
    )
    def test_endpoints(self, endpoints: Any) -> None:
        assert "endpoints" in refused({"endpoints": endpoints})

    @pytest.mark.parametrize(
        "given",
        [
            {"password": SECRET},
            {"url": f"redis://:{SECRET}@h"},
            {"url": f"rediss://bot:{SECRET}@h:6380/1?db=1"},
            {"url": f"unix://:{SECRET}@/run/r.sock"},
            {"url": f"redis://:{SECRET}@h", "password": SECRET},
        ],
    )
    def test_repr(self, given: Dict[str, Any]) -> None:
        taken = parse(given)
        assert taken.password == SECRET
        assert SECRET not in repr(taken)
        assert SECRET not in str(taken)
        assert SECRET not in f"{taken}"
        assert "password" not in repr(taken)

    def test_look_of_this_file_finds_a_leak(self) -> None:
        def fail() -> None:
            try:
                raise ValueError(f"port {SECRET}")
            except ValueError:
                raise OptionError("url") from None

        with pytest.raises(OptionError) as caught:
            fail()
        assert any(SECRET in shown for shown in everything_shown(caught.value))
