"""Builds the native module in a scratch folder: for sanitizers and fuzzing, and with planted faults.

A build is a folder with the whole package, to be put first on ``PYTHONPATH``. Cython runs twice, for the sources as
they are and for those with the faults; the compilers run side by side.
"""

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Dict, List, Optional

import planted

HERE = Path(__file__).parent.resolve()
PROJECT = HERE.parents[1]
SCRATCH = PROJECT / "build" / "memory"
CLANG = "clang-14"
INCLUDE = sysconfig.get_path("include")  # read here: sysconfig is not for several threads at once

# Coverage of its branches and comparisons is what the fuzzer goes by; the other jobs do not mind it.
SANITIZED = [
    "-fsanitize=address,undefined,fuzzer-no-link",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
]


def generated(name: str) -> Path:
    """Return the sources with the C file made of them; ``faulty`` ones have all the faults."""
    sources = SCRATCH / name
    shutil.copytree(PROJECT / "src" / "_fastsock", sources)
    if name == "faulty":
        planted.plant(sources)
    cython = [sys.executable, "-m", "cython", "-3", "--module-name", "extras._fastsock", "-o", "_fastsock.c"]
    subprocess.run([*cython, "_fastsock.pyx"], cwd=sources, check=True)
    return sources


def compiled(name: str, sources: Path, compiler: str, options: List[str]) -> None:
    """Make a folder with the package and its native module."""
    package = SCRATCH / name / "extras"
    shutil.copytree(PROJECT / "extras", package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    faults = ["-include", "planted.h"] if (sources / "planted.h").exists() else []
    target = package / ("_fastsock" + EXTENSION_SUFFIXES[0])
    command = [compiler, "-gline-tables-only" if compiler == CLANG else "-g", "-shared", "-fPIC", *options]
    version = runpy.run_path(str(PROJECT / "extras" / "_version.py"))["VERSION"]
    command += [*faults, f'-DFASTSOCK_VERSION="{version}"', "-I", INCLUDE]
    command += ["-I", str(sources), str(sources / "_fastsock.c")]
    subprocess.run([*command, "-o", str(target)], check=True)


def all_builds() -> None:
    """Make all builds anew: ``sanitized``, and with faults ``faulty-sanitized`` and ``faulty-plain``."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        sources, faulty = pool.map(generated, ["sources", "faulty"])
        running = [pool.submit(compiled, "sanitized", sources, CLANG, ["-O1", *SANITIZED])]
        # The faults are there without optimisation, too, which takes most of the compiler's time.
        running += [pool.submit(compiled, "faulty-sanitized", faulty, CLANG, ["-O0", *SANITIZED])]
        running += [pool.submit(compiled, "faulty-plain", faulty, "cc", ["-O0"])]
        for build in running:
            build.result()


def environment(build: str = "", fault: str = "") -> Dict[str, str]:
    """Return the environment for a process: with a build instead of the installed package, and a fault switched on."""
    found = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    found["PYTHONSAFEPATH"] = "1"  # the source tree, where this runs, has no native module
    path = [str(HERE), str(PROJECT / "tests" / "unit"), *([str(SCRATCH / build)] if build else [])]
    found["PYTHONPATH"] = os.pathsep.join(reversed(path))
    found.pop(planted.SWITCH, None)
    if fault:
        found[planted.SWITCH] = fault
    return found


def sanitizing(fault: str = "") -> Dict[str, str]:
    """Return the environment for a process that runs the sanitized build."""
    build = "faulty-sanitized" if fault else "sanitized"
    runtime = Path(sysconfig.get_path("platlib")) / "asan_with_fuzzer.so"  # atheris', with libFuzzer in it
    if not runtime.exists():
        raise FileNotFoundError(f"{runtime}: atheris {sys.version_info[:2]} has no runtime for sanitizers")
    return {
        **environment(build, fault),
        "LD_PRELOAD": str(runtime),
        "PYTHONMALLOC": "malloc",  # the runtime sees no blocks within Python's own arenas
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:exitcode=99",  # leaks: test_leaks.py
        "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=99",
        "ASAN_SYMBOLIZER_PATH": shutil.which("llvm-symbolizer-14") or "",
    }


def run(
    arguments: List[str], environ: Dict[str, str], timeout_s: float, cwd: Optional[Path] = None
) -> "subprocess.CompletedProcess[str]":
    """Run a process to its end, and return what it printed."""
    return subprocess.run(
        arguments,
        env=environ,
        cwd=cwd or PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
