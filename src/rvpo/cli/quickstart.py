"""``rvpo quickstart``: small training runs that show the difference between methods."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rvpo.cli.completion import method_names
from rvpo.errors import ConfigError


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for report, plot and numbers.")] = Path("runs/quickstart"),
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds per method. Outcomes differ by seed, so use several.")
    ] = 5,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Number of runs at the same time. Default: one per core.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            autocompletion=method_names,
            help="Methods to compare, separated by blanks; the first is the baseline: 'gdpo lift rvpo:k=2 "
            "my_rules.py:cvar'. Default: gdpo, lift, and rvpo with k=1 or, from the second start, k=2.",
        ),
    ] = None,
    all_methods: Annotated[
        bool,
        typer.Option("--all-methods", help="Also train grpo and rvpo with other k, as in docs/results/quickstart.md."),
    ] = False,
) -> None:
    """Compare methods by training a small built-in model whose rewards conflict (about three minutes on two cores).

    Nothing is downloaded and no GPU is needed. All methods train from the same starts and seeds: one start where RVPO
    helps, and one where it is the wrong choice. After an interruption, the same command continues.
    """
    if methods is not None and all_methods:
        raise ConfigError("--methods and --all-methods are both given; expected one of them. Drop --all-methods")
    from rvpo import interrupts

    with interrupts.says(lambda: f"finished runs are saved in {out / 'runs'}; the same command continues"):
        from rvpo.quickstart import CELLS, EVALUATED_CELLS, contenders, run
        from rvpo.quickstart.cells import Cell

        cells: tuple[Cell, ...] = EVALUATED_CELLS if all_methods else CELLS
        if methods is not None:
            chosen = contenders(methods)
            cells = tuple(replace(cell, methods=chosen) for cell in CELLS)
        results = run(out, seeds=range(seeds), cells=cells, processes=processes)
    typer.echo(f"\n{results.text}\n\nplot: {results.plot}\nnumbers: {results.json}")
    typer.echo(f"which rewards were neglected: rvpo diagnose {shlex.quote(str(out))}")
