"""Bars of text for a terminal: a turn against the length of its history, and clients beside each other."""

import math
from typing import Any, Dict, List, Tuple

from extras.bench.text import ms, us

_WIDTH = 50

Bar = Tuple[str, float, str]
"""Name, length and what is written beside it."""


def as_text(data: Dict[str, Any]) -> str:
    """Return a chart for each history and each case of clients; the bars of one chart have one scale."""
    charts = []
    histories = data.get("tracker", {}).get("histories", [])
    turns = [
        (f"{history['history']}, {name}", store["turn_ms"]["median"], f"{ms(store['turn_ms']['median'])} ms")
        for history in histories
        for name, store in history["stores"].items()
    ]
    if turns:
        charts.append(_chart("a turn, logarithmic scale", turns, is_logarithmic=True))
    for group in ("wire", "async"):
        for case in data.get(group, {}).get("cases", ()):
            found = {name: side["wall_us"]["median"] for name, side in case["sides"].items()}
            bars = [(name, value, f"{us(value)} us") for name, value in found.items()]
            charts.append(_chart(f"{data[group]['title']}: {case['case']}", bars))
    return "\n\n".join(charts)


def _chart(title: str, bars: List[Bar], is_logarithmic: bool = False) -> str:
    names = max(len(name) for name, _, _ in bars)
    least, most = min(value for _, value, _ in bars), max(value for _, value, _ in bars)
    lines = [title]
    for name, value, shown in bars:
        share = value / most
        if is_logarithmic:  # the shortest bar is a tenth of its value long
            share = math.log(value / least * 10) / math.log(most / least * 10)
        lines.append(f"  {name.ljust(names)}  {'#' * max(1, round(share * _WIDTH))} {shown}")
    return "\n".join(lines)
