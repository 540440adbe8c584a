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


def csv_records(path: Path, notes: list[str]) -> Iterator[Record]:
    """Yield the rows of a delimited file as objects.

    Raises:
        DataError: there is no header, a row has another number of cells, or a line is not UTF-8.
    """
    csv.field_size_limit(LONGEST_CELL)
    delimiter = _delimiter(path)
    with opened(path) as file:
        reader = csv.reader(_decoded(path, file), delimiter=delimiter, skipinitialspace=True)
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
                    row = [_with_point(cell) for cell in row]
                yield f"{path}, line {reader.line_num}", dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; expected CSV. Fix the line") from error


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


def _with_point(cell: str) -> str:
    """Replace a decimal comma with a point; only files with semicolons as delimiters have decimal commas."""
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell.strip()) else cell
