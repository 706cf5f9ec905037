"""Faults of the server, its rights and the connection to it, for ``rasa-extras doctor`` to find."""

import shutil
import time
from typing import Any

from doctor_fault import fault, option
from doctor_place import PASSWORD, Place, cluster_port

from extras.bench.server import find_server

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


@fault("failed", "role", "Redis Cluster")
def cluster(place: Place) -> Any:
    server = place.own("--cluster-enabled", "yes", "--requirepass", PASSWORD, port=cluster_port())
    return place.store(port=server.port)


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
