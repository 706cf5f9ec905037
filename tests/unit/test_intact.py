"""What is said of the package's files: changed, missing, of two versions, hidden. Rasa's view is in ``tests/host``."""

import importlib
import shutil
import sys
import types
from pathlib import Path
from typing import Iterator

import pytest

from extras import intact

HERE = intact.PACKAGE


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a copy of what is installed."""
    shutil.copytree(HERE, tmp_path / "site" / "extras", ignore=shutil.ignore_patterns("__pycache__"))
    for record in HERE.parent.glob("rasa_extras-*.dist-info"):
        shutil.copytree(record, tmp_path / "site" / record.name)
    return tmp_path / "site"


def said(site: Path) -> str:
    return "\n".join(f"{fault.is_harmless} {fault}" for fault in intact.faults(site / "extras"))


def test_what_is_installed_is_whole() -> None:
    assert list(intact.faults()) == []
    assert intact.strangers() is None
    assert intact.other_distribution() is None


def test_nothing_is_said_where_pip_wrote_nothing_down(site: Path) -> None:
    shutil.rmtree(next(site.glob("rasa_extras-*.dist-info")))
    (site / "extras" / "turns.py").unlink()
    assert said(site) == ""


def test_nothing_is_said_where_it_cannot_be_read(site: Path) -> None:
    record = next(site.glob("rasa_extras-*.dist-info")) / "RECORD"
    record.write_bytes(b"extras/turns.py,sha256=\xff,1\n")
    assert said(site) == ""


def test_files_are_named_a_few_at_most(site: Path) -> None:
    for path in (site / "extras" / "cli").glob("checks_*.py"):
        path.unlink()
    (site / "extras" / "cli" / "main.py").write_text("")
    missing, changed = said(site).splitlines()
    assert missing.startswith("False not what was installed in")
    assert missing.count(".py") == 5
    assert " more; pip install --force-reinstall" in missing
    assert "changed or of another version: extras/cli/main.py;" in changed


def test_two_versions_in_one_folder(site: Path) -> None:
    record = next(site.glob("rasa_extras-*.dist-info"))
    shutil.copytree(record, site / "rasa_extras-0.0.1.dist-info")
    assert f"rasa-extras 0.0.1 and {record.name.split('-')[1].replace('.dist', '')} lie over each other" in said(site)


@pytest.fixture
def path(tmp_path: Path) -> Iterator["list[str]"]:
    """A Python's path: a folder, and the one of the package."""
    importlib.invalidate_caches()
    (tmp_path / "bot").mkdir()
    yield [str(tmp_path / "bot"), str(HERE.parent)]
    for name in [name for name in sys.path_importer_cache if name.startswith(str(tmp_path))]:
        del sys.path_importer_cache[name]


def test_the_package_is_hidden_by_a_package_or_a_file_of_its_name(path: "list[str]") -> None:
    bot = Path(path[0])
    assert intact.hidden_by(path) is None
    (bot / "extras").mkdir()
    importlib.invalidate_caches()
    assert intact.hidden_by(path) is None  # without __init__.py, it only adds to packages that have none either
    (bot / "extras" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert intact.hidden_by(path) == str(bot / "extras")
    shutil.rmtree(bot / "extras")
    (bot / "extras.py").touch()
    importlib.invalidate_caches()
    assert intact.hidden_by(path) == str(bot / "extras.py")
    assert intact.hidden_by(path[1:] + path[:1]) is None
    assert intact.hidden_by([]) is None


def test_modules_from_elsewhere_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = types.ModuleType("extras.options")
    stranger.__file__ = str(tmp_path / "extras" / "options.py")
    additional = types.ModuleType("extras.of_a_bot")
    additional.__file__ = str(tmp_path / "extras" / "of_a_bot.py")
    monkeypatch.setitem(sys.modules, "extras.options", stranger)
    monkeypatch.setitem(sys.modules, "extras.of_a_bot", additional)
    fault = intact.strangers()
    assert fault is not None
    assert not fault.is_harmless
    assert fault.found.startswith(f"{stranger.__file__}: not of rasa-extras, whose files are in {HERE}")
