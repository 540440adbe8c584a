"""Look up values inside a row by a path such as ``reward_model.rubrics``. Objects on the way may be JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpo.data.generic import strict_json

ABSENT = object()
"""Value that :func:`lookup` returns if a row has nothing at a path."""


def plain(value: Any) -> Any:
    """Parse a text that is a JSON list or object. Return any other value unchanged.

    Example:
        >>> plain('[1, 2]'), plain("text"), plain(3)
        ([1, 2], 'text', 3)
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            parsed = strict_json(value)
        except (ValueError, RecursionError):
            return value
        return parsed if isinstance(parsed, list | dict) else value
    return value


def lookup(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as ``extra_info.columns.rubric`` or ``ground_truth.0``, or :data:`ABSENT`.

    Example:
        >>> lookup({"extra": '{"tags": ["a", "b"]}'}, "extra.tags.1")
        'b'
    """
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        value = plain(value)
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value
