"""Finds the Pythons of a machine."""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional


def find_python(version: str) -> Optional[str]:
    """Return an interpreter of this minor version that can make environments: this one, one on PATH, one of pyenv's."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    pyenv = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    for candidate in [shutil.which(f"python{version}"), *glob.glob(f"{pyenv}/versions/{version}.*/bin/python")]:
        if candidate is None:
            continue
        tried = subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False)
        if tried.returncode == 0:
            return candidate
    return None
