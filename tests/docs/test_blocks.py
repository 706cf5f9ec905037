"""Every block of every page is one that a reader can use as it stands: what it names is there, under that name."""

import re
import shlex
import subprocess
from typing import Iterator, List

import pytest
import yaml
from pages import CODE, PLAIN, PROJECT, Block, blocks, pages

from extras.bench.__main__ import _arguments as bench_arguments
from extras.cli.main import make_parser
from extras.options import parse

OURS = {
    "extras.trackerstore.ExtraRedisTrackerStore": "tracker_store",
    "extras.lockstore.ExtraRedisLockStore": "lock_store",
    "extras.eventbroker.ExtraRedisEventBroker": "event_broker",
}
ALL = [block for page in [PROJECT / "README.md", *pages()] for block in blocks(page)]
_VARIABLE = re.compile(r"^\$\{\w+\}$")


def of(*languages: str) -> "pytest.MarkDecorator":
    """Run a test once for each block of these languages."""
    return pytest.mark.parametrize("block", [block for block in ALL if block.language in languages], ids=str)


def test_blocks_are_of_a_kind_that_is_looked_at() -> None:
    """A block of another kind would be neither run nor checked; one without a name is not even known to be any."""
    assert [str(block) for block in ALL if block.language not in (*CODE, *PLAIN)] == []


@of("yaml")
def test_yaml_is_what_rasa_and_the_stores_take(block: Block) -> None:
    content = yaml.safe_load(block.text)
    if not isinstance(content, dict):
        return
    for section, options in content.items():
        if isinstance(options, dict) and str(options.get("type", "")).startswith("extras."):
            assert OURS.get(options.pop("type")) == section, f"{block}: {section} has the type of another"
            given = {name: "0" if _VARIABLE.match(str(value)) else value for name, value in options.items()}
            assert parse(given).contradictions() == []


@of("python")
def test_python_can_be_compiled(block: Block) -> None:
    compile(block.text, str(block), "exec")


@of("sh")
def test_shell_is_known_commands_with_options_that_they_have(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block}: {done.stderr}"
    for words in commands(block.text):
        wrong = _judged(words)
        assert not wrong, f"{block}: {' '.join(words)}: {wrong}"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("rasa-extras doctor --jason", "cannot be read"),
        ("rasa-extras conversation list endpoints.yml", "cannot be read"),
        ("cat x | python -m extras.bench --fast", "cannot be read"),
        ("make nothing", "no such target"),
        ("python tests/no_such.py", "no such file"),
        ("frobnicate --all", "unknown program"),
        ("pip install rasa-extra", "unknown package"),
    ],
)
def test_what_is_wrong_is_found(text: str, wrong: str) -> None:
    assert [_judged(words) for words in commands(text)][-1].startswith(wrong)


PACKAGES = {"rasa-extras", "rasa", "ruamel.yaml", "opentelemetry-sdk", "opentelemetry-exporter-prometheus"}
OTHERS = {
    *(
        "cat",
        "cd",
        "cp",
        "curl",
        "docker",
        "echo",
        "export",
        "find",
        "grep",
        "kill",
        "kubectl",
        "mkdir",
        "openssl",
        "pip",
    ),
    "printf",
    *("rasa", "redis-cli", "redis-server", "sed", "sleep", "true", "wait", ".", "python3.10"),
}
"""Programs of others that pages use; they are run, or marked, and what they are given is not judged here."""


def commands(text: str) -> Iterator[List[str]]:
    """Yield the words of each command of a shell's text, without what is set before it and where it prints to."""
    lines = re.sub(r"(^|\s)#.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE).replace("\n", " ; ")
    lexer = shlex.shlex(lines, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: List[str] = []
    is_target = False
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;()") and word:
            while words and (re.match(r"^\w+=", words[0]) or words[0] in ("until", "do", "done", "if", "then", "fi")):
                words.pop(0)
            if words and words[0] != "for":  # what a loop goes over
                yield words
            words, is_target = [], False
        elif set(word) <= set("<>") and word:
            is_target = True
            if words and words[-1].isdigit():
                words.pop()
        elif is_target:
            is_target = False
        else:
            words.append(word)


def _judged(words: List[str]) -> str:
    """Return what is wrong with a command, nothing if that is not known."""
    program, *rest = words
    if program == "python" and rest[:1] == ["-m"]:
        program, rest = f"python -m {rest[1]}", rest[2:]
    if program in ("rasa-extras", "python -m extras", "python -m extras.bench"):
        try:
            bench_arguments(rest) if program.endswith("bench") else make_parser().parse_args(rest)
        except SystemExit:
            return f"cannot be read by {program}"
        return ""
    if program == "make":
        targets = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return "" if set(rest) <= set(targets) else "no such target of the Makefile"
    if program == "python":
        return "" if rest[0] == "-c" or (PROJECT / rest[0]).exists() else "no such file"
    if program == "pip" and rest[:1] != ["download"]:
        names = {re.split(r"[\[=<>]", word)[0] for word in rest[1:] if not word.startswith("-")}
        return "" if names <= PACKAGES else "unknown package"
    return "" if program in OTHERS else "unknown program"
