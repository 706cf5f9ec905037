"""The site can be built without a warning, of which a broken link is one, and its reference leaves nothing out."""

import ast
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import List, Optional, Set, Tuple
from urllib.parse import unquote, urlsplit

import pytest
from pages import DOCS, PROJECT, blocks, pages

from extras.cli.conversations import ACTIONS
from extras.options import TABLE


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, built in strict mode, where `make docs` says that it is."""
    folder = PROJECT / "build" / "docs"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("mkdocs")), "build", "--strict", "--clean"],
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


class _Links(HTMLParser):
    """Collects what a page links to and loads, and the places in it that can be linked to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: List[str] = []
        self.anchors: Set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value and tag != "base":
                self.targets.append(value)


def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    found = {page: _Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    wrong: List[str] = []
    for page, links in found.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            file = file / "index.html" if file.is_dir() else file
            if not file.exists() or (parts.fragment and file in found and parts.fragment not in found[file].anchors):
                wrong.append(f"{page.relative_to(site)}: {target}")
    assert wrong == []
    loaded = [re.findall(r'<(?:link|script|img)[^>]+(?:href|src)="(https?:[^"]+)"', page.read_text()) for page in found]
    assert [address for addresses in loaded for address in addresses] == []


def test_every_page_is_built(site: Path) -> None:
    for page in pages():
        assert (site / page.relative_to(DOCS)).with_suffix(".html").exists(), page


def test_a_page_shows_no_block_that_is_not_known_to_be_one(site: Path) -> None:
    """Whatever a page shows as code, indented or however else, is a block that is run, checked, or marked."""
    for page in pages():
        if not re.search(r"^(<!-- made of|::: )", page.read_text(encoding="utf-8"), re.MULTILINE):
            shown = (site / page.relative_to(DOCS)).with_suffix(".html").read_text(encoding="utf-8").count("<pre")
            assert shown == len(list(blocks(page))), page


def test_the_reference_has_all_options_commands_and_errors(site: Path) -> None:
    options = (site / "reference" / "options.html").read_text(encoding="utf-8")
    assert [name for name in TABLE if f"<code>{name}</code>" not in options] == []
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert [name for name in ACTIONS if f"usage: rasa-extras conversations {name}" not in commands] == []
    errors = (site / "reference" / "errors.html").read_text(encoding="utf-8")
    assert [name for name in public_errors() if f'id="{name}"' not in errors] == []


def public_errors() -> List[str]:
    """Return the full names of all errors that the package has."""
    found: List[str] = []
    for path in (PROJECT / "extras").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and not path.name.startswith("_"):
                found.append(f"extras.{path.stem}.{node.name}")
    assert len(found) >= 8
    return found


def test_docstrings_have_no_roles_left(site: Path) -> None:
    for page in site.rglob("reference/*.html"):
        assert not re.search(r":(?:class|func|meth|data):", page.read_text(encoding="utf-8")), page
