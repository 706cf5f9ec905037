"""The user's own Redis and network, by the user's own ``endpoints.yml``: how long connecting, a PING and a turn take.

Safe beside live traffic: one short conversation below a key of its own that expires by itself and is deleted at the
end, some hundreds of small commands with pauses in between, no ``INFO``, ``MONITOR``, ``SCAN`` or ``FLUSH``.
"""

import importlib
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, List

from extras.bench.loop import run_on_server_loop
from extras.bench.missing import Missing
from extras.bench.progress import Teller
from extras.bench.shapes import Shape
from extras.bench.text import ms, table
from extras.bench.tracker import load
from extras.bench.uncertainty import described, p99
from extras.configured import sync_client
from extras.options import Options, parse
from extras.silence import quiet_structlog

STEPS = 3
CONNECTS, PINGS, TURNS = 10, 200, 40
PAUSE_S = 0.005
EXPIRES_AFTER_S = 600
_NOT_OPTIONS = ("type",)
_SHAPE = Shape(17)


def measure(path: Path, teller: Teller) -> Dict[str, Any]:
    """Measure what the ``tracker_store`` of a file names.

    Raises :class:`Missing` without Rasa or for a file that cannot be read, ``OptionError``, or redis-py's errors.
    """
    host = load(False)
    given = _options(path)
    options = parse(given)
    samples_ms = {"connect, login and PING": _connects(options, teller), "PING": _pings(options, teller)}
    samples_ms.update(run_on_server_loop(_turns(host, given, teller)))
    return {
        "header": {
            "tracker_store of": str(path),
            "server": options.unix_path or f"{options.url}:{options.port}, database {options.db}",
            "TLS": options.use_ssl,
        },
        "samples": {what: {**described(values), "p99": p99(values)} for what, values in samples_ms.items()},
    }


def _options(path: Path) -> Dict[str, Any]:
    reader: Any = importlib.import_module("rasa.utils.endpoints")
    if not path.is_file():
        raise Missing(f"--endpoints: there is no file {str(path)!r}")
    try:
        config = reader.read_endpoint_config(str(path), "tracker_store")
    except Exception as error:  # of the host's YAML reader, which differs between its versions
        raise Missing(f"--endpoints: {str(path)!r} cannot be read: {type(error).__name__}") from error
    if config is None:
        raise Missing(f"--endpoints: {str(path)!r} has no tracker_store")
    given = {name: value for name, value in config.kwargs.items() if name not in _NOT_OPTIONS}
    return {**given, "url": config.url} if config.url is not None else given


def _timed_ms(times: int, what: Callable[[], Any], tell: Callable[[float], None]) -> List[float]:
    took = []
    for number in range(times):
        tell(number / times)
        start = time.perf_counter()
        what()
        took.append((time.perf_counter() - start) * 1000)
        time.sleep(PAUSE_S)
    return took


def _connects(options: Options, teller: Teller) -> List[float]:
    teller.begin("connecting")
    client: Any = sync_client(options)

    def connect() -> None:
        client.ping()
        client.connection_pool.disconnect()

    return _timed_ms(CONNECTS, connect, lambda part: teller.within("connecting", part))


def _pings(options: Options, teller: Teller) -> List[float]:
    teller.begin("PING")
    client: Any = sync_client(options)
    try:
        client.ping()
        return _timed_ms(PINGS, client.ping, lambda part: teller.within("PING", part))
    finally:
        client.connection_pool.disconnect()


async def _turns(host: Any, given: Dict[str, Any], teller: Teller) -> Dict[str, List[float]]:
    teller.begin("turns")
    with quiet_structlog():
        lone = host.Lone({**given, "record_exp": EXPIRES_AFTER_S}, f"extras-bench-{uuid.uuid4().hex[:12]}")
        try:
            side = await lone.prepared(_SHAPE)
            found: Dict[str, List[float]] = {"retrieve": [], "save": []}
            for number in range(TURNS):
                teller.within("turns", number / TURNS)
                start = time.perf_counter()
                tracker = await side.retrieve()
                found["retrieve"].append((time.perf_counter() - start) * 1000)
                side.add(tracker, side.events(number))
                start = time.perf_counter()
                await side.save(tracker)
                found["save"].append((time.perf_counter() - start) * 1000)
                time.sleep(PAUSE_S)
            return found
        finally:
            await lone.close()


def as_text(data: Dict[str, Any]) -> str:
    """Return the header and a table of what :func:`measure` returned."""
    rows = [["milliseconds", "median", "95 % interval", "p99", "samples"]]
    for what, found in data["samples"].items():
        low, high = found["interval"]
        rows.append([what, ms(found["median"]), f"{ms(low)}-{ms(high)}", ms(found["p99"]), str(len(found["samples"]))])
    return "\n".join([*(f"{name}: {value}" for name, value in data["header"].items()), "", table(rows)])
