"""The bar of a long command: on a terminal only, and never too often."""

import sys
import time

import pytest

from extras.cli import progress
from extras.cli.progress import Progress


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY_S", 3600)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)  # the machine has just started
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=is_terminal: answer)
        shown = Progress("moving", 3)
        shown.show(1, {"moved": 1, "failed": 0})
        shown.show(2, {"moved": 2, "failed": 0})
        shown.show(3, {"moved": 2, "failed": 1})
        shown.end()
        text = capsys.readouterr().err
        assert text.count("moving [") == (2 if is_terminal else 0)
        if is_terminal:
            assert "[########................] 1 of 3" in text
            assert "[########################] 3 of 3" in text
            assert text.endswith("2 moved, 1 failed\r\x1b[K")
