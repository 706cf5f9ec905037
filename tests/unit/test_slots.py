"""What servers say about where to ask, as a table, and how a scan goes over masters that change under it."""

from typing import Any, List, Optional, Tuple

import pytest
import redis

from extras import _redis
from extras.budget import UnsettledError
from extras.cluster import Cluster
from extras.configured import sync_client
from extras.conversation import Conversations
from extras.errors import OptionError
from extras.layout import Address
from extras.options import parse
from extras.slots import Detour, Next, Scans, is_demoted, key_of, next_attempt, place_in
from extras.topology import Sending, carried_out

A, B, C = ("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 3)
MASTERS = [A, B, C]


def replied(text: str) -> Exception:
    """Return what redis-py makes of an error reply."""
    made: Exception = _redis.error_parser(_redis.Connection())(text)
    return made


class TestErrors:
    """The decision table."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("MOVED 3999 127.0.0.1:6381", Next.MOVED),
            ("ASK 3999 127.0.0.1:6381", Next.ASK),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Next.LATER),
            ("CLUSTERDOWN Hash slot not served", Next.LATER),
            ("CLUSTERDOWN The cluster is down", Next.LATER),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Next.LATER),
            ("READONLY You can't write against a read only replica.", Next.LATER),
            (
                "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't",
                Next.LATER,
            ),
            ("UNBLOCKED force unblock from blocking operation, instance state changed", Next.LATER),
            ("LOADING Redis is loading the dataset in memory", Next.LOST),
            ("ERR max number of clients reached", Next.LOST),
            ("NOSCRIPT No matching script. Please use EVAL.", Next.NONE),
            ("CROSSSLOT Keys in request don't hash to the same slot", Next.NONE),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Next.NONE),
            ("OOM command not allowed when used memory > 'maxmemory'.", Next.NONE),
            ("NOREPLICAS Not enough good replicas to write.", Next.NONE),
            ("NOPERM this user has no permissions to run the 'get' command", Next.NONE),
            ("ERR This instance has cluster support disabled", Next.NONE),
        ],
    )
    def test_replies(self, text: str, expected: Next) -> None:
        assert next_attempt(replied(text)) is expected

    @pytest.mark.skipif(not _redis.HAS_CLUSTER, reason="redis-py before 4.1 has no such classes")
    @pytest.mark.parametrize("kind", ["MovedError", "AskError", "TryAgainError", "ClusterDownError", "MasterDownError"])
    def test_classes(self, kind: str) -> None:
        """Those that redis-py's own connections make of them, which take the code away."""
        make = getattr(redis.exceptions, kind)
        moved = kind in ("MovedError", "AskError")
        expected = {"MovedError": Next.MOVED, "AskError": Next.ASK}.get(kind, Next.LATER)
        assert next_attempt(make("3999 127.0.0.1:6381" if moved else "what it says")) is expected

    def test_connections(self) -> None:
        assert next_attempt(redis.ConnectionError("refused")) is Next.LOST
        assert next_attempt(redis.TimeoutError("silent")) is Next.LOST
        assert next_attempt(OSError("anything else")) is Next.NONE

    def test_demoted(self) -> None:
        assert is_demoted(replied("READONLY You can't write against a read only replica."))
        assert not is_demoted(replied("LOADING Redis is loading the dataset in memory"))

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("MOVED 3999 127.0.0.1:6381", (3999, ("127.0.0.1", 6381))),
            ("MOVED 3999 :6381", (3999, (A[0], 6381))),
            ("ASK 0 redis-1.internal:7", (0, ("redis-1.internal", 7))),
            ("MOVED 1 2001:db8::1:6379", (1, ("2001:db8::1", 6379))),
        ],
    )
    def test_places(self, text: str, expected: Tuple[int, Address]) -> None:
        assert place_in(replied(text), A) == expected

    def test_a_place_that_cannot_be_read(self) -> None:
        with pytest.raises(UnsettledError, match="cannot be read"):
            place_in(redis.ResponseError("MOVED somewhere"), A)


@pytest.mark.skipif(_redis.HAS_CLUSTER, reason="redis-py since 4.1 knows clusters")
def test_a_cluster_with_a_redis_py_that_is_too_old() -> None:
    with pytest.raises(OptionError, match=r"redis-py 3\S* does not know; pip install 'redis>=4.1'"):
        sync_client(parse({"cluster": True}))


class TestKeys:
    """The key of each command that is sent to Redis."""

    @pytest.mark.parametrize(
        ("command", "key"),
        [
            (("GET", "k"), "k"),
            (("get", b"k"), b"k"),
            (("EVALSHA", "sha", 1, b"k", "v"), b"k"),
            (("EVAL", b"return 1", 1, b"k"), b"k"),
            (("ZADD", b"k", "1", "m"), b"k"),
            (("MEMORY", "USAGE", b"k"), b"k"),
            (("MEMORY USAGE", b"k"), b"k"),
            (("PING",), None),
            (("INFO", "memory"), None),
            (("CONFIG GET", "maxmemory"), None),
            (("CONFIG", "GET", "maxmemory"), None),
            (("ACL DRYRUN", "u", "GET", "k"), None),
            (("SCAN", 0, "MATCH", "*"), None),
        ],
    )
    def test_key(self, command: Tuple[Any, ...], key: Optional[Any]) -> None:
        assert key_of(command) == key


class Pages:
    """Masters with two pages of keys each, as SCAN sees them."""

    def __init__(self, scans: Scans) -> None:
        self.scans = scans
        self.seen: List[Tuple[Address, int]] = []

    def step(self, cursor: int) -> int:
        """Scan one page; return the cursor."""
        route = self.scans.route(("SCAN", cursor, "COUNT", 9))
        if route is None:
            return 0
        assert route.command[2:] == ("COUNT", 9)
        assert route.scanned is not None
        page = int(route.command[1])
        self.seen.append((route.address, page))
        return self.scans.cursor(route.scanned, 0 if page else 2**63)


class TestScans:
    """SCAN over all masters."""

    def test_all_pages_of_all_masters_once(self) -> None:
        scans = Scans()
        scans.update(MASTERS, MASTERS)
        pages, cursor = Pages(scans), 0
        for _ in range(6):
            cursor = pages.step(cursor)
        assert cursor == 0
        assert pages.seen == [(master, page) for master in MASTERS for page in (0, 2**63)]

    def test_who_gains_is_seen_again_and_who_takes_over_from_the_beginning(self) -> None:
        scans = Scans()
        scans.update(MASTERS, MASTERS)
        pages = Pages(scans)
        cursor = pages.step(pages.step(0))
        cursor = pages.step(cursor)  # one page of the second
        scans.update(MASTERS, [A])  # which was seen already
        replica = ("10.0.0.9", 9)
        scans.update([A, replica, C], [replica])  # in the place of the second
        while cursor:
            cursor = pages.step(cursor)
        assert pages.seen[3:] == [(who, page) for who in (C, A, replica) for page in (0, 2**63)]

    def test_nobody(self) -> None:
        assert Scans().route(("SCAN", 0)) is None


@pytest.mark.skipif(not _redis.HAS_CLUSTER, reason="redis-py before 4.1 knows nothing of clusters")
class TestSteps:
    """One command, with servers that answer as the test says."""

    def known(self) -> Cluster:
        cluster = Cluster([A])
        steps = cluster.discovery()
        assert next(steps).command == ("CLUSTER", "SLOTS")
        reply = [[0, 8191, [b"10.0.0.1", 1, b"i"]], [8192, 16383, [b"10.0.0.2", 2, b"j"], [b"10.0.0.3", 3, b"k"]]]
        with pytest.raises(StopIteration):
            steps.send(reply)
        assert cluster.masters == (A, B)
        return cluster

    def test_whoever_answers_is_believed_and_who_failed_is_asked_last(self) -> None:
        cluster = self.known()
        assert cluster.noted(redis.ConnectionError("lost"), A) is None
        asked = []
        steps = cluster.discovery()
        question = next(steps)
        with pytest.raises(UnsettledError, match="no node of the cluster says"):  # noqa: PT012
            while True:
                asked.append(question.address)
                question = steps.throw(redis.ConnectionError("refused"))
        assert sorted(asked[:2]) == [B, C]
        assert asked[2:] == [A]

    @pytest.mark.parametrize(
        "refusal",
        [
            redis.AuthenticationError("invalid username-password pair or user is disabled."),
            redis.ResponseError("NOPERM this user has no permissions to run the 'cluster' command"),
            redis.ResponseError("WRONGPASS invalid username-password pair"),  # redis-py 3.5
        ],
        ids=["password", "rights", "password, to redis-py 3.5"],
    )
    def test_one_that_refuses_is_believed_only_where_no_other_can_be_asked(self, refusal: Exception) -> None:
        def outcome(*answers: Any) -> Tuple[List[Any], Exception]:
            cluster, asked = self.known(), []
            steps = cluster.discovery()
            question = next(steps)
            with pytest.raises((redis.RedisError, StopIteration)) as raised:  # noqa: PT012
                for answer in answers:
                    asked.append(question.address)
                    question = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
            return asked, raised.value

        whole = [[0, 16383, [b"10.0.0.1", 1, b"i"]]]
        lost = redis.ConnectionError("lost")
        asked, raised = outcome(refusal, whole)
        assert len(asked) == 2
        assert isinstance(raised, StopIteration)
        asked, raised = outcome(refusal, lost, lost)
        assert len(set(asked)) == 3
        assert raised is refusal
        _, raised = outcome(refusal, [], lost)  # of no use for now, but it lets itself be asked
        assert isinstance(raised, UnsettledError)
        assert str(refusal) in str(raised)

    def test_sent_on_for_good_and_for_once(self) -> None:
        cluster = self.known()
        get = ("GET", "foo")  # slot 12182
        steps = carried_out(cluster, get)
        assert next(steps) == Sending(B, (get,))
        assert steps.throw(replied("ASK 12182 10.0.0.1:1")) == Sending(A, (("ASKING",), get))
        with pytest.raises(StopIteration) as done:
            steps.send([b"OK", b"value"])
        assert done.value.value == [b"value"]
        steps = carried_out(cluster, get)
        assert next(steps) == Sending(B, (get,))
        assert steps.throw(replied("MOVED 12182 10.0.0.1:1")) == Sending(A, (get,))
        steps.close()
        steps = carried_out(cluster, get)
        assert next(steps) == Sending(A, (get,))
        steps.close()
        assert cluster.noted(replied("ASK 12182 10.0.0.2:2"), A) == Detour(B, True)

    def test_round_in_circles(self) -> None:
        steps = carried_out(self.known(), ("GET", "foo"))
        sending = next(steps)
        with pytest.raises(UnsettledError, match="sent on 5 times"):  # noqa: PT012
            while True:
                there = A if sending is not None and sending.address == B else B
                sending = steps.throw(replied(f"MOVED 12182 {there[0]}:{there[1]}"))

    def test_a_reply_that_says_later_is_kept_for_the_caller(self) -> None:
        steps = carried_out(self.known(), ("GET", "foo"))
        next(steps)
        error = replied("CLUSTERDOWN The cluster is down")
        with pytest.raises(UnsettledError) as raised:
            steps.throw(error)
        assert raised.value.replied is error

    def test_scripts_and_conversations_name_one_key(self) -> None:
        conversations = Conversations("tracker:", 10, False)
        steps = conversations.replace_if("alice", None, b"{}", None)
        assert key_of(next(steps)) == b"tracker:alice"
        steps.close()
