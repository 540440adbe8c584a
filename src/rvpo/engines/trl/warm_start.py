"""A supervised start before reinforcement learning, trained once and shared by the runs that name its folder."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from trl import SFTConfig, SFTTrainer

from rvpo.data import render_sft
from rvpo.engines.trl.loading import load_data, load_model, trl_arguments
from rvpo.errors import ConfigError
from rvpo.files import difference, flush_tree, write
from rvpo.recipe import Recipe

logger = logging.getLogger(__name__)


def config(recipe: Recipe) -> SFTConfig | None:
    """Return TRL's arguments for the warm start, or None if the recipe does not have one."""
    if recipe.warm_start is None:
        return None
    defaults = {"report_to": "none", "save_strategy": "no"}
    own = {"output_dir": str(_beside(recipe, "work"))}
    return trl_arguments(SFTConfig, defaults | recipe.warm_start.trainer, own, "warm_start.trainer")


def _folder(recipe: Recipe) -> Path:
    shared = recipe.warm_start and recipe.warm_start.output
    return Path(shared).expanduser() if shared else recipe.folder / "warm_start"


def _beside(recipe: Recipe, purpose: str) -> Path:
    """Return this run's own folder next to the warm start: several runs may train the same one at the same time."""
    folder = _folder(recipe)
    return folder.with_name(f"{folder.name}.{recipe.name}.{purpose}")


def _settings(recipe: Recipe) -> dict[str, Any]:
    assert recipe.warm_start is not None
    return {
        "model": recipe.model.model_dump(exclude={"peft", "dtype"}),
        **recipe.warm_start.model_dump(exclude={"output"}),
    }


def is_made(recipe: Recipe) -> bool:
    """Return whether the warm start exists already.

    Raises:
        ConfigError: its folder holds anything else.
    """
    folder = _folder(recipe)
    record = folder / "warm_start.json"
    if not record.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not a warm start of rvpo: choose another warm_start.output, or remove it")
        return False
    try:
        made = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{record} cannot be read ({error}); expected the record of a finished warm start: choose another "
            "warm_start.output, or remove the folder"
        ) from error
    if changed := difference(made, _settings(recipe)):
        raise ConfigError(
            f"{folder} was made with another {changed[0]} ({changed[1]!r}, now {changed[2]!r}): choose another "
            "warm_start.output, or remove the folder"
        )
    return True


def warm_started(recipe: Recipe, tokenizer: Any, args: SFTConfig) -> Path:
    """Train the supervised start, or return the existing one with the same settings."""
    assert recipe.warm_start is not None
    folder = _folder(recipe)
    if is_made(recipe):
        return folder
    logger.info("warm start: supervised training into %s", folder)
    # Always in float32: small supervised updates are lost in half precision.
    model = load_model(recipe.model.model_copy(update={"dtype": "float32"}), None)
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=render_sft(load_data(recipe.warm_start.data)), processing_class=tokenizer
    )
    trainer.train()
    partial = _beside(recipe, "partial")
    trainer.save_model(str(partial))
    if trainer.is_world_process_zero():
        flush_tree(partial)
        write(partial / "warm_start.json", json.dumps(_settings(recipe), indent=2) + "\n")
        try:
            partial.rename(folder)
        except OSError:
            if not is_made(recipe):
                raise
            shutil.rmtree(partial)  # another run has trained the same warm start meanwhile
        shutil.rmtree(args.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    # Accelerate keeps one mixed precision per process, but the policy may need another one.
    AcceleratorState._reset_state()
    return folder
