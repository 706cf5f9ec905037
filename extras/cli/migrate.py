"""``rasa-extras migrate``: moves all conversations from one tracker store of Rasa to another, while people talk.

Nothing is published, nothing is deleted in the source, and what the target has is never overwritten. It can be run
again at any time: what is done is remembered, and what was written to the source meanwhile is added. A conversation
expires in the target as the target's own options say. Run it once more when the assistant has been moved to the target.

In the place of either endpoints.yml there may be a file whose name ends in .jsonl: it has a line for each conversation,
with the document that Rasa's store in memory keeps, as rasa-extras conversations export and import write and read it.
"""

import argparse
import hashlib
import json
import os
import threading
import time
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Dict, List

from extras.cli.document_file import SUFFIX, DocumentFile
from extras.cli.endpoints_file import section
from extras.cli.host import load_host, quiet
from extras.cli.jsonlines import Writer, read_lines
from extras.cli.migration import AHEAD, DIFFERENT, FAILED, MOVED, THERE, Mover, Outcome, Workers, refuse_memory
from extras.cli.output import (
    DONE,
    NOT_ALL,
    UNUSABLE,
    Unusable,
    counted,
    lesson,
    positive,
    printable,
    remark,
    say,
    say_json,
    told,
    whole,
)
from extras.cli.progress import Progress

_SECRETS = ("password", "username", "aws_secret_access_key")
_SHOWN_REASONS = 20
_PATIENCE_S = 10
_STILL_OPENING = "a tracker store is still not open: Rasa's SQL store waits for its database for ever; Ctrl-C ends it"
ROUNDED = (
    "every event; numbers to 9 digits behind the point, without 1 being other than 1.0, as DynamoDB's store keeps them"
)


def add_to(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "migrate",
        help="move conversations between two tracker stores of Rasa",
        description=__doc__,
        epilog=lesson(
            "rasa-extras migrate --from old.yml --to endpoints.yml --dry-run",
            "rasa-extras migrate --from old.yml --to endpoints.yml --workers 8 --rate 200",
            "rasa-extras migrate --from endpoints.yml --to all.jsonl --state out.state",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--from", dest="source", required=True, metavar="FILE", help="endpoints.yml of the source, or a .jsonl"
    )
    parser.add_argument(
        "--to", dest="target", required=True, metavar="FILE", help="endpoints.yml of the target, or a .jsonl"
    )
    parser.add_argument(
        "--state", default="rasa-extras-migrate.state", metavar="FILE", help="what is done (rasa-extras-migrate.state)"
    )
    parser.add_argument("--workers", type=whole, default=4, metavar="N", help="conversations at a time (4)")
    parser.add_argument("--rate", type=positive, metavar="N", help="at most N conversations a second")
    parser.add_argument("--dry-run", action="store_true", help="read both, write nothing, and say what would be done")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Move; return the exit code."""
    try:
        report = Migration(arguments).report()
    except Unusable as error:
        remark(f"rasa-extras: {error}")
        return UNUSABLE
    except KeyboardInterrupt:
        remark("interrupted; what is done is remembered, the same command goes on")
        return NOT_ALL
    if arguments.json:
        say_json(report)
    else:
        for line in _as_text(report):
            say(line)
    return NOT_ALL if report["different"] or report["failed"] or report["gave_up"] else DONE


class Migration:
    """One run: all that is not done yet, and then all that has changed in the source since it was done."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        if load_host() is None:
            raise Unusable("migrate uses Rasa's own classes: run it in the environment that Rasa runs in")
        from extras import _rasa_stores

        self._host = _rasa_stores
        self._marks = [_mark(_given(path)) for path in (arguments.source, arguments.target)]
        if self._marks[0] == self._marks[1]:
            raise Unusable("--from and --to name the same tracker store")
        self._done: Dict[str, str] = {}
        self._outcomes: Dict[str, Outcome] = {}
        self._stopped = threading.Event()
        self._files: List[DocumentFile] = []

    def report(self) -> Dict[str, Any]:
        """Move what there is to move; return what became of it."""
        start_s = time.monotonic()
        movers: List[Mover] = []
        with quiet(), redirect_stdout(StringIO()):  # the host's SQL store prints errors, with what is stored
            try:
                self._open(movers)
                if self._arguments.dry_run:
                    gave_up = self._pass("compared", movers, self._listed(movers[0]), None)
                else:
                    self._read_state()
                    with Writer(self._arguments.state, True) as state:
                        if not os.path.getsize(self._arguments.state):
                            state.write({"from": self._marks[0], "to": self._marks[1]})
                        gave_up = self._passes(movers, state)
            finally:
                for mover in movers:
                    mover.close()
                for file in self._files:
                    file.close()
        return self._summary(movers[0].rounds_floats, gave_up, time.monotonic() - start_s)

    def _open(self, movers: List[Mover]) -> None:
        waiting = threading.Timer(_PATIENCE_S, remark, [_STILL_OPENING])
        waiting.daemon = True
        waiting.start()
        try:
            self._open_quickly(movers)
        finally:
            waiting.cancel()

    def _open_quickly(self, movers: List[Mover]) -> None:
        source = self._config(self._arguments.source, False)
        target = self._config(self._arguments.target, not self._arguments.dry_run)
        for _ in range(self._arguments.workers):
            try:
                movers.append(Mover(self._host, source, target, self._arguments.dry_run))
            except Exception as error:  # of any store
                raise Unusable(f"a tracker store cannot be opened: {_without_text(error)}") from None
            refuse_memory("--from", movers[-1].source)
            refuse_memory("--to", movers[-1].target)

    def _config(self, path: str, writes: bool) -> Any:
        """Return what a store is made of; all workers share a file."""
        if not path.endswith(SUFFIX):
            return self._host.read_endpoint_config(path, "tracker_store")
        is_nothing_yet = self._arguments.dry_run and path == self._arguments.target and not os.path.exists(path)
        self._files.append(DocumentFile(os.devnull if is_nothing_yet else path, writes))
        return self._files[-1]

    def _listed(self, mover: Mover) -> List[str]:
        try:
            return mover.source.sender_ids()
        except Exception as error:  # of any store
            raise Unusable(f"the source cannot list its conversations: {told(error)}") from None

    def _passes(self, movers: List[Mover], state: Writer) -> bool:
        first = [sender_id for sender_id in self._listed(movers[0]) if sender_id not in self._done]
        if self._pass("moving", movers, first, state):
            return True
        # What has changed since it was moved, or begun; what could not be moved is not tried again.
        again = [sender_id for sender_id in self._listed(movers[0]) if self._may_have_changed(sender_id)]
        return self._pass("looking for changes", movers, again, state)

    def _may_have_changed(self, sender_id: str) -> bool:
        return sender_id in self._done or sender_id not in self._outcomes

    def _pass(self, what: str, movers: List[Mover], sender_ids: List[str], state: Any) -> bool:
        """Move some conversations; return whether that was given up."""
        progress = Progress(what, len(sender_ids))
        counts = dict.fromkeys((MOVED, THERE, AHEAD, DIFFERENT, FAILED), 0)

        def take(outcome: Outcome) -> None:
            counts[outcome.status] += 1
            self._keep(outcome, state)
            progress.show(sum(counts.values()), counts)

        workers = Workers(movers, self._arguments.rate, self._stopped)
        try:
            workers.run(sender_ids, dict(self._done), time.monotonic, take)
        finally:
            progress.end()
        return workers.gave_up

    def _keep(self, outcome: Outcome, state: Any) -> None:
        if outcome.status != THERE or outcome.sender_id not in self._outcomes:  # what the first pass did counts
            self._outcomes[outcome.sender_id] = outcome
        if outcome.digest and state is not None and self._done.get(outcome.sender_id) != outcome.digest:
            self._done[outcome.sender_id] = outcome.digest
            state.write({"sender_id": outcome.sender_id, "digest": outcome.digest})
            state.flush()

    def _read_state(self) -> None:
        """Take up what an earlier run has done."""
        path = self._arguments.state
        if not os.path.exists(path) or not os.path.getsize(path):
            return
        lines = read_lines(path)
        first = next(lines)
        header = first.value or {}
        if first.value is not None and [header.get("from"), header.get("to")] != self._marks:
            raise Unusable(f"--state {path!r} is of a move between other stores; name another file")
        for line in lines:
            if line.value is not None:
                self._done[str(line.value.get("sender_id"))] = str(line.value.get("digest"))

    def _summary(self, rounds_floats: bool, gave_up: bool, seconds: float) -> Dict[str, Any]:
        counts = dict.fromkeys((MOVED, THERE, AHEAD, DIFFERENT, FAILED), 0)
        for outcome in self._outcomes.values():
            counts[outcome.status] += 1
        named = [outcome for outcome in self._outcomes.values() if outcome.status in (DIFFERENT, FAILED)]
        return {
            "dry_run": self._arguments.dry_run,
            **{status.replace(" ", "_"): count for status, count in counts.items()},
            "seconds": round(seconds, 1),
            "gave_up": gave_up,
            "compared": ROUNDED if rounds_floats else "every event as its host writes it, to the last digit",
            "reasons": [{"sender_id": found.sender_id, "status": found.status, "why": found.why} for found in named],
        }


def _given(path: str) -> Dict[str, Any]:
    """Return what names a store: the options in an ``endpoints.yml``, or the place of a file of conversations."""
    if path.endswith(SUFFIX):
        return {"file": os.path.realpath(path)}
    options = section(path, "tracker_store")
    if options is None:
        raise Unusable(f"{path!r} has no tracker_store")
    return options


def _mark(options: Dict[str, Any]) -> str:
    """Return what tells a store from others, without its secrets."""
    named = {name: str(value) for name, value in options.items() if name not in _SECRETS}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def _without_text(error: Exception) -> str:
    """Return the text of what this package or the host refuses, only the name of what others do."""
    own = type(error).__module__.split(".")[0] == "extras"
    return str(error) if own else type(error).__name__


def _as_text(report: Dict[str, Any]) -> List[str]:
    statuses = (MOVED, THERE, AHEAD, DIFFERENT, FAILED)
    counts = {status: report[status.replace(" ", "_")] for status in statuses}
    start = "would be done" if report["dry_run"] else "done"
    lines = [f"{start} in {report['seconds']:,} s: {counted(counts)}", f"compared: {report['compared']}"]
    for found in report["reasons"][:_SHOWN_REASONS]:
        lines.append(f"{found['status']}: {printable(found['sender_id'])}: {found['why']}")
    if len(report["reasons"]) > _SHOWN_REASONS:
        lines.append(f"... and {len(report['reasons']) - _SHOWN_REASONS:,} more; --json names all")
    if report["gave_up"]:
        lines.append(f"given up after {Workers.GIVE_UP_AFTER} failures in a row; the same command goes on")
    return lines
