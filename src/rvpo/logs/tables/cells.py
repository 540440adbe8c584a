"""Read the cells of a table as numbers, in all forms in which programs write numbers.

A cell is a number, missing, or text. Missing are null, NaN, and words with that meaning. A number may be written as
text (``"0.5"``, ``"np.float64(0.5)"``, ``"tensor([0.5])"``), as a decimal, or as a list or array with one number.
Infinity stays infinity: readers refuse it with the name of its channel.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from rvpo.files import sound
from rvpo.text.quoting import quoted

MISSING_WORDS = frozenset(("", "nan", "null", "none", "na", "n/a", "<na>", "nil", "undefined", "missing", "nat"))
INFINITE_WORDS = {"inf": math.inf, "infinity": math.inf}
SCORE_WORDS = frozenset(("yes", "no", "pass", "fail", "passed", "failed", "correct", "incorrect", "right", "wrong"))
"""Words that are scores, but not numbers."""
LONGEST_NUMBER = 120  # characters; a longer text is text
EXACT = 2**53  # larger integers are ids, and float64 cannot distinguish neighbours

_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_LIKE_NUMBER = re.compile(r"[+-]?\d[\d.,' \u00a0\u202f]*\s*(?:%|/\s*\d+)?")
_OPTION_OF_TENSOR = re.compile(r",\s*(?:device|dtype|grad_fn|requires_grad)=[^,()\]]*(?:\(\))?>?")
_WRAPPED = re.compile(r"(?:[A-Za-z_][\w.]*)?[(\[]{1,3}\s*['\"]?([^\s,'\"()\[\]]+)['\"]?\s*,?\s*[)\]]{1,3}")


class Absent:
    """The type of :data:`ABSENT`."""


ABSENT = Absent()
"""Marks a row that does not have the column; different from null."""


@dataclass
class Cells:
    """One column of a part of a table.

    Attributes:
        numbers: (N,) float64, NaN where missing or text.
        texts: N texts, None if the cell was not a text; None: no cell was a text.
        flags: count of cells that were true or false.
        missing: count of cells without a value, including absent ones.
        absent: count of rows that do not have the column.
        as_text: count of numbers that were written as text.
        odd: count of cells with text that is not a number.
        first_odd: index and text of the first of them.
        scores: count of those that look like scores: "85%", "0,5", "pass".
    """

    numbers: npt.NDArray[np.float64]
    texts: list[str | None] | None = None
    flags: int = 0
    missing: int = 0
    absent: int = 0
    as_text: int = 0
    odd: int = 0
    first_odd: tuple[int, str] | None = None
    scores: int = 0


def read_cells(values: list[Any]) -> Cells:
    """Read the cells of a column, which may contain any value of JSON, Arrow or CSV."""
    kinds = set(map(type, values))
    if kinds <= {float, int, type(None)}:
        try:
            return _only_numbers(values, kinds)
        except OverflowError:
            pass
    cells = Cells(np.full(len(values), np.nan))
    texts: list[str | None] = [None] * len(values)
    for row, value in enumerate(values):
        _read_cell(value, row, cells, texts)
    cells.texts = texts if any(text is not None for text in texts) else None
    return cells


def _only_numbers(values: list[Any], kinds: set[type]) -> Cells:
    if type(None) in kinds:
        values = [math.nan if value is None else value for value in values]
    numbers = np.array(values, dtype=np.float64)
    cells = Cells(numbers, missing=int(np.isnan(numbers).sum()))
    if int in kinds and bool((np.abs(numbers) >= EXACT).any()):
        cells.texts = [str(value) if isinstance(value, int) and abs(value) >= EXACT else None for value in values]
    return cells


def _read_cell(value: Any, row: int, cells: Cells, texts: list[str | None]) -> None:
    if value is ABSENT:
        cells.absent += 1
        cells.missing += 1
        return
    number, text = number_of(value)
    if number is None:
        texts[row] = text
        cells.odd += 1
        cells.scores += text is not None and _is_score(text)
        cells.first_odd = cells.first_odd or (row, quoted(text or "", 40))
        return
    cells.numbers[row] = number
    if math.isnan(number):
        cells.missing += 1
        return
    if text is not None:
        texts[row] = text
        cells.as_text += isinstance(value, str)
    cells.flags += isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def number_of(value: Any) -> tuple[float | None, str | None]:
    """Return a cell's number (NaN if missing, None if it is text) and its text (None if it was a number)."""
    if value is None:
        return math.nan, None
    if isinstance(value, str):
        return number_of_text(value), sound(value)
    if isinstance(value, bool | int | float | Decimal):
        try:
            number = float(value)
        except OverflowError:
            return None, f"an integer of {value.bit_length() if isinstance(value, int) else 0} bits"
        exact = not isinstance(value, int) or abs(value) < EXACT
        return number, None if exact else str(value)
    if isinstance(value, list | tuple) and len(value) == 1 and not isinstance(value[0], str | dict):
        return number_of(value[0]) if not isinstance(value[0], list | tuple) else (None, text_of(value))
    return None, text_of(value)


def number_of_text(text: str) -> float | None:
    """Return the number in a text, NaN for a word that means "missing", None if it is not a number."""
    if len(text) > LONGEST_NUMBER:
        return None
    word = text.strip()
    if _PLAIN.fullmatch(word):
        return float(word)
    lower = word.lower()
    if lower in MISSING_WORDS:
        return math.nan
    if lower in ("true", "false"):
        return float(lower == "true")
    if lower.lstrip("+-") in INFINITE_WORDS:
        return -math.inf if lower.startswith("-") else math.inf
    wrapped = _WRAPPED.fullmatch(_OPTION_OF_TENSOR.sub("", word))
    return number_of_text(wrapped[1]) if wrapped else None


def _is_score(text: str) -> bool:
    """Whether a text that is not read as a number looks like a score."""
    if len(text) > LONGEST_NUMBER:
        return False
    word = text.strip().lower()
    return word in SCORE_WORDS or bool(_LIKE_NUMBER.fullmatch(word))


def text_of(value: Any) -> str:
    """Return a text unchanged, anything else (a chat) as JSON."""
    if isinstance(value, str):
        return sound(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        return sound(json.dumps(value, ensure_ascii=False, default=str))
    except (ValueError, RecursionError):
        return "(a value that is nested too deeply)"
