"""How soon a dead Redis would be noticed, by what the kernel holds for a connection of the store."""

from typing import Any, List, Optional

from extras.cli.checks_options import Target
from extras.cli.findings import Check, ok, warning
from extras.keepalive import Keepalive

LATE_S = 300


def check_liveness(client: Any, target: Target) -> Check[None]:
    """Open a connection as the store does and read back its keepalive."""
    options = target.options
    if options.unix_path:
        yield ok("liveness", "a Unix socket, whose other end the kernel knows")
        return
    connection = client.connection_pool.make_connection()
    try:
        connection.connect()
        held: Optional[Keepalive] = connection.keepalive
    finally:
        connection.disconnect()
    if held is None or not held.enabled:
        yield warning(
            "liveness",
            "keepalive is off: a Redis that is gone is not noticed while a connection is idle",
            "set socket_keepalive: true",
        )
        return
    asked = options.liveness.keepalive.with_defaults().only(held.given())
    said = f"a dead peer is noticed after {_seconds(held.dead_after_s)} idle, {_in_flight(held, target)} in flight"
    said += f", frozen after {_seconds(options.socket_timeout)} ({held})"
    if held.only(asked.given()) != asked:
        yield warning("liveness", f"{said}; asked for was {asked}", "ask for what this kernel takes")
    elif held.dead_after_s is not None and held.dead_after_s > LATE_S:
        yield warning("liveness", said, "lower TCP_KEEPIDLE, TCP_KEEPINTVL or TCP_KEEPCNT in socket_keepalive_options")
    elif held.user_timeout_ms and held.dead_after_s and held.user_timeout_ms > held.dead_after_s * 1000:
        yield warning("liveness", f"{said}: the user timeout puts off what the probes do", "leave TCP_USER_TIMEOUT out")
    else:
        yield ok("liveness", said)


def _in_flight(held: Keepalive, target: Target) -> str:
    limits: List[float] = []
    if held.user_timeout_ms:
        limits.append(held.user_timeout_ms / 1000)
    if target.options.socket_timeout is not None:
        limits.append(target.options.socket_timeout)
    return _seconds(min(limits) if limits else None)


def _seconds(value: Optional[float]) -> str:
    return "an unknown time" if value is None else f"{value:g} s"
