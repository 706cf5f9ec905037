"""The picture, in README.md and on a page, of ``rasa-extras conversations show`` is what the command prints.

After a change of it put the output of ``python tests/unit/test_picture.py`` into ``docs/conversations-show.svg``. The
conversation is the one that Rasa 3.6.21 recorded in 20 turns with the assistant of ``rasa init``.
"""

import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import List
from xml.sax.saxutils import escape

import redis

from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "conversations-show.svg"
COMMAND = ["conversations", "show", "endpoints.yml", "alice"]
LINES = 28
"""How many are pictured: the recorded turns repeat after these."""

_CHARACTER, _LINE, _MARGIN, _BAR = 8.4, 20, 20, 36
_COLUMNS = 76

_STYLE = """\
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;fill:#d7dae0}
.time{fill:#7d8590}.user{fill:#7ee787;font-weight:bold}.bot{fill:#79c0ff;font-weight:bold}.dim{fill:#8b949e}
.note{fill:#d2a8ff}.command{fill:#f0f3f6;font-weight:bold}"""

_ROW = re.compile(r"^(?P<time>\d\d:\d\d:\d\d)?(?P<gap>\s+)(?P<who>user|bot)?(?P<rest>.*?)(?P<note>\s{3}<[^<>]*>)?$")


def shown() -> List[str]:
    """Return the lines of a terminal: the command, and the first that it prints on a server of its own."""
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        client = redis.Redis(port=server.port)
        client.set("tracker:alice", RECORDED)
        client.connection_pool.disconnect()
        store = {"type": "extras.trackerstore.ExtraRedisTrackerStore", "url": "127.0.0.1", "port": server.port}
        Path(folder, "endpoints.yml").write_text(json.dumps({"tracker_store": store}))
        command = [sys.executable, "-m", "extras", *COMMAND]
        printed = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True, timeout=120).stdout
    lines = printed.decode("utf-8").splitlines()[:LINES]
    return [f"$ rasa-extras {' '.join(COMMAND)} | head -{LINES}", *lines]


def picture(lines: List[str]) -> str:
    """Return the SVG of a terminal with these lines; it is dark, with an edge, on light and dark pages alike."""
    width, height = round(_COLUMNS * _CHARACTER) + 2 * _MARGIN, len(lines) * _LINE + _BAR + _MARGIN
    size = f'width="{width}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}">']
    parts.append(f"<title>{escape(lines[0])}</title><style>{_STYLE}</style>")
    edge = f'width="{width - 1}" height="{height - 1}"'
    parts.append(f'<rect x=".5" y=".5" {edge} rx="8" fill="#161b22" stroke="#6e7681"/>')
    for at, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f")):
        parts.append(f'<circle cx="{_MARGIN + 2 + 18 * at}" cy="18" r="5.5" fill="{colour}"/>')
    for number, line in enumerate(lines):
        y = _BAR + (number + 1) * _LINE - 4
        parts.append(f'<text xml:space="preserve" x="{_MARGIN}" y="{y}">{_coloured(number, line)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _coloured(number: int, line: str) -> str:
    found = _ROW.match(line)
    if number < 2 or found is None:
        return _part("dim" if number else "command", 0, line)
    kinds = {
        "time": "time",
        "gap": "",
        "who": found["who"] or "",
        "rest": "" if found["who"] else "dim",
        "note": "note",
    }
    return "".join(_part(kind, found.start(name), found[name]) for name, kind in kinds.items() if found[name])


def _part(kind: str, column: int, text: str) -> str:
    """Return a part of a line at its column, so that columns stay where a viewer has no monospaced font."""
    return f'<tspan class="{kind}" x="{_MARGIN + column * _CHARACTER:.1f}">{escape(text)}</tspan>'


def test_the_picture_is_what_the_command_prints() -> None:
    lines = shown()
    drawn = ElementTree.fromstring(PICTURE.read_text(encoding="utf-8"))
    assert ["".join(text.itertext()) for text in drawn.iter("{http://www.w3.org/2000/svg}text")] == lines
    assert picture(lines) == PICTURE.read_text(encoding="utf-8")
    assert max(map(len, lines)) <= _COLUMNS


if __name__ == "__main__":
    print(picture(shown()), end="")
