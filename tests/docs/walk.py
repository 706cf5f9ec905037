"""A page of the documentation, walked through as a reader would: one script of all its blocks, in their order.

``sh`` blocks are run by bash, ``python`` blocks by the Python of these tests, and a block with a title is a file of
that name. What the page shows as printed is compared with what is printed.
"""

import doctest
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, Collection, Dict, List, Mapping, Optional, Tuple

from pages import Block, blocks

_MARK = "@@@ block "
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
"""A page shows the times and sizes of one day; any others will do."""
_START = """\
set -euo pipefail
trap 'status=$?; for job in $(jobs -p); do kill $job 2>/dev/null || true; done; wait; exit $status' EXIT
"""


class Walk:
    """Where a page is walked through.

    ``here``: what pages say they need, and what is here. ``instead``: what stands in the place of the page's names and
    ports. ``programs``: those that a reader has on ``PATH``.
    """

    def __init__(
        self,
        page: Path,
        folder: Path,
        instead: Mapping[str, str],
        programs: Mapping[str, str],
        here: Collection[str] = (),
    ) -> None:
        self._blocks = list(blocks(page))
        self._folder = folder
        self._instead = instead
        self._here = here
        self._bin = folder / ".bin"
        self._bin.mkdir(parents=True)
        for name, program in programs.items():
            (self._bin / name).symlink_to(program)

    def run(self, timeout_s: float, environment: Optional[Dict[str, str]] = None) -> int:
        """Walk through; return how many blocks were run. Fails with what was printed."""
        ours = os.pathsep.join([str(self._bin), str(Path(sys.executable).parent)])
        script = _START + "".join(self._step(number, block) for number, block in enumerate(self._blocks))
        with (self._folder / ".printed").open("w+b") as out, (self._folder / ".errors").open("w+b") as errors:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, "PATH": f"{ours}{os.pathsep}{os.environ['PATH']}", **(environment or {})},
            )
            try:
                status = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                status = -1
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            printed, complaints = _text(out), _text(errors)
        assert status == 0, f"{self._where(printed)}: ended with {status}\n{printed[-3000:]}\n{complaints[-3000:]}"
        for block, expected, found in self._compared(printed):
            checker = doctest.OutputChecker()
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            if not checker.check_output(_NUMBER.sub("0", expected), _NUMBER.sub("0", found), flags):
                raise AssertionError(f"{block}: the page shows\n{expected}\nwhat is printed is\n{found}")
        return sum(block.is_run(self._here) for block in self._blocks)

    def _step(self, number: int, block: Block) -> str:
        if not block.is_run(self._here):
            return ""
        text = self._replaced(block.text)
        mark = f"printf '\\n{_MARK}%s\\n' {number}\n"
        if block.title is not None:
            name = shlex.quote(block.title)
            return f"{mark}mkdir -p \"$(dirname {name})\"\ncat > {name} <<'THE BLOCK ENDS'\n{text}THE BLOCK ENDS\n"
        if block.language == "python":
            return f"{mark}python - <<'THE BLOCK ENDS'\n{text}THE BLOCK ENDS\n"
        return f"{mark}{text}"

    def _replaced(self, text: str) -> str:
        for name, ours in self._instead.items():
            text = re.sub(rf"\b{re.escape(name)}\b", ours, text)
        return text

    def _where(self, printed: str) -> str:
        started = re.findall(rf"^{_MARK}(\d+)$", printed, re.MULTILINE)
        return str(self._blocks[int(started[-1])]) if started else "before the first block"

    def _compared(self, printed: str) -> List[Tuple[Block, str, str]]:
        """Return what the page shows as printed, each with what was."""
        parts = re.split(rf"\n{_MARK}(\d+)\n", printed)
        found = dict(zip(map(int, parts[1::2]), parts[2::2]))
        return [
            (block, self._replaced(block.text), found[number - 1])
            for number, block in enumerate(self._blocks)
            if block.language == "text"
            and block.follows
            and number - 1 in found
            and self._blocks[number - 1].title is None
        ]


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
