"""The host these tests run in: its stock Redis store is the oracle, whatever its version."""

import asyncio
import importlib.util
import inspect
import random
import uuid
from typing import Any, Callable, Iterator, List, Union

import pytest
import redis
from databases import Dynamo, missing
from postgresql import PostgreSQL, find_postgresql
from rasa.shared.core import trackers
from rasa.shared.core.domain import Domain
from the_host import HAS_SERVER, IS_PRO, IS_RASA_2
from topologies import RedisCluster
from watched import Watched

from extras import _rasa, _redis
from extras.bench.server import RedisServer
from extras.trackerstore import ExtraRedisTrackerStore

collect_ignore = [] if IS_PRO else ["test_pro.py"]
if not HAS_SERVER:
    collect_ignore += ["test_deployment.py", "test_rest.py", "test_pages.py"]
if importlib.util.find_spec("confluent_kafka") is None:  # the cell of the brokers has it
    collect_ignore.append("test_brokers.py")
if HAS_SERVER or IS_RASA_2 or IS_PRO:  # one Rasa 3 has what all its stores need
    collect_ignore += ["test_migrate_stores.py", "test_stores_documented.py"]
if HAS_SERVER or IS_RASA_2:  # one Rasa 3, and Pro, are put through the faults
    collect_ignore.append("test_faults.py")


@pytest.fixture
def call() -> Iterator[Callable[[Any], Any]]:
    """Wait for what a host's method returned: a coroutine is run on one event loop, anything else is the result."""
    loop = asyncio.new_event_loop()

    def wait(value: Any) -> Any:
        return loop.run_until_complete(value) if inspect.isawaitable(value) else value

    yield wait
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def domain() -> Domain:
    """A domain with slots, in the form of the host's version."""
    mappings = {} if IS_RASA_2 else {"mappings": [{"type": "custom"}]}
    slots = {name: {"type": "text", "influence_conversation": False, **mappings} for name in ("name", "city")}
    if IS_RASA_2:
        slots = {name: {"type": "text"} for name in slots}
    return Domain.from_dict(
        {
            "intents": ["greet", "inform"],
            "entities": ["name", "city"],
            "slots": slots,
            "responses": {"utter_greet": [{"text": "hi"}]},
            "session_config": {"session_expiration_time": 60, "carry_over_slots_to_new_session": True},
        }
    )


@pytest.fixture
def same_session_ids(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make Rasa Pro draw the session ids of a round again: called before each store's turn, both get the same ones."""
    drawn = random.Random()

    def draw() -> uuid.UUID:
        return uuid.UUID(int=drawn.getrandbits(128), version=4)

    if hasattr(trackers, "uuid"):
        monkeypatch.setattr(trackers.uuid, "uuid4", draw)
    return drawn.seed


@pytest.fixture
def stock(server: RedisServer, domain: Domain, raw: "redis.Redis") -> Callable[..., Any]:
    """Make the host's own Redis store on database 0."""

    def make(**options: Any) -> Any:
        return _rasa.StockRedisTrackerStore(domain, host="127.0.0.1", port=server.port, **options)

    return make


@pytest.fixture
def ours(
    server: RedisServer, domain: Domain, raw: "redis.Redis", call: Callable[[Any], Any]
) -> Iterator[Callable[..., Any]]:
    """Make our store, on database 1 unless told otherwise."""
    made: List[Any] = []

    def make(**options: Any) -> Any:
        made.append(ExtraRedisTrackerStore(domain, "127.0.0.1", **{"port": server.port, "db": 1, **options}))
        return made[-1]

    yield make
    for store in made:
        call(store.close())


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A Redis Cluster, which every test leaves whole."""
    if not _redis.HAS_CLUSTER:
        pytest.skip("redis-py before 4.1 knows nothing of clusters")
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A master with replicas and Sentinels, which every test leaves whole."""
    with Watched(tmp_path_factory.mktemp("sentinels")) as made:
        yield made


@pytest.fixture(params=["cluster", "watched"])
def laid_out(request: pytest.FixtureRequest) -> Union[RedisCluster, Watched]:
    """Either of them, empty."""
    made: Union[RedisCluster, Watched] = request.getfixturevalue(request.param)
    made.settle()
    made.empty()
    return made


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    if find_postgresql() is None:
        missing("PostgreSQL")
    server = PostgreSQL()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def dynamo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dynamo]:
    server = Dynamo(tmp_path_factory.mktemp("dynamo"))
    try:
        yield server.start()
    finally:
        server.stop()
