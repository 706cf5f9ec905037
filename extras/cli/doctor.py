"""``rasa-extras doctor``: is this Redis set up right for this ``endpoints.yml``?"""

import argparse
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator, List

from extras.cli.checks_acl import check_acl
from extras.cli.checks_document import check_document
from extras.cli.checks_journal import check_journal
from extras.cli.checks_layout import check_seeds, check_servers
from extras.cli.checks_liveness import check_liveness
from extras.cli.checks_locks import check_lock_store
from extras.cli.checks_network import check_network
from extras.cli.checks_options import Target, check_tracker_store
from extras.cli.checks_others import check_action_endpoint, check_event_broker, check_outbox
from extras.cli.checks_package import check_package
from extras.cli.checks_server import check_clock, check_latency
from extras.cli.checks_tls import check_tls
from extras.cli.endpoints_file import Endpoints, EndpointsError, read
from extras.cli.findings import (
    Check,
    Finding,
    as_json,
    as_text,
    exit_code,
    failed,
    guarded,
    secrets_in,
    summary,
    without,
)
from extras.configured import sync_client
from extras.errors import OptionError

_DESCRIPTION = """\
Looks at everything that an endpoints.yml names, from here, with its own options and login, and says for each thing
what it found and what to do about it. Run it where Rasa runs, with Rasa's environment variables.

It is safe beside live traffic: it writes one scratch conversation below the key prefix of the file, and a scratch lock
where the server does not tell a user's rights, which expire after a minute and are deleted at the end, and changes no
setting. No secret is printed.
"""
_EPILOG = """\
levels:
  ok        as it should be
  warning   works today, and may hurt: lost conversations, late errors, an expiring certificate
  failed    does not work, or loses conversations
  unseen    cannot be seen from here: refused by the server's ACL or a managed service, or Rasa is not installed

exit code:
  0  nothing failed
  1  something failed
  2  the command line or the file cannot be used

examples:
  rasa-extras doctor
  rasa-extras doctor config/endpoints.yml --json | jq '.findings[] | select(.level != "ok")'
"""


def add_to(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="look whether the Redis of an endpoints.yml is set up right",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoints", nargs="?", default="endpoints.yml", help="the file (default: endpoints.yml)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.set_defaults(run=run)


def run(arguments: Any) -> int:
    """Carry out the command; return its exit code."""
    try:
        endpoints = read(Path(arguments.endpoints))
    except EndpointsError as error:
        print(f"rasa-extras doctor: {error}", file=sys.stderr)
        return 2
    secrets = secrets_in(endpoints.sections)
    findings: List[Finding] = []
    for finding in examine(endpoints):
        findings.append(without(secrets, finding))
        if not arguments.json:
            print(as_text(findings[-1]), flush=True)
    print(as_json(findings) if arguments.json else f"\n{summary(findings)}")
    return exit_code(findings)


def examine(endpoints: Endpoints) -> Iterator[Finding]:
    """Carry out all checks; what stands in the way of others ends those."""
    yield from guarded("package", check_package())
    target = yield from guarded("tracker store", check_tracker_store(endpoints))
    if target is not None and (yield from _is_reached(target)):
        yield from guarded("server", _check_redis(target))
    if target is not None and target.is_ours:
        yield from guarded("journal", check_journal(target))
        yield from guarded("event broker", check_outbox(endpoints, target))
    yield from guarded("event broker", check_event_broker(endpoints))
    yield from guarded("lock store", check_lock_store(endpoints))
    yield from guarded("action server", check_action_endpoint(endpoints))


def _is_reached(target: Target) -> Check[bool]:
    if target.options.nodes:
        return (yield from check_seeds(target, _answers))
    return (yield from _answers(target))


def _answers(target: Target) -> Check[bool]:
    if not (yield from guarded("connect", check_network(target))):
        return False
    return not target.options.use_ssl or bool((yield from guarded("TLS", check_tls(target))))


def _check_redis(target: Target) -> Check[None]:
    """Look at the server as a client of the store does, but never wait for ever."""
    options = target.options
    limit_s = options.socket_timeout or 5.0
    patient = replace(options, socket_timeout=limit_s, max_connections=None, retry_on_timeout=False)
    try:
        client = sync_client(patient)
    except OptionError as error:
        yield failed("options", str(error), "correct it; Rasa does not start with it")
        return
    scratch_id = f"rasa-extras-doctor-{uuid.uuid4().hex}"
    try:
        if not (yield from check_servers(client, target)):
            return
        may = yield from guarded("permissions", check_acl(client, target, scratch_id))
        if may:
            yield from guarded("conversation", check_document(client, target, scratch_id))
        if target.is_ours:
            yield from guarded("liveness", check_liveness(client, target))
        yield from guarded("clock", check_clock(client))
        yield from guarded("latency", check_latency(client, target))
    finally:
        client.connection_pool.disconnect()
