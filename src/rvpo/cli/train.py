"""``rvpo train``: train a model from a recipe."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated

import typer


def train_command(
    recipe: Annotated[Path, typer.Argument(help="YAML file of the run; see recipes/ for examples.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Values to change, as key=value, such as trainer.max_steps=20 method=lift:kappa=3"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the run's newest checkpoint.")] = False,
) -> None:
    """Train a model from a recipe.

    `method` is text such as lift:kappa=3, rvpo:k=linear(0.5,2) or my_rules.py:cvar. `trainer` takes every option of
    TRL's GRPOConfig, `warm_start.trainer` of SFTConfig, and `data` of rvpo.data.load_prompts. The run's folder keeps
    the resolved recipe, versions, metrics.jsonl, completions and checkpoints. Ctrl-C saves a checkpoint of the last
    finished step. The same command with --resume continues from it.
    """
    from rvpo import interrupts
    from rvpo.extras import needs_extra
    from rvpo.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    # Longer than usual: the training needs time to reach the place where it saves a checkpoint.
    with interrupts.says(lambda: _kept(loaded.folder), seconds=20.0):
        with needs_extra("trl", "training runs", "trl"):
            _quiet_transformers()
            from rvpo.engines.trl.run import train_recipe as run

        folder = run(loaded, resume=resume)
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"done: {folder}")


def _kept(folder: Path) -> str:
    """Return what is saved of a run that is interrupted outside the training loop."""
    from rvpo.engines.trl.checkpoints import newest_whole

    if (newest := newest_whole(folder, thorough=False)) is None:
        return "nothing was trained yet; the same command with --resume starts again"
    return f"the newest checkpoint is {newest}; the same command with --resume continues from there"


def _quiet_transformers() -> None:
    """Keep everything but the training's progress bar off the terminal."""
    # TRL 1.16 calls names that transformers 6 will remove, in each step. The user cannot change that.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # bars of loading and saving weights; training has its own
