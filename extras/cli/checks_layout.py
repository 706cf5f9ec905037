"""Each server of a cluster, or behind Sentinels, as a single one is looked at; findings name it."""

from dataclasses import replace
from time import monotonic, sleep
from typing import Any, Callable, List

from extras._redis import RedisError
from extras.budget import UnsettledError
from extras.cli.checks_acl import OF_CLUSTERS, OF_SENTINELS
from extras.cli.checks_options import Target
from extras.cli.checks_server import check_login, check_server
from extras.cli.findings import FAILED, WARNING, Check, Finding, failed, first_line, guarded, named, ok, unseen
from extras.layout import CLUSTER, Address

SLOTS = 16_384
_SETTLES_S = 3.0
"""For so long nobody may know where conversations are: another master takes over, or a busy one is thought lost."""
_PAUSE_S = 0.25


def check_seeds(target: Target, is_reached: Callable[[Target], "Check[bool]"]) -> Check[bool]:
    """Connect to each endpoint; return whether any answers. Those that do not are warned of, if others do."""
    options = target.options
    found: List[Finding] = []
    reached = 0
    for host, port in options.nodes:
        one = target._replace(options=replace(options, url=host, port=port, use_ssl=options.asks_with_ssl))
        reached += bool((yield from _collected(found, is_reached(one))))
    for finding in found:
        is_spare = finding.level == FAILED and reached
        yield finding._replace(level=WARNING) if is_spare else finding
    return reached > 0


def _collected(found: List[Finding], check: "Check[bool]") -> Check[bool]:
    """Keep the findings of a check, and yield none of them; return its result."""
    result = False
    try:
        while True:
            found.append(next(check))
    except StopIteration as done:
        result = bool(done.value)
    yield from ()
    return result


def check_servers(client: Any, target: Target) -> Check[bool]:
    """Look at the server, or at each master; return whether the store can use all of them."""
    if not target.options.nodes:
        return (yield from check_login(client, target)) and bool(
            (yield from guarded("server", check_server(client, target)))
        )
    masters = (yield from guarded("layout", _masters(client, target))) or []
    usable = bool(masters)
    if masters and target.options.deployment_mode == CLUSTER:
        yield from guarded("slots", _check_slots(client.node(masters[0])))
    for host, port in masters:
        one = target._replace(options=replace(target.options, url=host, port=port))
        node = client.node((host, port))
        here = (yield from named(f"{host}:{port}", check_login(node, one))) and bool(
            (yield from named(f"{host}:{port}", guarded("server", check_server(node, one))))
        )
        usable = usable and here
    return usable


def _masters(client: Any, target: Target) -> Check[List[Address]]:
    deadline = monotonic() + _SETTLES_S
    try:
        while True:
            try:
                masters: List[Address] = client.masters()
                break
            except UnsettledError:  # the store asks again, too
                if monotonic() > deadline:
                    raise
                sleep(_PAUSE_S)
    except RedisError as error:
        if "permission" not in str(error).lower():
            raise
        is_cluster = target.options.deployment_mode == CLUSTER
        user = (target.options.username if is_cluster else target.options.sentinel_username) or "default"
        rights, where = (OF_CLUSTERS, "node") if is_cluster else (OF_SENTINELS, "Sentinel")
        yield failed("permissions", first_line(error), f"ACL SETUSER {user} {' '.join(rights)}, on every {where}")
        return []
    names = ", ".join(f"{host}:{port}" for host, port in masters)
    yield ok("layout", f"{target.options.where}: {'masters' if len(masters) > 1 else 'master'} {names}")
    return masters


def _check_slots(node: Any) -> Check[None]:
    """Look whether the cluster holds itself for whole."""
    try:
        said = node.execute_command("CLUSTER", "INFO").decode()
    except RedisError as error:
        yield unseen("slots", f"CLUSTER INFO is refused ({first_line(error)})", "allow +cluster|info")
        return
    facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    served = int(facts.get("cluster_slots_ok", SLOTS))
    if facts.get("cluster_state") == "ok" and served == SLOTS:
        yield ok("slots", f"all {SLOTS:,} are served")
    else:
        found = f"{served:,} of {SLOTS:,} are served, the cluster's state is {facts.get('cluster_state')}"
        yield failed("slots", found, "CLUSTER NODES shows which are not; their conversations cannot be had")
