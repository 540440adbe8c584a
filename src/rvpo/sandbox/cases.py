"""Single cases of benchmarks: calls of a function, lists and JSON in columns, and LiveCodeBench's packed texts."""

from __future__ import annotations

import base64
import binascii
import builtins
import json
import pickletools
import zlib
from collections.abc import Sequence
from typing import Any

from rvpo.errors import DataError
from rvpo.sandbox.granted import GRANTED
from rvpo.sandbox.outcomes import Test

MAX_BYTES = 256 << 20  # of LiveCodeBench's packed tests, once unpacked

_CALL = """
import json as _json
_args, _wanted = _json.loads({data})
try:
    _class = Solution
except NameError:
{function}
else:
    _function = _class().{name}
{compared}
"""
_PLAIN = "    _function = {name}"
# Of a function that is named like one of Python's own, such as `sum`: a program that defines none fails.
_OWN = """\
    try:
        _function = _program_{name}
    except NameError:  # a server, where test and program share one process
        _function = {name}"""
STRICT = """
_got = _function(*_args)
assert (list(_got) if isinstance(_got, tuple) else _got) == _wanted, "another result"
"""
"""LiveCodeBench: a tuple is as good as a list, where it is the result itself."""
LENIENT = """
def _int_keys(_value):
    try:
        return {int(_key): _item for _key, _item in _value.items()}
    except (ValueError, AttributeError):
        return _value
def _plain(_value):
    return [_plain(_item) for _item in _value] if isinstance(_value, (list, tuple)) else _value
def _is_right(_got, _right):
    _first = _int_keys(_right[0]) if isinstance(_right, list) and _right else _right
    return _got == _right or _got == _int_keys(_right) or _got == _first
_got = _plain(_function(*[_int_keys(_value) for _value in _args]))
assert any([_is_right(_got, _right) for _right in _wanted]), "another result"
"""
"""APPS, PRIME: so are tuples within; the result may lie in a list; and JSON has made texts of the keys of mappings.
What is wanted is a list of results that are right: see :func:`results`."""


def called(name: str, function: str, args: list[Any], wanted: Any, compared: str) -> Test:
    """Return a test that calls a function, or a method of ``Solution``, and compares what it returns.

    Raises:
        DataError: arguments or result are no JSON.
    """
    try:
        data = repr(json.dumps([args, wanted]))
    except (TypeError, ValueError, RecursionError):
        raise DataError(f"{name} holds what is no JSON; expected plain values: correct the row") from None
    found = (_OWN if hasattr(builtins, function) else _PLAIN).format(name=function)
    code = _CALL.format(data=data, name=function, function=found, compared=compared)
    return Test(name, "call", code=code, setup=GRANTED)


def arguments(given: Any) -> list[Any]:
    """Return the arguments of a call: a list, or lines of JSON."""
    if not isinstance(given, str):
        return as_list(given, "an input of a function")
    return [loaded(line, "inputs") for line in given.strip().split("\n")]


def results(given: Any, wanted: Any) -> list[Any]:
    """Return the results of a call that are right.

    Args:
        given: the input: a list of values, as in APPS and TACO, or lines of JSON, as in PRIME.
        wanted: the output. With lines of JSON it is JSON, too. With values it is a value, so that "21" is a text, as
            these benchmarks have it; the number is accepted as well, because some files mix both ways of writing.
    """
    if not isinstance(wanted, str):
        return [wanted]
    if isinstance(given, str):
        return [loaded(wanted, "outputs")]
    try:
        return [wanted, json.loads(wanted)]
    except (ValueError, RecursionError):
        return [wanted]


def as_list(value: Any, what: str) -> list[Any]:
    """Return a list, or an array of parquet as one; DataError where it is neither."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"{what} is a {type(value).__name__}; expected a list: correct the row")
    return list(value)


def loaded(text: str, column: str) -> Any:
    """Return the value of JSON; DataError where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"column {column!r} holds {text[:60]!r}, not JSON; expected JSON: correct it") from None


def unpacked(value: str, column: str) -> str:
    """Return the text in base64 of zlib of a pickle of a text, as LiveCodeBench packs it; nothing is unpickled."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(value, validate=True), MAX_BYTES)
        if unpacker.unconsumed_tail:
            raise DataError(f"column {column!r} holds more than {MAX_BYTES} bytes; expected fewer: drop the row")
        texts = []
        for code, argument, _ in pickletools.genops(data):
            if code.name in ("BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"):
                texts.append(str(argument))
            elif code.name not in ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"):
                raise ValueError(code.name)
        [text] = texts
    except (binascii.Error, zlib.error, ValueError, UnicodeDecodeError) as error:
        raise DataError(
            f"column {column!r} is neither JSON nor LiveCodeBench's packed text ({type(error).__name__}); expected one "
            "of them: correct it"
        ) from None
    return text
