"""Structures as text and as plain data, for messages, configurations and records."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

LISTS = ("parts", "over")
"""Options that name several channels."""


def spell_structure(structure: Any) -> str:
    """Return a structure as text: its channels, and the options that differ from their defaults.

    Example:
        >>> from rvpo.step.structure.gate import Gate
        >>> spell_structure(Gate("safe", factor=0.2))
        'gate(safe,factor=0.2)'
    """
    first = structure.positional.split(",")
    parts: list[str] = []
    for option in fields(structure):
        value = getattr(structure, option.name)
        if option.name in first:
            parts += map(_quoted, value) if option.name in LISTS else [_quoted(value)]
        elif value != option.default:
            parts.append(f"{option.name}={_spelled(value)}")
    return f"{structure.name}({','.join(parts)})"


def _quoted(name: str) -> str:
    if re.fullmatch(r"[\w./@:+ -]+", name) and name == name.strip():
        return name if " " not in name else json.dumps(name)
    return json.dumps(name)


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ",".join(map(_quoted, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    return f"{value:.12g}" if isinstance(value, float) and float(f"{value:.12g}") == value else repr(value)
