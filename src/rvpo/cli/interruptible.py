"""Every command ends at once after Ctrl-C or SIGTERM, with one line and the exit code of the signal."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import typer

from rvpo import interrupts
from rvpo.text.tables import printable


def interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that ends an interrupt with one line instead of a traceback.

    The line says what is saved. The exit code is 130 after Ctrl-C and 143 after SIGTERM. The wrapper covers the whole
    command, because most of the time before the first result goes into imports. Typer reads the parameters from the
    wrapped function.
    """

    @functools.wraps(command)
    def run(*positional: Any, **named: Any) -> Any:
        with interrupts.handled(print_line):
            try:
                return command(*positional, **named)
            except KeyboardInterrupt as interrupt:
                print_line(interrupts.said(interrupt))
                interrupts.end()
                raise typer.Exit(interrupts.exit_code()) from None

    return run


def print_line(line: str) -> None:
    """Print a line on stderr. Of several processes of a run, only the first one prints."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"\n{printable(line)}", err=True)  # the current line may contain a progress bar
