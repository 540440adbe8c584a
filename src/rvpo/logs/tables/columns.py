"""Facts about a column: its kind, and how many of its cells are numbers, missing, or neither."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rvpo.logs.tables.cells import Cells

MUCH_IS_ODD = 0.1  # share of the cells with a value
MOSTLY_TEXT = 0.5  # share of the cells; for a column whose numbers are all written as text


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: dotted name, such as ``rewards.format``.
        kind: ``"number"``, ``"flag"`` (only true and false), ``"text"`` or ``"empty"`` (no value at all).
        numbers: count of cells with a number or a flag.
        missing: count of cells without a value: null, "", "NaN", absent.
        odd: count of cells that are not numbers, in a column of numbers.
        odd_example: place and text of the first of them.
        example: text of the first cell that is not a number, also in a column of texts.
        scores: count of texts that look like scores: "85%", "0,5", "pass".
        absent: count of rows that do not have the column at all.
        absent_files: count of files that do not have the column at all.
        as_text: count of numbers that were written as text; in CSV all of them are.
        whole: whether every number is an integer.
        low: lowest number; NaN without numbers.
        high: highest number; NaN without numbers.
        repeated: whether a value belongs to a whole record and was repeated for its completions.
        doubt: why the column must not be treated as a reward unless the user names it; empty without doubt.
    """

    name: str
    kind: str
    numbers: int = 0
    missing: int = 0
    odd: int = 0
    odd_example: str = ""
    example: str = ""
    scores: int = 0
    absent: int = 0
    absent_files: int = 0
    as_text: int = 0
    whole: bool = False
    low: float = math.nan
    high: float = math.nan
    repeated: bool = False
    doubt: str = ""

    @property
    def numeric(self) -> bool:
        """Whether the column has numbers or flags."""
        return self.kind in ("number", "flag")


@dataclass
class Seen:
    """What was seen of a column so far; becomes a :class:`Column`."""

    name: str
    rows: int = 0
    files: int = 0
    numbers: int = 0
    flags: int = 0
    missing: int = 0
    absent: int = 0
    as_text: int = 0
    odd: int = 0
    odd_example: str = ""
    example: str = ""
    scores: int = 0
    whole: bool = True
    low: float = math.inf
    high: float = -math.inf

    @property
    def filled(self) -> int:
        """Count of rows that have the column, including null."""
        return self.rows - self.absent

    def add(self, cells: Cells, where: str = "") -> None:
        """Count the cells of a part; ``where`` names the first odd one."""
        numbers = cells.numbers[~np.isnan(cells.numbers)]
        self.rows += len(cells.numbers)
        self.numbers += len(numbers)
        self.flags += cells.flags
        self.missing += cells.missing
        self.absent += cells.absent
        self.as_text += cells.as_text
        self.odd += cells.odd
        self.scores += cells.scores
        if cells.first_odd and not self.odd_example:
            self.odd_example, self.example = f"{where}: {cells.first_odd[1]}", cells.first_odd[1]
        if len(numbers):
            self.low = min(self.low, float(numbers.min()))
            self.high = max(self.high, float(numbers.max()))
            self.whole = self.whole and bool((numbers == np.floor(numbers)).all())

    def column(self, rows: int, files: int, repeated: bool, doubt: str) -> Column:
        """Return the column, of a table of ``rows`` rows in ``files`` files."""
        kind = self._kind()
        numeric = kind in ("number", "flag")
        filled = self.numbers + self.odd
        if numeric and not doubt and self.odd > MUCH_IS_ODD * filled:
            doubt = f"{self.odd} of {filled} cells are not numbers ({self.odd_example})"
        absent = rows - self.rows
        return Column(
            self.name,
            kind,
            self.numbers,
            self.missing + absent,
            self.odd if numeric else 0,
            self.odd_example if numeric else "",
            self.example,
            self.scores,
            self.absent + absent,
            files - self.files,
            self.as_text,
            self.whole and self.numbers > 0,
            self.low if self.numbers else math.nan,
            self.high if self.numbers else math.nan,
            repeated,
            doubt,
        )

    def _kind(self) -> str:
        filled = self.numbers + self.odd
        if not filled:
            return "empty"
        if self.flags == filled:
            return "flag"
        written = self.numbers - self.as_text
        return "number" if written or self.numbers >= MOSTLY_TEXT * filled else "text"
