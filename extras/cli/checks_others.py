"""What else the file names: event broker and action server, and whether they can be reached."""

import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

from extras._redis import RedisError
from extras.cli.checks_network import check_addresses
from extras.cli.checks_options import Target, check_variables, class_at
from extras.cli.checks_server import is_private
from extras.cli.endpoints_file import Endpoints
from extras.cli.findings import OK, UNSEEN, Check, failed, first_line, ok, unseen, warning
from extras.configured import sync_client
from extras.endpoint import NO_BROKER, OF_EVENTS, parse_without
from extras.errors import OptionError, did_you_mean
from extras.options import Options
from extras.refusals import way_out_of

_LIMIT_S = 3.0
_BROKERS = ("pika", "kafka", "sql", "file")
OUR_BROKER = "extras.eventbroker.ExtraRedisEventBroker"
_SQL_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "oracle": 1521}
_PIKA_PORT, _KAFKA_PORT = 5672, 9092


def section_of(endpoints: Endpoints, name: str) -> Check[Optional[Dict[str, Any]]]:
    section = endpoints.sections.get(name)
    if section is None or not (yield from check_variables(endpoints, name)):
        return None
    if not isinstance(section, dict):
        yield failed(name, "is no mapping", "indent its options below it")
        return None
    return section


def check_outbox(endpoints: Endpoints, target: Target) -> Check[None]:
    """Look whether there is somebody to publish what the tracker store would keep for it."""
    if target.options.publish == "outbox" and endpoints.sections.get("event_broker") is None:
        yield warning(
            "event broker",
            "publish: outbox, but the file names no event broker: no event is kept for one",
            "add event_broker, or remove publish",
        )


def check_event_broker(endpoints: Endpoints) -> Check[None]:
    """Look whether the event broker's servers can be reached, or its class imported."""
    title = "event broker"
    section = yield from section_of(endpoints, "event_broker")
    if section is None:
        return
    kind = str(section.get("type") or "pika")
    url = section.get("url")
    if kind.lower() == "pika":
        yield from _reach(title, [str(url or "localhost")], section.get("port"), _PIKA_PORT)
    elif kind.lower() == "kafka":
        servers = url if isinstance(url, list) else str(url or "localhost").split(",")
        yield from _reach(title, [str(server).strip() for server in servers], None, _KAFKA_PORT)
    elif kind.lower() == "sql":
        yield from _check_sql(title, section)
    elif kind.lower() == "file":
        yield from _check_folder(title, str(section.get("path") or "rasa_event.log"))
    else:
        yield from check_class(title, kind, _BROKERS, "Rasa goes on without an event broker, with a warning")
        if kind == OUR_BROKER:
            yield from _check_our_broker(title, section)


def _check_our_broker(title: str, section: Dict[str, Any]) -> Check[None]:
    """Look whether the Redis of the stream answers, and what is under the stream's name."""
    try:
        options = parse_without(
            {name: value for name, value in section.items() if name != "type"}, NO_BROKER, OF_EVENTS
        )
    except OptionError as error:
        yield failed(title, str(error), "correct it; Rasa does not start with it")
        return
    yield from check_redis(title, options, ("XLEN", options.stream))


def _check_sql(title: str, section: Dict[str, Any]) -> Check[None]:
    dialect = str(section.get("dialect") or "sqlite").split("+")[0]
    if dialect == "sqlite":
        yield from _check_folder(title, str(section.get("db") or "events.db"))
    else:
        server = str(section.get("url") or section.get("host") or "localhost")
        yield from _reach(title, [server], section.get("port"), _SQL_PORTS.get(dialect))


def _check_folder(title: str, path: str) -> Check[None]:
    folder = os.path.dirname(os.path.abspath(path))
    if os.access(folder, os.W_OK):
        yield ok(title, f"the file {path} can be written")
    else:
        yield failed(title, f"the folder of {path} is not there or cannot be written", "correct the path")


def check_class(title: str, path: str, known: Tuple[str, ...], otherwise: str) -> Check[None]:
    level, why = class_at(path)
    if level == OK:
        yield ok(title, f"{path} can be imported")
    elif level == UNSEEN:
        yield unseen(title, f"{path}: {why}", "run this where Rasa is installed")
    else:
        yield failed(title, f"type: {path}: {why}; {otherwise}", f"correct type{did_you_mean(path, known)}")


def _reach(title: str, servers: List[str], port: Any, default_port: Optional[int]) -> Check[None]:
    """Connect to each server. A URL's user and password are left out of all that is said."""
    missing = 0
    for server in servers:
        try:
            parts = urlsplit(server if "://" in server else f"//{server}")
            host, number = parts.hostname, parts.port or int(port or default_port or 0)
        except ValueError:
            host, number = None, 0
        if not host or not number:
            yield failed(title, "its address cannot be read", "write host and port")
            continue
        try:
            found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            yield failed(title, f"{host}: {first_line(error)}", "correct url")
            continue
        addresses = list(dict.fromkeys((str(entry[4][0]), number) for entry in found))
        missing += not (yield from check_addresses(title, addresses, _LIMIT_S))
    if missing and missing < len(servers):
        yield warning(title, f"{missing} of {len(servers)} servers are not there", "the others carry it for now")


def patient(options: Options) -> Options:
    """Return options with which a client waits no longer than a doctor should."""
    return replace(options, socket_timeout=_LIMIT_S, socket_connect_timeout=_LIMIT_S, max_connections=None)


def check_redis(title: str, options: Options, question: Tuple[str, ...]) -> Check[bool]:
    """Ask a Redis something; that it may not be asked by this user is no fault, once the login is taken.

    Returns whether it has answered.
    """
    begun = time.perf_counter()
    try:
        client = sync_client(patient(options))
    except OptionError as error:
        yield failed(title, str(error), "correct it")
        return False
    try:
        client.execute_command(*question)
    except RedisError as error:
        if "permission" not in str(error).lower():  # it answers, though not to say PING
            yield failed(title, first_line(error), way_out_of(error))
            return False
    finally:
        client.connection_pool.disconnect()
    took_ms = (time.perf_counter() - begun) * 1000
    yield ok(title, f"Redis at {options.where}, database {options.db} answers ({took_ms:.1f} ms)")
    return True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow none: the answer itself is what is asked for."""


def check_action_endpoint(endpoints: Endpoints) -> Check[None]:
    """Look whether the action server answers, and whether it answers anybody. What is sent names no action to run."""
    title = "action server"
    section = yield from section_of(endpoints, "action_endpoint")
    url = (section or {}).get("url")
    if section is None or url is None:
        return
    try:
        parts = urlsplit(str(url))
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        yield failed(title, "its url cannot be read", "write http://host:5055/webhook")
        return
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield unseen(title, "its url is no http:// or https:// one")
        return
    where = f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="")
    request = urllib.request.Request(
        bare.geturl(), b'{"next_action": null}', {"Content-Type": "application/json"}, method="POST"
    )
    begun = time.perf_counter()
    try:
        https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=section.get("cafile")))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https, _NoRedirect)
        with opener.open(request, timeout=_LIMIT_S) as answer:
            status = int(answer.status)
    except urllib.error.HTTPError as error:
        status = error.code
        error.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        said = first_line(reason) if isinstance(reason, BaseException) else str(reason)
        yield failed(title, f"{where}: {said}", "see that it runs and listens there")
        return
    said = f"{where} answers {status} ({(time.perf_counter() - begun) * 1000:.1f} ms)"
    yield from _judge_status(title, said, status, section, str(parts.hostname))


def _judge_status(title: str, said: str, status: int, section: Dict[str, Any], host: str) -> Check[None]:
    has_login = any(section.get(name) for name in ("token", "basic_auth", "headers", "params"))
    if status in (401, 403) and has_login:
        yield ok(title, f"{said} without the login that the file has")
    elif status in (401, 403):
        yield failed(title, f"{said}, and the file has no login for it", "set token or basic_auth")
    elif status in (404, 405) or 300 <= status < 400:
        yield failed(title, said, "correct the url's path, usually /webhook")
    elif status >= 500:
        yield warning(title, said, "see the action server's log")
    elif not is_private(host, None):
        yield warning(
            title,
            f"{said} without a login: whoever reaches it can run actions",
            "let only Rasa reach it, or put a proxy that asks for a login before it",
        )
    else:
        yield ok(title, said)
