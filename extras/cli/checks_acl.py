"""What rights the stores need, and whether the user has them, by ``ACL DRYRUN`` or else a try on a scratch key."""

from typing import Any, Dict, List, Optional, Tuple

from extras._redis import RedisError
from extras.cli.checks_options import Target
from extras.cli.findings import Check, failed, ok, warning
from extras.conversation import TRACKER_INFIX, UserIndex
from extras.outbox import outbox_key
from extras.tickets import LOCK_INFIX, Queues

Command = Tuple[Any, ...]

_NO_SCRIPT = "0" * 40
_SCRATCH_MS = 60_000


def commands_of_store(key: str, pattern: str) -> List[Command]:
    """Return every command that ``extras.conversation`` and its scripts send, each on a scratch key.

    Only one of them makes the key, and that expires, so that nothing is left even where all others are refused.
    """
    return [
        ("PERSIST", key),
        ("SET", key, "x", "PX", _SCRATCH_MS),
        ("GET", key),
        ("MGET", key),
        ("GETRANGE", key, 0, 0),
        ("STRLEN", key),
        ("EXISTS", key),
        ("TYPE", key),
        ("SETRANGE", key, 0, ""),
        ("PEXPIRE", key, _SCRATCH_MS),
        ("EVAL", "return 1", 1, key),
        ("EVALSHA", _NO_SCRIPT, 1, key),
        ("SCAN", 0, "MATCH", pattern, "COUNT", 1),
        ("DEL", key),
    ]


def commands_of_index(key: str) -> List[Command]:
    """Return what the index of users sends besides, which is Rasa Pro's; none of them makes the key."""
    return [
        ("ZADD", key, "XX", "1", "x"),
        ("ZRANGEBYSCORE", key, "-inf", "+inf"),
        ("ZREMRANGEBYSCORE", key, "-inf", "0"),
        ("ZREM", key, "x"),
    ]


def commands_of_locks(key: str, channel: str) -> List[Command]:
    """Return every command that ``extras.tickets``, its scripts and ``extras.listener`` send."""
    return [
        ("SET", key, "x", "PX", _SCRATCH_MS),
        ("GET", key),
        ("EVAL", "return 1", 1, key),
        ("EVALSHA", _NO_SCRIPT, 1, key),
        ("TIME",),
        ("DEL", key),
        ("PUBLISH", channel, "x"),
        ("SUBSCRIBE", channel),
    ]


_OF_OPTIONS = {"TYPE"}
"""What only ``read_unprefixed_keys`` needs, which needs all keys, too."""


OF_CLUSTERS = ("+cluster|slots", "+asking")
"""What users of a cluster's nodes need besides: who has which slot, and what is on its way."""
OF_ACKS = ("+wait",)
"""With ``min_replicas_ack``."""
OF_SENTINELS = ("+sentinel|masters",)
"""All that users of Sentinels need."""


def rights_of(key_prefix: Optional[str] = None) -> List[str]:
    """Return the rights, in the words of ``ACL SETUSER``, without any of which tracker store and lock store miss one.

    On top of these, ``client_name`` needs ``+client|setname``, ``health_check_interval`` ``+ping``, and
    ``read_unprefixed_keys`` ``+type ~*``.
    """
    prefix = f"{key_prefix}:" if key_prefix else ""
    queues = Queues(prefix + LOCK_INFIX)
    commands = [
        ("SELECT",),
        *commands_of_store("", ""),
        *commands_of_index(""),
        *commands_of_locks("", queues.channel),
    ]
    names = dict.fromkeys(str(command[0]).lower() for command in commands if command[0] not in _OF_OPTIONS)
    keys = (prefix + TRACKER_INFIX, UserIndex(prefix + TRACKER_INFIX).key("").decode(), prefix + LOCK_INFIX)
    return [*(f"~{key}*" for key in keys), f"&{queues.channel}", *(f"+{name}" for name in names)]


def commands_of_outbox(key: str) -> List[Command]:
    """Return what ``publish: outbox`` sends besides, on a scratch key of its own, which is gone afterwards."""
    return [
        ("RPUSH", key, "x"),
        ("LLEN", key),
        ("LRANGE", key, 0, 0),
        ("LTRIM", key, 1, -1),
        ("DEL", key),
    ]


def check_acl(client: Any, target: Target, scratch_id: str) -> Check[bool]:
    """Look at the rights of the user; return whether it may do what the store needs on every Rasa."""
    user = _user(client, target)
    index_key = UserIndex(target.prefix).key(scratch_id).decode()
    key = target.prefix + scratch_id
    needed = [
        command
        for command in commands_of_store(key, f"{key}*")
        if target.options.read_unprefixed_keys or command[0] not in _OF_OPTIONS
    ]
    store = _refused(client, user, needed)
    index = _refused(client, user, commands_of_index(index_key))
    if target.options.publish == "outbox":
        store.update(_refused(client, user, commands_of_outbox(outbox_key(key.encode()).decode())))
    missing = [name for name, why in store.items() if why == "command"]
    unknown = [name for name, why in store.items() if why == "unknown"]
    for_keys = [name for name, why in store.items() if why == "key"]
    if missing:
        rights = " ".join(f"+{name.lower()}" for name in missing)
        yield failed("permissions", f"{user!r} may not {', '.join(missing)}", f"ACL SETUSER {user} {rights}")
    if unknown:
        yield failed(
            "permissions", f"the server has no {', '.join(unknown)}", "it is renamed or switched off (rename-command)"
        )
    if for_keys:
        yield failed(
            "key pattern",
            f"{user!r} may not use the keys {target.prefix}* ({', '.join(for_keys)})",
            f"ACL SETUSER {user} ~{target.prefix}*" + (" ~{*}:outbox:*" if target.options.publish == "outbox" else ""),
        )
    if index:
        rights = " ".join(f"+{name.lower()}" for name in index)
        yield warning(
            "permissions of Pro",
            f"{user!r} may not {', '.join(index)} on {index_key.partition(scratch_id)[0]}*, where Rasa Pro keeps an "
            "index of users",
            f"on Rasa Pro: ACL SETUSER {user} {rights} ~{index_key.partition(scratch_id)[0]}*",
        )
    if not store:
        yield ok("permissions", f"{user!r} may do all that the store does, scripts too, on {target.prefix}*")
    return not store


def _user(client: Any, target: Target) -> str:
    try:
        found = client.execute_command("ACL WHOAMI")
    except RedisError:  # Redis 5, or not permitted
        return target.options.username or "default"
    return found.decode() if isinstance(found, bytes) else str(found)


def _refused(client: Any, user: str, commands: List[Command]) -> Dict[str, str]:
    """Return the commands that are refused, and whether for the command, the key, or because there is none."""
    refused: Dict[str, str] = {}
    for command in commands:
        said = _dry_run(client, user, command)
        why = _why(_said(client, command) if said is None else said)
        if why is not None:
            refused[str(command[0])] = why
    return refused


def _dry_run(client: Any, user: str, command: Command) -> Optional[str]:
    """Return what the server would say to a command, ``None`` where it does not tell (before Redis 7, by ACL)."""
    try:
        said = client.execute_command("ACL DRYRUN", user, *command)
    except RedisError:
        return None
    return said.decode() if isinstance(said, bytes) else str(said)


def _said(client: Any, command: Command) -> str:
    try:
        client.execute_command(*command)
    except RedisError as error:
        return str(error)
    return ""


def _why(said: str) -> Optional[str]:
    """Return why a command is refused; ``None`` for an answer, or an error that is no matter of rights."""
    said = said.lower()
    if "unknown command" in said:
        return "unknown"
    if "permission" not in said:
        return None
    return "key" if "key" in said.replace("'keys'", "") else "command"
