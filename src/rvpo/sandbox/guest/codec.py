"""Values between the process of the test and that of the program, as JSON: no pickle, so reading one runs nothing.

Plain values are copied: None, bool, int, float, complex, str, bytes, and list, tuple, dict, set and frozenset of such.
Anything else, subclasses of these among them, stays where it is and is known to the other side by a number. Depth is
bounded, so that a value that holds itself, or a hostile message, costs no more than an error.
"""

from __future__ import annotations

from collections.abc import Callable

from . import text

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any

MAX_DEPTH = 60
MAX_BYTES = 32 << 20


class MalformedError(Exception):
    """A message that is none."""


def encode(value: Any, export: Callable[[Any], Any], depth: int = 0) -> Any:
    """Return a JSON value; ``export(object)`` gives the tagged form of what is not copied."""
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
    return export(value)


_COLLECTIONS: dict[type, str] = {tuple: "t", set: "s", frozenset: "z"}


def decode(value: Any, resolve: Callable[[str, Any], Any], depth: int = 0) -> Any:
    """Return the value of what :func:`encode` wrote; ``resolve(tag, number)`` returns what is not copied."""
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
    """Return a message; MalformedError where it is not one."""
    try:
        message = text.loads(str(data, "ascii"))
    except (ValueError, RecursionError):
        raise MalformedError("not JSON") from None
    if not isinstance(message, dict):
        raise MalformedError("not a message")
    return message
