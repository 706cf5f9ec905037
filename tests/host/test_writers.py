"""Any number of processes may save to one conversation at a time: every event is kept, once, in its writer's order."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis
from writer import SAVES_A_SESSION, SENDER, event_id

from extras import _rasa
from extras.bench.server import RedisServer

WRITERS = 8
SAVES = 500
WRITER = Path(__file__).with_name("writer.py")


def test_eight_processes_of_500_saves_lose_nothing_and_store_nothing_twice(
    server: RedisServer, raw: "redis.Redis"
) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "SQLALCHEMY_SILENCE_UBER_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, str(WRITER), str(WRITERS), str(server.port), "mix", str(SAVES)],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    published = [line.split() for line in done.stdout.splitlines()]
    assert len(published) == WRITERS

    text: Any = raw.get(f"{_rasa.STOCK_PREFIX}{SENDER}")
    stored = [event_id(event) for event in json.loads(text)["events"] if event["event"] != "slot"]
    print(f"{len(stored)} events, {len(text)} bytes, {raw.info('commandstats')}")
    for number in range(WRITERS):
        mine = [identity for identity in stored if identity.startswith(f"{number}-")]
        expected = []
        for said in range(SAVES):
            name = f"{number}-{said}"
            if said % SAVES_A_SESSION == 0:
                expected += [f"{name}-start", f"{name}-started", f"{name}-listen"]
            expected += [f"{name}-user", f"{name}-bot"]
        assert mine == expected
        assert published[number] == expected
    assert len(stored) == sum(map(len, published))
