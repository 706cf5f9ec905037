"""Imports point down only, Rasa and redis-py are each met in few files, and the lowest floor does no I/O."""

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "extras"

FLOORS = {
    "_version": 1,
    "errors": 1,
    "keepalive": 1,
    "layout": 1,
    "endpoint": 1,
    "options": 1,
    "routing": 1,
    "silence": 1,
    "telemetry": 1,
    "fastsock": 2,
    "tls": 2,
    "group_commit": 2,
    "intact": 2,
    "journal": 2,
    "_fastsock": 2,
    "_fastsock_py": 2,
    "async_connection": 3,
    "async_transfer": 3,
    "bounded": 3,
    "budget": 3,
    "connection": 3,
    "dialling": 3,
    "resolver": 3,
    "shared": 3,
    "acknowledged": 3,
    "async_client": 3,
    "async_pipeline": 3,
    "async_routed": 3,
    "async_store": 3,
    "client": 3,
    "cluster": 3,
    "configured": 3,
    "credentials": 3,
    "diagnosis": 3,
    "in_thread": 3,
    "refusals": 3,
    "liveness": 3,
    "steps": 3,
    "multiplexed": 3,
    "packing": 3,
    "pool": 3,
    "quick": 3,
    "per_loop": 3,
    "replies": 3,
    "routed": 3,
    "sentinel": 3,
    "slots": 3,
    "topology": 3,
    "transfer": 3,
    "_redis": 3,
    "document": 3,
    "failures": 3,
    "listener": 3,
    "threaded": 3,
    "conversation": 4,
    "backlog": 4,
    "lastknown": 4,
    "outbox": 4,
    "owed": 4,
    "stream": 4,
    "tickets": 4,
    "eventbroker": 5,
    "lockstore": 5,
    "outage": 5,
    "relay": 5,
    "trackerstore": 5,
    "turns": 5,
    "loading": 5,
    "_rasa": 5,
    "_rasa_iam": 5,
    "_rasa_brokers": 5,
    "_rasa_locks": 5,
    "_rasa_logs": 5,
    "_rasa_stores": 5,
    "bench": 6,
    "cli": 6,
    "__main__": 6,
}
MAY_IMPORT = {
    "rasa": {"_rasa", "_rasa_brokers", "_rasa_iam", "_rasa_locks", "_rasa_logs", "loading"},
    "redis": {
        "_redis",
        "async_client",
        "async_pipeline",
        "async_routed",
        "async_transfer",
        "budget",
        "client",
        "configured",
        "failures",
        "listener",
        "multiplexed",
        "replies",
        "routed",
        "slots",
        "steps",
        "threaded",
        "topology",
        "transfer",
    },
}
ONLY_THESE = f"only {' and '.join(sorted(MAY_IMPORT['redis']))} may"
ONLY_HOSTS = f"only {' and '.join(sorted(MAY_IMPORT['rasa']))} may"
IO_MODULES = {
    "asyncio",
    "http",
    "requests",
    "select",
    "selectors",
    "socketserver",
    "ssl",
    "subprocess",
    "urllib.request",
}
BY_NAME = {"__import__", "find_spec", "import_module"}
"""Functions that import, or look for, the module that their first argument names."""

Found = Tuple[int, str]
"""Line number, and a module's or function's full name."""


def imports(tree: ast.Module) -> Iterator[Found]:
    """Yield every import of a module's text, at any depth, also by name, relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = (["extras"] if node.level else []) + ([node.module] if node.module else [])
            yield from ((node.lineno, ".".join([*parts, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and _last_name(node.func) in BY_NAME:
            yield from ((node.lineno, name) for name in map(_text, node.args[:1]) if name)


def socket_calls(tree: ast.Module) -> Iterator[Found]:
    """Yield every call of a function of the socket module, under whatever name it was imported."""
    names: Dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname or alias.name: "socket" for alias in node.names if alias.name == "socket"})
        elif isinstance(node, ast.ImportFrom) and node.module == "socket":
            names.update({alias.asname or alias.name: f"socket.{alias.name}" for alias in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            owner = node.func.value if isinstance(node.func, ast.Attribute) else node.func
            if isinstance(owner, ast.Name) and owner.id in names:
                attribute = [] if owner is node.func else [_last_name(node.func)]
                yield node.lineno, ".".join([names[owner.id], *attribute])


def _last_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text(argument: ast.expr) -> str:
    value = argument.value if isinstance(argument, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def violations(path: Path) -> List[str]:
    """Return what in one file of the package goes against the floors, as ``file:line: what``."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    module = path.parent.name if path.parent.parent == PACKAGE else path.stem
    floor = FLOORS.get(module)
    if floor is None:
        return [f"{path.name}:1: {module} has no floor; give it one in {Path(__file__).name}"]
    found: List[Found] = []
    for line, name in imports(tree):
        top, _, rest = name.partition(".")
        if top == "extras":
            lower = rest.split(".")[0]
            if lower not in FLOORS:
                found.append((line, f"{name} has no floor"))
            elif FLOORS[lower] > floor:
                found.append((line, f"{module} (floor {floor}) imports {lower} (floor {FLOORS[lower]})"))
            elif FLOORS[lower] == 6 and lower != module and module != "__main__":
                found.append((line, f"nobody imports {lower}"))
        elif module != "bench" and module not in MAY_IMPORT.get(top, {module}):  # bench measures hosts and clients
            found.append((line, f"{module} imports {top}; only {' and '.join(sorted(MAY_IMPORT[top]))} may"))
        elif floor == 1 and any(f"{name}.".startswith(f"{io}.") for io in IO_MODULES):
            found.append((line, f"{module} (floor 1) imports {name}, which does I/O"))
    if floor == 1:
        found += [(line, f"{module} (floor 1) calls {name}()") for line, name in socket_calls(tree)]
    return [f"{path.name}:{line}: {what}" for line, what in sorted(found)]


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_there_is_something_to_check() -> None:
    modules = {path.stem for path in SOURCES}
    assert {name for name, floor in FLOORS.items() if floor < 6} - {"_fastsock"} <= modules
    assert (PACKAGE / "_fastsock.pyi").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_keeps_to_its_floor(path: Path) -> None:
    assert violations(path) == []


def test_init_is_a_docstring_only() -> None:
    """Another package also installs a top-level ``extras``: nothing of ours may depend on that file's content."""
    body = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    assert [type(statement) for statement in body] == [ast.Expr]


@pytest.mark.parametrize(
    ("module", "planted", "found"),
    [
        ("errors", "import extras.client", "errors (floor 1) imports client (floor 3)"),
        ("errors", "from extras.fastsock import IMPL", "errors (floor 1) imports fastsock (floor 2)"),
        ("errors", "from extras import fastsock", "errors (floor 1) imports fastsock (floor 2)"),
        ("errors", "from . import fastsock", "errors (floor 1) imports fastsock (floor 2)"),
        ("errors", "from .fastsock import IMPL", "errors (floor 1) imports fastsock (floor 2)"),
        ("errors", "import extras.fastsock as errors", "errors (floor 1) imports fastsock (floor 2)"),
        ("errors", "def f():\n    import extras.fastsock", "errors (floor 1) imports fastsock (floor 2)"),
        ("errors", "if TYPE_CHECKING:\n    import extras.cli", "errors (floor 1) imports cli (floor 6)"),
        ("errors", "importlib.import_module('extras.client')", "errors (floor 1) imports client (floor 3)"),
        ("fastsock", "from extras.connection import FastConnection", "fastsock (floor 2) imports connection (floor 3)"),
        ("client", "from extras import conversation", "client (floor 3) imports conversation (floor 4)"),
        ("conversation", "from extras import _rasa", "conversation (floor 4) imports _rasa (floor 5)"),
        ("trackerstore", "import extras.cli", "trackerstore (floor 5) imports cli (floor 6)"),
        ("bench", "import extras.cli", "nobody imports cli"),
        ("client", "import rasa", f"client imports rasa; {ONLY_HOSTS}"),
        ("conversation", "from rasa.core import agent", f"conversation imports rasa; {ONLY_HOSTS}"),
        ("conversation", "import_module('rasa.core')", f"conversation imports rasa; {ONLY_HOSTS}"),
        ("trackerstore", "import redis", f"trackerstore imports redis; {ONLY_THESE}"),
        ("cli", "from redis import Redis", f"cli imports redis; {ONLY_THESE}"),
        ("options", "import redis.asyncio as x", f"options imports redis; {ONLY_THESE}"),
        ("options", "import asyncio", "options (floor 1) imports asyncio, which does I/O"),
        (
            "options",
            "from urllib.request import urlopen",
            "options (floor 1) imports urllib.request.urlopen, which does I/O",
        ),
        ("keepalive", "import socket\nsocket.socket()", "keepalive (floor 1) calls socket.socket()"),
        ("keepalive", "import socket as s\ns.getaddrinfo('h', 1)", "keepalive (floor 1) calls socket.getaddrinfo()"),
        ("keepalive", "from socket import socket\nsocket()", "keepalive (floor 1) calls socket.socket()"),
        (
            "keepalive",
            "from socket import create_connection as c\nc(1)",
            "keepalive (floor 1) calls socket.create_connection()",
        ),
        ("errors", "from extras import misc", "extras.misc has no floor"),
        ("misc", "x = 1", f"misc has no floor; give it one in {Path(__file__).name}"),
    ],
)
def test_planted_violation_is_found(tmp_path: Path, module: str, planted: str, found: str) -> None:
    planted_file = tmp_path / f"{module}.py"
    planted_file.write_text(f"{planted}\n", encoding="utf-8")
    lines = violations(planted_file)
    assert [line.split(": ", 1)[1] for line in lines] == [found]
    assert lines[0].startswith(f"{module}.py:")


@pytest.mark.parametrize(
    ("module", "innocent"),
    [
        ("keepalive", "import socket\nx = socket.TCP_KEEPCNT\ny = hasattr(socket, 'TCP_KEEPIDLE')"),
        (
            "options",
            "from urllib.parse import urlsplit\nfrom extras import keepalive\nfrom extras.errors import OptionError",
        ),
        ("client", "import redis\nfrom extras import _redis\nfrom extras.options import Options"),
        ("cli", "from extras import client, options, trackerstore"),
        ("loading", "import rasa\nimport redistribute, rasachat\nfrom extras import _rasa, client"),
    ],
)
def test_what_is_allowed_is_let_through(tmp_path: Path, module: str, innocent: str) -> None:
    (tmp_path / f"{module}.py").write_text(f"{innocent}\n", encoding="utf-8")
    assert violations(tmp_path / f"{module}.py") == []
