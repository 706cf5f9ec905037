"""All that can be checked of a release on this machine, for two Pythons, or with ``WHEELS=all`` for each one here.

sdist and wheel, what is in them, an installation in seconds without a compiler, the other package of our name, the
module for every system, the workflows, and the files of ``deploy/``; with ``WHEELS=all`` a conversation in each Rasa on
each Python, too.
"""

import os
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import List, Optional, Tuple

import collision
import deployment
import distribution
import installs
import selection
import targets
import workflows

FEW = ("3.8",)
"""Beside the Python that this runs on."""


def main() -> int:
    """Build and check; return the exit code."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    is_all = os.environ.get("WHEELS") == "all"
    others = [version for version in (installs.PYTHONS if is_all else FEW) if version != own]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(max_workers=2) as pool:
        folder = Path(name)
        apart = [pool.submit(targets.main)]
        sdist, wheel = distribution.build()
        wrong = distribution.metadata(wheel)

        def on(version: str) -> Tuple[str, List[str]]:
            made: Optional[installs.Made]
            if version == own:
                made = installs.Made(own, sys.executable, distribution.repair(wheel))
            else:
                made = installs.made_for(version, sdist, folder)
            if made is None:
                return f"Python {version}: not here", []
            distribution.tools(sdist, made.wheel)
            found = distribution.contents(sdist, made.wheel) + installs.install(made, folder)
            if version in (own, *FEW):
                found += collision.try_both(made, folder)
            for host in installs.hosts_of(version) if is_all else []:
                found += installs.beside(made, host, folder)
            return f"Python {version}: {made.wheel.name}", found

        pythons: List[Future[Tuple[str, List[str]]]] = [pool.submit(on, version) for version in [own, *others]]
        wrong += workflows.main() + selection.main() + deployment.main()
        for done in pythons:
            said, found = done.result()
            print(said)
            wrong += found
        for each in apart:
            wrong += each.result()
    print("\n".join(["wrong:", *wrong]) if wrong else "all is well")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
