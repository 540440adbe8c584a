"""The command line. Commands import what they need when they run, so that ``rvpo --help`` is instant."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Annotated

import typer

from rvpo import __version__
from rvpo.errors import RVPOError

app = typer.Typer(
    name="rvpo",
    help="Train language models on many rewards without neglecting one (RVPO, arXiv 2605.05750).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _setup(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show informational messages of libraries, too.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("rvpo").setLevel(logging.INFO)  # what we say ourselves is little, and meant for the user


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, see recipes/ for examples.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value, for example trainer.max_steps=20 method.name=gdpo schedule=null"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
) -> None:
    """Train a model as a recipe says.

    `trainer` takes every option of TRL's GRPOConfig, `warm_start.trainer` of SFTConfig, `method` of
    rvpo.AdvantageConfig and `data` of rvpo.data.load_prompts. The run's folder keeps the resolved recipe, versions,
    metrics.jsonl, completions and checkpoints.
    """
    from rvpo.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    _quiet_transformers()
    from rvpo.engines.trl.run import train as run

    folder = run(loaded, resume=resume)
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"done: {folder}")


@app.command()
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


@app.command()
def doctor() -> None:
    """Say what is installed, what works here, and what to install for what."""
    import torch

    from rvpo import doctor as checks

    for name in checks.PACKAGES:
        typer.echo(f"{name:<14}{checks.installed(name) or '-'}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    typer.echo(f"{'GPU':<14}{device}\n")
    for capability in checks.CAPABILITIES:
        missing = capability.missing
        state = f"missing {', '.join(missing)}: {capability.command}" if missing else "works"
        typer.echo(f"{capability.what:<40}{state}")
    for note in checks.untested():
        typer.echo(f"note: {note}")


def _quiet_transformers() -> None:
    """Leave the training's progress bar alone on the terminal."""
    # TRL 1.16 calls names that transformers 6 will remove, in each step; nothing that our user could change.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # of reading and writing weights; training has its own


def main() -> None:
    """Run the command line; an error of ours is a message, not a traceback."""
    try:
        app()
    except RVPOError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise SystemExit(2) from None
