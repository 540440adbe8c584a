"""JSON without the regular expressions that Python's ``json`` loads, which makes the start a third faster.

The private C code of ``json`` does the work. If it has changed, ``json`` itself is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any


class _Context:
    """The attributes that the C scanner needs."""

    strict, object_hook, object_pairs_hook = True, None, None
    parse_float, parse_int = float, int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}.__getitem__


def _by_json() -> tuple[Any, Any]:
    import json

    return json.loads, lambda value: json.dumps(value, separators=(",", ":"))


def _by_c() -> tuple[Any, Any]:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    scan = make_scanner(_Context())  # type: ignore[arg-type]

    def loads(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except StopIteration:
            raise ValueError("no value") from None
        if end != len(text):
            raise ValueError("more than one value")
        return value

    def default(value: Any) -> Any:
        raise TypeError(f"{type(value).__name__} is not JSON")

    encode = make_encoder(None, default, encode_basestring_ascii, None, ":", ",", False, False, True)
    return loads, lambda value: "".join(encode(value, 0))


def _working() -> tuple[Any, Any]:
    example = {"a": [1, -2.5, "\ud800\n", None, True]}
    try:
        loads, dumps = _by_c()
        if loads(dumps(example)) == example:
            return loads, dumps
    except (ImportError, TypeError, ValueError, AttributeError):
        pass
    return _by_json()


loads, dumps = _working()
