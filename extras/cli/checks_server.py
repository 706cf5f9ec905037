"""What the server says of itself: who may log in, its role, memory, persistence, clock and speed.

``INFO`` and ``CONFIG`` may be refused by an ACL or a managed service; what they would tell is "cannot be seen" then.
"""

import ipaddress
import socket
import statistics
import time
from typing import Any, Dict, List, Optional

from extras._redis import RedisError
from extras.cli.checks_options import Target
from extras.cli.findings import Check, Finding, each, failed, first_line, ok, unseen, warning
from extras.layout import CLUSTER
from extras.refusals import way_out_of

PINGS = 100
SLOW_MEDIAN_S = 0.02
MOST_SKEW_S = 2.0
_MOST_PINGING_S = 5.0
_OLDEST_VERSION = (5, 0)
_FULL, _NEARLY_FULL = 0.95, 0.8
_MANY_CLIENTS = 0.8

Facts = Dict[str, Any]
"""What ``INFO`` and ``CONFIG GET`` tell, by their own names; what is not in it cannot be seen."""


def check_login(client: Any, target: Target) -> Check[bool]:
    """Connect, log in and select the database; return whether that works."""
    options = target.options
    user = options.username or "default"
    try:
        client.ping()
    except RedisError as error:
        if "permission" not in str(error).lower():  # logged in, but without leave to say PING
            yield failed("login", f"as {user!r}: {first_line(error)}", way_out_of(error))
            return False
    if options.password is None and not is_private(options.url, options.unix_path):
        yield warning(
            "login", "without a password: whoever reaches the server reads every conversation", "set a password there"
        )
    else:
        yield ok("login", f"as {user!r}, database {options.db}")
    return True


def is_private(host: str, unix_path: Optional[str]) -> bool:
    """Return whether only this machine gets there; a name is what it is looked up to be."""
    if unix_path:
        return True
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_loopback for entry in found)


def check_server(client: Any, target: Target) -> Check[bool]:
    """Look at what the server tells of itself; return whether it is one that the store can use."""
    facts = yield from _facts(client)
    yield from each(_version(facts))
    usable = yield from _role_and_topology(facts, target.options.deployment_mode)
    if usable:
        yield from each(_eviction(facts, target), _memory(facts), _clients(facts))
        yield from each(_idle_timeout(facts), _tcp_keepalive(facts), _replicas(facts, target))
        yield from _persistence(facts)
    return usable


def _facts(client: Any) -> Check[Facts]:
    facts: Facts = {}
    try:
        facts.update(client.info())
    except RedisError as error:
        found = f"refused ({first_line(error)}): version, role, memory and persistence cannot be seen"
        yield unseen("INFO", found, "allow +info")
    for name in ("timeout", "tcp-keepalive", "save", "maxmemory-policy", "maxclients"):
        try:
            facts.update(client.config_get(name))
        except RedisError as error:
            found = f"refused ({first_line(error)}): {name} and the like cannot be seen"
            yield unseen("CONFIG", found, "allow +config|get")
            break
    return facts


def _version(facts: Facts) -> Optional[Finding]:
    text = str(facts.get("redis_version", ""))
    if not text:
        return None
    own = facts.get("valkey_version")
    said = f"Valkey {own}" if own else f"Redis {text}"
    if tuple(int(part) for part in text.split(".")[:2] if part.isdigit()) < _OLDEST_VERSION:
        return failed("version", f"{said} is older than any that is supported", "take Redis 5 or later, or Valkey")
    return ok("version", said)


def _role_and_topology(facts: Facts, mode: str) -> Check[bool]:
    if "sentinel" in (facts.get("redis_mode"), facts.get("server_mode")):
        yield failed("role", "a Sentinel, which holds no data", "name the master in url, usually port 6379")
        return False
    in_cluster = bool(int(facts.get("cluster_enabled", 0)))
    if in_cluster and mode != CLUSTER:
        yield failed("role", "a node of a Redis Cluster", "set deployment_mode: cluster, and db: 0 or none")
        return False
    if facts.get("role") == "slave":
        of = f"{facts.get('master_host')}:{facts.get('master_port')}"
        yield failed("role", f"a replica (of {of}), which takes no writes", f"name the master in url: {of}")
        return False
    if int(facts.get("loading", 0)):
        yield failed("role", "it is still reading its data", "wait")
        return False
    yield from each(ok("role", f"master, {'of a' if in_cluster else 'no'} cluster") if facts.get("role") else None)
    return True


def _eviction(facts: Facts, target: Target) -> Optional[Finding]:
    policy = facts.get("maxmemory_policy") or facts.get("maxmemory-policy")
    if policy is None:
        return None
    limited = int(facts.get("maxmemory", 0)) > 0
    evicted = int(facts.get("evicted_keys", 0))
    said = f"{policy}, {evicted} keys evicted since the start"
    way_out = "CONFIG SET maxmemory-policy noeviction, and enough maxmemory"
    if policy.startswith("allkeys"):
        if limited:
            return failed("eviction", f"{said}: when memory is full, Redis deletes conversations", way_out)
        return warning("eviction", f"{said}: once maxmemory is set, Redis deletes conversations", way_out)
    if policy.startswith("volatile") and target.options.record_exp:
        return warning("eviction", f"{said}: when memory is full, conversations end before record_exp", way_out)
    return ok("eviction", said)


def _memory(facts: Facts) -> Optional[Finding]:
    if "used_memory" not in facts:
        return None
    used, limit = int(facts["used_memory"]), int(facts.get("maxmemory", 0))
    whole = limit or int(facts.get("total_system_memory", 0))
    of = f"maxmemory {_mb(limit)}" if limit else f"the machine's {_mb(whole)}, no maxmemory"
    said = f"{_mb(used)} used of {of}"
    share = used / whole if whole else 0.0
    if limit and share > _FULL:
        return failed("memory", said, "raise maxmemory, or set record_exp so that old conversations expire")
    if share > _NEARLY_FULL:
        return warning("memory", said, "make room before writes are refused, or the machine ends Redis")
    return ok("memory", said)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


def _clients(facts: Facts) -> Optional[Finding]:
    most = int(facts.get("maxclients", 0))
    if not most or "connected_clients" not in facts:
        return None
    now = int(facts["connected_clients"])
    if now > most * _MANY_CLIENTS:
        return warning("clients", f"{now} of {most}", "raise maxclients, or find who holds them: CLIENT LIST")
    return ok("clients", f"{now} of {most}")


def _idle_timeout(facts: Facts) -> Optional[Finding]:
    if "timeout" not in facts:
        return None
    timeout_s = int(facts["timeout"])
    if timeout_s:
        found = f"Redis closes a connection that is idle for {timeout_s} s; the next turn connects and logs in again"
        return warning("idle timeout", found, "CONFIG SET timeout 0")
    return ok("idle timeout", "Redis leaves idle connections open")


def _tcp_keepalive(facts: Facts) -> Optional[Finding]:
    if "tcp-keepalive" not in facts:
        return None
    every_s = int(facts["tcp-keepalive"])
    if not every_s:
        found = "off at the server: connections of machines that are gone stay until maxclients is reached"
        return warning("server probes", found, "CONFIG SET tcp-keepalive 300")
    return ok("server probes", f"the server looks after {every_s} s whether a silent client is still there")


def _replicas(facts: Facts, target: Target) -> Optional[Finding]:
    if "connected_slaves" not in facts:
        return None
    count, wanted = int(facts["connected_slaves"]), target.options.min_replicas_ack
    if count < wanted:
        found = f"{count} of the {wanted} that min_replicas_ack asks for: every save waits for them, and fails"
        return failed("replicas", found, "bring replicas up, or lower min_replicas_ack")
    if count == 0 and target.options.nodes:
        return warning("replicas", "none: nobody takes over when this server is gone", "give it one")
    return ok("replicas", f"{count}") if count or wanted else None


def _persistence(facts: Facts) -> Check[None]:
    if "aof_enabled" not in facts:
        return
    aof = bool(int(facts["aof_enabled"]))
    saves = facts.get("save")
    if facts.get("rdb_last_bgsave_status", "ok") != "ok":
        found = "the last snapshot failed; Redis may refuse writes (stop-writes-on-bgsave-error)"
        yield failed("persistence", found, "see disk space, dir and the server's log; then BGSAVE")
    if aof and facts.get("aof_last_write_status", "ok") != "ok":
        yield failed("persistence", "the last write to the append-only file failed", "see disk space and the log")
    if aof and facts.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield warning("persistence", "the append-only file was not rewritten, and grows", "see the server's log")
    if not aof and saves == "":
        found = "none: a restart of Redis forgets every conversation"
        yield warning("persistence", found, "CONFIG SET appendonly yes, and CONFIG REWRITE")
    elif not aof and saves is None:
        yield unseen("persistence", "no append-only file; whether there are snapshots cannot be seen")
    else:
        yield ok("persistence", "append-only file" if aof else f"snapshots ({saves})")


def check_clock(client: Any) -> Check[None]:
    """Compare the server's clock with this machine's."""
    before = time.time()
    try:
        seconds, microseconds = client.time()
    except RedisError as error:
        yield unseen("clock", f"TIME is refused ({first_line(error)})", "allow +time")
        return
    skew_s = float(seconds) + float(microseconds) / 1e6 - (before + time.time()) / 2
    said = f"{abs(skew_s):.3f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    if abs(skew_s) > MOST_SKEW_S + (time.time() - before):
        yield warning("clock", said, "let NTP set both: Rasa Pro's index of users expires by this machine's clock")
    else:
        yield ok("clock", said)


def check_latency(client: Any, target: Target) -> Check[None]:
    """Time PINGs."""
    took_s: List[float] = []
    begun = time.perf_counter()
    while len(took_s) < PINGS and time.perf_counter() - begun < _MOST_PINGING_S:
        before = time.perf_counter()
        try:
            client.ping()
        except RedisError as error:
            if "permission" in str(error).lower():
                yield unseen("latency", "PING is refused", "allow +ping")
            else:
                yield failed("latency", f"PING {len(took_s) + 1}: {first_line(error)}", way_out_of(error))
            return
        took_s.append(time.perf_counter() - before)
    median_s, p99_s = statistics.median(took_s), sorted(took_s)[int(len(took_s) * 0.99) - 1]
    said = f"{len(took_s)} PINGs: median {median_s * 1000:.2f} ms, p99 {p99_s * 1000:.2f} ms"
    limit_s = target.options.socket_timeout
    if median_s > SLOW_MEDIAN_S:
        yield warning("latency", f"{said}; a turn of a conversation needs two", "bring Redis nearer to Rasa")
    elif limit_s is not None and p99_s > limit_s / 2:
        yield warning("latency", f"{said}; socket_timeout is {limit_s:g} s", "see SLOWLOG GET and the network")
    else:
        yield ok("latency", said)
