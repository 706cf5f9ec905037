"""What the samples say: medians, tails, ratios; as data for ``--json``, and as tables for people."""

import math
import statistics
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

from extras.bench.rounds import CASES, Samples
from extras.bench.shapes import Shape


@dataclass(frozen=True)
class Measured:
    """One conversation's samples, by the name of the store."""

    shape: Shape
    document_bytes: int
    samples: Dict[str, Samples]

    def median_s(self, name: str, case: str) -> Optional[float]:
        """Return the median of a store's case, ``None`` if that was not measured."""
        return statistics.median(self.samples[name].times_s[case]) if name in self.samples else None


def p99(values: Sequence[float]) -> float:
    """Return the smallest value that 99 % are not above (nearest rank); the largest, of fewer than 100."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def spread(values: Sequence[float]) -> float:
    """Return the range of the middle half (IQR), 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def as_data(measured: Sequence[Measured], flat: Optional[Dict[str, Samples]], header: Dict[str, Any]) -> Dict[str, Any]:
    """Return everything as plain data; units are in the names. ``flat``: ours on a short history, and a long one."""
    return {"header": header, "flatness": _flatness(flat), "histories": [_history(found) for found in measured]}


def _flatness(flat: Optional[Dict[str, Samples]]) -> Optional[Dict[str, Any]]:
    if flat is None:
        return None
    medians_ms = {events: statistics.median(samples.times_s["turn"]) * 1000 for events, samples in flat.items()}
    short_ms, long_ms = medians_ms.values()
    return {"median_ms": medians_ms, "ratio": long_ms / short_ms}


def _history(found: Measured) -> Dict[str, Any]:
    stores = {name: _store(samples) for name, samples in found.samples.items()}
    ratios = {case: _ratio(found, case) for case in CASES}
    shape = found.shape
    return {
        "history": str(shape),
        "events": shape.events,
        "events_per_session": shape.session,
        "document_bytes": found.document_bytes,
        "stores": stores,
        "ratio": ratios,
    }


def _store(samples: Samples) -> Dict[str, Any]:
    data: Dict[str, Any] = {"rounds": len(samples.moved)}
    for case, times_s in samples.times_s.items():
        data[case] = {
            "median_ms": statistics.median(times_s) * 1000,
            "p99_ms": p99(times_s) * 1000,
            "iqr_ms": spread(times_s) * 1000,
        }
    data["per_turn"] = {
        "commands": samples.commands,
        # Other clients of the server only add to what it counts.
        "bytes_to_redis": min(moved.received for moved in samples.moved),
        "bytes_from_redis": min(moved.sent for moved in samples.moved),
    }
    return data


def _ratio(found: Measured, case: str) -> Optional[float]:
    stock, ours = found.median_s("stock", case), found.median_s("ours", case)
    return stock / ours if stock and ours else None


def as_text(data: Dict[str, Any]) -> str:
    """Return the header and the tables of what :func:`as_data` made."""
    lines = [f"{name}: {value}" for name, value in data["header"].items()]
    lines += ["", "milliseconds", table(_times(data["histories"])), ""]
    lines += ["per turn", table(_traffic(data["histories"]))]
    if data["flatness"] is not None:
        (short, short_ms), (long, long_ms) = data["flatness"]["median_ms"].items()
        lines += [
            "",
            f"flatness: our turn takes {_ms(long_ms)} ms at {int(long):,} events and {_ms(short_ms)} ms at {short}, "
            f"{data['flatness']['ratio']:.2f} times that",
        ]
    return "\n".join(lines)


def _times(histories: List[Dict[str, Any]]) -> List[List[str]]:
    columns = [f"{name} {what}" for name in ("stock", "ours") for what in ("median", "p99", "IQR")]
    rows = [["history", "case", *columns, "stock/ours", "rounds"]]
    for history in histories:
        stores = history["stores"]
        for case in CASES:
            row = [history["history"], case]
            for name in ("stock", "ours"):
                times = stores.get(name, {}).get(case)
                row += [_ms(times[what]) for what in ("median_ms", "p99_ms", "iqr_ms")] if times else ["-"] * 3
            ratio = history["ratio"][case]
            rows.append([*row, f"{ratio:,.1f}" if ratio else "-", str(stores["ours"]["rounds"])])
    return rows


def _traffic(histories: List[Dict[str, Any]]) -> List[List[str]]:
    rows = [["history", "document", "store", "commands", "bytes to Redis", "bytes from Redis"]]
    for history in histories:
        for name, store in history["stores"].items():
            turn = store["per_turn"]
            commands = f"{len(turn['commands'])}: {' '.join(turn['commands'])}" if turn["commands"] else "-"
            moved = [f"{turn[way]:,}" for way in ("bytes_to_redis", "bytes_from_redis")]
            rows.append([history["history"], f"{history['document_bytes']:,}", name, commands, *moved])
    return rows


def _ms(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def table(rows: List[List[str]]) -> str:
    """Return rows under a heading as aligned text: words to the left, numbers to the right."""
    columns = list(zip(*rows))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell.strip("0123456789,.") in ("", "-") for cell in column[1:]) for column in columns]
    lines = []
    for row in rows:
        cells = zip(row, widths, right)
        lines.append("  ".join(t.rjust(width) if to_right else t.ljust(width) for t, width, to_right in cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
