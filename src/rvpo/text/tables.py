"""Tables of texts, for Markdown and for a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from textwrap import wrap


def printable(text: str) -> str:
    """Replace what could control a terminal or break a line. Names of channels come from data and may be anything."""
    return "".join("�" if unicodedata.category(c) in _STEERING else c for c in text)


_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")

Table = Sequence[Sequence[str]]
"""Rows of cells, the header first. All rows have the same length."""


def markdown(table: Table) -> list[str]:
    """Return the lines of a Markdown table, with escaped cells."""
    escaped = [[printable(cell).replace("|", "\\|") for cell in line] for line in table]
    ruled = [escaped[0], ["---"] * len(escaped[0]), *escaped[1:]]
    return ["| " + " | ".join(line) + " |" for line in ruled]


Paint = Callable[[str, str], str]
"""Function of a cell's text and of that text with padding. It returns the padded text in the cell's colour."""


def aligned(table: Table, paint: Paint | None = None) -> list[str]:
    """Return the lines of a table whose columns are aligned by spaces."""
    shown = [[printable(cell) for cell in line] for line in table]
    widths = [max(map(_width, column)) for column in zip(*shown, strict=True)]
    lines = []
    for line in shown:
        last = max((i for i, cell in enumerate(line) if cell), default=-1)  # no spaces at the end of a line
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(line[:last], widths, strict=False)]
        cells += [line[last]] if last >= 0 else []
        lines.append("  ".join(paint(*pair) if paint else pair[1] for pair in zip(line, cells, strict=False)))
    return lines


def fitted(table: Table, width: int, paint: Paint | None = None, spare: Sequence[str] = ()) -> list[str]:
    """Return the lines of a table that is at most ``width`` columns wide.

    A table that is too wide is shown without intervals, then without some columns, and a line below says so. If it is
    still too wide, each row becomes a block with all cells: the first cell, and below it the others, each after the
    header of its column. Text without a space, such as a long name, may still be wider.

    Args:
        table: rows of texts, the header first.
        width: number of columns of the terminal.
        paint: function that colours a cell.
        spare: headers of columns that may be left out.
    """
    if _fits(table, width):
        return aligned(table, paint)
    values = [[_INTERVAL.sub("", cell) for cell in line] for line in table]
    kept = [i for i, name in enumerate(table[0]) if name not in spare]
    fewer = [[line[i] for i in kept] for line in values]
    for shorter, left_out in ((values, ["intervals"]), (fewer, ["intervals", *spare])):
        if values != table and _fits(shorter, width):
            return [*aligned(shorter, paint), *_wrapped(f"(no room for {', '.join(left_out)})", width, " ")]
    return _blocks(table, width, paint)


_INTERVAL = re.compile(r"(?<=\d) \[[^\[\]]*\]$")


def _fits(table: Table, width: int) -> bool:
    return max(map(_width, aligned(table)), default=0) <= width


def _blocks(table: Table, width: int, paint: Paint | None) -> list[str]:
    head, *rows = table
    blocks = [_block(head, row, width, paint) for row in rows]
    return [line for i, block in enumerate(blocks) for line in ([""] if i else []) + block]


def _block(head: Sequence[str], row: Sequence[str], width: int, paint: Paint | None) -> list[str]:
    """Return a row of a table as a block: ``name``, then ``header value`` pairs, as many per line as fit."""
    lines = _wrapped(printable(row[0]), width, "  ")
    line, taken = "  ", 0
    for name, value in zip(head[1:], row[1:], strict=True):
        if value in ("", "-"):
            continue
        cell = printable(value)
        pair = f"{printable(name)} {cell}" if name else cell
        if taken and taken + 2 + _width(pair) > width - 2:
            lines.append(line)
            line, taken = "  ", 0
        if _width(pair) > width - 2:  # a single pair is longer than a line
            *full, pair = _wrapped(pair, width - 2, "  ")
            lines += [f"  {part}" for part in full]
        shown = pair[: len(pair) - len(cell)] + paint(cell, cell) if paint and pair.endswith(cell) else pair
        line += ("  " if taken else "") + shown
        taken += (2 if taken else 0) + _width(pair)
    return [*lines, line] if taken else lines


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def _width(text: str) -> int:
    """Return the number of columns of a text on a terminal: wide letters take two, combining marks none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in ("W", "F") for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def told_p(p: float | None) -> str:
    """Return a p value as text; an empty text for None."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
