"""Keep Rasa's events in PostgreSQL: each once, however often RabbitMQ brings it, in the order of its conversation.

A message is acknowledged when its event is committed, so that a crash between the two brings it again, which changes
nothing. One consumer at a time has the queue; a second one ends, and is tried again by who started it. So does this one
when RabbitMQ or PostgreSQL is away: the events wait in the queue.
"""

import hashlib
import json
import os
import signal
import time
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import List, NamedTuple, Optional, Tuple, Union

import pika
import psycopg
from pika.adapters.blocking_connection import BlockingChannel

QUEUE = os.environ.get("QUEUE", "rasa_core_events")
AT_ONCE = 200
"""Messages of one transaction, at most."""
PAUSE_S = 0.2
"""How long a message waits for others, at most."""


class Event(NamedTuple):
    """A row of ``events``."""

    sender_id: str
    digest: bytes
    event: str
    happened_at: datetime
    body: str


class Refused(NamedTuple):
    """A row of ``refused``."""

    reason: str
    body: bytes


def read(body: bytes) -> Union[Event, Refused]:
    """Return the row of a message."""
    try:
        content = json.loads(body)
        sender_id, event, timestamp = content["sender_id"], content["event"], content["timestamp"]
        if not isinstance(sender_id, str) or not isinstance(event, str):
            return Refused("sender_id and event are to be texts", body)
        happened_at = datetime.fromtimestamp(timestamp, timezone.utc)
        canonical = json.dumps(content, sort_keys=True)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError) as error:
        return Refused(f"{type(error).__name__}: {error}", body)
    return Event(sender_id, hashlib.sha256(canonical.encode()).digest(), event, happened_at, canonical)


def keep(database: "psycopg.Connection[Tuple[object, ...]]", rows: List[Union[Event, Refused]]) -> None:
    """Commit rows, all or none; what only PostgreSQL finds fault with, such as a NUL in a text, is a refused one."""
    try:
        with database.transaction(), database.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO events (sender_id, digest, event, happened_at, body) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [row for row in rows if isinstance(row, Event)],
            )
            cursor.executemany(
                "INSERT INTO refused (reason, body) VALUES (%s, %s)", [row for row in rows if isinstance(row, Refused)]
            )
    except (psycopg.DataError, UnicodeError) as error:
        if len(rows) > 1:
            for row in rows:
                keep(database, [row])
            return
        (row,) = rows
        if isinstance(row, Refused):
            raise
        keep(database, [Refused(str(error).encode("ascii", "replace").decode(), row.body.encode())])


class Consumer:
    """Brings messages from the queue into the database, until it is told to stop."""

    def __init__(self, channel: BlockingChannel, database: "psycopg.Connection[Tuple[object, ...]]") -> None:
        self._channel = channel
        self._database = database
        self._alive = Path(os.environ.get("ALIVE_FILE", "/tmp/alive"))
        self._stopped = False

    def stop(self, number: int, frame: Optional[FrameType]) -> None:
        """Stop soon: a handler of signals."""
        self._stopped = True

    def run(self) -> None:
        """Work. Touches a file all the while, by which others see that it is well."""
        rows: List[Union[Event, Refused]] = []
        last_tag = 0
        touched_at = 0.0
        for method, _, body in self._channel.consume(QUEUE, exclusive=True, inactivity_timeout=PAUSE_S):
            if method is not None:
                rows.append(read(body))
                last_tag = method.delivery_tag
            if rows and (method is None or len(rows) == AT_ONCE):
                keep(self._database, rows)
                self._channel.basic_ack(last_tag, multiple=True)
                rows = []
            if time.monotonic() - touched_at > 1:
                self._alive.touch()
                touched_at = time.monotonic()
            if self._stopped:
                return


def main() -> None:
    """Connect to both, and consume."""
    place = pika.URLParameters(os.environ["RABBITMQ_URL"])
    password = Path(os.environ["RABBITMQ_PASSWORD_FILE"]).read_text().strip()
    place.credentials = pika.PlainCredentials(os.environ["RABBITMQ_USER"], password)
    password = Path(os.environ["POSTGRESQL_PASSWORD_FILE"]).read_text().strip()
    with psycopg.connect(os.environ["POSTGRESQL_URL"], password=password, autocommit=True) as database:
        connection = pika.BlockingConnection(place)
        try:
            channel = connection.channel()
            channel.queue_declare(QUEUE, durable=True)  # as Rasa declares it
            channel.basic_qos(prefetch_count=AT_ONCE)
            consumer = Consumer(channel, database)
            signal.signal(signal.SIGTERM, consumer.stop)
            consumer.run()
        finally:
            if connection.is_open:
                connection.close()


if __name__ == "__main__":
    main()
