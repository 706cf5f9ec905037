"""The pages of the documentation as what they are to a reader: text with blocks, which are run, checked, or marked.

A comment before a block, ``<!-- needs: docker -->``, says what is not here; ``<!-- this page needs: Rasa -->`` says it
of all that have none of their own. A ``text`` block after a ``sh`` or ``python`` block is what that prints; ``...`` in
it stands for anything.
"""

import os
import re
from pathlib import Path
from typing import Collection, Iterator, List, Match, NamedTuple, Optional

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"

CODE = ("sh", "python", "yaml")
PLAIN = ("text", "ini", "json")
"""What a block may be; of the second kind nothing is checked but what ``sh`` prints."""

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+) *(?P<language>[\w+-]*)(?P<rest>.*)$")
_TITLE = re.compile(r"title=\"([^\"]+)\"")
_NEEDS = re.compile(r"^ *<!-- needs: (.+?) -->$")
_PAGE_NEEDS = re.compile(r"^<!-- this page needs: (.+?) -->$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block. ``needs``: what it needs that is not here, so that it is not run. ``line``: of its fence.

    ``follows``: whether nothing stands between it and the block before it.
    """

    page: Path
    line: int
    language: str
    title: Optional[str]
    needs: Optional[str]
    follows: bool
    text: str

    def is_run(self, here: Collection[str] = ()) -> bool:
        """Whether a walk through the page does something with it, where ``here`` is what pages may need."""
        is_here = self.needs is None or self.needs in here
        return is_here and (self.language in ("sh", "python") or self.title is not None)

    def __str__(self) -> str:
        return f"{os.path.relpath(self.page, PROJECT)}:{self.line}"


def pages() -> List[Path]:
    """Return the pages of the site."""
    return sorted(DOCS.rglob("*.md"))


def everywhere() -> List[Path]:
    """Return all pages, and whatever else of the project is Markdown."""
    folders = ("demo", "deploy", "examples", "extras", "src", "tests", ".github")
    others = [*PROJECT.glob("*.md"), *(path for name in folders for path in (PROJECT / name).rglob("*.md"))]
    return [*sorted(others), *pages()]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    all_need = _PAGE_NEEDS.search(text)
    opened: Optional[Match[str]] = None
    needs: Optional[str] = None
    follows = False
    first = 0
    inside: List[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _FENCE.match(line)
        if opened is None:
            if found is not None:
                opened, first, inside = found, number, []
            elif line.strip():
                marked = _NEEDS.match(line)
                needs = marked.group(1) if marked else None
                follows = False
        elif line.strip() == opened["fence"]:
            title = _TITLE.search(opened["rest"])
            inner = "".join(f"{content}\n" for content in inside)
            needs = needs or (all_need.group(1) if all_need else None)
            yield Block(page, first, opened["language"], title.group(1) if title else None, needs, follows, inner)
            opened = needs = None
            follows = True
        else:
            inside.append(line[len(opened["indent"]) :] if line.startswith(opened["indent"]) else line)
    assert opened is None, f"{page}:{first}: this block has no end"
