"""Faults of the server, its rights and the connection to it, for ``rasa-extras doctor`` to find."""

import shutil
import socket
import time
from contextlib import suppress
from typing import Any

import redis
from doctor_fault import fault, option
from doctor_place import PASSWORD, Place, cluster_port

from extras.backlog import Backlog
from extras.bench.server import find_server
from extras.journal import set_aside
from extras.lastknown import ABSENT, Taken

# Login and rights.

option("failed", "login", "as 'default'", password="hunter3-of-redis")
option("failed", "login", "as 'default'", password=...)
option("failed", "login", "as 'nobody'", username="nobody")
option("failed", "login", "index", db=99)


@fault("failed", "permissions", "'bot' may not EVAL, EVALSHA")
def user_without_scripts(place: Place) -> Any:
    return place.store(**place.user("~*", "+@all", "-eval", "-evalsha"))


@fault("failed", "permissions", "'bot' may not PERSIST, SETRANGE, SCAN")
def user_that_may_not_even_ask_for_rights(place: Place) -> Any:
    return place.store(**place.user("~*", "+@all", "-setrange", "-persist", "-scan", "-acl"))


@fault("failed", "key pattern", "may not use the keys bot:tracker:*")
def user_of_other_keys(place: Place) -> Any:
    return place.store(**place.user("~tracker:*", "+@all"), key_prefix="bot")


@fault("failed", "key pattern", "may not use the keys bot:tracker:*")
def user_of_other_keys_that_may_not_ask(place: Place) -> Any:
    return place.store(**place.user("~tracker:*", "+@all", "-acl"), key_prefix="bot")


@fault("warning", "permissions of Pro", "ZADD, ZRANGEBYSCORE, ZREMRANGEBYSCORE, ZREM on user_trackers:*")
def user_without_the_index_of_pro(place: Place) -> Any:
    return place.store(**place.user("~tracker:*", "+@all"))


@fault("unseen", "INFO", "cannot be seen")
def info_refused(place: Place) -> Any:
    return place.store(**place.user("~*", "+@all", "-info"))


@fault("unseen", "CONFIG", "cannot be seen")
def config_refused(place: Place) -> Any:
    return place.store(**place.user("~*", "+@all", "-config"))


@fault("unseen", "clock", "TIME is refused")
def time_refused(place: Place) -> Any:
    return place.store(**place.user("~*", "+@all", "-time"))


@fault("failed", "permissions", "the server has no EVALSHA")
def scripts_switched_off(place: Place) -> Any:
    return place.store(port=place.own("--rename-command", "EVALSHA", "", "--requirepass", PASSWORD).port)


# The server.


@fault("failed", "role", "a replica (of 127.0.0.1:1)")
def replica(place: Place) -> Any:
    place.undo.callback(place.root.execute_command, "REPLICAOF", "NO", "ONE")
    place.root.execute_command("REPLICAOF", "127.0.0.1", "1")
    return place.store()


@fault("failed", "version", "older than any that is supported")
def old_version(place: Place) -> Any:
    place.monkeypatch.setattr("extras.cli.checks_server._OLDEST_VERSION", (99, 0))
    return place.store()


@fault("failed", "login", "loading the dataset in memory")
def reading_its_data(place: Place) -> Any:
    server = place.own("--requirepass", PASSWORD)
    client = place.client(server)
    client.mset({f"key-{number}": "x" * 100 for number in range(5000)})
    client.save()
    server.stop()
    server.launch("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", server.port)).close()
            break
        time.sleep(0.01)
    return place.store(port=server.port)


def a_cluster_node(place: Place, *arguments: str) -> Any:
    return place.own("--cluster-enabled", "yes", "--requirepass", PASSWORD, *arguments, port=cluster_port())


@fault("failed", "role", "Redis Cluster")
def cluster(place: Place) -> Any:
    return place.store(port=a_cluster_node(place).port)


@fault("failed", "slots", "8,192 of 16,384 are served")
def half_a_cluster(place: Place) -> Any:
    return serving_master(place, range(8192))


def serving_master(place: Place, slots: range, *rules: str) -> Any:
    """Start a cluster of one node, which has these slots and, where there are rules, a user."""
    server = a_cluster_node(place, "--cluster-require-full-coverage", "no", "--appendonly", "yes")
    client = place.client(server)
    client.execute_command("CLUSTER", "ADDSLOTS", *slots)
    deadline = time.monotonic() + 20
    while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO") and time.monotonic() < deadline:
        time.sleep(0.02)
    if rules:
        client.execute_command("ACL SETUSER", "bot", "resetchannels", "on", f">{PASSWORD}", "~*", "+@all", *rules)
    login = {"username": "bot"} if rules else {}
    return place.store(port=server.port, cluster=True, call_timeout=1, **login)


@fault("failed", "permissions", "'bot' may not ASKING")
def user_of_a_cluster_without_asking(place: Place) -> Any:
    return serving_master(place, range(16384), "-asking")


@fault("failed", "permissions", "no permissions to run the 'cluster")
def user_of_a_cluster_that_may_not_see_its_slots(place: Place) -> Any:
    return serving_master(place, range(16384), "-cluster|slots")


@fault("failed", "permissions", "'bot' may not WAIT")
def user_that_may_not_wait_for_replicas(place: Place) -> Any:
    return place.store(**place.user("~*", "+@all", "-wait"), min_replicas_ack=1)


@fault("warning", "replicas", "nobody takes over")
def master_alone_in_its_cluster(place: Place) -> Any:
    return half_a_cluster(place)


@fault("failed", "replicas", "0 of the 1 that min_replicas_ack asks for")
def fewer_replicas_than_are_waited_for(place: Place) -> Any:
    return place.store(min_replicas_ack=1)


@fault("failed", "layout", "no Sentinel says")
def sentinel_that_knows_no_master(place: Place) -> Any:
    return behind(sentinel(place)["port"], place)


def behind(port: int, place: Place, **login: str) -> Any:
    """Return a store of a master that the Sentinel at a port does not know."""
    sentinels = {"deployment_mode": "sentinel", "endpoints": [f"127.0.0.1:{port}"], "sentinel_service": "another"}
    return place.store(url=..., port=..., sentinel_password=PASSWORD, call_timeout=1, **sentinels, **login)


@fault("failed", "permissions", "no permissions to run the 'sentinel")
def user_of_sentinels_that_may_not_ask(place: Place) -> Any:
    port = sentinel(place)["port"]
    client = redis.Redis(port=port, password=PASSWORD)
    client.execute_command("ACL SETUSER", "asker", "on", f">{PASSWORD}", "+ping")
    client.connection_pool.disconnect()
    return behind(port, place, sentinel_username="asker")


@fault("failed", "role", "a Sentinel")
def sentinel(place: Place) -> Any:
    settings, program = place.folder / "sentinel.conf", place.folder / "sentinel.sh"
    settings.write_text(f"requirepass {PASSWORD}\n", encoding="ascii")
    program.write_text(f'#!/bin/sh\nexec {find_server()} {settings} --sentinel "$@"\n', encoding="ascii")
    program.chmod(0o755)
    place.monkeypatch.setenv("REDIS_SERVER", str(program))
    return place.store(port=place.own().port)


@fault("failed", "eviction", "Redis deletes conversations")
def eviction_of_conversations(place: Place) -> Any:
    place.config("maxmemory-policy", "allkeys-lru")
    return place.store()


@fault("warning", "eviction", "once maxmemory is set")
def eviction_without_limit(place: Place) -> Any:
    place.config("maxmemory-policy", "allkeys-random")
    place.config("maxmemory", "0")
    return place.store()


@fault("warning", "eviction", "conversations end before record_exp")
def eviction_before_time(place: Place) -> Any:
    place.config("maxmemory-policy", "volatile-ttl")
    return place.store(record_exp=3600)


@fault("failed", "memory", "used of maxmemory")
def full_memory(place: Place) -> Any:
    place.config("maxmemory", "1")
    return place.store()


@fault("warning", "memory", "used of maxmemory")
def nearly_full_memory(place: Place) -> Any:
    used: Any = place.root.info("memory")
    place.config("maxmemory", str(int(used["used_memory"] / 0.87)))
    return place.store()


@fault("failed", "conversation", "")
def writes_refused_because_memory_is_full(place: Place) -> Any:
    place.config("maxmemory", "1")
    return place.store()


@fault("failed", "conversation", "good replicas")
def replicas_missing(place: Place) -> Any:
    place.config("min-replicas-to-write", "1")
    return place.store()


@fault("warning", "clients", "of 14")
def few_connections_left(place: Place) -> Any:
    for _ in range(10):
        place.client(place.server).ping()
    place.config("maxclients", "14")
    return place.store(socket_timeout=5)


@fault("warning", "idle timeout", "idle for 300 s")
def idle_connections_closed(place: Place) -> Any:
    place.config("timeout", "300")
    return place.store()


@fault("warning", "server probes", "off at the server")
def server_does_not_probe(place: Place) -> Any:
    place.config("tcp-keepalive", "0")
    return place.store()


@fault("warning", "persistence", "forgets every conversation")
def nothing_persisted(place: Place) -> Any:
    place.config("appendonly", "no")
    return place.store()


@fault("failed", "persistence", "the last snapshot failed")
def snapshot_failed(place: Place) -> Any:
    server = place.own("--requirepass", PASSWORD)
    client = place.client(server)
    shutil.rmtree(server.folder)
    client.bgsave()
    deadline = time.monotonic() + 20
    while client.info()["rdb_last_bgsave_status"] == "ok" and time.monotonic() < deadline:
        time.sleep(0.02)
    return place.store(port=server.port)


@fault("warning", "persistence", "was not rewritten")
def rewrite_failed(place: Place) -> Any:
    server = place.own("--requirepass", PASSWORD, "--appendonly", "yes")
    client = place.client(server)
    shutil.rmtree(server.folder)
    with suppress(redis.ResponseError):  # newer servers say at once that it cannot be
        client.bgrewriteaof()
    deadline = time.monotonic() + 20
    while client.info()["aof_last_bgrewrite_status"] == "ok" and time.monotonic() < deadline:
        time.sleep(0.02)
    return place.store(port=server.port)


# The journal of outages.


def journal(place: Place, **options: Any) -> Any:
    return place.store(on_outage="journal", journal_path=str(place.folder / "journal"), **options)


@fault("failed", "journal", "is not there or cannot be written")
def folder_of_the_journal_missing(place: Place) -> Any:
    return {**journal(place), "journal_path": "/no/such/folder/journal"}


@fault("failed", "journal", "holds something else")
def journal_that_is_none(place: Place) -> Any:
    (place.folder / "journal").write_text("a text", encoding="ascii")
    return journal(place)


@fault("warning", "journal", "are free in")
def no_room_for_the_journal(place: Place) -> Any:
    return journal(place, journal_max_bytes=2**60)


@fault("warning", "journal", "1 turns wait in")
def journal_that_no_rasa_has(place: Place) -> Any:
    kept = Backlog(place.folder / "journal", 2**20)
    for sender_id in ("alice", "bob"):
        kept.put(sender_id, ABSENT, Taken(b'{"event": "user"}', b'], "name": "x"}'), None).result(20)
    copied = kept.copy("alice")
    assert copied is not None
    kept.done("alice", copied)
    kept.close()
    return journal(place)


@fault("warning", "journal", "could not be brought to Redis")
def turns_set_aside(place: Place) -> Any:
    set_aside(place.folder / "journal.refused", [b"damaged"])
    return journal(place)


@fault("warning", "clock", "behind this machine's")
def clocks_apart(place: Place) -> Any:
    now = time.time
    place.monkeypatch.setattr("extras.cli.checks_server.time.time", lambda: now() + 60)
    return place.store()


@fault("warning", "latency", "20 PINGs")
def far_away(place: Place) -> Any:
    place.monkeypatch.setattr("extras.cli.checks_server.PINGS", 20)
    return place.store(port=place.slow(0.025))


option("warning", "liveness", "keepalive is off", socket_keepalive=False)
option("warning", "liveness", "after 3015 s idle", socket_keepalive_options={"TCP_KEEPIDLE": 3000})
option("warning", "liveness", "puts off", socket_keepalive_options={"TCP_KEEPIDLE": 5, "TCP_USER_TIMEOUT": 600000})
