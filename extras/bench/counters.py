"""What turns cost the server, by its own count: bytes in and out, and commands that a client sent."""

from contextlib import contextmanager
from typing import Any, Iterator, List, NamedTuple

import redis


class Bytes(NamedTuple):
    """Bytes that a server has received and sent."""

    received: int
    sent: int


class Counters:
    """Reads a server's counters through a client of its own. Other clients of the server are counted too."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client: Any = client

    def bytes_moved(self) -> Bytes:
        """Return ``total_net_input_bytes`` and ``total_net_output_bytes`` of ``INFO``, up to its reply."""
        stats = self._client.info("stats")
        return Bytes(stats["total_net_input_bytes"], stats["total_net_output_bytes"])

    def own_bytes(self) -> Bytes:
        """Return what one :meth:`bytes_moved` adds to the next: its reply, and the next one's request."""
        first, second = self.bytes_moved(), self.bytes_moved()
        return Bytes(second.received - first.received, second.sent - first.sent)

    @contextmanager
    def commands(self, key: str) -> Iterator[List[str]]:
        """Collect the names of commands on ``key`` that clients send; empty if the server allows no ``MONITOR``.

        ``MONITOR`` marks what a script calls; ``total_commands_processed`` and, on Valkey, ``tot-cmds`` of
        ``CLIENT LIST`` count that as if a client had sent it.
        """
        names: List[str] = []
        try:
            monitor = self._client.monitor()
            monitor.__enter__()
        except redis.RedisError:
            yield names
            return
        try:
            yield names
            end = f"end of {key}"
            self._client.echo(end)
            for command in monitor.listen():
                if end in command["command"]:
                    break
                if key in command["command"] and command["client_type"] != "lua":
                    names.append(command["command"].split(" ", 1)[0].upper())
        finally:
            monitor.__exit__(None, None, None)
