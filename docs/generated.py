"""What the documentation shows of the sources, made of them when it is built: a hook of mkdocs.

A line ``<!-- made of: options -->`` of a page is replaced by what the function of that name here returns.
"""

import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Callable, Dict, List

PROJECT = Path(__file__).resolve().parents[1]
sys.path.append(str(PROJECT / "tests" / "unit"))

from test_readme import options_table  # noqa: E402

from extras import keepalive  # noqa: E402
from extras.bench.__main__ import main as bench  # noqa: E402
from extras.cli.conversations import ACTIONS  # noqa: E402
from extras.cli.main import COMMANDS, main  # noqa: E402

_MADE_OF = re.compile(r"^<!-- made of: ([\w-]+) -->$", re.MULTILINE)
_COLUMNS = "110"


def options() -> str:
    """Return the table of the store's options."""
    return options_table()


def liveness_names() -> str:
    """Return a table of the names that ``socket_keepalive_options`` takes."""
    units = {"idle_s": "s", "interval_s": "s", "count": "", "user_timeout_ms": "ms"}
    rows = ["| Name | Sets | One of it is |", "| --- | --- | --- |"]
    for name, meaning in keepalive.NAMES.items():
        factor = meaning.numerator / meaning.denominator
        unit = units[meaning.field]
        rows.append(f"| `{name}` | {keepalive.LABELS[meaning.field]} | {factor:g} {unit} |".replace("  ", " "))
    rows.append(f"| `{keepalive.SIO_KEEPALIVE_VALS}` | idle, interval | `[1, idle in ms, interval in ms]` |")
    return "\n".join(rows)


def commands() -> str:
    """Return the help of ``rasa-extras`` and all that is below it."""
    words: List[List[str]] = [[]]
    for command in COMMANDS:
        name = command.__name__.rsplit(".", 1)[-1]
        words.append([name])
        words += [[name, action] for action in ACTIONS] if name == "conversations" else []
    return "\n\n".join(_helped(" ".join(["rasa-extras", *called]), main, called) for called in words)


def benchmark() -> str:
    """Return the help of ``python -m extras.bench``."""
    return _helped("python -m extras.bench", bench, [])


def _helped(title: str, program: Callable[[List[str]], Any], words: List[str]) -> str:
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _COLUMNS
    try:
        with redirect_stdout(printed):
            program([*words, "--help"])
    except SystemExit:
        pass
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return f"## {title}\n\n```text\n{printed.getvalue().rstrip()}\n```"


def changes() -> str:
    """Return the changelog."""
    return (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


def hosts() -> str:
    """Return the README's table of Rasas."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    return text[text.index("| Rasa | Python |") :].partition("\n\n")[0]


def faults() -> str:
    """Return the README's table of faults."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    return text[text.index("| Fault ") :].partition("\n\n")[0]


def how_to_report() -> str:
    """Return what SECURITY.md says, without its heading."""
    return (PROJECT / "SECURITY.md").read_text(encoding="utf-8").partition("\n")[2].strip()


MADE: Dict[str, Callable[[], str]] = {
    function.__name__.replace("_", "-"): function
    for function in (options, liveness_names, commands, benchmark, changes, hosts, faults, how_to_report)
}


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Put in a page what is made of the sources."""
    return _MADE_OF.sub(lambda found: MADE[found.group(1)](), markdown)
