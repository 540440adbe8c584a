"""A filter before the terminal: printed text cannot control it, even if a policy or a server wrote the text.

Texts of policies, servers and files are made harmless where a message quotes them (:func:`rvpo.text.quoting`,
:func:`rvpo.text.tables.printable`). This filter is a second protection. It also covers what other libraries print.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, TextIO, cast

# Line ends and tabs are kept: they lay out text. Signs that change the writing direction can disguise a text.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Sequences that our colours and progress bars need: set a colour, go up a line, clear a line.
_OWN = re.compile("(\x1b\\[[0-9;]{0,12}[mAK])")
_SHOWN = "\N{REPLACEMENT CHARACTER}"


def harmless(text: str, *, terminal: bool = False) -> str:
    """Return a text without characters that control a terminal; they are replaced.

    Args:
        text: text of one or more lines.
        terminal: whether to keep colours, and the carriage returns of a progress bar.
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
    """A text stream that writes :func:`harmless` text. Everything else is passed to the wrapped stream."""

    def __init__(self, stream: Any) -> None:
        """Wrap a stream, such as ``sys.stdout``."""
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
        """Return an attribute of the wrapped stream."""
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        """Iterate over the stream."""
        return iter(self._stream)


def guard_terminal() -> None:
    """Wrap stdout and stderr. Only our commands call this: a library must leave the streams to the program."""
    if sys.stdout is not None and not isinstance(sys.stdout, Guarded):
        sys.stdout = cast(TextIO, Guarded(sys.stdout))
    if sys.stderr is not None and not isinstance(sys.stderr, Guarded):
        sys.stderr = cast(TextIO, Guarded(sys.stderr))


class Formatter(logging.Formatter):
    """A log formatter that removes colours and carriage returns from a message, which may quote text from outside."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Return the line of a record."""
        return harmless(super().formatMessage(record))

    def formatException(self, *given: Any) -> str:  # noqa: N802 - the base class's name
        """Return a traceback. Its last line may quote text from outside."""
        return harmless(super().formatException(*given))
