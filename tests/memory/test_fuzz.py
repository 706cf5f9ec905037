"""The fuzzer finds nothing in ``FUZZ_SECONDS``, a minute if not set, and finds what is planted.

That minute goes by while the other jobs run: see ``background.py``. The planted faults are some mutations away from the
one input that the search for them begins with.
"""

import re
import shutil
import sys
from pathlib import Path

import builds
import fuzz
import pytest
from background import Background, fuzzed

pytestmark = pytest.mark.skipif(shutil.which(builds.CLANG) is None, reason=f"no {builds.CLANG} here")

PATIENCE_S = 60
HARMLESS = {"replies": b"\0\xff\x01\x10\x01\x20", "json": b'\0"\\u123e"', "pack": b"\0\x02\x07SET\x09\x0bTA"}
"""What the search for a planted fault begins with: some steps away from it."""


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_nothing_is_found(fuzzing: Background, target: str) -> None:
    done = fuzzing.fuzzed(target)
    said = done["said"]
    kept = re.findall(r"^failed: .*", said, re.MULTILINE)
    kept += [f"failed: fuzz.py {target} 1 --hex {each}" for each in done["inputs"]]
    print("\n".join(kept))
    print(said[-6000:])
    assert done["status"] == 0, kept
    assert not kept
    runs = re.search(r"stat::number_of_executed_units: (\d+)", said)
    units = re.search(r"stat::new_units_added: +(\d+)", said)
    assert runs is not None
    assert units is not None
    assert int(runs.group(1)) > 1000
    assert int(units.group(1)) > 10  # inputs kept for the native code that they reached


@pytest.mark.parametrize(("target", "fault"), [("replies", "trailer"), ("json", "escape"), ("pack", "word")])
def test_planted_fault_is_found(built: None, tmp_path: Path, target: str, fault: str) -> None:
    done = fuzzed(target, PATIENCE_S, tmp_path / "corpus", fault, HARMLESS[target])
    assert done.returncode != 0, done.stdout[-2000:]
    failed = re.search(r"^failed: fuzz.py \w+ 1 --hex (\w+)$", done.stdout, re.MULTILINE)
    assert failed is not None, done.stdout[-2000:]
    again = [sys.executable, str(builds.HERE / "fuzz.py"), target, "1", "--hex", failed.group(1)]
    assert "AssertionError" in builds.run(again, builds.sanitizing(fault), 60).stdout
    assert builds.run(again, builds.sanitizing(), 60).returncode == 0
