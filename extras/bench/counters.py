"""What turns cost the server, by its own count: bytes in and out, and commands that a client sent."""

from contextlib import contextmanager
from typing import Any, Iterator, List, NamedTuple, Optional

import redis


class Used(NamedTuple):
    """What a server has used: bytes that it has received and sent, and seconds of CPU time of all its threads.

    ``cpu_s``: ``None`` where the server does not tell.
    """

    received: int
    sent: int
    cpu_s: Optional[float]

    def since(self, before: "Used") -> "Used":
        """Return what was used since then."""
        cpu_s = None if self.cpu_s is None or before.cpu_s is None else max(0.0, self.cpu_s - before.cpu_s)
        return Used(self.received - before.received, self.sent - before.sent, cpu_s)


class Counters:
    """Reads a server's counters through a client of its own. Other clients of the server are counted too."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client: Any = client

    def used(self) -> Used:
        """Return what ``INFO`` says of bytes and CPU time, up to its reply."""
        info = self._client.info()
        spent = [info.get("used_cpu_sys"), info.get("used_cpu_user")]
        cpu_s = None if None in spent else float(sum(spent))
        return Used(info["total_net_input_bytes"], info["total_net_output_bytes"], cpu_s)

    def own(self) -> Used:
        """Return what one :meth:`used` adds to the next: the least of some."""
        seen = [self.used() for _ in range(6)]
        added = [after.since(before) for before, after in zip(seen, seen[1:])]
        spent_s = [each.cpu_s for each in added if each.cpu_s is not None]
        return Used(
            min(each.received for each in added), min(each.sent for each in added), min(spent_s) if spent_s else None
        )

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
