"""A host that makes its store again and again, whatever happens to Redis meanwhile, is left with one connection."""

import gc
import importlib
import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import UserUttered
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.utils.endpoints import EndpointConfig

from extras import _rasa
from extras.bench.server import RedisServer
from extras.trackerstore import ExtraRedisTrackerStore, StoreTimeoutError, TrackerStoreError

RECREATIONS = 1000
FailSafeTrackerStore: Any = importlib.import_module(_rasa.TrackerStore.__module__).FailSafeTrackerStore


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that keeps what it has acknowledged when it is stopped."""
    with RedisServer(tmp_path / "server", ["--appendonly", "yes"]) as running:
        yield running


def is_soon(reached: Callable[[], bool]) -> bool:
    """Whether something comes true within more time than it ever takes."""
    deadline = time.monotonic() + 20
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.02)
    return reached()


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("on_outage", ["raise", "journal"])
def test_made_a_thousand_times_it_leaves_nothing_behind(
    on_outage: str, own_server: RedisServer, domain: Domain, call: Callable[[Any], Any], tmp_path: Path
) -> None:
    options: Dict[str, Any] = {"port": own_server.port, "retries": 0, "on_outage": on_outage}
    if on_outage == "journal":
        options["journal_path"] = str(tmp_path / "journal")

    def made() -> Any:
        return ExtraRedisTrackerStore(domain, "127.0.0.1", **options)

    store = made()
    tracker = DialogueStateTracker("alice", domain.slots)
    call(store.save(tracker))
    before = descriptors(), threading.active_count()
    failed = 0
    for number in range(RECREATIONS):
        if number in (400, 600):
            own_server.stop() if number == 400 else own_server.start()
        store = made()
        try:
            call(store.exists("alice"))
        except Exception:
            failed += 1
        if on_outage == "journal" and number % 20 == 0:
            tracker.update(UserUttered(str(number)))
            call(store.save(tracker))
    assert failed == (200 if on_outage == "raise" else 1)  # what waits in the journal is known to exist
    assert is_soon(lambda: on_outage == "raise" or store.outage_journal().records == 0)
    assert is_soon(lambda: threading.active_count() == before[1])
    assert call(store.exists("alice"))
    assert descriptors() == before[0]
    gc.collect()  # stores that failed are in the tracebacks of their errors, and users until they are collected
    call(store.close())
    assert descriptors() == before[0] - (1 if on_outage == "raise" else 2)  # the connection, and the journal


@pytest.mark.parametrize("on_outage", ["raise", "journal"])
def test_what_is_said_in_an_outage_is_lost_by_the_hosts_wrapper_unless_it_is_journaled(
    on_outage: str, own_server: RedisServer, domain: Domain, call: Callable[[Any], Any], tmp_path: Path
) -> None:
    """Every Rasa answers a read that failed with no conversation at all, and goes on after a save that failed."""
    options: Dict[str, Any] = {"url": "127.0.0.1", "port": own_server.port, "retries": 0, "on_outage": on_outage}
    if on_outage == "journal":
        options["journal_path"] = str(tmp_path / "journal")
    endpoint = EndpointConfig(type="extras.trackerstore.ExtraRedisTrackerStore", **options)
    # As rasa.core.agent makes it. In Rasa Pro there is another wrapper between, which tries four times.
    store = FailSafeTrackerStore(_rasa.TrackerStore.create(endpoint, domain))
    said: Dict[str, Any] = {}

    def say(text: str) -> None:
        tracker = call(store.retrieve("alice")) or DialogueStateTracker("alice", domain.slots)
        tracker.update(UserUttered(text))
        said[text] = tracker
        call(store.save(tracker))

    say("before")
    own_server.stop()
    say("meanwhile")
    assert texts(said["meanwhile"]) == (["meanwhile"] if on_outage == "raise" else ["before", "meanwhile"])
    own_server.start()
    say("after")
    kept = ["before", "after"] if on_outage == "raise" else ["before", "meanwhile", "after"]
    assert is_soon(lambda: on_outage == "raise" or innermost(store).outage_journal().records == 0)
    assert texts(call(store.retrieve("alice"))) == kept
    gc.collect()  # Rasa Pro's earlier stores, as above
    call(innermost(store).close())


def texts(tracker: Any) -> List[str]:
    """Return what the user has said, of whatever kind the tracker is."""
    return [event.text for event in tracker.events if isinstance(event, UserUttered)] if tracker else []


def innermost(store: Any) -> Any:
    """Return the store itself, from under whatever the host has put around it."""
    while hasattr(store, "_tracker_store"):
        store = store._tracker_store
    return store


def test_a_call_that_takes_too_long_is_an_error_of_the_store(
    own_server: RedisServer, domain: Domain, call: Callable[[Any], Any]
) -> None:
    store: Any = ExtraRedisTrackerStore(
        domain, "127.0.0.1", port=own_server.port, call_timeout=0.5, socket_timeout=None, socket_connect_timeout=None
    )
    call(store.exists("private"))
    own_server.freeze()
    with pytest.raises(StoreTimeoutError, match=r"call_timeout.*EXISTS was waiting for its reply") as caught:
        call(store.exists("private"))
    assert isinstance(caught.value, TrackerStoreError)
    assert "private" not in str(caught.value)
    own_server.thaw()
    call(store.close())


def test_options_without_effect_are_warned_of_once(domain: Domain, caplog: pytest.LogCaptureFixture) -> None:
    def warned() -> List[str]:
        return [record.getMessage() for record in caplog.records if "call_timeout" in record.getMessage()]

    for _ in range(3):
        ExtraRedisTrackerStore(domain, "127.0.0.1", socket_timeout=61.5, call_timeout=7)
    assert len(warned()) == 1
    assert "socket_timeout is 61.5 s" in warned()[0]
