"""Whether the benchmark calls equals equal: what is measured is compared with itself, and nothing may differ."""

from typing import Any, Dict, Iterator, List, Tuple

from extras.bench.uncertainty import Interval


def differences(data: Dict[str, Any]) -> List[str]:
    """Return what was found different though it is the same: intervals of ratios that 1 is not within."""
    return [
        f"{what}: {median:.3f} times as fast as itself ({interval.low:.3f}-{interval.high:.3f})"
        for what, median, interval in _ratios(data)
        if not interval.holds(1.0)
    ]


def as_text(data: Dict[str, Any]) -> str:
    """Return the verdict."""
    count = len(list(_ratios(data)))
    found = differences(data)
    if found:
        return "\n".join(["selfcheck: FAILED, the same is told apart:", *found])
    return f"selfcheck: no difference in {count} comparisons of the same with itself"


def _ratios(data: Dict[str, Any]) -> Iterator[Tuple[str, float, Interval]]:
    for history in data.get("tracker", {}).get("histories", ()):
        found = history["times_as_fast"].get("turn")
        if found is not None:
            yield f"a turn, {history['history']}", found["median"], Interval(*found["interval"])
    for group in ("wire", "async"):
        for case in data.get(group, {}).get("cases", ()):
            name, side = list(case["sides"].items())[-1]
            found = side["wall_us"]["times_as_fast"]
            yield f"{name}, {case['case']}", found["median"], Interval(*found["interval"])
