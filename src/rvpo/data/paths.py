"""Values inside a row: ``reward_model.rubrics`` names one, also where an object on the way is stored as JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpo.data.generic import strict_json

ABSENT = object()
"""What :func:`lookup` returns if a row has no such value."""


def plain(value: Any) -> Any:
    """Return the list or object that a JSON text holds; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            parsed = strict_json(value)
        except (ValueError, RecursionError):
            return value
        return parsed if isinstance(parsed, list | dict) else value
    return value


def lookup(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as ``extra_info.columns.rubric`` or ``ground_truth.0``, or :data:`ABSENT`."""
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
