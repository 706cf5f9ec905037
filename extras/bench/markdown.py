"""The tables of docs/benchmark.md, and README.md's of faults, which are checked, from what ``--json`` has written."""

from typing import Any, Dict, List

from extras.bench import faults_table
from extras.bench.peers import BASELINE, OURS
from extras.bench.text import ms, us

_CLIENTS = {
    "wire": (BASELINE, "FastConnection", "FastRedis", "valkey-glide", "C hiredis"),
    "async": (BASELINE, "AsyncFastConnection", "AsyncFastRedis", "coredis", "valkey-glide", "C hiredis"),
}
_TITLES = {"wire": "Blocking", "async": "asyncio"}


def tables(data: Dict[str, Any]) -> Dict[str, str]:
    """Return the tables of the groups that were measured, by the group's name, without a newline at the end."""
    found = {}
    if "tracker" in data:
        found["tracker"] = _table(_turns(data["tracker"]["histories"]))
    for name in _CLIENTS:
        if name in data:
            found[name] = _table(_clients(name, data[name]["cases"]))
    if "faults" in data:
        found["faults"] = faults_table.side_by_side(data["faults"])
    return found


def _turns(histories: List[Dict[str, Any]]) -> List[List[str]]:
    rows = [
        [
            *("History (events)", "Turn, stock", "Turn, ours", "Ratio (95 % interval)", "Retrieve + save, stock"),
            *("Retrieve + save, ours", "CPU of Rasa + Redis, stock", "Ours", "Moved, commands: stock", "Ours"),
        ]
    ]
    for history in histories:
        stores = [history["stores"].get(name) for name in ("stock", "ours")]
        found = history["times_as_fast"].get("turn")
        row = [history["history"], *map(_turn, stores)]
        row.append("-" if found is None else "{}x ({}-{})".format(*map(_short, (found["median"], *found["interval"]))))
        for show in (_parts, _cpu, _moved):
            row += map(show, stores)
        rows.append(row)
    return rows


def _short(value: float) -> str:
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _turn(store: Any) -> str:
    return "-" if store is None else f"{ms(store['turn_ms']['median'])} ({ms(store['turn_ms']['p99'])})"


def _parts(store: Any) -> str:
    return "-" if store is None else " + ".join(ms(store[f"{case}_ms"]["median"]) for case in ("retrieve", "save"))


def _cpu(store: Any) -> str:
    if store is None or store["per_turn"]["server_cpu_ms"] is None:
        return "-"
    return " + ".join(ms(store["per_turn"][what]) for what in ("cpu_ms", "server_cpu_ms"))


def _moved(store: Any) -> str:
    if store is None:
        return "-"
    turn = store["per_turn"]
    return f"{(turn['bytes_to_redis'] + turn['bytes_from_redis']) / 1000:,.0f} kB, {len(turn['commands'])}"


def _clients(group: str, cases: List[Dict[str, Any]]) -> List[List[str]]:
    there = {name for case in cases for name in case["sides"]}
    names = [name for name in _CLIENTS[group] if name in there]
    rows = [[_TITLES[group], *(f"`{name}`" if name in OURS else name for name in names)]]
    for case in cases:
        sides = case["sides"]
        row = [case["case"], us(sides[BASELINE]["wall_us"]["median"])]
        for name in names[1:]:
            row.append(f"{sides[name]['wall_us']['times_as_fast']['median']:.2f}x" if name in sides else "-")
        rows.append(row)
    return rows


def _table(rows: List[List[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
