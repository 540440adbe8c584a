"""The run's folder: checks which run it belongs to, and records the recipe and versions of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from rvpo.errors import ConfigError
from rvpo.extras import versions
from rvpo.files import difference, write
from rvpo.recipe import load_recorded_recipe


def check_free(folder: Path, resolved: dict[str, Any], resume: bool) -> None:
    """Raise ConfigError unless the folder is free, or has the same run and ``resume`` is set."""
    if (folder / "model").exists() and not resume:
        raise ConfigError(f"{folder} holds a finished run: choose another name (name=…), or remove the folder")
    path = folder / "recipe.yaml"
    if not path.exists():
        return
    if not resume:
        raise ConfigError(f"{folder} holds an unfinished run: pass --resume, choose another name, or remove it")
    before = load_recorded_recipe(path).model_dump()  # an option that is newer than the file has its default
    if changed := difference(before, resolved):
        raise ConfigError(
            f"{folder} was started with another {changed[0]} ({changed[1]!r}, now {changed[2]!r}): resume with the "
            "same recipe and overrides, or choose another name"
        )


def make(folder: Path) -> None:
    """Create the run's folder.

    Raises:
        ConfigError: it cannot be created at this path.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be created ({error.strerror}): choose another output") from error


def claim(folder: Path, resolved: dict[str, Any]) -> None:
    """Write the recipe and the versions of the run into its folder."""
    write(folder / "recipe.yaml", yaml.safe_dump(resolved, sort_keys=False))
    write(folder / "versions.json", json.dumps(versions(), indent=2) + "\n")
