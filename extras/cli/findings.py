"""What a check has found, as a line of text or as JSON, with every secret of the file taken out."""

import json
import re
from typing import Any, Dict, FrozenSet, Generator, Iterable, Iterator, List, NamedTuple, Optional, TypeVar
from urllib.parse import unquote

from extras._redis import RedisError
from extras.refusals import way_out_of

OK, WARNING, FAILED, UNSEEN = "ok", "warning", "failed", "unseen"
_WIDTH = 16
_SHORTEST_SECRET = 4
_SECRET_NAME = re.compile(r"pass|secret|token|credential|auth|headers|params|api_?key|access_?key|sasl_plain", re.I)
_NO_SECRETS = frozenset({"token_name", "auth_mechanism"})
_IN_URL = re.compile(r"://[^:@/\s]*:(\S+)@")
_IN_QUERY = re.compile(r"[?&][^=&\s]*(?:pass|token|secret|auth|key)[^=&\s]*=([^&\s]+)", re.I)


class Finding(NamedTuple):
    """One line of the report. ``title``: what was looked at. ``way_out``: what to do, empty where all is well."""

    level: str
    title: str
    found: str
    way_out: str = ""


Result = TypeVar("Result")
Check = Generator[Finding, None, Result]
"""A check: yields findings, returns what the next ones need."""


def guarded(title: str, check: "Check[Result]") -> "Check[Optional[Result]]":
    """Carry out a check; an error that it did not expect is a finding, without a traceback, and ``None`` the result."""
    try:
        return (yield from check)
    except RedisError as error:
        yield failed(title, first_line(error), way_out_of(error))
        return None
    except Exception as error:
        yield Finding(
            FAILED, title, f"the check could not be carried out ({type(error).__name__})", "please report this as a bug"
        )
        return None


def named(where: str, check: "Check[Result]", is_spare: bool = False) -> "Check[Result]":
    """Carry out a check of one server, whose name its findings get. ``is_spare``: nothing needs it today."""
    try:
        while True:
            finding = next(check)
            level = WARNING if is_spare and finding.level == FAILED else finding.level
            yield finding._replace(level=level, found=f"{where}: {finding.found}")
    except StopIteration as done:
        result: Result = done.value
        return result


def secrets_in(value: Any, name: str = "") -> FrozenSet[str]:
    """Return every secret in a section of ``endpoints.yml``: by the names of options, and inside URLs."""
    if isinstance(value, dict):
        below = [secrets_in(part, name if _is_secret(name) else str(key)) for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        below = [secrets_in(part, name) for part in value]
    elif value is None or isinstance(value, bool):
        below = []
    else:
        text = str(value)
        found = [text] if _is_secret(name) else [*_IN_URL.findall(text), *_IN_QUERY.findall(text)]
        below = [frozenset([*found, *map(unquote, found)])]
    return frozenset(secret for secrets in below for secret in secrets if len(secret) >= _SHORTEST_SECRET)


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and name not in _NO_SECRETS


def without(secrets: Iterable[str], finding: Finding) -> Finding:
    """Return a finding in which no secret stands: the last line of defence, since checks do not print any."""
    found, way_out = finding.found, finding.way_out
    for secret in sorted(secrets, key=len, reverse=True):
        found, way_out = found.replace(secret, "***"), way_out.replace(secret, "***")
    return finding._replace(found=found, way_out=way_out)


def as_text(finding: Finding) -> str:
    """Return a finding as a line, and the way out as a second one."""
    line = f"{finding.level:<8} {finding.title:<{_WIDTH}} {finding.found}"
    return f"{line}\n{'':<9}{'':<{_WIDTH}} -> {finding.way_out}" if finding.way_out else line


def counts(findings: Iterable[Finding]) -> Dict[str, int]:
    """Return how many findings there are of each level."""
    found = dict.fromkeys((OK, WARNING, FAILED, UNSEEN), 0)
    for finding in findings:
        found[finding.level] += 1
    return found


def summary(findings: List[Finding]) -> str:
    """Return the last line of the report."""
    return ", ".join(f"{number} {level}" for level, number in counts(findings).items())


def as_json(findings: List[Finding]) -> str:
    """Return the whole report for other programs."""
    return json.dumps({"counts": counts(findings), "findings": [found._asdict() for found in findings]}, indent=2)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 1 if something failed, else 0."""
    return int(any(finding.level == FAILED for finding in findings))


def ok(title: str, found: str) -> Finding:
    """Make a finding of something that is as it should be."""
    return Finding(OK, title, found)


def warning(title: str, found: str, way_out: str) -> Finding:
    """Make a finding of something that works today, and may hurt."""
    return Finding(WARNING, title, found, way_out)


def failed(title: str, found: str, way_out: str) -> Finding:
    """Make a finding of something that does not work, or loses conversations."""
    return Finding(FAILED, title, found, way_out)


def unseen(title: str, found: str, way_out: str = "") -> Finding:
    """Make a finding of something that cannot be seen from here."""
    return Finding(UNSEEN, title, found, way_out)


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def each(*findings: Optional[Finding]) -> Iterator[Finding]:
    """Yield those findings that there are."""
    yield from (finding for finding in findings if finding is not None)
