"""Where the figures come from: machine, versions, and how loaded the process is."""

import gc
import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any, Dict, Optional

from extras import _redis, fastsock
from extras.bench.loop import name_of_running


def describe_host(server: Dict[str, Any], server_loaded: bool) -> Dict[str, Any]:
    """Return the header of a report on Rasa's stores. ``server_loaded``: whether Rasa's server is imported."""
    return {
        **describe(server),
        "Rasa": _version("rasa-pro") or _version("rasa") or "unknown version",
        "event loop": name_of_running(),
        "process": _process(server_loaded),
    }


def describe(server: Dict[str, Any]) -> Dict[str, Any]:
    """Return the header of a report. ``server``: its ``INFO``."""
    header = {
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "redis-py": _redis.VERSION,
        "hiredis": _version("hiredis") or "none",
        "server": _server(server),
        "extras.fastsock": fastsock.IMPL,
        "rasa-extras": _version("rasa-extras") or "not installed",
    }
    if hasattr(os, "getloadavg"):
        header["load"] = f"{os.getloadavg()[0]:.1f} processes wanted to run during the last minute"
    git = _git()
    if git:
        header["git (working directory)"] = git
    return header


def versions(*distributions: str) -> Dict[str, str]:
    """Return the versions of those that are installed."""
    found = {name: _version(name) for name in distributions}
    return {name: version for name, version in found.items() if version is not None}


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


def _version(distribution: str) -> Optional[str]:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _server(info: Dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'unknown version')}"


def _process(server_loaded: bool) -> str:
    objects = f"{len(gc.get_objects()):,} objects for gc to look at"
    if not server_loaded:
        return f"tracker stores only, {objects}"
    tensorflow = "with" if "tensorflow" in sys.modules else "without"
    return f"like a server: rasa.core.agent is loaded, {tensorflow} TensorFlow, {objects}"


def _git() -> Optional[str]:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
