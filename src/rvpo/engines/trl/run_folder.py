"""The run's folder: who owns it, what it was started with, and where to resume."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import yaml

from rvpo.errors import ConfigError
from rvpo.extras import versions
from rvpo.files import difference, write
from rvpo.recipe import load_recorded_recipe

logger = logging.getLogger(__name__)


def check_free(folder: Path, resolved: dict[str, Any], resume: bool) -> None:
    """Raise ConfigError unless the folder is free, or holds this very run and may be resumed."""
    path = folder / "recipe.yaml"
    if not path.exists():
        return
    if not resume:
        raise ConfigError(f"{folder} holds an unfinished run: pass --resume, choose another name, or remove it")
    before = load_recorded_recipe(path).model_dump()  # one that was written before an option existed has its default
    if changed := difference(before, resolved):
        raise ConfigError(
            f"{folder} was started with another {changed[0]} ({changed[1]!r}, now {changed[2]!r}): resume with the "
            "same recipe and overrides, or choose another name"
        )


def claim(folder: Path, resolved: dict[str, Any]) -> None:
    """Create the run's folder.

    Raises:
        ConfigError: there can be none at this path.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be created ({error.strerror}): choose another output") from error
    write(folder / "recipe.yaml", yaml.safe_dump(resolved, sort_keys=False))
    write(folder / "versions.json", json.dumps(versions(), indent=2) + "\n")


def step(checkpoint: Path) -> int:
    """Return the training step of a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def is_last(checkpoint: Path) -> bool:
    """Return whether the checkpoint is that of the last step."""
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; one cut off while being written is passed over."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    for path in sorted(found, key=step, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            logger.warning("%s is incomplete and passed over", path)
        else:
            return path
    return None
