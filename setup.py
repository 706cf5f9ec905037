import os
import runpy
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

VERSION = runpy.run_path("extras/_version.py")["VERSION"]

# Without a compiler the package still installs and runs on its Python twin, unless EXTRAS_FASTSOCK=native insists.
setup(
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
