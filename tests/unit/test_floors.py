"""Imports point down only, Rasa and redis-py are each met in few files, and the lowest floor does no I/O."""

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "extras"

FLOORS = {
    "errors": 1,
    "keepalive": 1,
    "options": 1,
    "packing": 1,
    "fastsock": 2,
    "_fastsock": 2,
    "_fastsock_py": 2,
    "connection": 3,
    "client": 3,
    "multiplexed": 3,
    "transfer": 3,
    "_redis": 3,
    "document": 3,
    "conversation": 4,
    "trackerstore": 5,
    "_rasa": 5,
    "bench": 6,
    "cli": 6,
}
MAY_IMPORT = {
    "rasa": {"_rasa", "trackerstore"},
    "redis": {"_redis", "client", "connection", "multiplexed", "transfer"},
}
ONLY_THESE = "only _redis and client and connection and multiplexed and transfer may"
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
            elif FLOORS[lower] == 6 and lower != module:
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
        ("client", "import rasa", "client imports rasa; only _rasa and trackerstore may"),
        ("conversation", "from rasa.core import agent", "conversation imports rasa; only _rasa and trackerstore may"),
        ("conversation", "import_module('rasa.core')", "conversation imports rasa; only _rasa and trackerstore may"),
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
        ("trackerstore", "import rasa\nimport redistribute, rasachat\nfrom extras import _rasa, client"),
    ],
)
def test_what_is_allowed_is_let_through(tmp_path: Path, module: str, innocent: str) -> None:
    (tmp_path / f"{module}.py").write_text(f"{innocent}\n", encoding="utf-8")
    assert violations(tmp_path / f"{module}.py") == []
