"""Each mistake with TLS or a login is one clear error at the first use: the option, the way out, and no secret.

Guaranteed for the blocking client and the async one, on real servers and with real certificates: the error comes within
``call_timeout``, and where TLS was asked for, nothing is ever sent without it, as a proxy in between has seen.
"""

import asyncio
import datetime
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import pytest
import redis
from proxy import Proxy
from tls_proxy import Certificates, TlsProxy, trustme

from extras import _redis, tls
from extras.bench.server import RedisServer
from extras.configured import AsyncClient, sync_client
from extras.conversation import Conversations
from extras.diagnosis import Diagnosis, speaks
from extras.document import SessionStart
from extras.errors import OptionError
from extras.options import Options, parse
from extras.steps import Steps, arun, run

SECRET = "hunter2-is-secret"
CALL_TIMEOUT_S = 5.0
SLACK_S = 3.0
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


class Place:
    """A server with users, certificates, and what is put in front of it; ``close`` ends all of it."""

    def __init__(self, server: RedisServer, raw: "redis.Redis", certificates: Certificates, folder: Path) -> None:
        self.server = server
        self.admin: Any = raw.execute_command
        self.certificates = certificates
        self.folder = folder
        self.recorder: Optional[Proxy] = None
        self.is_below_tls = False
        """Whether mistakes with the login are made below TLS."""
        self._stack = ExitStack()

    def plain(self, **options: Any) -> Dict[str, Any]:
        """Return options for the server as it is, by way of a proxy that keeps what was sent."""
        if self.is_below_tls:
            return self.tls(**{"password": None, **options})
        return self._recorded(self.server.port, options)

    def tls(self, certificate: Any = None, client_needs_one: bool = False, **options: Any) -> Dict[str, Any]:
        """Return options for a server that speaks TLS; ``context`` among them changes how."""
        context = self.certificates.context(certificate or self.certificates.server, client_needs_one)
        options.pop("change", lambda context: None)(context)
        proxy = self._stack.enter_context(TlsProxy(context, self.server.port))
        given = {"use_ssl": True, "ssl_ca_certs": self.certificates.ca_file, "password": SECRET, **options}
        return self._recorded(proxy.port, given)

    def _recorded(self, port: int, options: Dict[str, Any]) -> Dict[str, Any]:
        self.recorder = self._stack.enter_context(Proxy(port))
        return {"url": "127.0.0.1", "port": self.recorder.port, "socket_timeout": 4, **options}

    def user(self, *rules: str) -> Dict[str, Any]:
        """Make a user ``bot`` with these rights, and return its login."""
        self.admin("ACL SETUSER", "bot", "reset", *rules)
        return {"username": "bot", "password": SECRET}

    def file(self, name: str, content: bytes) -> str:
        """Write a file; its path."""
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def place(server: RedisServer, raw: "redis.Redis", certificates: Certificates, tmp_path: Path) -> Iterator[Place]:
    made = Place(server, raw, certificates, tmp_path)
    yield made
    made.close()
    made.admin("ACL SETUSER", "default", "on", "nopass", "~*", "&*", "+@all")
    made.admin("ACL DELUSER", "bot")


class Mistake(NamedTuple):
    """``options``: makes it. ``said``: what the error has to say, beside ``option``."""

    options: Callable[[Place], Dict[str, Any]]
    option: str
    said: str


MISTAKES: Dict[str, Mistake] = {}


def mistake(option: str, said: str) -> Callable[[Callable[[Place], Dict[str, Any]]], None]:
    """Add a mistake to the list."""

    def add(options: Callable[[Place], Dict[str, Any]]) -> None:
        MISTAKES[options.__name__] = Mistake(options, option, said)

    return add


@mistake("ssl_ca_certs", "the CA that has signed the server's certificate")
def wrong_ca(place: Place) -> Dict[str, Any]:
    return place.tls(ssl_ca_certs=place.certificates.other_ca_file)


@mistake("ssl_ca_certs", "the CA that has signed the server's certificate")
def no_ca(place: Place) -> Dict[str, Any]:
    return place.tls(ssl_ca_certs=None)


@mistake("ssl_ca_certs", "the CA that has signed the server's certificate")
def empty_ca_folder(place: Place) -> Dict[str, Any]:
    (place.folder / "cas").mkdir()
    return place.tls(ssl_ca_certs=None, ssl_ca_path=str(place.folder / "cas"))


@mistake("use_ssl", "has expired: renew it on the server")
def expired(place: Place) -> Dict[str, Any]:
    return place.tls(place.certificates.ca.issue_cert("127.0.0.1", not_after=LONG_AGO))


@mistake("url", "the name that the server's certificate is for")
def other_name(place: Place) -> Dict[str, Any]:
    return place.tls(place.certificates.other_name)


@mistake("ssl_certfile", "a certificate of a CA that the server trusts")
def client_certificate_missing(place: Place) -> Dict[str, Any]:
    return place.tls(client_needs_one=True)


@mistake("ssl_certfile", "a certificate of a CA that the server trusts")
def client_certificate_of_another_ca(place: Place) -> Dict[str, Any]:
    other = trustme.CA().issue_cert("client@example.org").private_key_and_cert_chain_pem
    return place.tls(client_needs_one=True, ssl_certfile=place.file("other.pem", other.bytes()))


@mistake("ssl_keyfile", "cannot be used")
def certificate_without_key(place: Place) -> Dict[str, Any]:
    return place.tls(client_needs_one=True, ssl_certfile=place.certificates.client_cert_file)


@mistake("ssl_keyfile", "key and certificate belong together")
def key_of_another_certificate(place: Place) -> Dict[str, Any]:
    key = place.file("other.key", trustme.CA().issue_cert("x").private_key_pem.bytes())
    return place.tls(ssl_certfile=place.certificates.client_cert_file, ssl_keyfile=key)


@mistake("ssl_ca_certs", "there is no readable file")
def file_missing(place: Place) -> Dict[str, Any]:
    return place.tls(ssl_ca_certs=str(place.folder / "none.pem"))


@mistake("ssl_ca_certs", "PEM")
def file_without_pem(place: Place) -> Dict[str, Any]:
    return place.tls(ssl_ca_certs=place.file("ca.txt", b"no certificate"))


@mistake("ssl_min_version", "no version of TLS in common")
def tls_too_old(place: Place) -> Dict[str, Any]:
    def change(context: Any) -> None:
        context.maximum_version = tls.version("TLSv1.2")

    return place.tls(change=change, ssl_min_version="TLSv1.3")


@mistake("use_ssl", "does not speak TLS on this port")
def tls_to_a_plain_port(place: Place) -> Dict[str, Any]:
    return place.plain(use_ssl=True, ssl_ca_certs=place.certificates.ca_file, password=SECRET)


@mistake("use_ssl", "this port speaks TLS")
def plain_to_a_tls_port(place: Place) -> Dict[str, Any]:
    return place.tls(use_ssl=False, ssl_ca_certs=None, password=None)


OF_TLS = tuple(MISTAKES)
"""Those so far; the others are of the login, and made without TLS and below it."""


@mistake("password", "correct them")
def wrong_password(place: Place) -> Dict[str, Any]:
    return place.plain(**{**place.user("on", ">another", "~*", "+@all"), "password": SECRET})


@mistake("username", "correct them")
def unknown_user(place: Place) -> Dict[str, Any]:
    return place.plain(username="nobody", password=SECRET)


@mistake("username", "ACL LIST")
def user_switched_off(place: Place) -> Dict[str, Any]:
    return place.plain(**place.user("off", f">{SECRET}", "~*", "+@all"))


@mistake("password", "set it")
def password_missing(place: Place) -> Dict[str, Any]:
    place.admin("ACL SETUSER", "default", "resetpass", f">{SECRET}")
    return place.plain()


@mistake("password", "set it, and username")
def default_user_switched_off(place: Place) -> Dict[str, Any]:
    place.admin("ACL SETUSER", "default", "off")
    return place.plain()


@mistake("password", "remove it")
def password_where_there_is_none(place: Place) -> Dict[str, Any]:
    return place.plain(password=SECRET)


@mistake("username", "ACL SETUSER")
def no_right_to_the_key(place: Place) -> Dict[str, Any]:
    return place.plain(**place.user("on", f">{SECRET}", "~other:*", "+@all"))


@mistake("username", "ACL SETUSER")
def no_right_to_a_command(place: Place) -> Dict[str, Any]:
    return place.plain(**place.user("on", f">{SECRET}", "~*", "+@all", "-get"))


@mistake("username", "ACL SETUSER")
def no_right_to_scripts(place: Place) -> Dict[str, Any]:
    return place.plain(**place.user("on", f">{SECRET}", "~*", "+@all", "-@scripting"))


@mistake("username", "ACL SETUSER")
def no_right_to_a_command_of_a_script(place: Place) -> Dict[str, Any]:
    return place.plain(**place.user("on", f">{SECRET}", "~*", "+@all", "-strlen"))


@mistake("username", "ACL SETUSER")
def no_right_to_choose_a_database(place: Place) -> Dict[str, Any]:
    return place.plain(db=3, **place.user("on", f">{SECRET}", "~*", "+@all", "-select"))


@mistake("db", "fewer databases")
def no_such_database(place: Place) -> Dict[str, Any]:
    return place.plain(db=99)


class Failing:
    """A provider of credentials that has none."""

    def get_credentials(self) -> Any:
        raise RuntimeError(SECRET)


if _redis.CredentialProvider is not None:

    @mistake("credential_provider", "RuntimeError")
    def provider_without_credentials(place: Place) -> Dict[str, Any]:
        return place.plain(credential_provider=f"{__name__}.Failing")


def first_use() -> "Steps[Any]":
    """What a store does first: read a conversation, by a script, and its beginning."""
    conversations = Conversations("tracker:", 1000, False)
    document = yield from conversations.load("alice")
    yield from conversations.load_session("alice", SessionStart.of_action("action_session_start"))
    return document


def blocking(options: Options) -> str:
    client: Any = sync_client(options)
    try:
        run(client, first_use())
    except redis.RedisError as error:
        return Diagnosis(options).of(error, time.monotonic()) or f"not explained: {error!r}"
    finally:
        client.connection_pool.disconnect()
    return "no error"


def on_a_loop(options: Options) -> str:
    async def attempt() -> str:
        clients = AsyncClient(options)
        try:
            await arun(clients.current(), first_use())
        except redis.RedisError as error:
            return await Diagnosis(options).aof(error, time.monotonic()) or f"not explained: {error!r}"
        finally:
            await clients.close()
        return "no error"

    return asyncio.run(attempt())


ATTEMPTS = [blocking, *([on_a_loop] if _redis.HAS_ASYNCIO else [])]


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("name", MISTAKES)
def test_each_is_one_clear_error(name: str, attempt: Callable[[Options], str], place: Place) -> None:
    given = MISTAKES[name].options(place)
    options = parse(given)
    assert options.call_timeout == CALL_TIMEOUT_S
    began_at = time.monotonic()
    try:
        said = attempt(options)
    except OptionError as error:  # told already when the store starts
        said = str(error)
    took_s = time.monotonic() - began_at
    assert MISTAKES[name].option in said
    assert MISTAKES[name].said in said
    assert SECRET not in said
    assert "\n" not in said
    assert took_s < CALL_TIMEOUT_S + SLACK_S
    assert place.recorder is not None
    if options.use_ssl:
        assert plain_text_in(bytes(place.recorder.sent)) == []


def plain_text_in(sent: bytes) -> List[bytes]:
    """Return what a client says to a server that can be read in what was sent."""
    begins_plainly = [] if bytes(sent[:1]) in (b"", b"\x16") else [bytes(sent[:1])]  # a handshake; RFC 8446, 5.1
    words = (
        SECRET.encode(),
        b"AUTH",
        b"\r\nGET\r\n",
        b"HELLO",
        b"tracker",
    )  # none that chance puts into what is encrypted
    return begins_plainly + [word for word in words if word in sent]


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("name", [name for name in MISTAKES if name not in OF_TLS])
def test_a_mistake_with_the_login_is_the_same_below_tls(
    name: str, attempt: Callable[[Options], str], place: Place
) -> None:
    place.is_below_tls = True
    test_each_is_one_clear_error(name, attempt, place)


def test_plain_text_would_be_seen(place: Place) -> None:
    blocking(parse(MISTAKES["wrong_password"].options(place)))
    assert place.recorder is not None
    assert set(plain_text_in(bytes(place.recorder.sent))) >= {b"*", SECRET.encode(), b"AUTH"}


def test_there_are_twenty() -> None:
    assert len(MISTAKES) >= 20


def test_a_peer_tells_what_it_speaks(place: Place) -> None:
    port: List[int] = [place.tls()["port"], place.server.port, place.plain()["port"]]
    assert [speaks("127.0.0.1", each, 3) for each in port] == ["TLS", "plain", "plain"]
    place.close()
    assert speaks("127.0.0.1", port[0], 0.5) is None


def test_a_store_that_has_worked_takes_a_lost_connection_for_what_it_is(place: Place) -> None:
    diagnosis = Diagnosis(parse(place.tls(use_ssl=False, ssl_ca_certs=None)))
    diagnosis.has_worked = True
    assert diagnosis.of(redis.ConnectionError("Connection reset by peer"), time.monotonic()) is None
