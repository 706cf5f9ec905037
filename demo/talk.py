"""The part of ``make rasa`` that runs in its environment: train, ``rasa run``, messages over REST, two restarts."""

import os
import time
from pathlib import Path

from rasa_server import RasaServer, train

from extras.bench.server import RedisServer

DATA = Path(os.environ["DEMO_DATA"])


def talk(server: RasaServer, text: str) -> None:
    """Say something and show the answer."""
    start = time.perf_counter()
    replies = server.say(text)
    print(f"      alice: {text}  ({(time.perf_counter() - start) * 1000:.0f} ms)")
    for reply in replies:
        print(f"        bot: {reply}")


def step(number: int, what: str) -> None:
    """Say what comes next."""
    first, _, of = os.environ["DEMO_STEPS"].partition(":")
    print(f"[{int(first) + number}/{of}] {what}", flush=True)


def main() -> None:
    """Hold one conversation through a restart of Redis and one of Rasa."""
    step(0, "rasa init: making and training its assistant (a minute or two; the log is train.log beside it)")
    assistant = train(DATA.parent / "assistant")
    with RedisServer(DATA, ["--appendonly", "yes", "--appendfsync", "always"]) as redis:
        step(1, "rasa run --enable-api, messages over REST")
        server = RasaServer(assistant, DATA, redis.port)
        try:
            talk(server, "hello")
            print("      (Redis restarts)")
            redis.stop()
            redis.start()
            talk(server, "I feel very sad and unhappy")
            server.stop()
            step(2, "a new rasa run finds the conversation")
            server = RasaServer(assistant, DATA, redis.port)
            print(f"      alice has said: {'; '.join(server.said())}")
            talk(server, "yes it did")
        finally:
            server.stop()
        if "InMemoryTrackerStore" in server.log.read_text():
            raise SystemExit(f"Rasa fell back to memory; see {server.log}")


main()
