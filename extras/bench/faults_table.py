"""What came of the faults, as tables in Markdown, side by side. Plain data in, text out."""

from typing import Any, Dict, List, Optional, Sequence

from extras.bench.faults_run import LIMIT_S

EXPLAINED = (
    "Ends: what the first call under the fault that failed ended with, after how long it began, or the slowest call "
    "if none failed. Pause: the longest time for which the event loop did nothing else, other processes' time on its "
    "processor apart. Lost, doubled: acknowledged events that Redis does not hold, and events that it holds twice, "
    "after all. Back: from the fault's end to the next turn that was acknowledged. Nothing is waited for longer than "
    f"{LIMIT_S:g} s."
)


def as_text(data: Dict[str, Any]) -> str:
    """Return the header and tables of what ``faults_suite.measure`` made."""
    names = list(dict.fromkeys(name for row in data["rows"] for name in row["contenders"]))
    lines = [f"{name}: {value}" for name, value in data["header"].items()]
    lines += [f"skipped: {name}: {why}" for name, why in data["skipped"].items()]
    lines += [f"not run: {name}: {why}" for name, why in data["not_run"].items()]
    lines += ["", EXPLAINED]
    if data["bounds"] is not None:
        lines += [f"Kept by ours: {data['bounds']}."]
    lines += ["", side_by_side(data)]
    lines += ["", markdown([["Fault", *names], *(_messages(row, names) for row in data["rows"])])]
    lines += _liveness(data["liveness"])
    return "\n".join(lines)


def side_by_side(data: Dict[str, Any]) -> str:
    """Return the table of what came of each fault, which README.md has, too."""
    names = list(dict.fromkeys(name for row in data["rows"] for name in row["contenders"]))
    return markdown([_headings(names, data), *(_row(row, names) for row in data["rows"])])


def _headings(names: Sequence[str], data: Dict[str, Any]) -> List[str]:
    headings = ["Fault"]
    for name in names:
        headings += [f"{name}: ends", "Pause", "Lost, doubled", "Back"]
    return [*headings, "Kept"] if data["bounds"] is not None else headings


def _row(row: Dict[str, Any], names: Sequence[str]) -> List[str]:
    cells = [row["fault"]]
    for name in names:
        cells += _cells(row["contenders"][name])
    return [*cells, ", ".join(row["broken"]) or "yes"] if "broken" in row else cells


def _cells(found: Dict[str, Any]) -> List[str]:
    if "failed" in found:
        return ["failed", "-", "-", "-"]
    after = _seconds(found["after_s"])
    ends = f"{found['error']} {after}" if found["error"] else after
    order = f", {found['disordered']} out of order" if found["disordered"] else ""
    return [ends, _pause(found["pause_s"]), f"{found['lost']}, {found['doubled']}{order}", _seconds(found["back_s"])]


def _seconds(value: Optional[float]) -> str:
    if value is None:
        return f"> {LIMIT_S:g} s"
    return f"{value:.2f} s" if value < 0.1 else f"{value:.1f} s"


def _pause(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _messages(row: Dict[str, Any], names: Sequence[str]) -> List[str]:
    return [row["fault"], *(_message(row["contenders"][name]) for name in names)]


def _message(found: Dict[str, Any]) -> str:
    if "failed" in found:
        return " ".join(str(found["failed"]).strip().splitlines()[-1:])
    return f"{found['error']}: {found['message']}" if found["error"] else "-"


def _liveness(liveness: Dict[str, Any]) -> List[str]:
    if "failed" in liveness:
        return ["", f"TCP liveness failed: {liveness['failed']}"]
    if not liveness["cases"]:
        return []
    rows = [["Network swallows all, no read timeout", "Connection", "Noticed", "Bound", "Kept"]]
    for case in liveness["cases"]:
        noticed = "no" if case["after_s"] is None else f"{case['error']} {case['after_s']:.1f} s"
        rows.append([case["case"], case["connection"], noticed, case["bound"], "yes" if case["is_kept"] else "NO"])
    return ["", markdown(rows)]


def schedules_as_text(data: Dict[str, Any]) -> str:
    """Return the table of random schedules, and the steps of those that went wrong."""
    lines = [f"{name}: {value}" for name, value in data["header"].items()]
    if data["without network"] is not None:
        lines.append(f"without faults of the network: {data['without network']}")
    rows = [["Seed", "Acknowledged", "Lost", "Doubled", "Out of order", "Failed calls", "Longest call", "Right"]]
    wrong: List[str] = []
    for found in data["schedules"]:
        if "failed" in found:
            rows.append([found["seed"], *["-"] * 6, "NO"])
            wrong += ["", f"schedule {found['seed']} failed:", found["failed"]]
            continue
        counts = [f"{found[what]:,}" for what in ("acknowledged", "lost", "doubled", "disordered", "failed_calls")]
        right = "yes" if found["is_right"] else "NO" if found["is_back"] else "NO, not back"
        rows.append([found["seed"], *counts, f"{found['longest_s']:.1f} s", right])
        if not found["is_right"]:
            wrong += ["", f"schedule {found['seed']}:", *found["steps"]]
    return "\n".join([*lines, "", markdown(rows), *wrong])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a heading as a table in Markdown, aligned."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*escaped)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in escaped]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)
