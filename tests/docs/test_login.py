"""The rights that the page on login gives are those that the stores need, and no others."""

import re
from pathlib import Path

from pages import DOCS, blocks

import extras.tickets
from extras.cli.checks_acl import commands_of_index, commands_of_store
from extras.tickets import Queues

OF_EVERY_CONNECTION = {"auth", "client", "hello", "ping", "select"}


def test_the_page_gives_what_is_needed_and_nothing_else() -> None:
    texts = "\n".join(block.text for block in blocks(DOCS / "how-to" / "login.md") if block.language == "sh")
    given = {right.partition("\\")[0] for right in re.findall(r"\s\+(\S+)", texts)}
    stores = {command[0].lower() for command in [*commands_of_store("key", "*"), *commands_of_index("key")]}
    scripts = Path(extras.tickets.__file__).read_text(encoding="utf-8")
    locks = {name.lower() for name in re.findall(r"redis\.p?call\('([A-Z]+)'", scripts)}
    assert given == stores | locks | {"subscribe"} | OF_EVERY_CONNECTION
    assert f"'&{Queues('lock:').channel}'" in texts
