import os
import re
import runpy
from glob import glob
from typing import Match

from Cython.Build import cythonize
from setuptools import Extension, setup

VERSION = runpy.run_path("extras/_version.py")["VERSION"]


def described(readme: str, project: str) -> str:
    """Return the README as PyPI is to show it, where none of the files is that it links to.

    Links lead to the ``Repository`` of ``project``, which is pyproject.toml; without one, their words alone are left.
    """
    found = re.search(r'^Repository = "(.+?)/?"', project, re.MULTILINE)

    def link(each: Match[str]) -> str:
        picture, words, target = each.groups()
        if found is None:
            return "" if picture else words
        return f"{picture}[{words}]({found.group(1)}/{'raw' if picture else 'blob'}/v{VERSION}/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)", link, readme)


def _text(name: str) -> str:
    with open(name, encoding="utf-8") as file:
        return file.read()


if __name__ == "__main__":
    # Without a compiler the package still installs and runs on its Python twin, unless EXTRAS_FASTSOCK=native insists.
    setup(
        long_description=described(_text("README.md"), _text("pyproject.toml")),
        long_description_content_type="text/markdown",
        license="Apache-2.0",  # not in pyproject.toml: the setuptools of Python 3.8 and the newest read it in two ways
        ext_modules=cythonize(
            [
                Extension(
                    "extras._fastsock",
                    ["src/_fastsock/_fastsock.pyx"],
                    depends=[*glob("src/_fastsock/*.h"), *glob("src/_fastsock/*.pxi")],
                    include_dirs=["src/_fastsock"],
                    define_macros=[("FASTSOCK_VERSION", f'"{VERSION}"')],
                    libraries=["ws2_32"] if os.name == "nt" else [],
                    optional=os.environ.get("EXTRAS_FASTSOCK") != "native",
                )
            ],
            build_dir="build",
        ),
    )
