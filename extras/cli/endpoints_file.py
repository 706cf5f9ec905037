"""``endpoints.yml`` as Rasa reads it, without Rasa: ``${VAR}`` is replaced where no quotes are around it.

Rasa's own reader is not used: its error for an unset variable shows the value, which may hold a password. What it does
(``rasa.shared.utils.io.replace_environment_variables``, the same from 2.0 to Pro 3.21) is an implicit resolver for
plain scalars and ``os.path.expandvars``; YAML gives quoted ones no such resolver, so that they stay as they are.
"""

import importlib
import os
import re
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from extras.cli.output import Unusable

_IS_VARIABLE = re.compile(r"^(.*)\$\{(.*)\}(.*)$")
_NAMES = re.compile(r"\$\{([^}]*)\}")


class EndpointsError(ValueError):
    """The file cannot be used; the message says why, and shows nothing of its content."""


class Endpoints(NamedTuple):
    """A file's sections, and for each of them the variables that are not set, and the options that quote one."""

    sections: Dict[str, Any]
    unset: Dict[str, List[str]]
    quoted: Dict[str, List[str]]


def read(path: Path) -> Endpoints:
    """Read a file. Raises :class:`EndpointsError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EndpointsError(f"{path}: cannot be read: {reason}") from None
    compose, construct = _yaml()
    unset: Dict[str, List[str]] = {}
    quoted: Dict[str, List[str]] = {}
    try:
        node = compose(text)
        for key, section in _pairs(node):
            unset[str(key.value)], quoted[str(key.value)] = [], []
            _expand(section, "", unset[str(key.value)], quoted[str(key.value)], set())
        sections = construct(node) if node is not None else {}
    except Exception as error:  # of a YAML library; what it says may show a part of the file
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else type(error).__name__
        raise EndpointsError(f"{path}: is no YAML that Rasa could read ({where})") from None
    if not isinstance(sections, dict):
        raise EndpointsError(f"{path}: must hold a mapping, with tracker_store: and so on at the left margin")
    return Endpoints(sections, unset, quoted)


def section(path: str, name: str) -> Optional[Dict[str, Any]]:
    """Return a section of a file, ``None`` if it has none. Raises :class:`~extras.cli.output.Unusable`."""
    try:
        found = read(Path(path))
    except EndpointsError as error:
        raise Unusable(str(error)) from None
    options = found.sections.get(name)
    if options is None:
        return None
    if not isinstance(options, dict):
        raise Unusable(f"{path}: {name} is no mapping of options")
    if found.unset[name]:
        raise Unusable(f"{path}: these environment variables are not set: {', '.join(found.unset[name])}")
    return options


def _yaml() -> Tuple[Any, Any]:
    """Return what makes nodes of a text, and values of nodes. Rasa brings ruamel.yaml with it."""
    for name, functions in (("ruamel.yaml", _of_ruamel), ("yaml", _of_pyyaml)):
        try:
            return functions(importlib.import_module(name))
        except ImportError:
            continue
    raise EndpointsError(
        "reading YAML needs ruamel.yaml, which is there where Rasa is: run this in the environment that Rasa runs in, "
        "or pip install ruamel.yaml"
    )


def _of_ruamel(library: Any) -> Tuple[Any, Any]:
    reader = library.YAML(typ="safe", pure=True)

    def compose(text: str) -> Any:
        # YAML.compose() is not there yet in the version that Rasa 2.0 has.
        return reader.get_constructor_parser(text)[0].composer.get_single_node()

    return compose, reader.constructor.construct_document


def _of_pyyaml(library: Any) -> Tuple[Any, Any]:
    return partial(library.compose, Loader=library.SafeLoader), library.constructor.SafeConstructor().construct_document


def _pairs(node: Any) -> List[Tuple[Any, Any]]:
    is_mapping = isinstance(getattr(node, "value", None), list) and all(isinstance(pair, tuple) for pair in node.value)
    return list(node.value) if is_mapping else []


def _expand(node: Any, name: str, unset: List[str], quoted: List[str], seen: "set[int]") -> None:
    """Replace the variables below a node in place; note which are not set, and which options quote one."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node.value, list):
        for part in node.value:
            key, value = part if isinstance(part, tuple) else (None, part)
            _expand(value, name if key is None else str(key.value), unset, quoted, seen)
    elif _IS_VARIABLE.match(node.value):
        if node.style is not None:
            quoted.append(name)
            return
        node.value = os.path.expandvars(node.value)
        unset += [found for found in _NAMES.findall(node.value) if found not in unset and found not in os.environ]
