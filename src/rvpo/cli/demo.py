"""``rvpo demo``: a small sample log, to try the other commands on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rvpo.extras import needs_extra


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write the log to; new or empty.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Random seed of the completions.")] = 0,
) -> None:
    """Write a small sample log whose truth is known, in a few seconds and without training, and say what to run next.

    The log looks like that of a TRL run with log_completions=True and six rewards: one is ignored, one is outvoted, one
    is dead, and three are healthy. Which is which, and why, is in truth.txt beside it.
    """
    with needs_extra("report", "reports", "scipy"):
        from rvpo.logs.demo import write_demo

        folder = write_demo(out, seed)
    shown = shlex.quote(str(folder))
    typer.echo(f"written: {folder}\n\nnext:")
    typer.echo(f"  rvpo diagnose {shown}     # which rewards are ignored, and why")
    typer.echo(f"  rvpo report {shown}       # the same on a page: report.html")
    typer.echo(f"\nthe truth, to compare: {folder / 'truth.txt'}")
