"""Every path under valgrind's memcheck, which also sees what was never written; any report is a failure.

Known ones of CPython are in ``python.supp``.
"""

import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import List, Tuple

import builds
import pytest

pytestmark = pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind here")


def walked(folder: Path, fault: str, *arguments: str) -> Tuple[List[str], str]:
    """Walk paths, and return each report with its stack, and what was printed."""
    report = folder / "report.xml"
    valgrind = [
        "valgrind",
        "--quiet",
        "--show-leak-kinds=none",
        "--error-limit=no",
        "--num-callers=30",
        "--xml=yes",
        f"--xml-file={report}",
    ]
    valgrind += [f"--suppressions={builds.HERE / 'python.supp'}"]
    environment = builds.environment("faulty-plain" if fault else "", fault)
    environment["PYTHONMALLOC"] = "malloc"
    done = builds.run([*valgrind, sys.executable, str(builds.HERE / "paths.py"), *arguments], environment, 240)
    found = []
    for error in ElementTree.parse(report).getroot().iter("error"):
        if (error.findtext("kind") or "").startswith("Leak_"):  # always told in XML: see test_leaks.py
            continue
        frames = [
            f"{Path(frame.findtext('obj', '?')).name}: {frame.findtext('fn', '?')} {frame.findtext('line', '')}"
            for frame in error.iter("frame")
        ]
        found.append("\n  ".join([error.findtext("kind", "?"), *frames]))
    return found, done.stdout


def test_every_path(tmp_path: Path) -> None:
    found, printed = walked(tmp_path, "", "2")
    assert "2 rounds each" in printed, printed
    assert not found, "\n".join(found)


def test_planted_fault_is_found(built: None, tmp_path: Path) -> None:
    found, _ = walked(tmp_path, "uninitialised", "1", "decode_json scratch")
    below = [report for report in found if "_fastsock.cpython" in report]
    assert below, found
    assert all(report.startswith(("UninitCondition", "UninitValue")) for report in below), below
