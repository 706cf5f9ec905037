"""A command that is named in a sentence or a table exists, with the options that it is given there."""

import re
from pathlib import Path
from typing import Iterator, List, NamedTuple

import pytest
from pages import PROJECT, blocks, everywhere
from shell import NAMES, OURS, commands, helps, judged, options_in

from extras.cli.conversations import ACTIONS

_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_SET = re.compile(r"^([A-Z][A-Z_]+)=\S+ ")
SOURCES = [path for name in ("extras", "tests", "demo", "deploy") for path in (PROJECT / name).rglob("*.py")]
SCRIPTS = ("cells.py", "fuzz.py", "run_here.py")
OTHERS_OPTIONS = {"--debug", "--enable-api", "--tls-auth-clients"}
"""Of Rasa and Redis."""


class Named(NamedTuple):
    """Something in a page between backquotes."""

    page: Path
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text}"


def named() -> Iterator[Named]:
    """Yield all that stands between backquotes, outside of blocks."""
    for page in everywhere():
        lines = page.read_text(encoding="utf-8").splitlines()
        for block in blocks(page):
            end = block.line + len(block.text.splitlines()) + 1
            lines[block.line - 1 : end] = [""] * (end - block.line + 1)
        for text in _CODE.findall("\n".join(lines)):
            yield Named(page, " ".join(text.split()))


def whole(text: str) -> str:
    """Return what a page leaves to its reader put in: a number, and the program of an action."""
    first = text.split(" ", 1)[0]
    program = "rasa-extras " if first in NAMES else "rasa-extras conversations " if first in ACTIONS else ""
    return program + re.sub(r"\b[NS]\b", "1", text).replace(" ...", "")


def is_command(text: str) -> bool:
    """Return whether a text is one of those that are known here by their first word."""
    words = whole(_SET.sub("", text)).split()
    known = {program.split()[0] for program in OURS} | {"make", "pip", "pytest"}
    return len(words) > 1 and words[0] in known and words != ["python", "-m", "pytest"]


ALL = list(dict.fromkeys(named()))


def wrong_with(text: str) -> List[str]:
    """Return what is wrong with the commands of a text."""
    judgements = (judged(words, is_whole=False) for words in commands(whole(text)))
    return [judgement for judgement in judgements if judgement]


@pytest.mark.parametrize("one", [one for one in ALL if is_command(one.text)], ids=str)
def test_a_command_in_a_sentence_exists(one: Named) -> None:
    assert wrong_with(one.text) == []


def test_an_option_by_itself_exists() -> None:
    sources = (path.read_text(encoding="utf-8") for path in SOURCES if path.name in SCRIPTS)
    known = {option for text in [*helps(), *sources] for option in options_in(text)} | OTHERS_OPTIONS
    assert [str(one) for one in ALL if one.text.startswith("--") and not options_in(one.text) <= known] == []


def test_a_variable_that_is_set_before_a_command_is_read_somewhere() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in [*SOURCES, PROJECT / "setup.py"])
    names = {name for one in ALL for name in re.findall(r"^([A-Z][A-Z_]+)=|\s([A-Z][A-Z_]+)=(?=\S+ )", one.text)}
    found = {first or second for first, second in names}
    assert len(found) >= 5
    assert [name for name in found if f'"{name}"' not in sources] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("rasa-extras migrate", False),
        ("rasa-extras doctor --jason", True),
        ("rasa-extras diagnose", True),
        ("rasa-extras conversations list --everything", True),
        ("delete endpoints.yml SENDER", False),
        ("delete endpoints.yml --sender SENDER", True),
        ("python -m extras.bench --schedules N", False),
        ("python -m extras.bench --timetables N", True),
        ("make nothing", True),
        ("pip install rasa-extra", True),
        ("python tests/cells.py --often", True),
        ("OUTAGE_S=3 pytest -s -k no_such_test tests/docs/test_site.py", True),
    ],
)
def test_what_is_wrong_is_found(text: str, wrong: bool) -> None:
    assert is_command(text)
    assert bool(wrong_with(text)) == wrong
