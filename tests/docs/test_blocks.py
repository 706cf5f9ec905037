"""Every block of every page is one that a reader can use as it stands: what it names is there, under that name."""

import re
import subprocess
from pathlib import Path
from typing import Dict, Tuple

import pytest
import yaml
from pages import CODE, PLAIN, PROJECT, Block, blocks, everywhere, pages
from shell import commands, judged

from extras.options import parse

OURS = {
    "extras.trackerstore.ExtraRedisTrackerStore": "tracker_store",
    "extras.lockstore.ExtraRedisLockStore": "lock_store",
    "extras.eventbroker.ExtraRedisEventBroker": "event_broker",
}
ALL = [block for page in everywhere() for block in blocks(page)]
_VARIABLE = re.compile(r"^\$\{\w+\}$")


NOWHERE = {
    *("the network", "Docker", "the network, and Docker", "Docker, a registry and a cluster", "a cluster"),
    "a terminal with somebody at it",
}
"""What blocks need that no test has: a cloud, or what is somewhere in one; and a person."""
ELSEWHERE: Dict[str, Tuple[str, str]] = {
    "Rasa": ("tests/host/test_pages.py", "{page}"),
    "the folder deploy/": ("tests/docs/test_walks.py", "{page}"),
    "the machine of a running Rasa": ("tests/host/test_outage.py", "journal"),
    "the store of a running Rasa": ("tests/host/test_outage.py", "outage_journal()"),
    "somebody who talks": ("tests/unit/test_conversations_cli.py", '"conversations", "tail"'),
    "a Rasa that publishes": ("tests/host/test_eventbroker.py", "consume_events.py"),
    "Rasa, and your own Redis": ("tests/host/test_bench.py", "--endpoints"),
    "some minutes of an idle machine": ("tests/unit/test_bench_recorded.py", '"--compare"'),
    "Rasa, and half an hour of an idle machine": ("tests/unit/test_bench_recorded.py", '"--append"'),
    "five minutes of a processor": ("demo/rasa_server.py", '"init", "--no-prompt"'),
    "Rasa, and what that line names": ("tests/host/test_deployment.py", "run_here"),
    "the sources, and whole cells of tests": (".ci/run", "make test"),
}
"""What blocks need that is not where their page is walked through: who does the same, and what shows it there.

``{page}``: the name of the block's page.
"""


def of(*languages: str) -> "pytest.MarkDecorator":
    """Run a test once for each block of these languages."""
    return pytest.mark.parametrize("block", [block for block in ALL if block.language in languages], ids=str)


def test_blocks_are_of_a_kind_that_is_looked_at() -> None:
    """A block of another kind would be neither run nor checked; one without a name is not even known to be any."""
    assert [str(block) for block in ALL if block.language not in (*CODE, *PLAIN)] == []


@pytest.mark.parametrize("block", [block for block in ALL if block.needs], ids=str)
def test_what_is_not_run_is_done_elsewhere_or_cannot_be(block: Block) -> None:
    """A mark is one of two tables, so that none is an excuse of its own."""
    assert block.needs is not None
    if block.needs not in NOWHERE:
        assert block.needs in ELSEWHERE, f"{block}: neither run nor tried elsewhere: needs {block.needs}"
        file, shown = ELSEWHERE[block.needs]
        assert shown.format(page=block.page.name) in (PROJECT / file).read_text(encoding="utf-8")


def test_no_mark_is_left_that_nothing_has() -> None:
    assert {block.needs for block in ALL if block.needs} == {*NOWHERE, *ELSEWHERE}


@of("sh", "python")
def test_every_command_is_run_or_marked(block: Block) -> None:
    walked = {PROJECT / "README.md", *pages()}
    assert block.needs or block.page in walked, f"{block}: nobody walks through this page, so say what it needs"


@of(*PLAIN)
def test_no_command_is_shown_as_what_is_printed(block: Block) -> None:
    assert not re.search(r"^ *[$%] ", block.text, re.MULTILINE), f"{block}: make it a block of sh"


@pytest.mark.parametrize("page", everywhere(), ids=lambda page: str(page.name))
def test_no_block_is_written_in_another_way(page: Path) -> None:
    """By tildes, or as HTML: those are not looked at."""
    assert not re.search(r"^ *(~~~|<pre|<code)", page.read_text(encoding="utf-8"), re.MULTILINE)


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
        wrong = judged(words)
        assert not wrong, f"{block}: {' '.join(words)}: {wrong}"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("rasa-extras doctor --jason", "cannot be read"),
        ("rasa-extras conversation list endpoints.yml", "cannot be read"),
        ("cat x | python -m extras.bench --fast", "cannot be read"),
        ("rasa-extras migrate", "cannot be read"),
        ("make nothing", "no such target"),
        ("python tests/no_such.py", "no such file"),
        ("python tests/cells.py --often", "no such option"),
        ("pytest tests/docs/no_such.py", "no such file"),
        ("pytest -k nothing_like_it tests/docs/test_site.py", "no such test"),
        ("frobnicate --all", "unknown program"),
        ("pip install rasa-extra", "unknown package"),
    ],
)
def test_what_is_wrong_is_found(text: str, wrong: str) -> None:
    assert [judged(words) for words in commands(text)][-1].startswith(wrong)
