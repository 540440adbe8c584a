"""Checks of configs: a value that cannot work is refused when the config is built, with a message what would work."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from rvpo.core.channels import owner_of
from rvpo.core.lazy import Tensor
from rvpo.errors import ConfigError, RewardError
from rvpo.text.suggest import did_you_mean

T = TypeVar("T")


def build(cls: type[T], mapping: object, what: str) -> T:
    """Build a config dataclass from a mapping, refusing unknown keys by name.

    Raises:
        ConfigError: ``mapping`` is not a mapping, or has a key that ``cls`` does not have.
    """
    allowed = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{what}: {mapping!r} is not a mapping; expected one with the keys {', '.join(allowed)}")
    if unknown := [key for key in mapping if key not in allowed]:
        raise unknown_option(what, unknown[0], allowed)
    return cls(**mapping)


def unknown_option(what: str, key: object, allowed: Sequence[str]) -> ConfigError:
    """Return the error for a key that is not one of ``allowed``. It suggests the closest one."""
    return ConfigError(f"{what}: unknown key {key!r}{did_you_mean(key, allowed)}; expected one of {', '.join(allowed)}")


def require(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise ConfigError unless ``value`` is one of ``allowed``. True does not count as 1."""
    if isinstance(value, bool) or value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ConfigError(f"{name} is {value!r}; expected one of {choices}{did_you_mean(value, allowed)}")


def require_number(name: str, value: object, high: float, *, closed: bool = False) -> None:
    """Raise ConfigError unless ``value`` is a number in [0, high), or in [0, high] where ``closed``."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (0 <= value < high or (closed and value == high)):  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}; expected a number in [0, {high}{']' if closed else ')'}")


def require_known(option: str, named: Mapping[str, float], names: tuple[str, ...]) -> None:
    """Raise ConfigError if ``named`` has a channel that is neither one of ``names`` nor a label of a rubric there.

    If no prompt of a batch has a rubric, its labels are absent and its function represents them.
    """
    if unknown := [name for name in named if owner_of(name, names) is None]:
        raise ConfigError(f"{option} names the channel {unknown[0]!r}; expected one of {', '.join(names)}")


def require_positive(name: str, value: object) -> None:
    """Raise ConfigError unless ``value`` is a finite number above 0."""
    require_number(name, value, math.inf)
    if value == 0:
        raise ConfigError(f"{name} is 0; expected a number above 0")


def require_horizon(value: object) -> None:
    """Raise ConfigError unless ``value`` is a finite number >= 1."""
    require_number("horizon", value, math.inf)
    if not isinstance(value, (int, float)) or value < 1:
        raise ConfigError(f"horizon is {value!r}; expected a number of batches >= 1 (1: no memory)")


def check_lengths(**tensors: Tensor) -> None:
    """Raise RewardError unless all tensors are (K,), with the same K."""
    if len({tensor.shape for tensor in tensors.values()}) > 1 or any(t.ndim != 1 for t in tensors.values()):
        seen = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise RewardError(
            f"shapes differ or are not (K,): {seen}. Pass one value per channel of the state, and start a new state "
            "when the channels change"
        )


_CALL = re.compile(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


def call_text(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Split ``name(1,2,key=3)`` into name, positional values and named values. The name is "" for other texts.

    >>> call_text("adaptive(0.5, k_max=10)")
    ('adaptive', [0.5], {'k_max': 10})

    Raises:
        ConfigError: a value is blank, such as the first one of ``linear(,2)``, or a name is given twice.
    """
    match = _CALL.fullmatch(text)
    if match is None:
        return "", [], {}
    positional: list[Any] = []
    named: dict[str, Any] = {}
    parts = outside_brackets(match[2] or "", ",", blank=True)
    if not parts[-1].strip():  # a comma after the last value, or no values
        parts.pop()
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not part.strip() or (equals and not value):
            raise ConfigError(f"{text!r} has a blank value; expected a value at each place, as in linear(0.2,1)")
        if equals and key in named:
            raise ConfigError(f"{text!r} has {key!r} twice; expected each option once")
        if equals:
            named[key] = plain_value(value)
        else:
            positional.append(plain_value(part))
    return match[1], positional, named


def plain_value(text: str, depth: int = 0) -> Any:
    """Read a value of an option: number, true, false, null, ``[a,b]``, ``{key:value}``. Anything else is text.

    >>> plain_value("{format:0.9, safe:1}")
    {'format': 0.9, 'safe': 1}

    Raises:
        ConfigError: a bracket does not close, a key is given twice, or there are more than 8 nested brackets.
    """
    text = text.strip()
    if depth > 8:
        raise ConfigError(f"{text[:40]!r} has more than 8 nested brackets; expected a value such as 2 or {{a:0.5}}")
    words = {"true": True, "false": False, "null": None}  # not "none", which is a value of whiten
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            parsed = number(text)
            float(parsed)  # raises for an integer beyond 1.8e308
        except ValueError:
            continue
        except OverflowError:
            raise ConfigError(f"{text[:40]}… has {len(text)} digits; expected a number below 1.8e308") from None
        return parsed
    if text[:1] == '"':
        try:
            return json.loads(text)
        except ValueError as error:
            raise ConfigError(f'{text!r} is not a quoted text ({error}); expected one such as "a:b"') from error
    if text[:1] == "[" and text[-1:] == "]":
        return [plain_value(part, depth + 1) for part in outside_brackets(text[1:-1], ",")]
    if text[:1] == "{" and text[-1:] == "}":
        values: dict[str, Any] = {}
        for part in outside_brackets(text[1:-1], ","):
            key, *value = outside_brackets(part, ":", most=1)
            name = str(plain_value(key, depth + 1)) if key.strip()[:1] == '"' else key.strip()
            if not value or not name or name in values:
                raise ConfigError(f"{text!r} contains {part.strip()!r}; expected key:value, each key once")
            values[name] = plain_value(value[0], depth + 1)
        return values
    if text[:1] in tuple("[{") or text[-1:] in tuple("]}"):
        raise ConfigError(f"{text!r} has a bracket that does not close; expected [a,b] or {{key:value}}")
    return text


def outside_brackets(text: str, mark: str, most: int | None = None, blank: bool = False) -> list[str]:
    """Split a text at marks outside of brackets and double quotes.

    Args:
        text: the text to split.
        mark: a single character.
        most: largest number of splits.
        blank: whether blank parts are kept. They are left out otherwise.
    """
    parts, depth, quoted, escaped = [""], 0, False, False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        else:
            before = parts[-1].rstrip()[-1:]  # a quote inside a word is an ordinary character
            quoted = character == '"' and (not before or before in "[{(:,=")
            depth += (character in "[{(") - (character in "]})")
        if character == mark and depth <= 0 and not quoted and (most is None or len(parts) <= most):
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if blank or part.strip()]
