"""Progress of a long command: a bar on a terminal, or one line per half minute in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_LOG_SECONDS = 30.0


class Progress:
    """A context manager that shows on stderr how much of a total is done."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        """Set what is counted.

        Args:
            what: plural noun for the things that are counted.
            total: their number.
            done: how many were done before.
        """
        self.done = done
        self._what, self._total = what, total
        self._on_terminal = sys.stderr.isatty()
        columns = (what, BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), disable=not self._on_terminal)
        self._task = self._bar.add_task("", total=total, completed=done, told="")
        self._told_at = time.monotonic()

    def __enter__(self) -> Progress:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and leave the bar on the terminal."""
        self._bar.stop()

    def advance(self, number: int, told: str = "") -> None:
        """Count ``number`` more as done, and show ``told``, a few words, next to the bar."""
        self.done += number
        self._bar.update(self._task, advance=number, told=told)
        if not self._on_terminal and time.monotonic() > self._told_at + _LOG_SECONDS:
            self._told_at = time.monotonic()
            words = f", {told}" if told else ""
            print(f"{self.done} of {self._total} {self._what}{words}", file=sys.stderr, flush=True)
