"""The messages of the page on troubleshooting are those of the sources; those of Redis are known to the doctor."""

import ast
import re
from typing import Iterator, List, Tuple

import pytest
from pages import DOCS, PROJECT, blocks

from extras.refusals import way_out_of

PAGE = DOCS / "troubleshooting.md"
_SAID_BY = re.compile(r"^<!-- said by: (\w+) -->$")
_VALUE = "\0"
_FORMAT = re.compile(r"%(?:\.\d+)?[srdfg]")


def messages() -> Iterator[Tuple[str, str]]:
    """Yield each message of the page, and who says it."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for block in blocks(PAGE):
        if block.language == "text":
            marked = _SAID_BY.match(lines[block.line - 2])
            yield from ((message, marked.group(1) if marked else "us") for message in block.text.splitlines())


def texts() -> List[str]:
    """Return every text in the package's sources, with a mark in the place of each value that is put into it."""
    found: List[str] = []
    for path in (PROJECT / "extras").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else _VALUE for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(_FORMAT.sub(_VALUE, node.value))
    return found


TEXTS = texts()


def is_ours(message: str) -> bool:
    """Return whether the package has a text for which this is one."""
    shape = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
    return any(shape.search(text) for text in TEXTS)


@pytest.mark.parametrize("message", [message for message, who in messages() if who == "us"])
def test_a_message_is_in_the_sources(message: str) -> None:
    assert is_ours(message)


@pytest.mark.parametrize("message", [message for message, who in messages() if who == "Redis"])
def test_a_message_of_redis_has_a_way_out(message: str) -> None:
    assert way_out_of(Exception(message)) != way_out_of(Exception())


def test_what_nobody_says_is_found() -> None:
    assert not is_ours("unknown option ... (try ...")
    assert len(list(messages())) > 30
