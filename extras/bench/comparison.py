"""What the samples of clients say: medians, spread, how many times as fast as redis-py; as data and as tables."""

from typing import Any, Dict, List, Optional, Sequence

from extras.bench.interleaved import Compared, Samples
from extras.bench.text import table, us
from extras.bench.uncertainty import LEVEL, described, ratio

WHATS = {
    "wall_us": "time",
    "cpu_us": "CPU time of the client, all its threads",
    "server_cpu_us": "CPU time of the server, by its own count",
}
"""What is measured of an operation, in microseconds, and its title."""


def as_data(
    title: str, header: Dict[str, Any], skipped: Dict[str, str], compared: Sequence[Compared]
) -> Dict[str, Any]:
    """Return everything as plain data; units are in the names. ``skipped``: why a side is missing, by its name."""
    cases = [_case(found) for found in compared]
    return {"title": title, "header": header, "skipped": skipped, "level": LEVEL, "cases": cases}


def _case(found: Compared) -> Dict[str, Any]:
    baseline = next(iter(found.samples.values()))
    return {
        "case": found.case.name,
        "command": found.case.command,
        "bytes": found.case.size,
        "workers": found.case.workers,
        "sides": {name: _side(samples, baseline) for name, samples in found.samples.items()},
    }


def _side(samples: Samples, baseline: Samples) -> Dict[str, Any]:
    data: Dict[str, Any] = {"rounds": len(samples.costs), "operations_per_round": samples.operations}
    for what, values, base in (
        ("wall_us", samples.wall_us(), baseline.wall_us()),
        ("cpu_us", samples.cpu_us(), baseline.cpu_us()),
        ("server_cpu_us", samples.server_cpu_us(), baseline.server_cpu_us()),
    ):
        if values is None or base is None:
            data[what] = None
        else:
            data[what] = {**described(values), "times_as_fast": ratio(base, values)}
    return data


def as_text(data: Dict[str, Any]) -> str:
    """Return the header and the tables of what :func:`as_data` made."""
    lines = [f"{data['title']}", *(f"{name}: {value}" for name, value in data["header"].items())]
    lines += [f"skipped: {name}: {why}" for name, why in data["skipped"].items()]
    baseline = next((name for case in data["cases"] for name in case["sides"]), "")
    lines += [
        "",
        "Each cell: median microseconds for an operation, range of the middle half of the rounds (IQR), how many times "
        f"as fast as {baseline}, the median of the ratios of each round, and where it lies with {data['level']:.4g} "
        "confidence (bootstrap).",
    ]
    for what, title in WHATS.items():
        rows = _rows(data["cases"], what)
        if rows:
            lines += ["", title, table(rows)]
    far_out = _far_out(data["cases"])
    if far_out:
        lines += ["", f"far from the other rounds (they count all the same): {', '.join(far_out)}"]
    return "\n".join(lines)


def _rows(cases: List[Dict[str, Any]], what: str) -> List[List[str]]:
    names = list(dict.fromkeys(name for case in cases for name, side in case["sides"].items() if side[what]))
    rows = [["case", *names]]
    for case in cases:
        rows.append([case["case"], *(cell(case["sides"].get(name), what) for name in names)])
    return rows if names else []


def cell(side: Optional[Dict[str, Any]], what: str, short: bool = False) -> str:
    """Return one side's figures of a case. ``short``: without spread and interval."""
    if side is None or side[what] is None:
        return "-"
    found = side[what]
    low, high = found["times_as_fast"]["interval"]
    times = found["times_as_fast"]["median"]
    if short:
        return f"{us(found['median'])} {times:.2f}x"
    return f"{us(found['median'])} ({us(found['iqr'])}) {times:.2f}x ({low:.2f}-{high:.2f})"


def _far_out(cases: List[Dict[str, Any]]) -> List[str]:
    return [
        f"{name}, {case['case']}: {side['wall_us']['outliers']} of {side['rounds']}"
        for case in cases
        for name, side in case["sides"].items()
        if side["wall_us"]["outliers"]
    ]
