"""An extension of griffe: docstrings are reStructuredText in small part, and the site shows Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe


class FromRst(griffe.Extension):
    """Roles such as :func:`name` become code, and ``::`` before an indented block becomes a colon."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is None:
            return
        text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
        text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # the section whose ``>>>`` lines are code
        obj.docstring.value = re.sub(r"\s*::$", ":", text, flags=re.MULTILINE)
