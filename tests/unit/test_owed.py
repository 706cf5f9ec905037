"""What could not be given back is given back later, once Redis is there, and not for ever."""

import asyncio
from typing import Any, Dict, List, Tuple

import pytest
from redis.exceptions import ConnectionError, ResponseError

from extras import owed as _owed
from extras.failures import is_outage
from extras.owed import Owed


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second pass quickly."""
    monkeypatch.setattr(_owed, "_PAUSE_S", 0.01)


class Queue:
    """Answers what it is told to about each owner, one answer after the other, the last one for good."""

    def __init__(self, **answers: List[Any]) -> None:
        self.answers: Dict[str, List[Any]] = answers
        self.asked: List[Tuple[str, str]] = []

    async def give_back(self, conversation_id: str, owner: str) -> bool:
        """Answer."""
        self.asked.append((conversation_id, owner))
        answers = self.answers[owner]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    async def settle(self, *owners: str, lifetime_s: float = 60) -> None:
        """Owe the tickets of these owners until nothing is owed any more."""
        owed = Owed(self.give_back, is_outage)
        for owner in owners:
            owed.add("alice", owner, lifetime_s)
        assert owed._task is not None
        await asyncio.wait_for(owed._task, 30)
        assert not owed._tickets
        await owed.close()


@pytest.mark.parametrize(
    ("answers", "times"),
    [
        ([True], 1),
        ([False], 2),
        ([False, True], 2),
        ([ConnectionError(), ConnectionError(), True], 3),
        ([ConnectionError(), False, False], 3),
        ([ResponseError("CLUSTERDOWN The cluster is down"), True], 2),
        ([ResponseError("READONLY You can't write against a read only replica."), True], 2),
        ([ResponseError("ERR the key holds something else than a lock")], 1),
        ([ValueError()], 1),
    ],
)
def test_a_ticket_is_looked_for_twice_once_redis_is_there(answers: List[Any], times: int) -> None:
    queue = Queue(a=answers)
    asyncio.run(queue.settle("a"))
    assert queue.asked == [("alice", "a")] * times


def test_while_redis_is_away_only_one_ticket_is_tried_at_a_time() -> None:
    queue = Queue(a=[ConnectionError(), True], b=[True])
    asyncio.run(queue.settle("a", "b"))
    assert [owner for _, owner in queue.asked] == ["a", "a", "b"]


def test_a_ticket_that_has_expired_is_owed_no_more() -> None:
    queue = Queue(a=[ConnectionError()])
    asyncio.run(queue.settle("a", lifetime_s=0.1))
    assert queue.asked


def test_closing_gives_up_and_what_is_added_later_is_given_back() -> None:
    async def closed() -> None:
        queue = Queue(a=[ConnectionError()], b=[True])
        owed = Owed(queue.give_back, is_outage)
        owed.add("alice", "a", 60)
        await asyncio.sleep(0.05)
        await owed.close()
        tried = len(queue.asked)
        await asyncio.sleep(0.05)
        assert len(queue.asked) == tried
        owed.add("alice", "b", 60)
        await asyncio.sleep(0.05)
        assert queue.asked[tried:] == [("alice", "b")]

    asyncio.run(closed())
