"""The builds of the native module and the fuzzing, beside the other jobs; a closing table of the jobs."""

import os
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import pytest
from background import Background

SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
SHARES = {"replies": 0.6, "json": 0.25, "pack": 0.15}

_running: List[Background] = []
_folder = tempfile.TemporaryDirectory(prefix="memory-")


def pytest_collection_modifyitems(items: List[Any]) -> None:
    """Have what needs no builds first, and what waits for the fuzzing at the end."""
    items.sort(key=lambda item: ("fuzzing" in item.fixturenames, "built" in item.fixturenames))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin with what takes longest: the builds and the fuzzing, as far as they are asked for."""
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if names & {"built", "fuzzing"} and not session.config.option.collectonly:
        seconds = {target: max(1, int(SECONDS * share)) for target, share in SHARES.items()}
        _running.append(Background(Path(_folder.name), seconds if "fuzzing" in names else {}))


def pytest_unconfigure() -> None:
    """Leave nothing running."""
    while _running:
        _running.pop().end()
    _folder.cleanup()


@pytest.fixture(scope="session")
def built() -> None:
    """All builds, made once."""
    _running[0].wait_for("built")


@pytest.fixture(scope="session")
def fuzzing() -> Background:
    """The fuzzing of every target, which goes on meanwhile."""
    return _running[0]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print each job with its result, its planted faults and its seconds."""
    jobs: Dict[str, List[Any]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                jobs.setdefault(Path(report.fspath).stem[len("test_") :], []).append(report)
    rows = [("job", "result", "planted faults found", "seconds")]
    for job, reports in sorted(jobs.items()):
        calls = [report for report in reports if report.when == "call" or not report.passed]
        planted = [report for report in calls if "planted" in report.nodeid]
        result = "FAILED" if any(report.failed for report in calls) else "passed"
        if all(report.skipped for report in calls):
            result = "skipped"
        found = f"{sum(report.passed for report in planted)} of {len(planted)}"
        rows.append((job, result, found, f"{sum(report.duration for report in reports):.1f}"))
    terminalreporter.section("memory")
    for row in rows:
        terminalreporter.write_line("  ".join(text.ljust(width) for text, width in zip(row, (12, 8, 21, 8))).rstrip())
