"""The store of this host on a real cluster and behind real Sentinels, with four writers, while masters come and go.

What a save without an error has stored is there at the end, once; each save ends within ``call_timeout``. Then all of
it is moved by ``rasa-extras migrate``.
"""

import asyncio
import inspect
import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import pytest
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import UserUttered
from rasa.shared.core.trackers import DialogueStateTracker
from the_host import IS_RASA_2
from topologies import RedisCluster, until
from watched import SERVICE, Watched

from extras import _rasa
from extras.cli.main import main
from extras.trackerstore import ExtraRedisTrackerStore, StoreNotAcknowledgedError

CALL_TIMEOUT_S = 15.0
GRACE_S = 3.0
BACK_S = 1.0
"""Within this after a fail-over, as the servers have it, there is service again."""
FAILOVERS = int(os.environ.get("FAILOVERS", "1"))
SENDERS = ("alice", "bob", "carol", "dave")
ALICE = f"{_rasa.STOCK_PREFIX}alice"
PLAIN = f"{{{ALICE}}}"
"""A key prefix with which all keys are in the slot of Alice."""
_PAUSE_S = 0.05


class Save(NamedTuple):
    """One save, and what came of it."""

    sender_id: str
    text: str
    ended_at: float
    took_s: float
    error: Optional[Exception]

    @property
    def is_stored(self) -> bool:
        """Whether it is at the master at least."""
        return self.error is None or isinstance(self.error, StoreNotAcknowledgedError)


class Writers:
    """Writers of one store: tasks of one event loop, or threads, as the host has them."""

    def __init__(self, domain: Domain, number: int = 4, **options: Any) -> None:
        self._domain = domain
        self._numbers = range(number)
        given = {"call_timeout": CALL_TIMEOUT_S, "socket_timeout": 1, **options}
        self._store = ExtraRedisTrackerStore(domain, **given)
        self._stopping = threading.Event()
        self.saves: List[Save] = []
        threads = self._numbers if IS_RASA_2 else range(1)
        self._threads = [threading.Thread(target=self._work, args=(each,)) for each in threads]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        self.wait_for(len(SENDERS))
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if IS_RASA_2:
            self._store.close()

    def wait_for(self, stored: int) -> None:
        """Wait until so many more saves are stored."""
        since, deadline = len(self.saves), time.monotonic() + CALL_TIMEOUT_S * 2
        while sum(save.is_stored for save in self.saves[since:]) < stored:
            assert time.monotonic() < deadline, self.saves[-8:]
            time.sleep(0.02)

    def _work(self, number: int) -> None:
        if IS_RASA_2:
            self._finished(self._write(number))
        else:
            asyncio.run(self._write_all())

    def _finished(self, work: Any) -> None:
        with pytest.raises(StopIteration):
            work.send(None)

    async def _write_all(self) -> None:
        await asyncio.gather(*map(self._write, self._numbers))
        await self._store.close()

    async def _write(self, number: int) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            sender_id, text = SENDERS[count % len(SENDERS)], f"{number}-{count}"
            started_at, failure = time.monotonic(), None
            try:
                tracker = await self._waited(self._store.retrieve(sender_id))
                if tracker is None:
                    tracker = self._store.init_tracker(sender_id)
                tracker.update(UserUttered(text), self._domain)
                started_at = time.monotonic()
                await self._waited(self._store.save(tracker))
            except Exception as error:
                failure = error
            ended_at = time.monotonic()
            self.saves.append(Save(sender_id, text, ended_at, ended_at - started_at, failure))
            if IS_RASA_2:
                time.sleep(_PAUSE_S)
            else:
                await asyncio.sleep(_PAUSE_S)

    async def _waited(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    def judge(self) -> float:
        """Hold every save to what it promised; return how many seconds the longest one took."""
        for save in self.saves:
            assert save.took_s < CALL_TIMEOUT_S + GRACE_S, save
            assert save.is_stored, save
        return max(save.took_s for save in self.saves)

    def wait_until_back(self, moment: float) -> float:
        """Wait for the first save without an error that ends after a moment; return how many seconds after it."""

        def ends() -> List[float]:
            return [save.ended_at for save in self.saves if save.error is None and save.ended_at > moment]

        until("service", ends)
        return min(ends()) - moment


def kept(saves: List[Save], domain: Domain, call: Callable[[Any], Any], **options: Any) -> None:
    """Read all conversations with a store of its own, and look for every acknowledged turn in them."""
    store = ExtraRedisTrackerStore(domain, **options)
    found: Dict[str, List[str]] = {}
    for sender_id in SENDERS:
        tracker: Optional[DialogueStateTracker] = call(store.retrieve_full_tracker(sender_id))
        assert tracker is not None
        found[sender_id] = [event.text for event in tracker.events if isinstance(event, UserUttered)]
        assert len(set(found[sender_id])) == len(found[sender_id])
    assert sorted(call(store.keys())) == sorted(SENDERS)
    call(store.close())
    lost = [save for save in saves if save.error is None and save.text not in found[save.sender_id]]
    assert lost == []


def move(folder: Path, capsys: "pytest.CaptureFixture[str]", **options: Any) -> None:
    """Move all conversations to a file, and from there below another prefix of the same Redis, which has all then."""
    ours = {"type": "extras.trackerstore.ExtraRedisTrackerStore", **options}
    names = {"first": folder / "first.yml", "copy": folder / "copy.jsonl", "second": folder / "second.yml"}
    names["first"].write_text(json.dumps({"tracker_store": ours}))
    names["second"].write_text(json.dumps({"tracker_store": {**ours, "key_prefix": "moved"}}))
    for number, (source, target, what) in enumerate(
        [("first", "copy", "moved"), ("copy", "second", "moved"), ("first", "second", "already_there")]
    ):
        capsys.readouterr()
        paths = ["--from", str(names[source]), "--to", str(names[target]), "--state", str(folder / f"{number}.state")]
        code = main(["migrate", *paths, "--json"])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, ""), printed
        assert json.loads(printed.out)[what] == len(SENDERS), printed


@pytest.mark.parametrize("attempt", range(FAILOVERS))
def test_a_cluster(
    attempt: int,
    cluster: RedisCluster,
    domain: Domain,
    call: Callable[[Any], Any],
    tmp_path: Path,
    capsys: "pytest.CaptureFixture[str]",
) -> None:
    """Slots move there and back, a replica takes over by hand, a master is killed.

    ``of_alice``, all of whose keys are in one slot, do not ask for replicas: they say when service is back.
    """
    cluster.settle()
    cluster.empty()
    options, slot = cluster.options, cluster.slot_of(ALICE)
    writers, of_alice = Writers(domain, min_replicas_ack=1, **options), Writers(domain, 1, key_prefix=PLAIN, **options)
    with writers, of_alice:
        home = cluster.owner(slot)
        other = next(port for port in set(cluster.owners(home).values()) if port != home)
        cluster.move_range(range(slot, slot + 20), other)
        writers.wait_for(8)
        cluster.move_range(range(slot, slot + 20), home)
        cluster.fail_over(home)
        writers.wait_for(8)
        cluster.settle()
        quiet = len(writers.saves)
        lost = cluster.owner(slot)
        cluster.servers[lost].kill()
        _, taken_over_at = cluster.taken_over(lost, ALICE)
        back_s = of_alice.wait_until_back(taken_over_at)
        writers.wait_for(8)
    cluster.revive(lost)
    longest_s = max(writers.judge(), of_alice.judge())
    assert all(save.error is None for save in writers.saves[: quiet // 2])
    kept(writers.saves, domain, call, **options)
    move(tmp_path, capsys, **options)
    print(f"service was back {back_s:.2f} s after the fail-over; the longest save took {longest_s:.2f} s")
    assert back_s < BACK_S


@pytest.mark.parametrize("attempt", range(FAILOVERS))
def test_sentinels(
    attempt: int,
    watched: Watched,
    domain: Domain,
    call: Callable[[Any], Any],
    tmp_path: Path,
    capsys: "pytest.CaptureFixture[str]",
) -> None:
    """Sentinels replace the master by hand, then it is killed. What both replicas had is kept."""
    watched.settle()
    watched.empty()
    options: Dict[str, Any] = {"url": f"redis+sentinel://{','.join(watched.endpoints)}/{SERVICE}"}
    writers, plain = Writers(domain, min_replicas_ack=2, **options), Writers(domain, 1, key_prefix=PLAIN, **options)
    with writers, plain:
        before = watched.master()
        watched.order_fail_over()
        lost, _ = watched.taken_over(before, ALICE)
        writers.wait_for(8)
        until("a replica", lambda: any(watched.has_link(port) for port in watched.nodes if port != lost))
        watched.servers[lost].kill()
        _, taken_over_at = watched.taken_over(lost, ALICE)
        back_s = plain.wait_until_back(taken_over_at)
        writers.wait_for(8)
    watched.revive(lost)
    longest_s = max(writers.judge(), plain.judge())
    kept(writers.saves, domain, call, **options)
    move(tmp_path, capsys, **options)
    print(f"service was back {back_s:.2f} s after the fail-over; the longest save took {longest_s:.2f} s")
    assert back_s < BACK_S
