"""What counts as an outage, on every redis-py, as a real server and its connections say it."""

from typing import Any

import pytest
import redis

from extras.bench.server import RedisServer, free_port
from extras.failures import is_of_redis, is_outage, stops_reads

WRITE = "redis.call('SET', KEYS[1], 'x') return 1"
SETTINGS = {
    "OOM": (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], False),
    "READONLY": (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"], False),
    "NOREPLICAS": (
        ["CONFIG", "SET", "min-replicas-to-write", "1"],
        ["CONFIG", "SET", "min-replicas-to-write", "0"],
        False,
    ),
}


@pytest.fixture
def client(server: RedisServer) -> Any:
    made: Any = redis.Redis(port=server.port)
    yield made
    made.connection_pool.disconnect()


def raised(client: Any, *command: Any) -> Exception:
    with pytest.raises(redis.RedisError) as caught:
        client.execute_command(*command)
    return caught.value


@pytest.mark.parametrize("code", SETTINGS)
@pytest.mark.parametrize("command", [("SET", "k", "x"), ("EVAL", WRITE, 1, "k")], ids=["command", "script"])
def test_a_server_that_takes_no_writes(code: str, command: Any, client: Any) -> None:
    begin, end, no_reads = SETTINGS[code]
    client.execute_command(*begin)
    try:
        error = raised(client, *command)
    finally:
        client.execute_command(*end)
    assert is_outage(error), repr(error)
    assert stops_reads(error) is no_reads


def test_a_replica_without_its_master(client: Any) -> None:
    client.execute_command("CONFIG", "SET", "replica-serve-stale-data", "no")
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        error = raised(client, "GET", "k")
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")
        client.execute_command("CONFIG", "SET", "replica-serve-stale-data", "yes")
    assert is_outage(error), repr(error)
    assert stops_reads(error)


def test_nobody_there() -> None:
    connection: Any = redis.Connection(host="127.0.0.1", port=free_port())
    with pytest.raises(redis.RedisError) as caught:
        connection.connect()
    assert is_outage(caught.value)
    assert stops_reads(caught.value)


def test_errors_by_their_text() -> None:
    known = redis.exceptions
    for error in (
        known.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        known.ResponseError("ERR Error running script (call to f_1): @user_script:16: -OOM command not allowed"),
        known.ResponseError("CLUSTERDOWN The cluster is down"),
        known.BusyLoadingError("Redis is loading the dataset in memory"),
        known.TimeoutError("Timeout reading from socket"),
    ):
        assert is_outage(error), repr(error)
    for wrong in (
        known.AuthenticationError("WRONGPASS invalid username-password pair"),
        known.ResponseError("NOPERM this user has no permissions to run the 'set' command"),
        known.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        known.ResponseError("ERR unknown command 'READONLY '"),
        known.DataError("Invalid input"),
        ValueError("OOM "),
        OSError("LOADING "),
    ):
        assert not is_outage(wrong), repr(wrong)


def test_what_is_stored_is_told_from_who_stores_it(client: Any) -> None:
    client.execute_command("RPUSH", "list", "x")
    assert not is_of_redis(raised(client, "GET", "list"))
    assert not is_of_redis(raised(client, "EVAL", "return redis.call('GET', KEYS[1])", 1, "list"))
    assert is_of_redis(raised(client, "NOSUCH"))
    assert not is_of_redis(ValueError("no document"))


def _asked(connection: Any) -> Any:
    connection.send_command("PING")
    return connection.read_response()


def test_a_wrong_password_is_no_outage(client: Any) -> None:
    port = client.connection_pool.connection_kwargs["port"]
    client.execute_command("CONFIG", "SET", "requirepass", "right")
    wrong: Any = redis.Connection(host="127.0.0.1", port=port, password="wrong")  # which is not retried
    nameless: Any = redis.Connection(host="127.0.0.1", port=port)
    try:
        with pytest.raises(redis.RedisError) as refused:
            wrong.connect()
        with pytest.raises(redis.RedisError) as unauthenticated:
            _asked(nameless)
    finally:
        client.execute_command("CONFIG", "SET", "requirepass", "")
        wrong.disconnect()
        nameless.disconnect()
    for error in (refused.value, unauthenticated.value):
        assert not is_outage(error), repr(error)
