"""Compare the output of a program with the expected output, in the same way as benchmarks with input and output.

The strict rule is LiveCodeBench's (``grade_stdio`` in its ``lcb_runner/evaluation/testing_util.py``). White space
around the output and around each line is ignored. The number of lines must be equal. Each line must be equal as text,
or as exact decimal numbers: 1.0 equals 1, but 0.3 does not equal 0.30001.

The rule ``close`` is for the data of APPS, TACO and PRIME, whose own checks finally compare with ``numpy.allclose``.
Empty lines are ignored, too. Two numbers with a fraction or exponent are equal if they differ by at most 1e-8 plus 1e-5
times the expected number. Whole numbers must be equal. By accident, those checks also accept the lines in any order;
this module does not.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

MAX_SHOWN_CHARS = 80
MAX_DIGITS = 400  # maximum digits of a number; longer ones are compared as text
RELATIVE, ABSOLUTE = 1e-5, 1e-8


def difference_of(output: str, expected: str, *, close: bool = False) -> str | None:
    """Return a text about the first difference between two outputs; None if they are equal.

    Args:
        output: output of the program.
        expected: expected output.
        close: whether numbers only need to be close.

    Example:
        >>> difference_of("1.0\\n", "1"), difference_of("2", "1")
        (None, "line 1 is '2'; expected '1'")
    """
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
    """Return whether all words are numbers, and pairwise equal."""
    if len(words) != len(others):
        return False
    pairs = [(_number(word), _number(other)) for word, other in zip(words, others, strict=True)]
    return all(ours is not None and ours == wanted for ours, wanted in pairs)


def _close(words: list[str], others: list[str]) -> bool:
    """Return whether all words are pairwise the same text, the same number, or close numbers."""
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
