"""What rights the stores need, and whether the user has them, by ``ACL DRYRUN`` or else a try on a scratch key."""

from typing import Any, Dict, List, Optional, Tuple

from extras._redis import AuthenticationError, ConnectionError, RedisError, TimeoutError
from extras.cli.checks_options import Target
from extras.cli.findings import Check, failed, first_line, guarded, named, ok, warning
from extras.conversation import TRACKER_INFIX, UserIndex
from extras.layout import CLUSTER, SENTINEL
from extras.options import Options
from extras.outbox import outbox_key
from extras.refusals import way_out_of
from extras.tickets import LOCK_INFIX, Queues

Command = Tuple[Any, ...]

_NO_SCRIPT = "0" * 40
_SCRATCH_MS = 60_000
RENAMED = "it is renamed or switched off (rename-command)"
"""The way out where a server has no such command."""
_ANSWERS_S = 3.0


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

_WITH_SUBCOMMANDS = {"CLUSTER", "SENTINEL"}

_OF_CLUSTERS: Tuple[Command, ...] = (("CLUSTER", "SLOTS"), ("ASKING",))
_OF_ACKS: Tuple[Command, ...] = (("WAIT", 0, 1),)
_OF_SENTINELS: Command = ("SENTINEL", "MASTERS")


def _name(command: Command) -> str:
    return " ".join(command[:2]) if command[0] in _WITH_SUBCOMMANDS else str(command[0])


def right(name: str) -> str:
    """Return the right to a command, in the words of ``ACL SETUSER``."""
    return f"+{name.lower().replace(' ', '|')}"


OF_CLUSTERS = tuple(right(_name(command)) for command in _OF_CLUSTERS)
"""What users of a cluster's nodes need besides: who has which slot, and what is on its way."""
OF_ACKS = tuple(right(_name(command)) for command in _OF_ACKS)
"""With ``min_replicas_ack``."""
OF_SENTINELS = (right(_name(_OF_SENTINELS)),)
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
    """Look at the rights of the user, on each node of a cluster and at each Sentinel, which all have their own users.

    Returns whether it may do what the store needs on every Rasa, as the masters are now.
    """
    if target.options.deployment_mode == SENTINEL:
        yield from _check_sentinels(client, target.options)
    if target.options.deployment_mode != CLUSTER:
        return (yield from _check_user(client, target, scratch_id))
    masters, may = client.masters(), True
    for host, port in client.topology.nodes:
        is_master = (host, port) in masters
        here = guarded("permissions", _check_user(client.node((host, port)), target, scratch_id))
        found = yield from named(f"{host}:{port}", here, is_spare=not is_master)
        may = may and (bool(found) or not is_master)
    return may


def _check_sentinels(client: Any, options: Options) -> Check[None]:
    """Ask each Sentinel as the store does. One that is not there was warned of, and another has answered already."""
    for host, port in options.nodes:
        try:
            client.seed((host, port)).execute_command(*_OF_SENTINELS)
        except (ConnectionError, TimeoutError) as error:
            if isinstance(error, AuthenticationError):
                yield warning("permissions", f"{host}:{port}: {first_line(error)}", way_out_of(error))
        except RedisError as error:
            user = options.sentinel_username or "default"
            if _why(str(error)) is None:
                yield warning("permissions", f"{host}:{port}: {first_line(error)}", way_out_of(error))
            else:
                found = f"{host}:{port}: {user!r} may not {_name(_OF_SENTINELS)}"
                yield warning("permissions", found, f"ACL SETUSER {user} {' '.join(OF_SENTINELS)}, on every Sentinel")


def _needed(options: Options, key: str) -> List[Command]:
    """Return what a store with these options sends to a server, on a scratch key."""
    needed = [
        command
        for command in commands_of_store(key, f"{key}*")
        if options.read_unprefixed_keys or command[0] not in _OF_OPTIONS
    ]
    needed += _OF_CLUSTERS if options.deployment_mode == CLUSTER else ()
    needed += _OF_ACKS if options.min_replicas_ack else ()
    return needed


def _check_user(client: Any, target: Target, scratch_id: str) -> Check[bool]:
    """Look at the rights of the user on one server."""
    user = user_of(client, target.options)
    index_key = UserIndex(target.prefix).key(scratch_id).decode()
    key = target.prefix + scratch_id
    store = refused(client, user, _needed(target.options, key))
    index = refused(client, user, commands_of_index(index_key))
    if target.options.publish == "outbox":
        store.update(refused(client, user, commands_of_outbox(outbox_key(key.encode()).decode())))
    missing = [name for name, why in store.items() if why == "command"]
    unknown = [name for name, why in store.items() if why == "unknown"]
    for_keys = [name for name, why in store.items() if why == "key"]
    if missing:
        rights = " ".join(map(right, missing))
        yield failed("permissions", f"{user!r} may not {', '.join(missing)}", f"ACL SETUSER {user} {rights}")
    if unknown:
        yield failed("permissions", f"the server has no {', '.join(unknown)}", RENAMED)
    if for_keys:
        yield failed(
            "key pattern",
            f"{user!r} may not use the keys {target.prefix}* ({', '.join(for_keys)})",
            f"ACL SETUSER {user} ~{target.prefix}*" + (" ~{*}:outbox:*" if target.options.publish == "outbox" else ""),
        )
    if index:
        rights = " ".join(map(right, index))
        yield warning(
            "permissions of Pro",
            f"{user!r} may not {', '.join(index)} on {index_key.partition(scratch_id)[0]}*, where Rasa Pro keeps an "
            "index of users",
            f"on Rasa Pro: ACL SETUSER {user} {rights} ~{index_key.partition(scratch_id)[0]}*",
        )
    if not store:
        yield ok("permissions", f"{user!r} may do all that the store does, scripts too, on {target.prefix}*")
    return not store


def user_of(client: Any, options: Options) -> str:
    """Return as whom a client is logged in."""
    try:
        found = client.execute_command("ACL WHOAMI")
    except (ConnectionError, TimeoutError):  # or else each command would seem to be permitted
        raise
    except RedisError:  # Redis 5, or not permitted
        return options.username or "default"
    return found.decode() if isinstance(found, bytes) else str(found)


def refused(client: Any, user: str, commands: List[Command]) -> Dict[str, str]:
    """Return the commands that are refused, and whether for the command, the key, the channel, or there is none."""
    found: Dict[str, str] = {}
    for command in commands:
        said = _dry_run(client, user, command)
        why = _why(_said(client, command) if said is None else said)
        if why is not None:
            found[_name(command)] = why
    return found


def _dry_run(client: Any, user: str, command: Command) -> Optional[str]:
    """Return what the server would say to a command, ``None`` where it does not tell (before Redis 7, by ACL)."""
    try:
        said = client.execute_command("ACL DRYRUN", user, *command)
    except RedisError:
        return None
    return said.decode() if isinstance(said, bytes) else str(said)


def _said(client: Any, command: Command) -> str:
    try:
        if command[0] == "SUBSCRIBE":
            _subscribe(client, command[1])
        else:
            client.execute_command(*command)
    except RedisError as error:
        return str(error)
    return ""


def _subscribe(client: Any, channel: str) -> None:
    subscription = client.pubsub()
    try:
        subscription.subscribe(channel)
        subscription.get_message(timeout=_ANSWERS_S)
    finally:
        subscription.close()


def _why(said: str) -> Optional[str]:
    """Return why a command is refused; ``None`` for an answer, or an error that is no matter of rights."""
    said = said.lower()
    if "unknown command" in said:
        return "unknown"
    if "permission" not in said:
        return None
    return next((each for each in ("key", "channel") if each in said.replace("'keys'", "")), "command")
