"""What the samples say: medians, tails, ratios; as data for ``--json``, and as tables for people."""

import statistics
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

from extras.bench.rounds import CASES, Samples
from extras.bench.shapes import Shape
from extras.bench.text import ms, table
from extras.bench.uncertainty import LEVEL, described, p99, ratio


@dataclass(frozen=True)
class Measured:
    """One conversation's samples, by the name of the store."""

    shape: Shape
    document_bytes: int
    samples: Dict[str, Samples]


def as_data(measured: Sequence[Measured], flat: Optional[Dict[str, Samples]], header: Dict[str, Any]) -> Dict[str, Any]:
    """Return everything as plain data; units are in the names. ``flat``: ours on a short history, and a long one."""
    histories = [_history(found) for found in measured]
    return {"header": header, "level": LEVEL, "flatness": _flatness(flat), "histories": histories}


def _flatness(flat: Optional[Dict[str, Samples]]) -> Optional[Dict[str, Any]]:
    if flat is None:
        return None
    (short, long), (at_short, at_long) = flat, ([t * 1000 for t in s.times_s["turn"]] for s in flat.values())
    return {
        "turn_ms": {short: described(at_short), long: described(at_long)},
        "times_as_long": ratio(at_long, at_short),
    }


def _history(found: Measured) -> Dict[str, Any]:
    stores = {name: _store(samples) for name, samples in found.samples.items()}
    ours = list(found.samples.values())[-1]
    others = {name: samples for name, samples in found.samples.items() if samples is not ours}
    return {
        "history": str(found.shape),
        "events": found.shape.events,
        "events_per_session": found.shape.session,
        "document_bytes": found.document_bytes,
        "stores": stores,
        "times_as_fast": {
            case: ratio(other.times_s[case], ours.times_s[case]) for other in others.values() for case in CASES
        },
    }


def _store(samples: Samples) -> Dict[str, Any]:
    data: Dict[str, Any] = {"rounds": len(samples.used)}
    for case, times_s in samples.times_s.items():
        times_ms = [time_s * 1000 for time_s in times_s]
        data[f"{case}_ms"] = {**described(times_ms), "p99": p99(times_ms)}
    spent_s = [used.cpu_s for used in samples.used if used.cpu_s is not None]
    data["per_turn"] = {
        "commands": samples.commands,
        # Other clients of the server only add to what it counts.
        "bytes_to_redis": min(used.received for used in samples.used),
        "bytes_from_redis": min(used.sent for used in samples.used),
        "cpu_ms": statistics.median(samples.cpu_s) * 1000,
        "server_cpu_ms": statistics.median(spent_s) * 1000 if spent_s else None,
    }
    return data


def as_text(data: Dict[str, Any]) -> str:
    """Return the header and the tables of what :func:`as_data` made."""
    lines = [f"{name}: {value}" for name, value in data["header"].items()]
    lines += ["", "milliseconds", table(_times(data["histories"])), ""]
    lines += ["per turn", table(_traffic(data["histories"]))]
    if data["flatness"] is not None:
        lines += ["", flatness_as_text(data["flatness"])]
    return "\n".join(lines)


def flatness_as_text(flatness: Dict[str, Any]) -> str:
    """Return one line on how much longer our turn takes at the end of a long history."""
    (short, at_short), (long, at_long) = flatness["turn_ms"].items()
    low, high = flatness["times_as_long"]["interval"]
    return (
        f"flatness: our turn takes {ms(at_long['median'])} ms at {int(long):,} events and {ms(at_short['median'])} ms "
        f"at {short}, {flatness['times_as_long']['median']:.2f} times that ({low:.2f}-{high:.2f})"
    )


def _times(histories: List[Dict[str, Any]]) -> List[List[str]]:
    names = list(dict.fromkeys(name for history in histories for name in history["stores"]))
    columns = [f"{name} {what}" for name in names for what in ("median", "p99", "IQR")]
    rows = [["history", "case", *columns, "/".join(names), "rounds"]]
    for history in histories:
        for case in CASES:
            row = [history["history"], case]
            for name in names:
                took = history["stores"].get(name, {}).get(f"{case}_ms")
                row += [ms(took[what]) for what in ("median", "p99", "iqr")] if took else ["-"] * 3
            found = history["times_as_fast"].get(case)
            row.append(times(found) if found else "-")
            rows.append([*row, str(history["stores"][names[-1]]["rounds"])])
    return rows


def times(found: Dict[str, Any]) -> str:
    """Return a ratio and its interval."""
    digits = 1 if found["median"] < 100 else 0
    low, median, high = (
        f"{value:,.{digits}f}" for value in (found["interval"][0], found["median"], found["interval"][1])
    )
    return f"{median}x ({low}-{high})"


def _traffic(histories: List[Dict[str, Any]]) -> List[List[str]]:
    rows = [
        ["history", "document", "store", "CPU ms", "server CPU ms", "bytes to Redis", "bytes from Redis", "commands"]
    ]
    for history in histories:
        for name, store in history["stores"].items():
            turn = store["per_turn"]
            commands = f"{len(turn['commands'])}: {' '.join(turn['commands'])}" if turn["commands"] else "-"
            spent = [ms(turn["cpu_ms"]), "-" if turn["server_cpu_ms"] is None else ms(turn["server_cpu_ms"])]
            moved = [f"{turn[way]:,}" for way in ("bytes_to_redis", "bytes_from_redis")]
            rows.append([history["history"], f"{history['document_bytes']:,}", name, *spent, *moved, commands])
    return rows
