"""The three equivalent ways to write a structure: an object, a text, or a mapping.

::

    Gate("safe", factor=0.2)      "gate(safe,factor=0.2)"      {"name": "gate", "channel": "safe", "factor": 0.2}

A list of structures can also be one text, separated by spaces: ``gate(safe) all_of(a,b)``. ``veto(safe)`` is another
name of ``gate(safe)``. Put a name with special characters in double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from rvpo.core.checks import outside_brackets, plain_value, unknown_option
from rvpo.errors import ConfigError
from rvpo.step.structure.all_of import AllOf
from rvpo.step.structure.base import Structure
from rvpo.step.structure.gate import Gate
from rvpo.step.structure.only_where import OnlyWhere
from rvpo.step.structure.writing import LISTS
from rvpo.text.suggest import did_you_mean

STRUCTURES: Mapping[str, type[Structure]] = {kind.name: kind for kind in (AllOf, Gate, OnlyWhere)}
"""By name."""

MOST = 100
"""Largest number of structures in one list."""

_ALSO = {"veto": "gate"}
_TEXTS = ("channel", "meets", "called")
_CALL = re.compile(r"\s*([a-z_]+)\s*\((.*)\)\s*", re.DOTALL)
_EXAMPLES = "all_of(helpful,honest), gate(safe), gate(safe,threshold=0.5,factor=0.2) or only_where(style,correct)"


def build_structures(given: Any) -> tuple[Structure, ...]:
    """Return the structures of a list, of a single structure, or of a text. None gives no structures.

    Raises:
        ConfigError: a kind or option is unknown, or a value cannot work.
    """
    if given is None:
        return ()
    if isinstance(given, str):
        given = outside_brackets(given.replace("\n", " "), " ")
    if isinstance(given, Structure | Mapping):
        given = [given]
    if not isinstance(given, Sequence):
        raise ConfigError(f"structure is {given!r}; expected a list of {_EXAMPLES}")
    if len(given) > MOST:
        raise ConfigError(f"structure has {len(given)} parts; expected {MOST} at most")
    return tuple(build_structure(one) for one in given)


def build_structure(spelling: Any) -> Structure:
    """Return the structure of an object, a text or a mapping.

    Example:
        >>> build_structure("gate(safe)") == build_structure({"name": "gate", "channel": "safe"}) == Gate("safe")
        True

    Raises:
        ConfigError: the kind or an option is unknown, or a value cannot work.
    """
    if isinstance(spelling, Structure):
        return spelling
    if isinstance(spelling, str):
        kind, options = _read(spelling)
    elif isinstance(spelling, Mapping):
        options = {str(key): value for key, value in spelling.items()}
        kind = options.pop("name", None)
    else:
        raise ConfigError(f"structure holds {spelling!r}; expected {_EXAMPLES}")
    found = STRUCTURES.get(_ALSO.get(kind, kind)) if isinstance(kind, str) else None
    if found is None:
        known = [*STRUCTURES, *_ALSO]
        raise ConfigError(f"structure is {spelling!r}{did_you_mean(kind, known)}; expected {_EXAMPLES}")
    allowed = [option.name for option in fields(found)]
    if unknown := [key for key in options if key not in allowed]:
        raise unknown_option(f"structure {kind}", unknown[0], allowed)
    if kind in _ALSO and options.get("factor", 0) != 0:
        raise ConfigError(f"structure is {spelling!r}; expected no factor, because a veto is hard. Write gate(…)")
    try:
        return found(**options)
    except TypeError as error:
        raise ConfigError(f"structure is {spelling!r} ({error}); expected {_EXAMPLES}") from error


def _read(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``kind(a,b,option=value)`` into its kind and its options."""
    match = _CALL.fullmatch(text)
    if match is None:
        raise ConfigError(f"structure is {text[:200]!r}; expected {_EXAMPLES}")
    kind = match[1]
    found = STRUCTURES.get(_ALSO.get(kind, kind))
    first = found.positional.split(",") if found else []
    names: list[str] = []
    options: dict[str, Any] = {}
    for part in (part.strip() for part in outside_brackets(match[2], ",")):
        key, equals, value = part.partition("=")
        if part.startswith(('"', "-")) or not equals:
            names.append(_name(part))
            continue
        if not value.strip() or key.strip() in options:
            raise ConfigError(f"structure is {text!r}, and its part {part!r} is not option=value, each once")
        options[key.strip()] = _value(key.strip(), value.strip())
    # Names without an option come first: they are the parts, or fill the places in order.
    taken = first if first == ["parts"] and names else first[: len(names)]
    if twice := [option for option in taken if option in options]:
        raise ConfigError(f"structure is {text!r}, which has {twice[0]} twice; expected each option once")
    if first == ["parts"] and names:
        return kind, {"parts": names, **options}
    if len(names) > len(first) > 0:
        raise ConfigError(f"structure is {text!r}, with {len(names)} names; expected {len(first)}, as in {_EXAMPLES}")
    return kind, {**dict(zip(first, names, strict=False)), **options}


def _value(option: str, text: str) -> Any:
    if option in _TEXTS:
        return _name(text)
    if option in LISTS and text[:1] == "[" and text[-1:] == "]":
        return [_name(part.strip()) for part in outside_brackets(text[1:-1], ",")]
    return plain_value(text)


def _name(text: str) -> str:
    """Return the name of a channel. It is text even if it looks like a number."""
    sign = "-" if text[:2] == '-"' else ""
    quoted = text[len(sign) :]
    if quoted[:1] != '"':
        return text
    return sign + str(plain_value(quoted))
