"""Tables of texts, for Markdown and for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def printable(text: str) -> str:
    """Replace what could steer a terminal or break a line: names of channels come from data, and may be anything."""
    return "".join("�" if unicodedata.category(c) in _STEERING else c for c in text)


_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")

Table = Sequence[Sequence[str]]
"""Lines of cells, the head first, all of the same length."""


def markdown(table: Table) -> list[str]:
    """Return the lines of a Markdown table, cells escaped."""
    escaped = [[printable(cell).replace("|", "\\|") for cell in line] for line in table]
    ruled = [escaped[0], ["---"] * len(escaped[0]), *escaped[1:]]
    return ["| " + " | ".join(line) + " |" for line in ruled]


def aligned(table: Table) -> list[str]:
    """Return the lines of a table whose columns are aligned by blanks."""
    shown = [[printable(cell) for cell in line] for line in table]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in shown]


def told_p(p: float | None) -> str:
    """Return a p value as it is told; nothing where there is none."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
