"""How long a message to the whole of Rasa takes in a long conversation, compared with a short one: ``rest_turns.py``
prints medians and their ratio for our tracker store and for Rasa's own, over REST, with what Redis sent and received.

Run it in an environment that holds all of Rasa 3.6 and a server wheel; it trains the assistant of ``rasa init`` once.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import redis
from rasa_server import OURS, STOCK, RasaServer, train

from extras.bench.server import RedisServer
from extras.bench.shapes import RECORDED

EVENTS = 2000
SESSIONS = 41
MESSAGES = 30
SHORT = 3
REPLY = ["I am a bot, powered by Rasa."]
Event = Dict[str, Any]


class Measured(NamedTuple):
    """What one message took: seconds, and bytes that Redis sent and received meanwhile."""

    took_s: float
    sent_bytes: int
    received_bytes: int


def sessions_of(recorded: List[Event], events: int, sessions: int, now: float) -> List[Event]:
    """Return that many events in so many sessions, made of the recorded ones; the last session is a minute old."""
    head = recorded[:3]
    said = [event for event in recorded[3:] if event["event"] not in ("session_started", "restart")]
    made: List[Event] = []
    for session in range(sessions):
        size = events // sessions + (session < events % sessions)
        body = [said[at % len(said)] for at in range(size - len(head) - 1)]
        # Each session ends in "action_listen", so that the next message starts a turn.
        made += [dict(event) for event in [*head, *body, head[2]]]
    for at, event in enumerate(made):
        event["timestamp"] = now - 60 - (len(made) - at) * 0.01
    return made


def prepare(client: Any, recorded: List[Event], now: float) -> List[str]:
    """Store one long conversation and some short ones, each as long as its last session; return the sender ids."""
    names = ["long", *(f"short{number}" for number in range(SHORT))]
    for name in names:
        is_long = name == "long"
        events = sessions_of(recorded, EVENTS if is_long else EVENTS // SESSIONS, SESSIONS if is_long else 1, now)
        client.set(f"tracker:{name}", json.dumps({"events": events, "name": name}))
    return names


def measure(server: RasaServer, client: Any, sender: str) -> Measured:
    """Send one message and check the answer."""
    idle, before = client.info("stats"), client.info("stats")
    start = time.perf_counter()
    said = server.say("are you a bot?", sender)
    took_s = time.perf_counter() - start
    after = client.info("stats")
    if said != REPLY:
        raise RuntimeError(f"the answer to {sender} was {said}")
    sent, received = (
        after[name] - before[name] - (before[name] - idle[name])  # asking costs bytes too
        for name in ("total_net_output_bytes", "total_net_input_bytes")
    )
    return Measured(took_s, sent, received)


def rounds(server: RasaServer, client: Any, names: List[str], messages: int) -> Dict[str, List[Measured]]:
    """Send so many messages to each conversation in turn, so that their last sessions stay equally long."""
    found: Dict[str, List[Measured]] = {"long": [], "short": []}
    for at in range(messages):
        first = at % len(names)
        for name in names[first:] + names[:first]:
            found["long" if name == "long" else "short"].append(measure(server, client, name))
    return found


def main() -> None:
    """Measure both stores."""
    recorded = json.loads(RECORDED)["events"]
    assistant = train(Path(sys.prefix) / "assistant")
    print(f"{EVENTS} events in {SESSIONS} sessions, {MESSAGES} messages to each; medians", flush=True)
    for name, endpoint in (("ours", OURS), ("stock", STOCK)):
        with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder) / "redis") as store:
            client: Any = redis.Redis(port=store.port)
            server = RasaServer(assistant, Path(folder), store.port, endpoint)
            try:
                names = prepare(client, recorded, time.time())
                for sender in names:
                    measure(server, client, sender)
                found = rounds(server, client, names, MESSAGES)
            finally:
                server.stop()
                client.connection_pool.disconnect()
        for field, scale, unit in (
            ("took_s", 1000.0, "ms"),
            ("sent_bytes", 1e-3, "kB"),
            ("received_bytes", 1e-3, "kB"),
        ):
            long, short = (statistics.median(getattr(one, field) for one in found[kind]) for kind in ("long", "short"))
            what = f"{name:5} {field.rpartition('_')[0]:8}"
            print(f"{what} long {long * scale:8.2f} {unit}  short {short * scale:8.2f} {unit}  {long / short:.2f}x")


if __name__ == "__main__":
    main()
