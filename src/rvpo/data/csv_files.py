"""Read CSV and TSV tables as rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from rvpo.data.records import Place, Rows, shorten, source_error
from rvpo.data.unpack import opened


def read_csv(path: Path) -> Rows:
    """Read a table with a header. Cells are text, and an empty cell is null.

    The separator is a tab in ``.tsv`` files. Otherwise it is a semicolon if the header has semicolons but no commas,
    and else a comma.

    Raises:
        DataError: the file is not UTF-8, a column name is blank or occurs twice, or a row has more or fewer cells than
            the header.
    """
    source = str(path)
    with opened(path) as file:
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise source_error(source, str(error), "UTF-8", "convert the file to UTF-8") from error
    csv.field_size_limit(max(len(text), 131_072))
    first = text.partition("\n")[0]
    separator = ";" if ";" in first and "," not in first else ","
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in path.suffixes else separator)
    try:
        header = next(lines, [])
        if "" in header or len(set(header)) < len(header):
            expected = "a header with different names that are not blank"
            raise source_error(source, f"the header {shorten(header)}", expected, "repair the header")
        index = 0
        for cells in lines:
            if not cells:
                continue
            place = Place(source, index, lines.line_num)
            if len(cells) != len(header):
                expected = f"{len(header)} cells, as the header has"
                next_step = "quote cells that contain a separator or a line break"
                raise place.error(None, f"{len(cells)} cells", expected, next_step)
            yield place, {name: cell if cell.strip() else None for name, cell in zip(header, cells, strict=True)}
            index += 1
    except csv.Error as error:
        raise source_error(source, f"line {lines.line_num}: {error}", "CSV", "repair the line") from error
