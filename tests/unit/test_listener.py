"""Who waits is called by name, also after lost connections, and nothing is left when nobody waits any more."""

import asyncio
import logging
import threading
import time
from typing import Any, Callable, Iterator, List, Optional

import pytest
import redis
from leaks import none_left, open_descriptors
from scripted import until

from extras import listener as _listener
from extras.bench.server import RedisServer
from extras.configured import sync_client
from extras.listener import Listener
from extras.options import parse

CHANNEL = "called"
LATE_S = 30.0


@pytest.fixture
def make(server: RedisServer) -> Iterator[Callable[..., Listener]]:
    """Make a listener, which does not begin to listen before ``begin`` is set."""
    made: List[Listener] = []

    def listener(begin: Optional[threading.Event] = None, **options: Any) -> Listener:
        given = parse({"url": "127.0.0.1", "port": server.port, **options})

        def client() -> Any:
            assert begin is None or begin.wait(LATE_S)
            return sync_client(given)

        made.append(Listener(CHANNEL, client))
        return made[-1]

    yield listener
    for one in made:
        one.close()


def threads() -> List[threading.Thread]:
    """Return the threads that listen."""
    return [thread for thread in threading.enumerate() if thread.name == "extras-listener"]


async def listening(raw: Any) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + LATE_S
    while raw.pubsub_numsub(CHANNEL)[0][1] != 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def listeners_id(raw: Any, before: Any) -> Any:
    """Wait until somebody listens on another connection than before; return the number that Redis has for it."""
    deadline = time.monotonic() + LATE_S
    while True:
        ids = [client["id"] for client in raw.client_list() if client["name"] == "listener"]
        if len(ids) == 1 and ids != [before]:
            await listening(raw)
            return ids[0]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def called(waiter: Any) -> bool:
    """Whether a waiter is called before it would be late."""
    start = time.monotonic()
    await waiter.wait(LATE_S)
    return time.monotonic() - start < LATE_S


def test_each_is_called_by_its_own_name_and_all_when_listening_begins(make: Any, raw: Any) -> None:
    async def both() -> None:
        begin = threading.Event()
        listener = make(begin)
        with listener.waiting("one") as one, listener.waiting("two") as two:
            begin.set()  # before, one alone might be called
            assert await called(one)
            assert await called(two)
            raw.publish(CHANNEL, "nobody")
            raw.publish(CHANNEL, b"\xff")
            raw.publish(CHANNEL, "two")
            raw.publish(CHANNEL, "two")
            assert await called(two)
            start = time.monotonic()
            await one.wait(0.2)
            assert time.monotonic() - start > 0.15
            raw.publish(CHANNEL, "one")
            assert await called(one)
        assert len(threads()) == 1

    asyncio.run(both())


def test_a_lost_connection_is_made_anew_and_everybody_called(make: Any, raw: Any) -> None:
    async def lost() -> None:
        listener = make(client_name="listener")
        with listener.waiting("one") as one:
            assert await called(one)
            own = None
            for _ in range(3):
                own = await listeners_id(raw, own)
                raw.client_kill_filter(_id=own)
                assert await called(one)
            await listeners_id(raw, own)
            await one.wait(0.7)  # what it was called for by the last loss
            raw.publish(CHANNEL, "one")
            assert await called(one)

    asyncio.run(lost())


def test_nothing_is_left_when_it_is_closed_or_nobody_has_waited_for_long(
    make: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = make()

    async def wait_once() -> None:
        with listener.waiting("one") as one:
            assert await called(one)

    before = open_descriptors()
    asyncio.run(wait_once())
    listener.close()
    assert not threads()
    assert none_left(before)
    monkeypatch.setattr(_listener, "_LINGER_S", 0.05)
    asyncio.run(wait_once())
    deadline = time.monotonic() + LATE_S
    while threads():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert none_left(before)


def test_one_whose_loop_is_closed_disturbs_nobody(make: Any, raw: Any) -> None:
    listener = make()
    gone = asyncio.new_event_loop()

    async def wait_for_ever() -> Any:
        return listener.waiting("gone").__enter__()

    gone.run_until_complete(wait_for_ever())
    gone.close()

    async def wait_once() -> None:
        with listener.waiting("one") as one:
            await listening(raw)
            await one.wait(0.2)
            raw.publish(CHANNEL, "gone")
            raw.publish(CHANNEL, "one")
            assert await called(one)

    asyncio.run(wait_once())


def test_a_user_without_a_right_to_the_channel_is_told_once(make: Any, raw: Any, caplog: Any) -> None:
    raw.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-subscribe")
    try:
        listener = make(username="narrow", password="pw")

        async def wait_twice() -> None:
            with listener.waiting("one"):
                await until(lambda: not threads())
            with listener.waiting("one"):
                assert not threads()

        with caplog.at_level(logging.WARNING, logger="extras"):
            asyncio.run(wait_twice())
        assert caplog.text.count("may not subscribe to the channel 'called'") == 1
    finally:
        raw.execute_command("ACL", "DELUSER", "narrow")


def test_while_redis_is_away_it_tries_again(own_server: RedisServer) -> None:
    given = parse({"url": "127.0.0.1", "port": own_server.port})
    listener = Listener(CHANNEL, lambda: sync_client(given))
    client: Any = redis.Redis(port=own_server.port)

    async def away() -> None:
        own_server.stop()
        with listener.waiting("one") as one:
            assert await called(one)
            own_server.start()
            await listening(client)
            await one.wait(0.7)
            client.publish(CHANNEL, "one")
            assert await called(one)

    asyncio.run(away())
    listener.close()
    client.connection_pool.disconnect()
