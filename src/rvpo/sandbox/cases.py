"""Read single cases of benchmarks: calls of a function, lists and JSON in columns, LiveCodeBench's packed texts."""

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

MAX_BYTES = 256 << 20  # maximum size of LiveCodeBench's packed tests after unpacking

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
# For a function with the name of a built-in, such as `sum`. A program that does not define it fails.
_OWN = """\
    try:
        _function = _program_{name}
    except NameError:  # a server, where test and program share one process
        _function = {name}"""
STRICT = """
_got = _function(*_args)
assert (list(_got) if isinstance(_got, tuple) else _got) == _wanted, "another result"
"""
"""Comparison of LiveCodeBench: a tuple equals a list if it is the result itself."""
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
"""Comparison of APPS and PRIME: tuples inside the result equal lists, too; the result may be inside a list; keys of
mappings may be texts, because JSON turns them into texts. The expected value is a list of right results, see
:func:`results`."""


def called(name: str, function: str, args: list[Any], wanted: Any, compared: str) -> Test:
    """Return a test that calls a function, or a method of ``Solution``, and compares its result.

    Args:
        name: name of the test.
        function: name of the function or method.
        args: arguments of the call.
        wanted: expected result.
        compared: code of the comparison, :data:`STRICT` or :data:`LENIENT`.

    Raises:
        DataError: arguments or result are not plain JSON values.
    """
    try:
        data = repr(json.dumps([args, wanted]))
    except (TypeError, ValueError, RecursionError):
        raise DataError(f"{name} has a value that is not JSON; expected plain values. Correct the row") from None
    found = (_OWN if hasattr(builtins, function) else _PLAIN).format(name=function)
    code = _CALL.format(data=data, name=function, function=found, compared=compared)
    return Test(name, "call", code=code, setup=GRANTED)


def arguments(given: Any) -> list[Any]:
    """Return the arguments of a call. They are given as a list or as lines of JSON."""
    if not isinstance(given, str):
        return as_list(given, "an input of a function")
    return [loaded(line, "inputs") for line in given.strip().split("\n")]


def results(given: Any, wanted: Any) -> list[Any]:
    """Return all right results of a call.

    Args:
        given: input: a list of values, as in APPS and TACO, or lines of JSON, as in PRIME.
        wanted: output. For lines of JSON, it is JSON, too. For values, it is a value, so "21" is a text in these
            benchmarks. The number 21 is accepted, too, because some files mix both forms.
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
    """Return a list, or an array of parquet as a list.

    Raises:
        DataError: the value is neither.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"{what} is a {type(value).__name__}; expected a list. Correct the row")
    return list(value)


def loaded(text: str, column: str) -> Any:
    """Parse JSON in a column.

    Raises:
        DataError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"column {column!r} is {text[:60]!r}, which is not JSON; expected JSON. Correct it") from None


def unpacked(value: str, column: str) -> str:
    """Return a text that LiveCodeBench packed: base64 of zlib of a pickle of a text. Nothing is unpickled.

    Raises:
        DataError: the value is not such a packed text, or is too large.
    """
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(value, validate=True), MAX_BYTES)
        if unpacker.unconsumed_tail:
            raise DataError(f"column {column!r} has more than {MAX_BYTES} bytes; expected fewer. Drop the row")
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
            "of them. Correct it"
        ) from None
    return text
