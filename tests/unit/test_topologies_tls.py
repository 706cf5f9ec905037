"""TLS to a cluster's nodes, and to Sentinels and what they watch: each is held to the name that it is announced by.

On the system's Redis, which speaks TLS itself.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Type

import pytest
import redis
from faces import FACES, Face
from least_privilege import binary_used
from tls_proxy import Certificates, trustme
from topologies import HOST, RedisCluster, TlsFiles, until
from watched import SERVICE, Watched

from extras import _redis
from extras.conversation import Conversations
from extras.diagnosis import Diagnosis
from extras.options import parse

NAME = "localhost"
SYSTEM_REDIS = shutil.which("redis-server")

pytestmark = pytest.mark.skipif(
    SYSTEM_REDIS is None and not os.environ.get("RASA_EXTRAS_NOTHING_MISSING"), reason="no redis-server with TLS here"
)


class Files(Certificates):
    """Certificates for the address alone, and for the name alone, as a server takes them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder
        self.of_address = self._written("address", self.server)
        self.of_name = self._written("name", self.ca.issue_cert(NAME))

    def _written(self, name: str, certificate: "trustme.LeafCert") -> TlsFiles:
        paths = str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(paths[0])
        certificate.private_key_pem.write_to_path(paths[1])
        return TlsFiles(*paths, self.ca_file)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Type[Face]:
    made: Type[Face] = request.param
    return made


def talk(face: Type[Face], given: Dict[str, Any]) -> str:
    """Write to all slots and read it back; what is told of a failure, empty for none."""
    conversations = Conversations("tracker:", 20, False)
    options = parse({"call_timeout": 2, "socket_timeout": 1, **given})
    names = [f"sender-{number}" for number in range(12)]
    with face(options) as client:
        try:
            for name in names:
                client.run(conversations.replace(name, f"of {name}", None))
            assert sorted(client.run(conversations.sender_ids())) == sorted(names)
            assert client.run(conversations.load(names[3])) == f"of {names[3]}".encode()
        except redis.RedisError as error:
            return Diagnosis(options).of(error, time.monotonic()) or f"not explained: {error!r}"
    return ""


@pytest.fixture(scope="module")
def made(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    assert SYSTEM_REDIS is not None
    if not _redis.HAS_CLUSTER:
        pytest.skip("redis-py before 4.1 knows nothing of clusters")
    with binary_used(SYSTEM_REDIS), RedisCluster(tmp_path_factory.mktemp("tls"), tls=files.of_address) as running:
        yield running


@pytest.fixture
def announced(made: RedisCluster, files: Files) -> Callable[..., Dict[str, Any]]:
    """Let the nodes show a certificate and announce themselves by name or address; options of a store."""

    def announce(show: TlsFiles, by_name: bool, seed: str, **others: Any) -> Dict[str, Any]:
        for port in made.servers:
            settings = "tls-cert-file", show.certificate, "tls-key-file", show.key
            made.at(port).execute_command("CONFIG", "SET", *settings)
            announced = ("cluster-announce-hostname", NAME if by_name else "")
            kind = ("cluster-preferred-endpoint-type", "hostname" if by_name else "ip")
            made.at(port).execute_command("CONFIG", "SET", *announced, *kind)
        made.until_all_say(NAME if by_name else HOST)
        port = made.tls_ports[made.masters[0]]
        given = {"cluster": True, "endpoints": [f"{seed}:{port}"], "use_ssl": True, "ssl_ca_certs": files.ca_file}
        return {**given, **others}

    return announce


def test_nodes_by_address(announced: Any, files: Files, face: Type[Face], made: RedisCluster) -> None:
    given = announced(files.of_address, False, HOST)
    assert talk(face, given) == ""
    slot = made.slot_of("tracker:sender-3")
    home = made.owner(slot)
    other = next(port for port in set(made.owners(home).values()) if port != home)
    with face(parse(given)) as client:
        assert client.ask("GET", "tracker:sender-3") == b"of sender-3"
        made.start_moving(slot, other)
        made.move_keys(slot, home, other)
        assert client.ask("GET", "tracker:sender-3") == b"of sender-3"  # by ASK
        made.finish_moving(slot, other)
        assert client.ask("GET", "tracker:sender-3") == b"of sender-3"  # by MOVED


def test_nodes_by_name(announced: Any, files: Files, face: Type[Face]) -> None:
    assert talk(face, announced(files.of_name, True, NAME)) == ""


def test_nodes_by_an_address_that_is_not_in_the_certificate(announced: Any, files: Files, face: Type[Face]) -> None:
    """The first node is asked by a name that is, and says addresses."""
    said = talk(face, announced(files.of_name, False, NAME))
    assert "cluster-announce-hostname" in said
    assert "cluster-preferred-endpoint-type" in said


def test_nodes_by_a_name_that_is_not_in_the_certificate(announced: Any, files: Files, face: Type[Face]) -> None:
    assert "cluster-announce-hostname" in talk(face, announced(files.of_address, True, HOST))


def test_nodes_whose_name_is_nothing_to_the_store(announced: Any, files: Files, face: Type[Face]) -> None:
    assert talk(face, announced(files.of_name, False, HOST, ssl_check_hostname=False)) == ""


def test_nodes_of_a_ca_that_is_not_trusted(announced: Any, files: Files, face: Type[Face]) -> None:
    given = announced(files.of_address, False, HOST, ssl_ca_certs=files.other_ca_file, ssl_check_hostname=False)
    assert "ssl_ca_certs: let ssl_ca_certs name the file" in talk(face, given)


def test_nodes_with_tls_on_one_side_only(announced: Any, files: Files, face: Type[Face], made: RedisCluster) -> None:
    given = announced(files.of_address, False, HOST)
    without = {**given, "use_ssl": False, "ssl_ca_certs": None}
    assert "this port speaks TLS: set use_ssl: true" in talk(face, without)
    plain = {**given, "endpoints": [f"{HOST}:{made.masters[0]}"]}
    assert "the server does not speak TLS on this port" in talk(face, plain)


@pytest.fixture(scope="module")
def watched(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Servers that Sentinels name ``localhost``, with a certificate for that alone."""
    assert SYSTEM_REDIS is not None
    folder = tmp_path_factory.mktemp("tls")
    with binary_used(SYSTEM_REDIS), Watched(folder, tls=files.of_name, host=NAME) as running:
        yield running


def given(watched: Watched, files: Files, host: str = NAME, **others: Any) -> Dict[str, Any]:
    endpoints = [f"{host}:{watched.tls_ports[port]}" for port in watched.sentinels]
    mode = {"deployment_mode": "sentinel", "endpoints": endpoints, "sentinel_service": SERVICE}
    return {**mode, "use_ssl": True, "ssl_ca_certs": files.ca_file, **others}


def test_sentinels_and_their_master(watched: Watched, files: Files, face: Type[Face]) -> None:
    assert talk(face, given(watched, files)) == ""
    assert len(watched.at(watched.master()).keys("tracker:*")) == 12
    without_on_sentinels = [f"{NAME}:{port}" for port in watched.sentinels]
    assert talk(face, given(watched, files, sentinel_use_ssl=False, endpoints=without_on_sentinels)) == ""


def test_a_new_master_is_held_to_its_name_too(watched: Watched, files: Files, face: Type[Face]) -> None:
    before = watched.master()
    with face(parse(given(watched, files, call_timeout=15))) as client:
        assert client.ask("SET", "key", "value")
        watched.fail_over()
        new, _ = watched.taken_over(before, "key")
        until(
            "it is found", lambda: client.ask("SET", "key", "another") and watched.at(new).get("key") == b"another", 5
        )


def test_sentinels_by_an_address_that_is_not_in_the_certificate(
    watched: Watched, files: Files, face: Type[Face]
) -> None:
    said = talk(face, given(watched, files, HOST))
    assert "endpoints" in said
    assert "certificate" in said


def test_sentinels_with_tls_on_one_side_only(watched: Watched, files: Files, face: Type[Face]) -> None:
    plain = [f"{NAME}:{port}" for port in watched.sentinels]
    said = talk(face, given(watched, files, endpoints=plain))
    assert "use_ssl, sentinel_use_ssl: the server does not speak TLS on this port" in said
