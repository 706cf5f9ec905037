"""Pages of the documentation that need the whole of Rasa: every command of theirs, in its order."""

import ast
from importlib.metadata import version
from pathlib import Path

import rasa
import redis
from pages import DOCS
from test_troubleshooting import messages
from walk import Walk

from extras.bench.server import RedisServer, find_server, free_port
from extras.bench.shapes import RECORDED

WALK_S = 600
"""How long a page may take: what it does take is a minute, on a machine that is not busy."""
QUIET = {"PYTHONWARNINGS": "ignore"}


def test_a_newcomer_gets_through_the_tutorial(tmp_path: Path) -> None:
    page = DOCS / "tutorial.md"
    assert f"rasa=={version('rasa')}" in page.read_text(encoding="utf-8")
    instead = {"6379": str(free_port()), "5005": str(free_port())}
    walk = Walk(page, tmp_path / "page", instead, {"redis-server": find_server()}, here={"Rasa"})
    assert walk.run(WALK_S, QUIET) >= 15


def test_conversations_move_as_the_page_says(tmp_path: Path, own_server: RedisServer) -> None:
    client = redis.Redis(port=own_server.port)
    for sender_id in ("alice", "bob"):
        client.set(f"tracker:{sender_id}", RECORDED)
    client.connection_pool.disconnect()
    instead = {"redis.internal": "127.0.0.1", "6379": str(own_server.port)}
    walk = Walk(DOCS / "how-to" / "migration.md", tmp_path / "page", instead, {}, here={"Rasa"})
    assert walk.run(WALK_S, QUIET) >= 8


def test_what_rasa_says_is_what_the_page_shows() -> None:
    shown = {message for message, who in messages() if who == "Rasa"}
    assert "Tracker store with type '...' not found. Using `InMemoryTrackerStore` instead." in shown
    core = Path(rasa.__file__).parent / "core"
    sources = [
        (core / name).read_text(encoding="utf-8") for name in ("tracker_store.py", "brokers/broker.py", "lock_store.py")
    ]
    texts = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)]
    said = ["".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in t.values) for t in texts]
    assert shown <= set(said)
