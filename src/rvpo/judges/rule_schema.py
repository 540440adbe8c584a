"""Validate hostile text against JSON schemas with bounded work.

The ``jsonschema`` library evaluates a recursive ``oneOf`` once more on each level, 2^depth times in total, and compares
the items of a list in quadratic time. Here each keyword, including ``allOf`` and ``$ref``, is applied at most once to
each value and only up to its first error. Every application is a step of :class:`rvpo.judges.rule_limits.Work`.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jsonschema
import regex
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from rvpo.errors import ConfigError
from rvpo.judges.rule_limits import Work

MAX_JSON_CHARS = 65_536  # a longer text does not fit any schema
MAX_DIGITS = 300  # maximum digits of a number, so that it fits into a float and arithmetic does not overflow

Keyword = Callable[[Any, Any, Any, Any], Any]
Key = tuple[str, int, int]


class _Validation(threading.local):
    """The current validation of a thread.

    Attributes:
        work: work that is left for it.
        known: keyword, schema and value -> whether the keyword holds. The mapping is None if that depends on the path.
        kept: schemas and values whose identities are keys.
    """

    def __init__(self) -> None:
        self.work: Work | None = None
        self.known: dict[Key, bool] | None = None
        self.kept: list[Any] = []


_here = _Validation()


def compile_schema(schema: Any) -> Callable[[str, Work], bool]:
    """Return a function that checks whether a text is JSON that fits a schema.

    The function raises TimeoutError if the check takes too much work.

    Raises:
        ConfigError: the schema is invalid, has an unknown reference, or uses ``patternProperties``.
    """
    if not isinstance(schema, dict):
        raise ConfigError(f"rule has json_schema={schema!r}; expected a JSON schema such as {{'type': 'object'}}")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"rule has an invalid json_schema ({error.message}). Correct it") from error
    # A separate registry, because the default one fetches references from the network.
    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    dynamic = False
    for key, value in _walk(schema):
        if key == "patternProperties":
            raise ConfigError(
                "rule has a json_schema with patternProperties, which cannot be limited in time; expected properties. "
                "Name the properties"
            )
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            dynamic |= key == "$dynamicRef"
            try:
                resolver.lookup(value)
            except Unresolvable as error:
                raise ConfigError(
                    f"rule has a json_schema with {key}={value!r}; expected a reference to a part of the schema"
                ) from error
    validator = _Validator(schema, registry=Registry())

    def holds(text: str, work: Work) -> bool:
        try:
            value = parse_json(text)
        except (ValueError, RecursionError):  # not JSON, or nested too deeply
            return False
        _here.work, _here.known, _here.kept = work, None if dynamic else {}, []
        try:
            return bool(validator.is_valid(value))
        except RecursionError as error:
            raise TimeoutError("nested too deeply for this schema") from error
        finally:
            _here.work, _here.known, _here.kept = None, None, []

    return holds


def _walk(schema: Any) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        yield str(key), value
        if isinstance(value, dict | list):
            yield from _walk(value)


def parse_json(text: str) -> Any:
    """Parse a text that is JSON, bare or in a code fence.

    Raises:
        ValueError: the text is not JSON, is too long, or has a number that is too large.
        RecursionError: the text is nested too deeply.
    """
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[text.index("\n") : -3]
    if len(text) > MAX_JSON_CHARS:
        raise ValueError("too long")
    return json.loads(text, parse_int=_whole, parse_float=_fraction, parse_constant=_refuse)


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _fraction(digits: str) -> float:
    # In JSON Schema, 1.0 is a whole number. As an int, it also has the same text as 1, for uniqueItems.
    if not math.isfinite(number := float(digits)):
        raise ValueError("out of range")
    return int(number) if number.is_integer() else number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def pattern_of(key: str, text: str) -> regex.Pattern[str]:
    """Compile a pattern of a rule.

    Raises:
        ConfigError: the pattern is not a regular expression. The message has the name of the check.
    """
    try:
        return regex.compile(text)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"rule has {key}={text!r}; expected a regular expression ({error}). Correct it") from error


def _bounded_pattern(_: Any, pattern: str, instance: object, __: Any) -> Iterator[jsonschema.ValidationError]:
    assert _here.work is not None
    if isinstance(instance, str) and not _here.work.found(pattern_of("pattern", pattern), instance):
        yield jsonschema.ValidationError("pattern")


def _linear_unique(_: Any, unique: bool, instance: object, __: Any) -> Iterator[jsonschema.ValidationError]:
    if unique and isinstance(instance, list):
        written = {json.dumps(item, sort_keys=True) for item in instance}
        if len(written) < len(instance):
            yield jsonschema.ValidationError("uniqueItems")


def _once(keyword: str, check: Keyword) -> Keyword:
    """Wrap a keyword of the library: it uses one step, and is evaluated once per schema and value."""

    kinds = next((kinds for kinds, names in _KINDS.items() if keyword in names.split()), None)

    def asked_once(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
        if kinds is not None and not isinstance(instance, kinds):
            return  # a keyword for another type does not apply to this value
        assert _here.work is not None
        _here.work.step()
        known, key = _here.known, (keyword, id(schema), id(instance))
        holds = known.get(key) if known is not None else None
        if holds is None:
            holds = next(iter(check(validator, value, instance, schema) or ()), None) is None
            if known is not None:
                known[key] = holds
                _here.kept.append((schema, instance))  # kept alive, so that no other object gets the same identity
        if not holds:
            yield jsonschema.ValidationError(keyword)

    return asked_once


_KINDS: dict[type | tuple[type, ...], str] = {
    list: "items prefixItems contains uniqueItems minItems maxItems unevaluatedItems",
    dict: "properties required additionalProperties propertyNames minProperties maxProperties dependentRequired "
    "dependentSchemas unevaluatedProperties",
    str: "pattern minLength maxLength",
    (int, float): "multipleOf minimum maximum exclusiveMinimum exclusiveMaximum",
}
_KEYWORDS = {
    **jsonschema.Draft202012Validator.VALIDATORS,
    # The library's own checks for these two take exponential and quadratic time on hostile text.
    "pattern": _bounded_pattern,
    "uniqueItems": _linear_unique,
}
_Validator = extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {keyword: _once(keyword, check) for keyword, check in _KEYWORDS.items()}
)
