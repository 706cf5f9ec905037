"""The lock store that the file names: whether Rasa would make it, and whether its Redis lets it do its work."""

import uuid
from typing import Any, List

from extras.cli.checks_acl import RENAMED, Command, commands_of_locks, refused, right, user_of
from extras.cli.checks_others import check_class, check_redis, patient, section_of
from extras.cli.endpoints_file import Endpoints
from extras.cli.findings import Check, failed, guarded, ok, warning
from extras.cli.locks import CONCURRENT, is_ours, lock_options, prefix_of_locks
from extras.configured import sync_client
from extras.errors import OptionError
from extras.options import Options
from extras.tickets import Queues

_LOCK_STORES = ("redis", CONCURRENT, "in_memory")
_OF_STOCK = {"SET", "GET", "DEL"}
_OF_CALLS = ("PUBLISH", "SUBSCRIBE")
"""Without these nobody is called; ours looks for its turn from time to time, then."""


def check_lock_store(endpoints: Endpoints) -> Check[None]:
    """Look whether Rasa would make the lock store that the file means, and whether its Redis lets it do its work."""
    title = "lock store"
    section = yield from section_of(endpoints, "lock_store")
    kind = str((section or {}).get("type") or "in_memory")
    if section is None or kind == "in_memory":
        if "lock_store" not in endpoints.sections or section is not None:
            yield ok(title, "in memory, which is right as long as there is only one Rasa process")
        return
    if kind not in _LOCK_STORES:
        yield from check_class(title, kind, _LOCK_STORES, "Rasa does not start")
        if not kind.startswith("extras.lockstore."):
            return
    if kind == CONCURRENT and section.get("url") is not None:
        where = section.get("host") or "localhost"
        yield warning(title, f"Rasa's {CONCURRENT} takes no url, and goes to {where}", "write host in its place")
    try:
        options = lock_options(section)
    except OptionError as error:
        yield failed(title, str(error), "correct it")
        return
    answers = yield from check_redis(title, options, ("PING",))
    if answers and kind != CONCURRENT:
        yield from guarded(title, _check_rights(title, kind, options))


def _check_rights(title: str, kind: str, options: Options) -> Check[None]:
    """Look whether the user may do what the lock store does, by ``ACL DRYRUN`` or else on a scratch key."""
    queues = Queues(prefix_of_locks(kind, options))
    client: Any = sync_client(patient(options))
    try:
        user = user_of(client, options)
        needed: List[Command] = commands_of_locks(
            queues.key(f"rasa-extras-doctor-{uuid.uuid4().hex}").decode(), queues.channel
        )
        if not is_ours(kind):
            needed = [command for command in needed if command[0] in _OF_STOCK]
        why = refused(client, user, needed)
    finally:
        client.connection_pool.disconnect()
    keys = f"{queues.key('').decode()}*"
    unknown = [name for name, reason in why.items() if reason == "unknown"]
    calls = [name for name in _OF_CALLS if why.get(name, "unknown") != "unknown"]
    rest = [name for name in why if name not in (*unknown, *calls)]
    if unknown:
        yield failed(title, f"the server has no {', '.join(unknown)}", RENAMED)
    if rest:
        rights = " ".join([f"~{keys}", *(right(name) for name in rest if why[name] != "key")])
        yield failed(title, f"{user!r} may not {', '.join(rest)} on {keys}", f"ACL SETUSER {user} {rights}")
    if calls:
        rights = " ".join([f"&{queues.channel}", *map(right, calls)])
        yield warning(
            title,
            f"{user!r} may not {', '.join(calls)} on the channel {queues.channel}: whoever waits for a lock looks for "
            "its turn from time to time instead of being called",
            f"ACL SETUSER {user} {rights}",
        )
    if not why:
        yield ok(title, f"{user!r} may do all that it does, on {keys}")
