"""The stack of ``compose.yml`` laid out in a folder: every service's own files and secrets, as this machine has them.

Nothing is configured a second time. What Compose would mount is copied below the service's folder, and in copies and
commands the names that only containers have are replaced: ``redis:6379`` by a free port of this machine,
``/run/secrets`` and all that is mounted by the place in the folder.
"""

import re
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping, Match, Optional, Sequence

import yaml

from extras.bench.server import free_port

PORTS = {
    "nginx": (8443, 8080),
    "rasa-1": (5005,),
    "rasa-2": (5005,),
    "actions": (5055, 8080),
    "action-server": (5056,),
    "duckling": (8000,),
    "redis": (6379,),
    "rabbitmq": (5672,),
    "postgresql": (5432,),
}
"""What each service listens on, within its container."""


class Service:
    """One service of the file, and its folder here. ``settings``: what the file says of it."""

    def __init__(self, name: str, settings: Dict[str, Any], folder: Path, layout: "Layout") -> None:
        self.name = name
        self.settings = settings
        self.folder = folder
        self._layout = layout
        self._paths: Dict[str, Path] = {}

    def place(self, compose: Path, secrets: Path, instead: Mapping[str, Path]) -> None:
        """Copy what Compose would mount.

        ``compose``: the folder of its file; ``secrets``: that of the secrets; ``instead``: sources that are elsewhere.
        """
        self._paths["/run/secrets"] = self.folder / "run" / "secrets"
        self._paths["/run/secrets"].mkdir(parents=True)
        for name in self.settings.get("secrets", []):
            shutil.copy2(secrets / name, self._paths["/run/secrets"] / name)
        for target in [entry.partition(":")[0] for entry in self.settings.get("tmpfs", [])]:
            self._paths[target] = self.folder / target.lstrip("/")
            self._paths[target].mkdir(parents=True, exist_ok=True)
        mounts = {entry.split(":")[1]: entry.split(":")[0] for entry in self.settings.get("volumes", [])}
        self._paths.update({target: self.folder / target.lstrip("/") for target in mounts})
        for target, source in mounts.items():
            path, found = self._paths[target], instead.get(source, compose / source)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not source.startswith("."):  # a volume, which is empty at first
                path.mkdir()
            elif found.is_dir():
                shutil.copytree(found, path)
            else:
                path.write_text(self.here(found.read_text(encoding="utf-8")))

    def path(self, target: str) -> Path:
        """Return where a path of the container is."""
        return Path(self.here(target))

    def here(self, text: str) -> str:
        """Return a text with what is here in the place of what only containers have."""
        paths = "|".join(re.escape(path) for path in sorted(self._paths, key=len, reverse=True))
        names = "|".join(PORTS)
        pattern = (
            rf"\b(?P<name>{names}):(?P<port>\d+)\b"
            rf"|(?P<path>(?<![\w./])(?:{paths})(?![\w.-]))"
            rf"|(?P<any>\b0\.0\.0\.0\b)"
            rf"|(?P<host>(?<=: )(?:{names})$)"
            rf"|(?P<bare>(?<![\w.:/-])\d{{4}}(?![\w.])|(?<=127\.0\.0\.1:)\d{{4}}|(?<=0\.0\.0\.0:)\d{{4}})"
        )
        return re.sub(pattern, self._replaced, text, flags=re.MULTILINE)

    def _replaced(self, found: Match[str]) -> str:
        if found["path"]:
            return str(self._paths[found["path"]])
        if found["any"] or found["host"]:
            return "127.0.0.1"
        if found["name"]:
            return f"127.0.0.1:{self._layout.port(found['name'], int(found['port']))}"
        port = self._layout.known_port(self.name, int(found["bare"]))
        return found["bare"] if port is None else str(port)

    def words(self, command: Sequence[str]) -> List[str]:
        """Return the words of a command, or of a health check, as they are here."""
        return [self.here(word).replace("$$", "$") for word in command]

    @property
    def command(self) -> List[str]:
        """What is run."""
        return self.words([*self.settings.get("entrypoint", []), *self.settings["command"]])

    @property
    def health_check(self) -> List[str]:
        """What ends with 0 when the service is well."""
        kind, *words = self.words(self.settings["healthcheck"]["test"])
        return ["sh", "-c", *words] if kind == "CMD-SHELL" else words

    @property
    def environment(self) -> Dict[str, str]:
        """What the file has in the service's environment."""
        there = {name: self.here(str(value)) for name, value in self.settings.get("environment", {}).items()}
        return {**there, "SECRETS_FOLDER": str(self._paths["/run/secrets"])}


class Layout:
    """All services, below one folder."""

    def __init__(self, folder: Path, files: Sequence[Path], secrets: Path, instead: Mapping[str, Path]) -> None:
        self._ports = {(name, port): free_port() for name, ports in PORTS.items() for port in ports}
        self.services: Dict[str, Service] = {}
        merged: Dict[str, Any] = {}
        for file in files:
            for name, settings in yaml.safe_load(file.read_text(encoding="utf-8"))["services"].items():
                merged[name] = _merged(merged.get(name), settings)
        for name, settings in merged.items():
            self.services[name] = service = Service(name, settings, folder / name, self)
            service.place(files[0].parent, secrets, instead)

    def port(self, service: str, port: int) -> int:
        """Return the port here of one that a service has. Raises ``KeyError`` where it has none of that number."""
        return self._ports[service, port]

    def known_port(self, service: str, port: int) -> Optional[int]:
        """Return the port here of a number that stands alone: the service's own, or that of the only one with it."""
        own = self._ports.get((service, port))
        others = [here for (_, number), here in self._ports.items() if number == port]
        return own or (others[0] if len(others) == 1 else None)


def _merged(below: Any, above: Any) -> Any:
    """Return settings of several files as Compose merges them: mappings and lists are put together, others replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{name: _merged(below.get(name), value) for name, value in above.items()}}
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    return below if above is None else above
