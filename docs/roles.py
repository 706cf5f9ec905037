"""Docstrings' ``:class:`~extras.errors.OptionError``` as links, where the documentation has such a page."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(~?)([\w.]+)`")


def _link(found: "re.Match[str]") -> str:
    short, name = found.groups()
    shown = name.rsplit(".", 1)[-1] if short else name
    return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'


class Roles(Extension):  # type: ignore[misc]  # griffe is there only where the documentation is built
    """Goes through every docstring of the package."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Put links in the place of the roles of one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_link, obj.docstring.value)
