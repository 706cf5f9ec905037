"""Build a wheel for Linux on aarch64, install it and try it there, on a machine of another kind: ``make nightly``.

Its Python is Debian's for arm64, unpacked into a folder and run by qemu-user; nothing of this machine is changed. pip
runs there, too, so that it chooses what it would on such a machine. ``ziglang`` compiles. Needs Debian, and its package
``qemu-user-static``.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List

import distribution
from released import VERSION
from targets import CYTHON, SOURCES

QEMU = "qemu-aarch64-static"
TRIPLET = "aarch64-linux-gnu"
OLDEST_GLIBC = "2.17"  # manylinux2014, as the x86_64 wheels
SERVER = "redis-server"
"""Of this machine's kind: what the wheel's client talks to."""
APT = """\
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
"""


class Emulated:
    """A Python for aarch64 in a folder."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "root"
        for name in ("state/lists/partial", "cache/archives/partial", "root", "headers"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "apt.conf").write_text(APT.format(folder=folder), encoding="utf-8")
        self._apt = {**os.environ, "APT_CONFIG": str(folder / "apt.conf")}
        subprocess.run(["apt-get", "-qq", "update"], env=self._apt, check=True)
        wanted = ["python3-minimal", "libpython3-stdlib"]
        subprocess.run(["apt-get", "-qq", "-y", "--download-only", "install", *wanted], env=self._apt, check=True)
        for package in (folder / "cache" / "archives").glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(self._root)], check=True)
        self._python = next(path for path in (self._root / "usr" / "bin").iterdir() if re.search(r"3\.\d+$", path.name))
        self.minor = self._python.name.rpartition(".")[2]
        headers = [f"libpython3.{self.minor}-dev"]
        subprocess.run(["apt-get", "-qq", "download", *headers], env=self._apt, cwd=folder / "headers", check=True)
        for package in (folder / "headers").glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(self._root)], check=True)

    def run(self, *arguments: str, **variables: str) -> None:
        """Run this Python."""
        bare = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "EXTRAS_FASTSOCK")}
        command = [QEMU, "-L", str(self._root), str(self._python), *arguments]
        subprocess.run(command, env={**bare, **variables}, check=True)

    def compile(self, folder: Path) -> Path:
        """Compile and link the native module for it; return the module."""
        source = folder / "_fastsock.c"
        subprocess.run([*CYTHON, str(SOURCES / "_fastsock.pyx"), "-o", str(source)], check=True)
        module = folder / f"_fastsock.cpython-3{self.minor}-{TRIPLET}.so"
        usr = self._root / "usr" / "include"
        include = ["-I", str(SOURCES), "-I", str(usr / f"python3.{self.minor}"), "-idirafter", str(usr)]
        options = ["-target", f"{TRIPLET}.{OLDEST_GLIBC}", "-shared", "-fPIC", "-O2", "-w", "-s"]
        command = [sys.executable, "-m", "ziglang", "cc", *options, f'-DFASTSOCK_VERSION="{VERSION}"', *include]
        caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"), "ZIG_LOCAL_CACHE_DIR": str(folder / "zig")}
        subprocess.run([*command, str(source), "-o", str(module)], env={**os.environ, **caches}, check=True)
        return module


def with_module(wheel: Path, module: Path, minor: str) -> Path:
    """Make, of a wheel of this machine, one with another native module; return it with the tags that this needs."""
    folder = module.parent
    tool = [sys.executable, "-m", "wheel"]
    subprocess.run([*tool, "unpack", "-d", str(folder / "unpacked"), str(wheel)], check=True)
    unpacked = next((folder / "unpacked").iterdir())
    for native in (unpacked / "extras").glob("_fastsock.*.so"):
        native.unlink()
    shutil.copy(module, unpacked / "extras")
    out = folder / "packed"
    out.mkdir()
    subprocess.run([*tool, "pack", "-d", str(out), str(unpacked)], check=True)
    tags = ["--python-tag", f"cp3{minor}", "--abi-tag", f"cp3{minor}", "--platform-tag", "linux_aarch64"]
    subprocess.run([*tool, "tags", "--remove", *tags, str(next(out.iterdir()))], check=True)
    return distribution.repair(next(out.iterdir()), folder / "repaired")


def main() -> List[str]:
    """Build, install and try; return what is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, wheel = distribution.build(folder / "dist")
        python = Emulated(folder / "emulated")
        (folder / "made").mkdir()
        made = with_module(wheel, python.compile(folder / "made"), python.minor)
        if not re.search(r"manylinux\w*_aarch64\.whl$", made.name):
            return [f"{made.name} is no wheel for Linux on aarch64"]
        pip = Path(sys.executable).parent.parent / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "pip"
        site = folder / "site"
        python.run(
            str(pip),
            "--disable-pip-version-check",
            "install",
            "--no-compile",
            "--only-binary",
            ":all:",
            "-t",
            str(site),
            str(made),
        )
        trial = Path(__file__).with_name("wheel.py")
        server = shutil.which(SERVER)
        python.run(str(trial), *([server] if server else []), PYTHONPATH=str(site), EXTRAS_FASTSOCK="native")
        print(f"{made.name}: installed and tried by qemu-user", flush=True)
    return []


if __name__ == "__main__":
    sys.exit("\n".join(main()) or 0)
