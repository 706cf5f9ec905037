"""TLS as the options ask for it, on every redis-py: who is trusted, what is shown, and below it liveness.

Guaranteed for the blocking client and the async one: files are read again for each connection, so that a certificate
that was rotated on the disk is shown from the next connect on.
"""

import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple, Type

import pytest
import redis
from faces import FACES, Face
from tls_proxy import Certificates, TlsProxy, trustme

from extras import fastsock, tls
from extras.bench.server import RedisServer
from extras.options import parse


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


Front = Callable[..., Tuple[TlsProxy, Dict[str, Any]]]


@pytest.fixture
def front(server: RedisServer, raw: "redis.Redis", certificates: Certificates) -> Iterator[Front]:
    """Put TLS in front of the emptied server; return that, and options that fit it."""
    made = []

    def put(client_needs_one: bool = False) -> Tuple[TlsProxy, Dict[str, Any]]:
        proxy = TlsProxy(certificates.context(certificates.server, client_needs_one), server.port)
        made.append(proxy)
        proxy.__enter__()
        return proxy, {"url": "127.0.0.1", "port": proxy.port, "use_ssl": True, "ssl_ca_certs": certificates.ca_file}

    yield put
    for proxy in made:
        proxy.__exit__()


def dropped(raw: "redis.Redis") -> None:
    """Let the server close all other connections."""
    raw.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")


@pytest.mark.parametrize("face", FACES)
def test_a_rotated_certificate_is_shown_from_the_next_connect_on(
    face: Type[Face], front: Front, raw: "redis.Redis", certificates: Certificates, tmp_path: Path
) -> None:
    proxy, given = front(client_needs_one=True)
    own = tmp_path / "own.pem"
    certificates.ca.issue_cert("old@example.org").private_key_and_cert_chain_pem.write_to_path(str(own))
    with face(parse({**given, "ssl_certfile": str(own)})) as client:
        client.ask("SET", "k", "v")
        certificates.ca.issue_cert("new@example.org").private_key_and_cert_chain_pem.write_to_path(str(own))
        client.ask("GET", "k")
        assert len(proxy.shown) == 1
        dropped(raw)
        assert client.ask("GET", "k") == b"v"
    assert len(proxy.shown) == 2
    assert None not in proxy.shown
    assert proxy.shown[0] != proxy.shown[1]


@pytest.mark.parametrize("face", FACES)
def test_a_ca_that_was_rotated_away_is_trusted_no_more(
    face: Type[Face], front: Front, raw: "redis.Redis", certificates: Certificates, tmp_path: Path
) -> None:
    _, given = front()
    trusted = tmp_path / "ca.pem"
    shutil.copy(certificates.ca_file, trusted)
    with face(parse({**given, "ssl_ca_certs": str(trusted)})) as client:
        client.ask("PING")
        shutil.copy(certificates.other_ca_file, trusted)
        dropped(raw)
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            client.ask("PING")
        shutil.copy(certificates.ca_file, trusted)
        assert client.ask("PING")
        trusted.write_text("half a file")
        dropped(raw)
        with pytest.raises(redis.ConnectionError, match="ssl_ca_certs"):
            client.ask("PING")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the names in a CA folder")
@pytest.mark.parametrize("face", FACES)
def test_a_folder_of_cas(face: Type[Face], front: Front, certificates: Certificates, tmp_path: Path) -> None:
    _, given = front()
    shutil.copy(certificates.other_ca_file, tmp_path / "other.pem")
    del given["ssl_ca_certs"]
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
    with face(parse({**given, "ssl_ca_path": str(tmp_path)})) as client:
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            client.ask("PING")
        shutil.copy(certificates.ca_file, tmp_path / "ca.pem")
        subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
        assert client.ask("PING")


@pytest.mark.parametrize("face", FACES)
def test_liveness_is_on_below_tls_and_as_given(face: Type[Face], front: Front) -> None:
    _, given = front()
    for asked, idle_s in (({}, 30), ({"socket_keepalive_options": {"TCP_KEEPIDLE": 7}}, 7)):
        with face(parse({**given, **asked})) as client:
            client.ask("PING")
            held = fastsock.read_keepalive(client.socket().fileno())
            assert held.enabled
            assert held.idle_s == idle_s
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert held.user_timeout_ms == (idle_s + 15) * 1000


def test_what_is_asked_for_is_in_the_context(certificates: Certificates) -> None:
    for version in tls.MIN_VERSIONS:
        context = tls.Tls(ssl_min_version=tls.version(version)).context()
        assert context.minimum_version is tls.version(version)
        assert context.verify_mode is ssl.CERT_REQUIRED
    # The system's CAs are trusted where no other is named, and not beside it.
    pinned = tls.Tls(ssl_ca_certs=certificates.ca_file).context()
    assert len(pinned.get_ca_certs()) == 1


def test_nobodys_cas_are_read_where_nobody_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("the system's CAs take 20 ms of each connect to read")

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", read)
    with pytest.raises(AssertionError):
        tls.Tls().context()
    context = tls.Tls(ssl_cert_reqs="none", ssl_check_hostname=True).context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    with pytest.raises(tls.TlsFileError):
        tls.Tls(ssl_cert_reqs="none", ssl_ca_certs="nowhere.pem").context()


def test_a_certificate_is_loaded_without_asking_a_terminal_for_its_pass_phrase(
    certificates: Certificates, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    leaf = trustme.CA().issue_cert("x")
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"pass phrase"),
        )
    )
    own = tmp_path / "own.pem"
    leaf.cert_chain_pems[0].write_to_path(str(own))
    with pytest.raises(tls.TlsFileError, match="without a pass phrase"):
        tls.Tls(ssl_certfile=str(own), ssl_keyfile=str(locked)).context()
    tls.Tls(ssl_certfile=str(own), ssl_keyfile=str(locked), ssl_password="pass phrase").context()


def test_what_is_not_known_here_is_left_to_redis_py() -> None:
    assert tls.asked({"ssl_validate_ocsp": True}, True) is None
    assert tls.asked({"ssl_validate_ocsp": False, "host": "h"}, True) == tls.Tls(ssl_check_hostname=True)
