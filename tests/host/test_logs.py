"""Logs in the style of the host, as a server sets it up, with nothing of what people say in them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rasa.core import lock_store

from extras.bench.server import RedisServer

PROGRAM = """
import asyncio, logging, sys, types
sentry = types.ModuleType("structlog_sentry")  # which is not here, and passes on what it reports
sentry.SentryProcessor = lambda event_level: lambda logger, name, event: event
sys.modules[sentry.__name__] = sentry
from rasa.utils.log_utils import configure_structlog
configure_structlog(logging.INFO)
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import UserUttered
import structlog
from extras.trackerstore import ExtraRedisTrackerStore

class Away:
    def publish(self, event):
        raise RuntimeError("the broker is away")

async def main():
    store = ExtraRedisTrackerStore(Domain.empty(), url="127.0.0.1", port=PORT, event_broker=Away())
    tracker = store.init_tracker("alice")
    tracker.update(UserUttered("my secret"))
    structlog.contextvars.bind_contextvars(conversation_id="bound by the host")
    await store.save(tracker)
    await store.close()

asyncio.run(main())
"""

pytest.importorskip("structlog", reason="hosts before Rasa 3.5 log through logging alone")


def test_a_server_logs_what_ours_has_to_say_as_its_own(server: RedisServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.replace("PORT", str(server.port))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "my secret" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    if not hasattr(lock_store, "structlogger"):
        assert lines[0].startswith("Liveness of Redis connections")
        assert "The turn of 'alice' is stored, but the event broker did not take all of its 1 new events." in lines
        return
    liveness, failed = map(json.loads, lines)
    assert (liveness["level"], liveness["event"]) == ("info", "extras.liveness._report")
    assert liveness["event_info"].startswith("Liveness of Redis connections")
    assert (failed["level"], failed["event"]) == ("error", "extras.trackerstore._log_unpublished")
    assert failed["event_info"].startswith("The turn of 'alice' is stored")
    assert failed["conversation_id"] == "bound by the host"
    assert failed["exception"][-1]["exc_type"] == "RuntimeError"
