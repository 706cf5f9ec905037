"""Pictures of what was measured, as SVG or PNG, by matplotlib: one panel for each kind of figure that is there."""

import importlib
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from extras.bench.missing import Missing

FORMATS = (".svg", ".png")

_COLOURS = {
    **{"ours": "#0b6e4f", "stock": "#b23a48", "redis-py": "#b23a48", "AsyncFastRedis": "#0b6e4f"},
    **{"redis-py, no hiredis": "#cc79a7", "AsyncFastConnection": "#e69f00"},
    **{"coredis": "#56b4e9", "valkey-glide": "#555555"},
}
"""Ours, and what it is compared with, look the same in all panels; colours that the colour-blind tell apart too."""

Panel = Tuple[str, Callable[[Any], None]]


def draw(data: Dict[str, Any], path: Path) -> None:
    """Write a picture. Raises :class:`Missing` if matplotlib is, or if there is nothing that can be drawn."""
    panels = _panels(data)
    if not panels:
        raise Missing("--plot: nothing of this can be drawn; measure --async, --faults, or several --history")
    try:
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise Missing(f"--plot needs matplotlib ({error}); pip install 'rasa-extras[bench]'") from error
    # Text stays text, and the same figures make the same file.
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rasa-extras", "font.size": 9}):
        pyplot.switch_backend("agg")
        height = max(4.0, 0.34 * len(_faults(data)))
        figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), height), squeeze=False)
        try:
            for axis, (title, fill) in zip(axes[0], panels):
                axis.set_title(title)
                axis.grid(True, which="major", alpha=0.3)
                for side in ("top", "right"):
                    axis.spines[side].set_visible(False)
                fill(axis)
                if axis.get_legend_handles_labels()[0]:
                    axis.legend(frameon=False)
            figure.tight_layout()
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, metadata=metadata, dpi=150)
        finally:
            pyplot.close(figure)


def _panels(data: Dict[str, Any]) -> List[Panel]:
    panels: List[Panel] = []
    histories = data.get("tracker", {}).get("histories", [])
    # Those of one kind of session: others are points beside the line.
    alike = [history for history in histories if history["events_per_session"] == 60]
    if len(alike) > 1:
        panels.append(("a turn against the length of its history", lambda axis: _turns(axis, alike)))
    both = [history for history in alike if len(history["stores"]) > 1]
    if both:
        panels.append((f"turns at {both[-1]['history']}", lambda axis: _distributions(axis, both[-1]["stores"])))
    by_tasks = [case for case in data.get("async", {}).get("cases", []) if case["command"] == "get"]
    by_tasks = [case for case in by_tasks if case["bytes"] == 100]
    if len(by_tasks) > 1:
        panels.append(("GET of 100 B by many tasks", lambda axis: _throughput(axis, by_tasks)))
    faults = _faults(data)
    if faults:
        panels.append(("a call under each fault", lambda axis: _timeline(axis, faults)))
    return panels


def _faults(data: Dict[str, Any]) -> List[Dict[str, Any]]:
    rows: List[Dict[str, Any]] = data.get("faults", {}).get("rows", [])
    return rows


def _turns(axis: Any, histories: List[Dict[str, Any]]) -> None:
    for name in dict.fromkeys(name for history in histories for name in history["stores"]):
        there = [
            (history["events"], history["stores"][name]["turn_ms"])
            for history in histories
            if name in history["stores"]
        ]
        events = [point[0] for point in there]
        medians = [point[1]["median"] for point in there]
        lows = [point[1]["median"] - point[1]["interval"][0] for point in there]
        highs = [point[1]["interval"][1] - point[1]["median"] for point in there]
        axis.errorbar(events, medians, yerr=[lows, highs], marker="o", capsize=3, label=name, color=_COLOURS.get(name))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("events in the conversation")
    axis.set_ylabel("milliseconds (median, 95 % interval)")


def _distributions(axis: Any, stores: Dict[str, Any]) -> None:
    for name, store in stores.items():
        values = sorted(store["turn_ms"]["samples"])
        shares = [(number + 1) / len(values) * 100 for number in range(len(values))]
        axis.step(values, shares, where="post", label=name, color=_COLOURS.get(name))
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds")
    axis.set_ylabel("% of turns that take no longer")


def _throughput(axis: Any, cases: List[Dict[str, Any]]) -> None:
    for name in dict.fromkeys(name for case in cases for name in case["sides"]):
        there = [(case["workers"], case["sides"][name]["wall_us"]["median"]) for case in cases if name in case["sides"]]
        if len(there) > 1:
            tasks, thousands = zip(*((workers, 1000 / wall_us) for workers, wall_us in sorted(there)))
            axis.plot(tasks, thousands, marker="o", label=name, color=_COLOURS.get(name))
    axis.set_xscale("log", base=2)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("tasks")
    axis.set_ylabel("thousand operations a second")


def _timeline(axis: Any, faults: List[Dict[str, Any]]) -> None:
    """Draw, for each fault and client, the seconds until a call ended, and those in which its loop did nothing else."""
    names = list(dict.fromkeys(name for row in faults for name in row["contenders"]))
    step = 0.8 / len(names)
    for side, name in enumerate(names):
        colour = _COLOURS.get(name, f"C{side}") if name != "redis-py" or "stock" not in names else "#6c757d"
        rows = [
            (number + (side - (len(names) - 1) / 2) * step, row["contenders"][name])
            for number, row in enumerate(faults)
            if "failed" not in row["contenders"].get(name, {"failed": ""})
        ]
        places = [place for place, _ in rows]
        ends = [found["longest_s"] if found["after_s"] is None else found["after_s"] for _, found in rows]
        axis.barh(places, [max(end, 0.02) for end in ends], height=0.3 * step, color=colour, label=name)
        axis.barh(places, [found["pause_s"] for _, found in rows], height=0.9 * step, color=colour)
    axis.set_yticks(range(len(faults)), [row["fault"] for row in faults])
    axis.invert_yaxis()
    axis.set_xlabel("seconds (thick: nothing else ran meanwhile)")
