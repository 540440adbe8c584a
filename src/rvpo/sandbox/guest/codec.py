"""Send values between the process of the test and the process of the program as JSON, so that reading runs no code.

Plain values are copied: None, bool, int, float, complex, str, bytes, range, and list, tuple, dict, set and frozenset of
these. Built-in classes are sent by name. All other objects, including subclasses of these types, stay in their process,
and the other side knows them by a number. Depth is bounded, so that a value that contains itself, or a hostile message,
only gives an error.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable

from . import text

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any

MAX_DEPTH = 60
MAX_BYTES = 32 << 20


class MalformedError(Exception):
    """A message that does not follow the protocol."""


def encode(value: Any, export: Callable[[Any], Any], depth: int = 0) -> Any:
    """Return a value as JSON. ``export(object)`` returns the tagged form of an object that is not copied."""
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str or kind is float:
        return value
    if kind is int:
        return value if -(1 << 60) < value < 1 << 60 else {"i": hex(value)}
    if depth < MAX_DEPTH:
        if kind is list:
            return [encode(item, export, depth + 1) for item in value]
        if kind is dict:
            return {"d": [[encode(k, export, depth + 1), encode(v, export, depth + 1)] for k, v in value.items()]}
        if kind in _COLLECTIONS:
            return {_COLLECTIONS[kind]: [encode(item, export, depth + 1) for item in value]}
    if kind is complex:
        return {"c": [value.real, value.imag]}
    if kind is bytes or kind is bytearray:
        return {"b" if kind is bytes else "y": value.hex()}
    if kind is range:
        return {"g": [encode(part, export) for part in (value.start, value.stop, value.step)]}
    name = getattr(value, "__name__", "") if kind is type else ""
    if isinstance(name, str) and name and getattr(builtins, name, None) is value:
        return {"n": name}
    return export(value)


_COLLECTIONS: dict[type, str] = {tuple: "t", set: "s", frozenset: "z"}


def decode(value: Any, resolve: Callable[[str, Any], Any], depth: int = 0) -> Any:
    """Return the value that :func:`encode` encoded. ``resolve(tag, number)`` returns an object that is not copied."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth > 2 * MAX_DEPTH:
        raise MalformedError("too deep")
    if isinstance(value, list):
        return [decode(item, resolve, depth + 1) for item in value]
    if not isinstance(value, dict) or len(value) != 1:
        raise MalformedError("not a value")
    [(tag, inside)] = value.items()
    try:
        if tag == "d":
            return {decode(k, resolve, depth + 1): decode(v, resolve, depth + 1) for k, v in inside}
        if tag == "i":
            return int(inside, 16)
        if tag == "c":
            return complex(*inside)
        if tag == "g":
            return range(*(decode(part, resolve, depth + 1) for part in inside))
        if tag == "n" and isinstance(found := getattr(builtins, inside, None), type):
            return found
        if tag in ("b", "y"):
            return (bytes if tag == "b" else bytearray).fromhex(inside)
        for base, name in _COLLECTIONS.items():
            if tag == name:
                return base(decode(item, resolve, depth + 1) for item in inside)
    except (TypeError, ValueError) as error:
        raise MalformedError(str(error)) from None
    return resolve(tag, inside)


def dump(message: Any) -> bytes:
    """Return the bytes of a message."""
    return bytes(text.dumps(message), "ascii")


def load(data: bytes) -> dict[str, Any]:
    """Return a message. Raises MalformedError if the bytes are not a message."""
    try:
        message = text.loads(str(data, "ascii"))
    except (ValueError, RecursionError):
        raise MalformedError("not JSON") from None
    if not isinstance(message, dict):
        raise MalformedError("not a message")
    return message
