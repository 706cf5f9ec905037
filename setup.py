import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

# Without a compiler the package still installs and runs on its Python twin, unless EXTRAS_FASTSOCK=native insists.
setup(
    ext_modules=cythonize(
        [
            Extension(
                "extras._fastsock",
                ["src/_fastsock/_fastsock.pyx"],
                depends=[*glob("src/_fastsock/*.h"), *glob("src/_fastsock/*.pxi")],
                include_dirs=["src/_fastsock"],
                libraries=["ws2_32"] if os.name == "nt" else [],
                optional=os.environ.get("EXTRAS_FASTSOCK") != "native",
            )
        ],
        build_dir="build",
    )
)
