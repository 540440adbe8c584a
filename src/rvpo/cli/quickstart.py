"""``rvpo quickstart``: small trainings that show the difference between methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for report, plot and numbers.")] = Path("runs/quickstart"),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds a method; outcomes differ by seed, so one says little.")] = 5,
    processes: Annotated[int | None, typer.Option(min=1, help="Runs at the same time; default: one a core.")] = None,
    all_methods: Annotated[
        bool, typer.Option("--all-methods", help="Also GRPO and other risk coefficients, as in docs/results.md.")
    ] = False,
) -> None:
    """Watch RVPO and GDPO train a small built-in model whose rewards conflict (about three minutes on two cores).

    Nothing is downloaded and no GPU is needed. Trains from the same start and seeds with both methods, and once more
    from a start where RVPO is the wrong choice. Called again, it continues where it was stopped.
    """
    from rvpo.quickstart import CELLS, EVALUATED_CELLS, run

    results = run(out, seeds=range(seeds), cells=EVALUATED_CELLS if all_methods else CELLS, processes=processes)
    typer.echo(f"\n{results.text}\n\nplot: {results.plot}\nnumbers: {results.json}")
