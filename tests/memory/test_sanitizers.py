"""The native unit tests and every path under the sanitizers of addresses and of undefined behaviour; a report fails."""

import shutil
import sys

import builds
import pytest

pytestmark = pytest.mark.skipif(shutil.which(builds.CLANG) is None, reason=f"no {builds.CLANG} here")

TESTS = [f"tests/unit/test_{name}.py" for name in ("transfer", "decode_json", "fastsock")]
REPORTS = ("ERROR: AddressSanitizer", "runtime error:")
WALK = [sys.executable, str(builds.HERE / "paths.py")]


def test_every_path(built: None) -> None:
    done = builds.run([*WALK, "30"], builds.sanitizing(), 120)
    print(done.stdout)
    assert done.returncode == 0
    assert not any(report in done.stdout for report in REPORTS)


def test_unit_tests(built: None) -> None:
    code = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    pytest_ = [sys.executable, "-c", code, "-q", "-p", "no:cacheprovider", "-p", "selection"]
    done = builds.run([*pytest_, *TESTS], builds.sanitizing(), 240)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert not any(report in done.stdout for report in REPORTS)


@pytest.mark.parametrize(
    ("fault", "path", "report"),
    [
        ("overflow", "Reader large text", "ERROR: AddressSanitizer: heap-buffer-overflow"),
        ("room", "pack_commands the text buffer is too small", "ERROR: AddressSanitizer: stack-buffer-overflow"),
        ("signed", "decode_json good 2", "runtime error: signed integer overflow"),
    ],
)
def test_planted_fault_is_found(built: None, fault: str, path: str, report: str) -> None:
    done = builds.run([*WALK, "1", path], builds.sanitizing(fault), 60)
    assert done.returncode not in (0, 1), done.stdout
    assert report in done.stdout
