"""Build the sdist, the wheel from it, into ``dist``, and check what is in them."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PROJECT = Path(__file__).parents[1]
DIST = PROJECT / "dist"


def main() -> int:
    """Build and check; return the exit code."""
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", str(PROJECT)], check=True)
    sdist, wheel = next(DIST.glob("*.tar.gz")), next(DIST.glob("*.whl"))
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)], check=True)

    extras = PROJECT / "extras"
    paths = [*extras.glob("*.py*"), *(extras / "bench").glob("*.py"), extras / "bench" / "conversation.json"]
    sources = {path.relative_to(PROJECT).as_posix() for path in paths if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        licensed = [name for name in archive.namelist() if name.endswith("LICENSE")]
    native = {name for name in packed if name.startswith("extras/_fastsock.") and not name.endswith(".pyi")}
    wrong = packed ^ (sources | {"extras/py.typed"} | native)
    with tarfile.open(sdist) as archive_:
        kept = {name.split("/", 1)[-1] for name in archive_.getnames()}
    names = ("_fastsock.pyx", "sockopt.h", "transfer.h", "transfer.pxi", "json_decode.h")
    native_sources = {f"src/_fastsock/{name}" for name in names}
    missing = {*native_sources, "pyproject.toml", "LICENSE"} - kept
    generated = {name for name in kept if name.endswith((".c", ".so"))}
    print(f"wheel: native {native}, unexpected or missing {wrong or 'nothing'}")
    print(f"sdist: missing {missing or 'nothing'}, generated {generated or 'nothing'}")
    return int(len(native) != 1 or bool(wrong) or bool(missing) or bool(generated) or not licensed)


if __name__ == "__main__":
    sys.exit(main())
