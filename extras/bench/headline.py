"""The few figures that say most, of a run without arguments."""

from typing import Any, Dict, List

from extras.bench import results
from extras.bench.comparison import cell
from extras.bench.peers import OURS
from extras.bench.text import ms, table

_SHOWN = ("redis-py", *OURS, "coredis", "valkey-glide", "C hiredis")


def as_text(data: Dict[str, Any], skipped: Dict[str, str]) -> str:
    """Return one header, and a table of each group that was measured. ``skipped``: why others were not, by name."""
    groups = [data[name] for name in ("tracker", "wire", "async") if name in data]
    header: Dict[str, Any] = {}
    for group in groups:
        header.update(group["header"])
    lines = [f"{name}: {value}" for name, value in header.items()]
    left_out = {**skipped, **{name: why for group in groups for name, why in group.get("skipped", {}).items()}}
    lines += [f"skipped: {name}: {why}" for name, why in left_out.items()]
    if "tracker" in data:
        lines += ["", "A turn of a conversation (retrieve + save): milliseconds", table(_turns(data["tracker"]))]
    for name in ("wire", "async"):
        if name in data:
            title = f"{data[name]['title']}: microseconds, and how many times as fast as redis-py".capitalize()
            lines += ["", title, table(_clients(data[name]))]
    lines += ["", "More: --tracker, --wire, --async or --all; --json FILE for all figures; --help for the method."]
    return "\n".join(lines)


def _turns(tracker: Dict[str, Any]) -> List[List[str]]:
    names = list(dict.fromkeys(name for history in tracker["histories"] for name in history["stores"]))
    rows = [
        ["history", *names, "/".join(names), *(f"{who} CPU {name}" for name in names for who in ("client", "server"))]
    ]
    for history in tracker["histories"]:
        stores, found = history["stores"], history["times_as_fast"].get("turn")
        row = [history["history"]]
        row += [ms(stores[name]["turn_ms"]["median"]) if name in stores else "-" for name in names]
        row.append(results.times(found) if found else "-")
        for name in names:
            turn = stores.get(name, {}).get("per_turn", {})
            row += ["-" if turn.get(what) is None else ms(turn[what]) for what in ("cpu_ms", "server_cpu_ms")]
        rows.append(row)
    return rows


def _clients(group: Dict[str, Any]) -> List[List[str]]:
    there = {name for case in group["cases"] for name in case["sides"]}
    names = [name for name in _SHOWN if name in there]
    rows = [["case", "", *names]]
    for case in group["cases"]:
        for what, title in (("wall_us", "time"), ("cpu_us", "client CPU"), ("server_cpu_us", "server CPU")):
            cells = [cell(case["sides"].get(name), what, short=True) for name in names]
            rows.append([case["case"] if what == "wall_us" else "", title, *cells])
    return rows
