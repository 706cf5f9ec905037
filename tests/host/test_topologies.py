"""The store of this host on a real cluster and behind real Sentinels, with four writers, while masters come and go.

What a save without an error has stored is there at the end, once; each save ends within ``call_timeout``.
"""

import asyncio
import inspect
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import UserUttered
from rasa.shared.core.trackers import DialogueStateTracker
from the_host import IS_RASA_2
from topologies import HOST, RedisCluster, until
from watched import SERVICE, Watched

from extras import _redis
from extras.trackerstore import ExtraRedisTrackerStore, StoreNotAcknowledgedError

CALL_TIMEOUT_S = 15.0
GRACE_S = 3.0
BACK_S = 1.0 + 4.0
"""After a fail-over: what is promised, and what a busy machine and a whole turn may take besides."""
SENDERS = ("alice", "bob", "carol", "dave")
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
    """Four writers of one store: tasks of one event loop, or threads, as the host has them."""

    def __init__(self, domain: Domain, **options: Any) -> None:
        self._domain = domain
        given = {"call_timeout": CALL_TIMEOUT_S, "socket_timeout": 1, **options}
        self._store = ExtraRedisTrackerStore(domain, **given)
        self._stopping = threading.Event()
        self.saves: List[Save] = []
        threads = 4 if IS_RASA_2 else 1
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(threads)]

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
        await asyncio.gather(*(self._write(number) for number in range(4)))
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

    def judge(self) -> None:
        """Hold every save to what it promised."""
        for save in self.saves:
            assert save.took_s < CALL_TIMEOUT_S + GRACE_S, save
            assert save.is_stored, save

    def back_after(self, moment: float, sender_id: str) -> float:
        """Return when a sender has been saved after a moment, in seconds since it."""
        return min(s.ended_at for s in self.saves if s.ended_at > moment and s.sender_id == sender_id) - moment


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


@pytest.mark.skipif(not _redis.HAS_CLUSTER, reason="redis-py before 4.1 knows nothing of clusters")
def test_a_cluster(tmp_path: Path, domain: Domain, call: Callable[[Any], Any]) -> None:
    """A slot moves there and back, a replica takes over by hand, a master is killed."""
    with RedisCluster(tmp_path) as cluster:
        options: Dict[str, Any] = {"deployment_mode": "cluster", "endpoints": [f"{HOST}:{cluster.masters[0]}"]}
        slot = int(_redis.key_slot(b"tracker:alice"))
        with Writers(domain, min_replicas_ack=1, **options) as writers:
            home, other = _home_and_other(cluster, slot)
            cluster.move(slot, other)
            writers.wait_for(8)
            cluster.move(slot, home)
            cluster.fail_over(home)
            writers.wait_for(8)
            cluster.settle()
            quiet = len(writers.saves)
            killed = cluster.owner(slot)
            other = next(port for port in cluster.servers if port != killed)
            cluster.servers[killed].kill()
            until("the fail-over", lambda: killed not in cluster.owners(other).values() and cluster.is_up(other))
            taken_over_at = time.monotonic()
            until("service", lambda: any(s.ended_at > taken_over_at and s.sender_id == "alice" for s in writers.saves))
            writers.wait_for(8)
        writers.judge()
        assert all(save.error is None for save in writers.saves[: quiet // 2])
        assert writers.back_after(taken_over_at, "alice") < BACK_S
        kept(writers.saves, domain, call, **options)


def _home_and_other(cluster: RedisCluster, slot: int) -> Tuple[int, int]:
    home = cluster.owner(slot)
    return home, next(port for port in cluster.masters if port != home)


def test_sentinels(tmp_path: Path, domain: Domain, call: Callable[[Any], Any]) -> None:
    """Sentinels replace the master by hand, then it is killed. What both replicas had is kept."""
    with Watched(tmp_path) as watched:
        options = {"url": f"redis+sentinel://{','.join(watched.endpoints)}/{SERVICE}"}
        with Writers(domain, min_replicas_ack=2, **options) as writers:
            watched.fail_over()
            until("the promotion", lambda: watched.role(watched.master()) == "master")
            writers.wait_for(8)
            killed = watched.master()
            others = [port for port in watched.nodes if port != killed]
            until("a replica", lambda: any(map(watched.has_link, others)))
            watched.servers[killed].kill()
            until("the fail-over", lambda: watched.master() != killed)
            until("the promotion", lambda: watched.role(watched.master()) == "master")
            taken_over_at = time.monotonic()
            until("service", lambda: any(s.ended_at > taken_over_at and s.sender_id == "alice" for s in writers.saves))
        writers.judge()
        assert writers.back_after(taken_over_at, "alice") < BACK_S
        kept(writers.saves, domain, call, **options)
