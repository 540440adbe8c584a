"""Checks that configs share: a value that cannot work is refused when the config is built, with what would."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TypeVar

from rvpo.errors import ConfigError
from rvpo.text.suggest import did_you_mean

T = TypeVar("T")


def build(cls: type[T], mapping: object, what: str) -> T:
    """Build a config dataclass from a mapping, refusing unknown keys by name.

    Raises:
        ConfigError: when ``mapping`` is no mapping, or has a key that ``cls`` does not.
    """
    allowed = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{what}: {mapping!r} is not a mapping with the keys {', '.join(allowed)}")
    if unknown := [key for key in mapping if key not in allowed]:
        raise unknown_option(what, unknown[0], allowed)
    return cls(**mapping)


def unknown_option(what: str, key: object, allowed: Sequence[str]) -> ConfigError:
    """Return the error for a key that is not one of ``allowed``, with the closest of them."""
    return ConfigError(f"{what}: unknown key {key!r}{did_you_mean(key, allowed)}; allowed are {', '.join(allowed)}")


def require(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise ConfigError unless ``value`` is one of ``allowed`` (True is not taken for 1)."""
    if isinstance(value, bool) or value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ConfigError(f"{name} is {value!r}, allowed are {choices}{did_you_mean(value, allowed)}")


def require_number(name: str, value: object, high: float, *, closed: bool = False) -> None:
    """Raise ConfigError unless ``value`` is a number in [0, high), or in [0, high] where ``closed``."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (0 <= value < high or (closed and value == high)):  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}, allowed is a number in [0, {high}{']' if closed else ')'}")


def require_positive(name: str, value: object) -> None:
    """Raise ConfigError unless ``value`` is a finite number above 0."""
    require_number(name, value, math.inf)
    if value == 0:
        raise ConfigError(f"{name} is 0, allowed is a number above 0")


def require_horizon(value: object) -> None:
    """Raise ConfigError unless ``value`` is a finite number >= 1."""
    require_number("horizon", value, math.inf)
    if not isinstance(value, (int, float)) or value < 1:
        raise ConfigError(f"horizon is {value!r}, allowed is a number of batches >= 1 (1: no memory)")
