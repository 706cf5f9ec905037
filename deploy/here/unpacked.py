"""The way without a build: the files of two wheels in a folder, as ``pip install --target`` puts them there."""

import shutil
from importlib.metadata import distribution
from pathlib import Path

WHEELS = ("rasa-extras", "hiredis")


def unpack(folder: Path) -> None:
    """Copy what the wheels hold from this environment, in which they are installed, into a folder."""
    for name in WHEELS:
        installed = distribution(name)
        for file in installed.files or ():
            source, target = Path(str(installed.locate_file(file))), folder / str(file)
            if ".." not in file.parts and source.suffix != ".pyc":
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
