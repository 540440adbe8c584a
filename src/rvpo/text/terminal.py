"""Properties of the terminal that a text is printed on: its width, and whether it shows colours."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

PIPED = 118  # columns without a terminal, as in a file or a pipe
WIDEST = 118  # largest width of prose in columns, on any terminal
NARROWEST = 20  # smallest width in columns that a layout is made for

COLOURS: Mapping[str, str] = {
    "diverging": "1;31",
    "neglected": "1;31",  # bold red
    "noisy": "35",
    "unclear": "33",
    "dead": "2",  # dim
    "saturated": "36",
    "healthy": "32",
}
"""Verdict -> SGR codes. The word itself is always printed too, so that colour is never the only information."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """The terminal that a text is printed on.

    Attributes:
        width: number of columns of a table.
        colours: whether the terminal shows colours.
    """

    width: int = PIPED
    colours: bool = False

    @property
    def prose(self) -> int:
        """Number of columns of a paragraph."""
        return min(self.width, WIDEST)

    def paint(self, word: str, text: str) -> str:
        """Return a text, such as ``word`` with padding, in the colour of the verdict ``word`` (if it is a verdict)."""
        codes = COLOURS.get(word)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.colours and codes else text


PLAIN = Terminal()
"""Properties of a file, a pipe, or Markdown."""


def current(stream: TextIO | None = None) -> Terminal:
    """Return the present properties of stdout, or of another stream.

    ``COLUMNS`` sets the width. ``NO_COLOR`` (any value except an empty one) turns colours off. ``FORCE_COLOR`` turns
    them on without a terminal. ``NO_COLOR`` takes precedence.
    """
    stream = stream or sys.stdout
    width = shutil.get_terminal_size((PIPED, 24)).columns if _is_terminal(stream) else _columns()
    return Terminal(max(NARROWEST, width), _has_colours(stream))


def _columns() -> int:
    """Return the width that the environment sets."""
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isascii() and given.isdigit() and int(given) > 0 else PIPED


def _has_colours(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return _is_terminal(stream) and os.environ.get("TERM", "") not in ("", "dumb")


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
