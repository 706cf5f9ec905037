"""Read an assistant's events from the Redis Stream of ``ExtraRedisEventBroker``, alone or sharing the work with others.

``python consume_events.py --url redis://localhost --group analytics --consumer $HOSTNAME`` prints each event as a line
of JSON. Each event goes to one consumer of a group; what one leaves unacknowledged when it dies, another takes over
after ``--idle-ms``. To keep the order within a conversation, run one consumer at a time. An event may come twice: after
a crash between its handling and ``XACK``.
"""

import argparse
import json
from typing import Any, Dict, Iterator, List, Tuple

import redis

Entry = Tuple[bytes, Dict[bytes, bytes]]


def make_group(client: "redis.Redis", stream: str, group: str) -> None:
    """Make the group if there is none; it gets all that is in the stream."""
    try:
        client.xgroup_create(stream, group, id="0", mkstream=True)
    except redis.ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


def left_behind(client: "redis.Redis", stream: str, group: str, consumer: str, idle_ms: int) -> List[Entry]:
    """Take over what other consumers, and an earlier life of this one, have not acknowledged for so long."""
    pending = client.xpending_range(stream, group, min="-", max="+", count=100)
    overdue = [entry["message_id"] for entry in pending if entry["time_since_delivered"] >= idle_ms]
    if not overdue:
        return []
    claimed = client.xclaim(stream, group, consumer, idle_ms, overdue)
    return [entry for entry in claimed if entry[0] is not None and entry[1] is not None]


def entries(
    client: "redis.Redis", stream: str, group: str, consumer: str, idle_ms: int, block_ms: int
) -> Iterator[Entry]:
    """Yield what nobody else has, the oldest first, for ever; whoever has handled an entry acknowledges it."""
    make_group(client, stream, group)
    while True:
        found = left_behind(client, stream, group, consumer, idle_ms)
        if not found:
            replied: Any = client.xreadgroup(group, consumer, {stream: ">"}, count=100, block=block_ms)
            pairs = replied.items() if isinstance(replied, dict) else replied or []
            found = [entry for _, several in pairs for entry in several]
        yield from found


def main() -> None:
    """Print events until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="redis://localhost")
    parser.add_argument("--stream", default="rasa_core_events")
    parser.add_argument("--group", default="analytics")
    parser.add_argument("--consumer", required=True)
    parser.add_argument("--idle-ms", type=int, default=60_000)
    parser.add_argument("--block-ms", type=int, default=1_000)
    given = parser.parse_args()
    client = redis.Redis.from_url(given.url)
    read = entries(client, given.stream, given.group, given.consumer, given.idle_ms, given.block_ms)
    for entry_id, fields in read:
        print(json.dumps(json.loads(fields[b"event"])), flush=True)
        client.xack(given.stream, given.group, entry_id)


if __name__ == "__main__":
    main()
