"""What a text may assume of the terminal it is printed on: its width, and whether it shows colours."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

PIPED = 118  # columns where there is no terminal, as in a file or a pipe
WIDEST = 118  # columns of prose, however wide the terminal
NARROWEST = 20  # columns, below which nothing is laid out any more

COLOURS: Mapping[str, str] = {
    "diverging": "1;31",
    "neglected": "1;31",  # bold red
    "noisy": "35",
    "unclear": "33",
    "dead": "2",  # dim
    "saturated": "36",
    "healthy": "32",
}
"""Verdict -> SGR codes. The word itself always stands there, so that nothing is said by colour alone."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where a text is printed.

    Attributes:
        width: columns of a table.
        colours: whether it shows colours.
    """

    width: int = PIPED
    colours: bool = False

    @property
    def prose(self) -> int:
        """Columns of a paragraph."""
        return min(self.width, WIDEST)

    def paint(self, word: str, text: str) -> str:
        """Return a text, such as ``word`` with blanks after it, in the colour of the verdict ``word``, if it is one."""
        codes = COLOURS.get(word)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.colours and codes else text


PLAIN = Terminal()
"""A file, a pipe, or Markdown."""


def current(stream: TextIO | None = None) -> Terminal:
    """Return what stdout, or another stream, is now.

    ``COLUMNS`` sets the width. ``NO_COLOR`` (any value but an empty one) turns colours off, ``FORCE_COLOR`` turns them
    on where there is no terminal; ``NO_COLOR`` wins.
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
