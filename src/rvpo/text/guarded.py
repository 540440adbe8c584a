"""The last gate before a terminal: what is printed cannot steer it, whoever wrote the text.

Texts of policies, servers and files are made harmless where they are put into a message (:func:`rvpo.text.quoting`,
:func:`rvpo.text.tables.printable`). This gate stands behind all of that, and behind what other libraries print, too.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, TextIO, cast

# Line ends and tabs lay out text. Signs that turn the writing direction show a text as another one.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What our colours and progress bars need: colours, up a line, clear a line.
_OWN = re.compile("(\x1b\\[[0-9;]{0,12}[mAK])")
_SHOWN = "\N{REPLACEMENT CHARACTER}"


def harmless(text: str, *, terminal: bool = False) -> str:
    """Return a text with signs that steer a terminal replaced.

    Args:
        text: it may have several lines.
        terminal: whether colours, and the carriage returns around a progress bar, stay.
    """
    if _STEERING.search(text) is None:
        return text
    if not terminal:
        return _STEERING.sub(_SHOWN, text)
    core = text.strip("\r")
    start = text[: len(text) - len(text.lstrip("\r"))]
    end = text[len(start) + len(core) :]
    parts = (part if i % 2 else _STEERING.sub(_SHOWN, part) for i, part in enumerate(_OWN.split(core)))
    return start + "".join(parts) + end


class Guarded:
    """A stream of text that writes :func:`harmless` text; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        """Stand before a stream, such as ``sys.stdout``."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, and return its length."""
        self._stream.write(harmless(text, terminal=self._is_terminal()))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def _is_terminal(self) -> bool:
        try:
            return bool(self._stream.isatty())
        except ValueError:  # closed
            return False

    def __getattr__(self, name: str) -> Any:
        """Return what the stream itself has."""
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        """Iterate over the stream."""
        return iter(self._stream)


def guard_terminal() -> None:
    """Put the gate before stdout and stderr, of a command of ours alone: a library leaves them to the program."""
    if sys.stdout is not None and not isinstance(sys.stdout, Guarded):
        sys.stdout = cast(TextIO, Guarded(sys.stdout))
    if sys.stderr is not None and not isinstance(sys.stderr, Guarded):
        sys.stderr = cast(TextIO, Guarded(sys.stderr))


class Formatter(logging.Formatter):
    """Logs a message without colours or carriage returns of its own, whoever wrote a part of it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Return the line of a record."""
        return harmless(super().formatMessage(record))

    def formatException(self, *given: Any) -> str:  # noqa: N802 - the base class's name
        """Return a traceback, whose last line may repeat what a stranger wrote."""
        return harmless(super().formatException(*given))
