"""Compile the native module for every system that a wheel is made for, and compare its constants, without the system.

``ziglang`` brings a compiler and the headers of each. Nothing is linked or run: what only shows there, the workflow
``wheels`` finds, which tries each wheel on its own system.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = PROJECT / "src" / "_fastsock"
CYTHON = [sys.executable, "-m", "cython", "-3", "--module-name", "extras._fastsock"]

Spelt = Optional[Tuple[str, int]]
"""An option's name and number in a system's headers; ``None``: it has none."""


class System(NamedTuple):
    """What ``setsockopt`` is to be told on a system."""

    enabled: Spelt
    idle: Spelt
    interval: Spelt
    probes: Spelt
    user_timeout: Spelt
    user_timeout_unit_ms: int = 1


# Linux: asm-generic/socket.h, linux/tcp.h. macOS: xnu bsd/sys/socket.h, bsd/netinet/tcp.h. Windows: winsock2.h,
# ws2ipdef.h. FreeBSD: sys/socket.h, netinet/tcp.h; no wheel is made for it, pip compiles there.
LINUX = System(
    ("SO_KEEPALIVE", 9), ("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6), ("TCP_USER_TIMEOUT", 18)
)
MACOS = System(
    ("SO_KEEPALIVE", 8),
    ("TCP_KEEPALIVE", 0x10),
    ("TCP_KEEPINTVL", 0x101),
    ("TCP_KEEPCNT", 0x102),
    ("TCP_RXT_CONNDROPTIME", 0x80),
    user_timeout_unit_ms=1000,
)
WINDOWS = System(("SO_KEEPALIVE", 8), ("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 17), ("TCP_KEEPCNT", 16), None)
FREEBSD = System(("SO_KEEPALIVE", 8), ("TCP_KEEPIDLE", 256), ("TCP_KEEPINTVL", 512), ("TCP_KEEPCNT", 1024), None)

TARGETS: Dict[str, System] = {
    "x86_64-linux-gnu": LINUX,
    "aarch64-linux-gnu": LINUX,
    "x86_64-linux-musl": LINUX,
    "aarch64-linux-musl": LINUX,
    "x86_64-macos": MACOS,
    "aarch64-macos": MACOS,
    "x86_64-windows-gnu": WINDOWS,
    "x86_64-freebsd": FREEBSD,
}

MEANINGS = {
    "enabled": "FS_KEEPALIVE",
    "idle": "FS_IDLE",
    "interval": "FS_INTERVAL",
    "probes": "FS_COUNT",
    "user_timeout": "FS_USER_TIMEOUT",
}

# A call of a function with this attribute is an error unless the compiler has found that it cannot happen, which it
# does for constants: so the table that the module uses is compared, and not only the headers.
BEGIN = """\
#include "transfer.h"
#if defined(__clang__) && !__has_attribute(error)
#  error "this compiler cannot check constants"
#endif
void differs(void) __attribute__((error("is not what the table in tests/release/targets.py says")));
void check(void);
void check(void)
{
"""
# What pyconfig.h says on 64-bit Windows, as far as Python.h asks; the one beside this Python is of this system.
WINDOWS_CONFIG = "".join(
    f"#define {line}\n"
    for line in """\
MS_WINDOWS 1
MS_WIN32 1
MS_WIN64 1
Py_ENABLE_SHARED 1
HAVE_DECLSPEC_DLL 1
NT_THREADS 1
WITH_THREAD 1
HAVE_SSIZE_T 1
HAVE_STDARG_PROTOTYPES 1
HAVE_WCHAR_H 1
SIZEOF_VOID_P 8
SIZEOF_SIZE_T 8
SIZEOF_TIME_T 8
SIZEOF_SHORT 2
SIZEOF_INT 4
SIZEOF_LONG 4
SIZEOF_LONG_LONG 8
SIZEOF_DOUBLE 8
SIZEOF_FLOAT 4
SIZEOF_WCHAR_T 2
SIZEOF_PID_T 4
SIZEOF_OFF_T 4
ALIGNOF_SIZE_T 8
ALIGNOF_MAX_ALIGN_T 8""".splitlines()
)


def constants(system: System) -> str:
    """Return a C file that compiles only where the table of sockopt.h is that of ``system``."""
    lines = []
    for field, meaning in MEANINGS.items():
        spelt: Spelt = getattr(system, field)
        option = f"fs_options[{meaning}]"
        if spelt is None:
            lines.append(f"    if ({option}.name != NULL) differs();")
            continue
        name, number = spelt
        lines.append(f'    if (__builtin_strcmp({option}.name, "{name}") != 0) differs();')
        lines.append(f"    if ({option}.optname != {number}) differs();")
    lines.append(f"    if (fs_options[FS_USER_TIMEOUT].unit != {system.user_timeout_unit_ms}) differs();")
    return BEGIN + "\n".join([*lines, "}", ""])


def compiled(folder: Path, target: str, name: str, *options: str) -> str:
    """Compile a C file of ``folder`` for a target; return what the compiler has against it."""
    headers = ["-I", str(SOURCES)]
    if "windows" in target:
        headers += ["-I", str(folder / "windows")]
    headers += ["-idirafter", sysconfig.get_path("include")]
    output = str(folder / f"{target}-{name}.o")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-c", *options, *headers]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "cache"), "ZIG_LOCAL_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [*command, str(folder / name), "-o", output],
        env={**os.environ, **caches},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode else ""


def main() -> List[str]:
    """Compile for all targets; return what is wrong, by target."""
    wrong: List[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "windows" / "sys").mkdir(parents=True)
        (folder / "windows" / "sys" / "select.h").touch()
        (folder / "windows" / "pyconfig.h").write_text(WINDOWS_CONFIG, encoding="ascii")
        subprocess.run([*CYTHON, str(SOURCES / "_fastsock.pyx"), "-o", str(folder / "module.c")], check=True)
        for target, system in TARGETS.items():
            (folder / f"{target}.c").write_text(constants(system), encoding="ascii")
        (folder / "planted.c").write_text(constants(LINUX._replace(probes=("TCP_KEEPCNT", 7))), encoding="ascii")

        def on(target: str) -> str:
            strict = ["-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
            # Cython's own C has warnings where long is shorter than a pointer.
            return compiled(folder, target, f"{target}.c", *strict) or compiled(
                *(folder, target, "module.c", "-O0", "-w", "-Werror=implicit-function-declaration"),
                '-DFASTSOCK_VERSION="0"',
            )

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for target, said in zip(TARGETS, pool.map(on, TARGETS)):
                print(f"compiled for {target}: {'no' if said else 'yes'}", flush=True)
                wrong += [f"{target}:\n{said}"] if said else []
        if "targets.py says" not in compiled(folder, "x86_64-linux-gnu", "planted.c", "-O1"):
            wrong.append("a wrong constant was not found")
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(main()) or 0)
