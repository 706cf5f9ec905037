"""Rasa loads the store from files that another package, folder or version has got among, or says why not.

The other package itself is installed before and after ours by the cell ``build`` (``tests/release/collision.py``).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import pytest

import extras.errors
from extras.cli.main import main

LOADS = Path(__file__).with_name("loads_store.py")
PACKAGE = Path(extras.errors.__file__).parent
OTHERS = "def try_import(name, alternative=None, error_callback=None):\n    return alternative\n"
"""What the other package has in ``extras/__init__.py``, in short."""


def untouched(site: Path, before: Path) -> None:
    """Plant nothing."""


def init_of_another(site: Path, before: Path) -> None:
    (site / "extras" / "__init__.py").write_text(OTHERS)


def no_init(site: Path, before: Path) -> None:
    (site / "extras" / "__init__.py").unlink()


def native_of_another_version(site: Path, before: Path) -> None:
    for native in (site / "extras").glob("_fastsock.*.*"):
        native.unlink()
    (site / "extras" / "_fastsock.py").write_text("VERSION = '0.0.1'\n")


def missing_module(site: Path, before: Path) -> None:
    (site / "extras" / "turns.py").unlink()


def module_of_another_version(site: Path, before: Path) -> None:
    (site / "extras" / "budget.py").write_text('"""Older."""\n')


def module_from_elsewhere(site: Path, before: Path) -> None:
    no_init(site, before)
    (before / "extras").mkdir()
    shutil.copy(PACKAGE / "document.py", before / "extras" / "document.py")


def loading_from_elsewhere(site: Path, before: Path) -> None:
    no_init(site, before)
    (before / "extras").mkdir()
    (before / "extras" / "loading.py").write_text("MINE = 1\n")


STORE = "ExtraRedisTrackerStore"
CASES: List[Tuple[Callable[[Path, Path], None], str, str]] = [
    (untouched, STORE, ""),
    (init_of_another, STORE, "is not ours but another package's"),
    (no_init, STORE, "is missing, as after pip uninstall extras"),
    (native_of_another_version, "RasaException", "is of rasa-extras 0.0.1"),
    (missing_module, "RasaException", "missing or of another version: extras/turns.py"),
    (module_of_another_version, "RasaException", "changed or of another version: extras/budget.py"),
    (module_from_elsewhere, "RasaException", "not of rasa-extras, whose files are in"),
    (loading_from_elsewhere, "RuntimeError", "is in the way"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Dict[str, str]]:
    """Let the host load the store with each fault, in processes forked from one in which it is imported."""
    folder = tmp_path_factory.mktemp("collision")
    (folder / "endpoints.yml").write_text(
        f"tracker_store:\n  type: extras.trackerstore.{STORE}\n  url: redis://127.0.0.1:1\n"
    )
    rest = folder / "rest"  # what is installed, without ours
    rest.mkdir()
    installed = PACKAGE.parent
    for path in installed.iterdir():
        if path.name != "extras" and not path.name.startswith("rasa_extras-") and path.suffix != ".pth":
            (rest / path.name).symlink_to(path)
    for plant, _, _ in CASES:
        site, before = folder / plant.__name__ / "site", folder / plant.__name__ / "before"
        before.mkdir(parents=True)
        shutil.copytree(PACKAGE, site / "extras")
        for record in installed.glob("rasa_extras-*.dist-info"):
            shutil.copytree(record, site / record.name)
        plant(site, before)
    environment = {name: value for name, value in os.environ.items() if name != "EXTRAS_FASTSOCK"}
    environment.update(PYTHONPATH=str(rest), PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-S", "-W", "ignore", str(LOADS), str(folder / "endpoints.yml")]
    names = [plant.__name__ for plant, _, _ in CASES]
    done = subprocess.run(
        [*command, *names], env=environment, cwd=folder, stdout=subprocess.PIPE, timeout=300, check=True
    )
    lines = [json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith("{")]  # Pro logs there
    return {line["case"]: line for line in lines}


@pytest.mark.parametrize(("plant", "came", "said"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_the_host_loads_it_or_says_why_not(
    plant: Callable[[Path, Path], None], came: str, said: str, outcomes: Dict[str, Dict[str, str]]
) -> None:
    outcome = outcomes[plant.__name__]
    assert outcome["came"] == came, outcome
    assert said in outcome["said"]
    assert bool(said) == bool(outcome["said"]), outcome


def test_a_folder_that_hides_all_of_it_is_found_by_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: "pytest.CaptureFixture[str]"
) -> None:
    """Nothing of ours runs in that Rasa, so that nothing else can say it."""
    (tmp_path / "extras").mkdir()
    (tmp_path / "extras" / "__init__.py").touch()
    (tmp_path / "endpoints.yml").write_text("tracker_store: {type: sql}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert f"import extras finds {tmp_path / 'extras'} and not {PACKAGE}" in printed
