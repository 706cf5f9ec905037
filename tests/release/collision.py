"""Install the other package called ``extras`` before and after ours, and take either away: what works, what is said.

The package itself, from PyPI; ``tests/host/test_collision.py`` has what Rasa makes of each.
"""

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List

from installs import PIP, Made, environment, without_compiler

OTHER = "extras==1.0.0"

LOOK = """
import json
from importlib import metadata
def works(what):
    try:
        exec(what)
    except ImportError:
        return False
    return True
found = {"theirs": works("from extras import try_import")}
found["ours"] = works("import extras.client, extras.conversation, extras.cli.main")
if found["ours"]:
    from extras import fastsock, intact
    found["impl"] = fastsock.IMPL
    found["harmless"] = [fault.is_harmless for fault in intact.faults()]
    found["said"] = " ".join(fault.found for fault in intact.faults())
    found["other"] = intact.other_distribution()
print(json.dumps(found))
"""


class Place:
    """An empty environment, and pip for it."""

    def __init__(self, made: Made, folder: Path) -> None:
        self.wheel = str(made.wheel)
        self._folder = folder
        self._python = environment(folder, made.interpreter)

    def pip(self, *arguments: str) -> None:
        """Run pip."""
        bare = without_compiler(self._python)
        subprocess.run([str(self._python), *PIP, *arguments], env=bare, check=True)

    def look(self) -> Dict[str, Any]:
        """Return what works, and what ours says."""
        command = [str(self._python), "-c", LOOK]
        done = subprocess.run(
            command, env=without_compiler(self._python), cwd=self._folder, stdout=subprocess.PIPE, check=True
        )
        found: Dict[str, Any] = json.loads(done.stdout)
        return found


def differing(when: str, found: Dict[str, Any], expected: Dict[str, Any]) -> List[str]:
    """Return what is not as expected; of ``said``, that it holds a text."""
    wrong = []
    for name, wanted in expected.items():
        if not (wanted in found[name] if name == "said" else found.get(name) == wanted):
            wrong.append(f"{when}: {name} is {found.get(name)!r}, not {wanted!r}")
    return wrong


def try_both(made: Made, folder: Path) -> List[str]:
    """Install both in both orders, and take each away; return what is not as it should be."""
    wrong: List[str] = []
    place = Place(made, folder / f"collision-{made.version}")

    def expect(when: str, **expected: Any) -> None:
        wrong.extend(differing(f"Python {made.version}, {when}", place.look(), expected))

    place.pip("install", place.wheel)
    expect("ours alone", ours=True, impl="native", theirs=False, harmless=[], other=None)
    place.pip("install", "--no-deps", OTHER)
    said = "is not ours but another package's"
    expect("theirs after ours", ours=True, impl="native", theirs=True, harmless=[True], said=said, other=None)
    place.pip("uninstall", "-y", "extras")
    said = "is missing, as after pip uninstall extras"
    expect("theirs taken away", ours=True, impl="native", theirs=False, harmless=[True], said=said, other=None)
    place.pip("install", "--no-deps", OTHER)
    place.pip("install", "--force-reinstall", "--no-deps", place.wheel)
    expect("ours after theirs", ours=True, impl="native", theirs=False, harmless=[], other="1.0.0")
    place.pip("uninstall", "-y", "rasa-extras")
    expect("ours taken away", ours=False, theirs=False)
    place.pip("install", "--force-reinstall", "--no-deps", OTHER)
    expect("theirs again", ours=False, theirs=True)
    print(f"Python {made.version}: both packages called extras, in both orders, and without either", flush=True)
    return wrong
