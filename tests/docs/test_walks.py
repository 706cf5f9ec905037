"""Pages are walked through as a reader would, on a Redis that holds two conversations."""

import re
import shutil
from pathlib import Path
from typing import Dict, List

import pytest
import redis
from pages import DOCS, PROJECT, blocks, pages
from topologies import cluster_port
from walk import Walk

from extras.bench.server import RedisServer, free_port
from extras.bench.shapes import RECORDED

WALK_S = 300
"""How long a page may take: what it does take is seconds, on a machine that is not busy."""


YOURS = """\
tracker_store:
  type: extras.trackerstore.ExtraRedisTrackerStore
  url: redis://127.0.0.1:{port}
"""
"""The endpoints.yml of a reader, until a page makes another."""


def walkable() -> List[Path]:
    """Return the pages on which there is something to do."""
    return [page for page in pages() if any(block.is_run() for block in blocks(page))]


def redis_at(port: int) -> Dict[str, str]:
    """Return what stands in the place of a page's Redis."""
    place = f"127.0.0.1:{port}"
    others = {name: str(free_port()) for name in ("6380", "9464", "26379")}
    nodes = {name: str(cluster_port()) for name in ("7001", "7002", "7003")}
    return {"redis.internal:6379": place, "redis.internal": place, "6379": str(port), **others, **nodes}


@pytest.mark.parametrize("page", walkable(), ids=lambda page: str(page.stem))
def test_the_page_does_what_it_says(page: Path, tmp_path: Path, own_server: RedisServer) -> None:
    with redis.Redis(port=own_server.port) as client:
        for sender_id in ("alice", "bob"):
            client.set(f"tracker:{sender_id}", RECORDED)
    walk = Walk(page, tmp_path / "page", redis_at(own_server.port), {})
    (tmp_path / "page" / "endpoints.yml").write_text(YOURS.format(port=own_server.port), encoding="utf-8")
    walk.run(WALK_S)


def test_the_readme_does_what_it_says(tmp_path: Path, own_server: RedisServer) -> None:
    with redis.Redis(port=own_server.port) as client:
        client.config_set("requirepass", "hunter2")
    walk = Walk(PROJECT / "README.md", tmp_path / "page", redis_at(own_server.port), {})
    assert walk.run(WALK_S, {"REDIS_PASSWORD": "hunter2"}) == 2


def test_secrets_are_made_as_the_page_says(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    for name in ("make_secrets.py", "compose/redis_users.acl", "kubernetes/redis_users.acl"):
        (folder / "deploy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / "deploy" / name, folder / "deploy" / name)
    page = DOCS / "how-to" / "deployment.md"
    assert Walk(page, folder, {}, {}, here={"the folder deploy/"}).run(WALK_S) == 2
    made = folder / "deploy" / "secrets"
    assert made.stat().st_mode & 0o777 == 0o700
    documented = set(re.findall(r"`(\w+)`", page.read_text(encoding="utf-8")))
    assert {path.name for path in made.iterdir()} <= documented
    passwords = [path.read_text() for path in made.iterdir() if path.name.endswith("_password")]
    assert len(set(passwords)) == len(passwords) == 8
    assert all(len(password) == 64 for password in passwords)
    for name in ("redis_users", "redis_cluster_users", "rabbitmq_definitions", "actions_htpasswd"):
        text = (made / name).read_text()
        assert "{redis" not in text
        assert not any(password in text for password in passwords)


def test_there_are_pages_to_walk_through() -> None:
    assert {"login", "tls", "operating", "cluster", "sentinel", "clients", "upgrading", "troubleshooting"} <= {
        page.stem for page in walkable()
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```sh\nfalse\n```\n", "page.md:1: ended with 1"),
        ("```sh\ntrue\n```\n```sh\nno-such-program\n```\n", "page.md:4: ended with 127"),
        ("```python\nraise SystemExit(3)\n```\n", "page.md:1: ended with 3"),
        ("```sh\necho 1 done\n```\n\n```text\n2 left\n```\n", "page.md:5: the page shows"),
        ('```yaml title="a.yml"\na: 1\n```\n```sh\ncat b.yml\n```\n', "page.md:4: ended with 1"),
        ("```sh\nsleep 60\n```\n", "page.md:1: ended with -1"),
    ],
)
def test_what_goes_wrong_is_found(tmp_path: Path, text: str, wrong: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape(wrong)):
        Walk(page, tmp_path / "page", {}, {}).run(2 if "sleep" in text else 60)


def test_what_a_page_needs_that_is_here_is_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- this page needs: Rasa -->\n```sh\nfalse\n```\n<!-- needs: a cloud -->\n```sh\nfalse\n```\n")
    assert Walk(page, tmp_path / "1", {}, {}).run(60) == 0
    with pytest.raises(AssertionError, match="ended with 1"):
        Walk(page, tmp_path / "2", {}, {}, here={"Rasa"}).run(60)


def test_a_text_behind_prose_is_not_what_the_block_before_prints(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\necho 1\n```\n\nMessages of others:\n\n```text\nrefused\n```\n", encoding="utf-8")
    assert Walk(page, tmp_path / "page", {}, {}).run(60) == 1
