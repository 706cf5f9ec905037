"""A store's operations in short, on one server in one mode, with the redis-py of this environment.

``PYTHONPATH=tests python tests/unit/smoke.py SERVER MODE`` prints ``ok``, or ``missing: `` and why there is no such
server.
"""

import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Tuple

from faces import FACES
from least_privilege import binary_used
from tls_proxy import Certificates
from topologies import RedisCluster
from watched import Watched

from extras import _redis
from extras.bench.missing import Missing
from extras.bench.server import RedisServer, free_port
from extras.conversation import TRACKER_INFIX, Changed, Conversations, UserIndex, load_many
from extras.document import SessionStart
from extras.document import parse as read
from extras.options import parse
from extras.steps import Steps
from extras.tickets import LOCK_INFIX, Queues

START = '{"event": "action", "name": "action_session_start", "timestamp": 1.0}'
DOCUMENT = f'{{"events": [{START}], "name": "alice"}}'.encode()
SESSION = SessionStart.of_action("action_session_start")


def conversation() -> "Steps[Any]":
    """Store, read the tail, append; append as one who does not know of that, and again as one who does."""
    conversations = Conversations(TRACKER_INFIX, 10, False)
    assert (yield from conversations.replace_if("alice", None, DOCUMENT, 60))
    before: Any = (yield from read_session(conversations)).known
    first = yield from conversations.append("alice", before, b', {"event": "one"}', before.closing, 60)
    assert not isinstance(first, Changed)
    second = yield from conversations.append("alice", before, b', {"event": "two"}', before.closing, None)
    assert isinstance(second, Changed)
    document = yield from conversations.load("alice")
    assert document is not None
    known = read(document).known
    assert known is not None
    yield from conversations.append("alice", known, b', {"event": "two"}', known.closing, None)
    names = [event["event"] for event in (yield from read_session(conversations)).events]
    assert names == ["action", "one", "two"]
    for number in range(30):
        yield from conversations.replace(f"user-{number}", DOCUMENT.decode(), 60)
    assert len((yield from conversations.sender_ids())) == 31
    for number in range(30):
        yield from conversations.erase(f"user-{number}")
    yield from conversations.erase("alice")
    assert not (yield from conversations.exists("alice"))


def read_session(conversations: Conversations) -> "Steps[Any]":
    """Read the tail of a conversation that is there."""
    parsed = yield from conversations.load_session("alice", SESSION)
    assert parsed is not None
    return parsed


def index() -> "Steps[None]":
    """Keep a user's conversations."""
    conversations, users = Conversations(TRACKER_INFIX, 10, False), UserIndex(TRACKER_INFIX)
    yield from users.add("user", "alice", None, time.time())
    assert (yield from users.sender_ids("user", time.time())) == ["alice"]
    assert (yield from load_many(conversations, ["alice"])) == [None]
    yield from users.remove("user", ["alice"])


def lock() -> "Steps[None]":
    """Take a ticket, and another behind it, and give both back."""
    queues = Queues(LOCK_INFIX)
    assert (yield from queues.issue("alice", "one", 60)).ahead == 0
    assert (yield from queues.issue("alice", "two", 60)).ahead == 1
    assert (yield from queues.give_back("alice", "one"))
    place = yield from queues.look("alice", "two", 1)
    assert place is not None
    assert place.ahead == 0
    assert (yield from queues.give_back("alice", "two"))


def carry_out(options: Dict[str, Any]) -> None:
    """Do all of it with the blocking client and with the async one, twice: scripts are new, then known."""
    for face in FACES:
        with face(parse(options)) as client:
            client.ask("SCRIPT", "FLUSH")
            for _ in range(2):
                for steps in (conversation, index, lock):
                    client.run(steps())


@contextmanager
def standard(folder: Path) -> Iterator[Dict[str, Any]]:
    """Run a server."""
    with RedisServer(folder) as server:
        yield {"url": "127.0.0.1", "port": server.port}


@contextmanager
def with_tls(folder: Path) -> Iterator[Dict[str, Any]]:
    """Run a server that speaks TLS itself, and asks for a certificate."""
    certificates, port = Certificates(folder), free_port()
    certificate, key = folder / "server.pem", folder / "server.key"
    certificates.server.cert_chain_pems[0].write_to_path(str(certificate))
    certificates.server.private_key_pem.write_to_path(str(key))
    arguments = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    server = RedisServer(folder / "server", [*arguments, "--tls-ca-cert-file", certificates.ca_file])
    try:
        server.start()
    except RuntimeError as error:
        raise Missing("built without TLS") from error
    try:
        own = {"ssl_ca_certs": certificates.ca_file, "ssl_certfile": certificates.client_both_file}
        yield {"url": "127.0.0.1", "port": port, "use_ssl": True, "ssl_min_version": "TLSv1.3", **own}
    finally:
        server.stop()


@contextmanager
def with_cluster(folder: Path) -> Iterator[Dict[str, Any]]:
    """Run a cluster."""
    if not _redis.HAS_CLUSTER:
        raise Missing("unknown to this redis-py")
    with RedisCluster(folder) as cluster:
        yield cluster.options


@contextmanager
def with_sentinels(folder: Path) -> Iterator[Dict[str, Any]]:
    """Run a master with replicas and Sentinels."""
    with Watched(folder) as watched:
        yield watched.options


Mode = Callable[[Path], ContextManager[Dict[str, Any]]]
MODES: List[Tuple[str, Mode]] = [
    ("standard", standard),
    ("cluster", with_cluster),
    ("Sentinel", with_sentinels),
    ("TLS", with_tls),
]
"""What a store can be pointed at: a name, and what runs servers in a folder and yields the options for them."""


def main(binary: str, mode: str) -> str:
    """Carry out one cell; what is said of it."""
    with binary_used(binary), tempfile.TemporaryDirectory(prefix="extras-smoke-") as folder:
        try:
            with dict(MODES)[mode](Path(folder)) as options:
                carry_out(options)
        except Missing as error:
            return f"missing: {error}"
    return "ok"


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
