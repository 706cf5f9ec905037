"""The part of ``make demo`` that runs in its environment: a server, one process that writes, a fresh one that reads."""

import os
import subprocess
import sys
from pathlib import Path

from extras.bench.server import RedisServer, find_server

DEMO = Path(__file__).parent.resolve()


def main() -> None:
    """Start the server, and run both processes against it."""
    first, _, of = os.environ["DEMO_STEPS"].partition(":")
    print(f"      {Path(find_server()).name} keeps every write in an append-only file")
    with RedisServer(Path(os.environ["DEMO_DATA"]), ["--appendonly", "yes", "--appendfsync", "always"]) as server:
        environment = {**os.environ, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port)}
        environment["SQLALCHEMY_SILENCE_UBER_WARNING"] = "1"
        for number, (mode, what) in enumerate(
            [
                ("write", "replaying 20 recorded turns through TrackerStore.create and endpoints.yml"),
                ("read", "reading them back: Redis restarted, and a new process"),
            ],
            int(first),
        ):
            print(f"[{number}/{of}] {what}", flush=True)
            if mode == "read":
                server.stop()
                server.start()
            subprocess.run([sys.executable, str(DEMO / "turns.py"), mode], env=environment, check=True)


main()
