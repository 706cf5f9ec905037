"""What became slower, or faster, since an older run: ratios to what was measured beside them, outside the noise."""

from typing import Any, Dict, List, NamedTuple

from extras.bench.uncertainty import Interval


class Change(NamedTuple):
    """A ratio to stock or to redis-py whose intervals in two runs do not meet."""

    what: str
    before: float
    after: float

    @property
    def is_regression(self) -> bool:
        """Whether it became slower."""
        return self.after < self.before

    def __str__(self) -> str:
        return f"{self.what}: {self.before:.2f}x before, {self.after:.2f}x now"


class Comparison(NamedTuple):
    """Two runs: how many ratios are in both, which of them differ, and which are in one run only."""

    compared: int
    changes: List[Change]
    missing: List[str]

    @property
    def regressions(self) -> List[Change]:
        """What became slower."""
        return [change for change in self.changes if change.is_regression]


def compare(before: Dict[str, Any], after: Dict[str, Any]) -> Comparison:
    """Compare the ratios of two runs, so that a slower machine is no regression."""
    old, new = _ratios(before), _ratios(after)
    changes = []
    for what in old.keys() & new.keys():
        was, is_now = Interval(*old[what]["interval"]), Interval(*new[what]["interval"])
        if is_now.high < was.low or is_now.low > was.high:
            changes.append(Change(what, old[what]["median"], new[what]["median"]))
    changes.sort(key=lambda change: change.after / change.before)
    return Comparison(len(old.keys() & new.keys()), changes, sorted(old.keys() ^ new.keys()))


def as_text(found: Comparison) -> str:
    """Return what differs, the worst first."""
    slower, faster = found.regressions, found.changes[len(found.regressions) :]
    lines = [f"compared with the older run: {found.compared} ratios, {len(slower)} slower, {len(faster)} faster"]
    lines += [f"  slower: {change}" for change in slower] + [f"  faster: {change}" for change in faster]
    if found.missing:
        lines.append(f"  in one run only: {', '.join(found.missing)}")
    return "\n".join(lines)


def _ratios(data: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Return all ratios of ours to stock, and of clients to redis-py, by a name that both runs have."""
    found = {}
    for history in data.get("tracker", {}).get("histories", ()):
        for case, ratio in history["times_as_fast"].items():
            found[f"tracker, {history['history']}, {case}"] = ratio
    for group in ("wire", "async"):
        for case in data.get(group, {}).get("cases", ()):
            for name, side in list(case["sides"].items())[1:]:
                found[f"{group}, {case['case']}, {name}"] = side["wall_us"]["times_as_fast"]
    return found
