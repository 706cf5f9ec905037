"""Whether Rasa would make the tracker store that the file means, with the options that it means."""

import difflib
import importlib
import os
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from extras.cli.endpoints_file import Endpoints
from extras.cli.findings import FAILED, OK, UNSEEN, Check, failed, first_line, ok, unseen, warning
from extras.cli.host import load_host
from extras.conversation import TRACKER_INFIX
from extras.errors import HostError, OptionError, did_you_mean
from extras.options import TABLE, Options, parse

OURS = "extras.trackerstore.ExtraRedisTrackerStore"
_STOCK = ("redis", "sql", "mongod", "dynamo")
_SIMILAR = 0.7
_TITLE = "tracker store"
_USE_OURS = f"write type: {OURS}"


class Target(NamedTuple):
    """The Redis to look at. ``is_ours``: whether it is our store that will use it, or Rasa's own."""

    options: Options
    is_ours: bool
    prefix: str
    """What stands before a sender id in the keys."""


def check_tracker_store(endpoints: Endpoints) -> Check[Optional[Target]]:
    """Look at the section ``tracker_store``; return the Redis that it means, if there is one."""
    section = endpoints.sections.get("tracker_store")
    kind = section.get("type") if isinstance(section, dict) else None
    if not isinstance(section, dict) or kind is None:
        yield failed(
            _TITLE, "no tracker_store with a type: conversations live in memory and end with Rasa's process", _USE_OURS
        )
        return None
    is_redis = yield from _check_type(str(kind))
    if not (yield from check_variables(endpoints, "tracker_store")) or not is_redis:
        return None
    given = {name: value for name, value in section.items() if name != "type"}
    is_ours = str(kind).lower() != "redis"
    options = yield from _check_options(given, is_ours)
    if options is None:
        return None
    try:
        return Target(_with_iam(options), is_ours, _prefix(options))
    except OptionError as error:
        yield failed("options", str(error), "correct the environment; Rasa does not start with it")
        return None


def check_variables(endpoints: Endpoints, section: str) -> Check[bool]:
    """Look for variables that are not replaced; return whether the section can be used."""
    for name in endpoints.quoted.get(section, []):
        yield warning(
            section, f"{name}: a ${{VAR}} in quotes, which Rasa does not replace", "take the quotes away from it"
        )
    unset = endpoints.unset.get(section, [])
    for name in unset:
        yield failed(
            section,
            f"the environment variable {name} is not set here; Rasa does not start, or takes the name for the value",
            f"export {name}, and run this with the environment that Rasa has",
        )
    return not unset


def _check_type(kind: str) -> Check[bool]:
    """Return whether the type means a Redis store."""
    if kind.lower() == "redis":
        yield warning(
            _TITLE,
            "type: redis, Rasa's own store: it works, but each turn rewrites the whole conversation, writers overwrite "
            "each other, no keepalive notices a dead Redis, and keys() has prefixed keys",
            f"{_USE_OURS} and keep the other options and all data",
        )
        return True
    if kind.lower() in _STOCK:
        yield unseen(_TITLE, f"type: {kind} is not Redis; only the rest of the file is looked at")
        return False
    if kind == OURS:
        level, why = class_at(kind)
        if level == OK:
            yield ok(_TITLE, f"{OURS} loads")
        elif level == UNSEEN:
            yield unseen(_TITLE, f"{OURS}; whether it loads cannot be seen: {why}", "run this where Rasa is installed")
        else:
            yield failed(_TITLE, f"{OURS} does not load: {why}", "pip install --force-reinstall rasa-extras")
        return True
    if kind.startswith("extras.") or _similar(kind):
        yield failed(
            _TITLE, f"type: {kind} is mistyped; Rasa does not start, or goes on in memory with a warning", _USE_OURS
        )
        return True
    level, why = class_at(kind)
    if level in (OK, UNSEEN):
        yield unseen(_TITLE, f"type: {kind} is a store of others; only the rest of the file is looked at")
        return False
    known = did_you_mean(kind, [*_STOCK, OURS])
    yield failed(_TITLE, f"type: {kind}: {why}; Rasa goes on in memory with a warning{known}", _USE_OURS)
    return False


def _similar(kind: str) -> bool:
    full = difflib.SequenceMatcher(None, kind.lower(), OURS.lower()).ratio()
    name = difflib.SequenceMatcher(None, kind.rpartition(".")[2].lower(), OURS.rpartition(".")[2].lower()).ratio()
    return max(full, name) > _SIMILAR


def class_at(path: str) -> Tuple[str, str]:
    """Return whether a class can be imported as Rasa does it (ok, failed, or unseen without Rasa), and why not."""
    module, _, name = path.rpartition(".")
    if not module:
        return FAILED, "is neither a type that Rasa knows nor module.Class"
    if os.getcwd() not in sys.path:
        sys.path.insert(1, os.getcwd())  # as the command rasa does
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").split(".")[0] == "rasa":
            return UNSEEN, "Rasa is not in this Python"
        return FAILED, f"there is no module {error.name or module}"
    except HostError:
        return UNSEEN, "Rasa is not in this Python"
    except Exception as error:
        why = f": {first_line(error)}" if module.startswith("extras.") else ""  # others' errors may show a secret
        return FAILED, f"importing {module} raises {type(error).__name__}{why}"
    try:
        getattr(found, name)
    except Exception:
        return FAILED, f"{module} has no {name}"
    return OK, ""


def _check_options(given: Dict[str, Any], is_ours: bool) -> Check[Optional[Options]]:
    wrong: List[str] = []
    for name, value in given.items():
        try:
            if name not in TABLE:
                parse({name: value})
            elif value is not None and value != "":
                TABLE[name].metadata["convert"](name, value)
        except OptionError as error:
            wrong.append(str(error))
    options = None
    if not wrong:
        try:
            options = parse(given)
        except OptionError as error:
            wrong.append(str(error))
    for error_text in wrong:
        yield failed("options", error_text, "correct it; Rasa does not start with it")
    if options is None:
        return None
    tls = "TLS" if options.use_ssl else "no TLS"
    yield ok("options", f"{options.where}, database {options.db}, {tls}, keys {_prefix(options)}*")
    if not is_ours and options.key_prefix is not None and not options.key_prefix.isalnum():
        found = f"Rasa's own store drops the key_prefix {options.key_prefix!r}, which is not alphanumeric"
        yield warning("options", found, _USE_OURS)
    if options.socket_timeout is None:
        yield warning("options", "socket_timeout: null: a frozen Redis is waited for for ever", "set socket_timeout: 2")
    return options


def _with_iam(options: Options) -> Options:
    host = load_host()
    found: Options = options if host is None else host.with_iam(options, "tracker_store")
    return found


def _prefix(options: Options) -> str:
    if options.key_prefix:
        return f"{options.key_prefix}:{TRACKER_INFIX}"
    host = load_host()
    return TRACKER_INFIX if host is None else str(host.STOCK_PREFIX)
