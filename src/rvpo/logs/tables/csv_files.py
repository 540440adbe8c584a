"""Read the records of CSV and TSV files: a header, then one row per line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rvpo.errors import DataError
from rvpo.logs.tables.cells import number_of_text
from rvpo.logs.tables.files import opened, suffix_of
from rvpo.logs.tables.json_files import BOM, Record

DELIMITERS = (",", "\t", ";", "|")
LONGEST_CELL = 2**31 - 1
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_DECIMAL_POINT = re.compile(r"[+-]?\d+\.\d+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


def csv_records(path: Path, notes: list[str]) -> Iterator[Record]:
    """Yield the rows of a delimited file as objects.

    Raises:
        DataError: there is no header, a row has another number of cells, or a line is not UTF-8.
    """
    csv.field_size_limit(LONGEST_CELL)
    delimiter = _delimiter(path)
    with opened(path) as file:
        # Without strict, a quote that is never closed would swallow the lines after it.
        reader = csv.reader(_decoded(path, file), delimiter=delimiter, skipinitialspace=True, strict=True)
        decimals = _Decimals(path)
        try:
            names = _header(path, next(reader, []))
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} cells; expected {len(names)}, as in the header. "
                        "Fix the line, or quote cells that contain the delimiter"
                    )
                if delimiter == ";":
                    row = [decimals.with_point(cell, reader.line_num) for cell in row]
                yield f"{path}, line {reader.line_num}", dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num}: {error}; expected CSV with every quote closed. "
                "Fix the line, or an earlier one whose quote is not closed"
            ) from error


def _decoded(path: Path, lines: Iterator[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield (line.removeprefix(BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: {error}; expected UTF-8. Convert the file") from error


def _delimiter(path: Path) -> str:
    if suffix_of(path) == ".tsv":
        return "\t"
    with opened(path) as file:
        header = next((line for line in file if line.strip()), b"").decode("utf-8", "replace")
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=unquoted.count)


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() or f"index_{number}" for number, cell in enumerate(cells)]  # pandas' index has no name
    if cells and all(number_of_text(cell) is not None for cell in cells):
        raise DataError(f"{path}, line 1: {', '.join(names[:6])}; expected a header with names of columns. Add one")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path}, line 1: the column {twice[0]!r} occurs twice; expected each column once. Rename one")
    return names


class _Decimals:
    """Replaces decimal commas with points; only files with semicolons as delimiters have decimal commas.

    A comma between three digits may also separate thousands. It does in a file that has decimal points.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._points = self._thousands = ""

    def with_point(self, cell: str, line: int) -> str:
        """Return a cell with a decimal point.

        Raises:
            DataError: the file has decimal points, too, so that a comma may separate thousands.
        """
        word = cell.strip()
        if not _DECIMAL_COMMA.fullmatch(word):
            self._points = self._points or (word if _DECIMAL_POINT.fullmatch(word) else "")
            return cell
        if _THOUSANDS.fullmatch(word):
            self._thousands = self._thousands or word
        if self._points and self._thousands:
            raise DataError(
                f"{self._path}, line {line}: the file has {self._points!r} and {self._thousands!r}, so a comma may "
                "separate decimals or thousands; expected decimal commas or decimal points, and no separator of "
                "thousands. Write numbers with points, and without commas"
            )
        return cell.replace(",", ".")
