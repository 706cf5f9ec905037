"""Whether the benchmark calls equals equal: what is measured is compared with itself, and nothing may differ."""

from typing import Any, Dict, Iterator, List, Tuple

from extras.bench.uncertainty import LEVEL, for_all, interval, ratios


def differences(data: Dict[str, Any]) -> List[str]:
    """Return what was found different though it is the same: intervals of ratios that 1 is not within.

    They are wider than those of the tables, so that all of them, of all groups, hold together with 95 %.
    """
    compared = list(_compared(data))
    level = for_all(LEVEL, len(compared))
    found = []
    for what, once, again in compared:
        times = interval(ratios(once["samples"], again["samples"]), level)
        if not times.holds(1.0):
            found.append(f"{what}: {times.low:.3f} to {times.high:.3f} times as fast as itself")
    return found


def as_text(data: Dict[str, Any]) -> str:
    """Return the verdict."""
    count = len(list(_compared(data)))
    found = differences(data)
    if found:
        return "\n".join(["selfcheck: FAILED, the same is told apart:", *found])
    return f"selfcheck: no difference in {count} comparisons of the same with itself"


def _compared(data: Dict[str, Any]) -> Iterator[Tuple[str, Dict[str, Any], Dict[str, Any]]]:
    """Yield what was measured twice, and both with their samples by round."""
    for history in data.get("tracker", {}).get("histories", ()):
        stores = list(history["stores"].values())
        if len(stores) > 1:
            yield f"a turn, {history['history']}", stores[0]["turn_ms"], stores[-1]["turn_ms"]
    for group in ("wire", "async"):
        for case in data.get(group, {}).get("cases", ()):
            (_, once), *_, (name, again) = case["sides"].items()
            yield f"{name}, {case['case']}", once["wall_us"], again["wall_us"]
