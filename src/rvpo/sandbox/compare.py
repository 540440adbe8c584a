"""Whether the output of a program is the expected one, as the benchmarks of programs with input and output decide it.

The strict rule is LiveCodeBench's (``grade_stdio`` in its ``lcb_runner/evaluation/testing_util.py``): white space
around the output and around each line is left out, the number of lines must be equal, and each line must be equal as
text, or as decimal numbers, exactly: 1.0 is 1, and 0.3 is not 0.30001.

The other one, ``close``, is for the data of APPS, TACO and PRIME, whose own checks compare with ``numpy.allclose`` in
the end: empty lines are left out, too, and two numbers with a fraction or exponent are equal within 1e-8 + 1e-5 times
the expected one. Whole numbers must be equal. Those checks also accept the lines in any order, by accident; we do not.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

MAX_SHOWN_CHARS = 80
MAX_DIGITS = 400  # of a number; longer ones are compared as text
RELATIVE, ABSOLUTE = 1e-5, 1e-8


def difference_of(output: str, expected: str, *, close: bool = False) -> str | None:
    """Return None where two outputs are equal, else what differs first."""
    ours, wanted = _lines(output, close), _lines(expected, close)
    if len(ours) != len(wanted):
        return f"{len(ours)} lines; expected {len(wanted)}"
    equal = _close if close else _equal
    for number, (line, other) in enumerate(zip(ours, wanted, strict=True), 1):
        if line != other and not equal(line.split(), other.split()):
            return f"line {number} is {line[:MAX_SHOWN_CHARS]!r}; expected {other[:MAX_SHOWN_CHARS]!r}"
    return None


def _lines(text: str, close: bool) -> list[str]:
    lines = [line.strip() for line in text.strip().split("\n")]
    return [line for line in lines if line] if close else lines


def _equal(words: list[str], others: list[str]) -> bool:
    """Whether all are numbers, and the same ones."""
    if len(words) != len(others):
        return False
    pairs = [(_number(word), _number(other)) for word, other in zip(words, others, strict=True)]
    return all(ours is not None and ours == wanted for ours, wanted in pairs)


def _close(words: list[str], others: list[str]) -> bool:
    """Whether each is the same text, the same number, or one that is close."""
    if len(words) != len(others):
        return False
    return all(word == other or _close_words(word, other) for word, other in zip(words, others, strict=True))


def _close_words(word: str, other: str) -> bool:
    ours, wanted = _number(word), _number(other)
    if ours is None or wanted is None:
        return False
    if ours == wanted:
        return True
    if all(text.lstrip("+-").isdecimal() for text in (word, other)):
        return False
    first, second = float(ours), float(wanted)
    return math.isfinite(first) and math.isfinite(second) and abs(first - second) <= ABSOLUTE + RELATIVE * abs(second)


def _number(word: str) -> Decimal | None:
    if len(word) > MAX_DIGITS:
        return None
    try:
        value = Decimal(word)
    except InvalidOperation:
        return None
    return None if value.is_nan() else value
