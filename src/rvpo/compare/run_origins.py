"""Find the method and the seed of a run from its recipe, its record, or the name of its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rvpo.compare.curves import RunCurves, read_curves
from rvpo.core import AdvantageConfig
from rvpo.core.methods.recorded import method_of_record
from rvpo.core.methods.registry import read_text, spell
from rvpo.errors import ConfigError, DataError
from rvpo.files import digest
from rvpo.logs.open import open_run
from rvpo.logs.run import COMPLETIONS, Columns
from rvpo.logs.schema import FOLDER
from rvpo.recipe import migrated
from rvpo.text import strict_yaml

_NUMBERED = re.compile(r"(?:(?P<stem>.*?)[-_])?(?:seed|s)?[-_=]?(?P<seed>\d{1,9})")
_POWER = re.compile(r"\de$")  # the part before the number in lr1e-3, where the number is not a seed
_OF_ONE_RUN = ("output", "output_dir", "logging_dir", "run_name", "report_to")
"""Keys of a recipe, at any depth, that identify a run without changing it. So do all keys that contain ``seed``."""
_WITHIN = (FOLDER, COMPLETIONS, "rollouts", "rollout_data", "logs")
"""Names of folders that contain the logs of a run. Their parent folder has the name of the run."""

Between = tuple[int | None, int | None]
"""First and last step to read; None stands for the run's own first or last step."""


@dataclass(frozen=True)
class Origin:
    """The known settings of a run.

    Attributes:
        method: method as text; ``""`` if unknown.
        stem: name of the folder without its number.
        settings: nested settings without those that identify a single run; None if the run has no recipe.
    """

    method: str
    stem: str
    settings: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """Key that is equal for runs that differ only in their seeds."""
        return digest([self.method, self.stem] if self.settings is None else ["recipe", self.settings])


def read_training(path: Path, columns: Columns | None, between: Between = (None, None)) -> tuple[RunCurves, Origin]:
    """Read the curves of a run, its seed and its origin.

    Args:
        path: folder or file of the logs.
        columns: columns of the logs; None finds them by their names.
        between: first and last step to read.

    Raises:
        ConfigError: the path has no logs, or none of these steps.
        DataError: a file is damaged.
    """
    run, whole = read_curves(open_run(path, columns, between)), path.resolve()
    home = whole.parent if whole.is_file() or whole.name in _WITHIN else whole
    named = whole.with_suffix("") if whole.is_file() else home
    stem, seed = split_seed(named.name, named.parent.name)
    run = replace(run, name=named.name if named.name.startswith(stem) else f"{stem}/{named.name}")
    recipe = _recipe(home / "recipe.yaml")
    if recipe is None:
        return replace(run, seed=seed), Origin("" if run.configs is None else _of_record(*run.configs), stem)
    recipe = migrated(recipe)
    declared = recipe.get("seed")
    seed = declared if isinstance(declared, int) and not isinstance(declared, bool) else seed
    return replace(run, seed=seed), Origin(_of_recipe(recipe), stem, _settings({**recipe, "name": None}))


def split_seed(name: str, parent: str) -> tuple[str, int | None]:
    """Split the name of a run's folder into method and seed.

    Args:
        name: name of the run's folder.
        parent: name of its parent folder, which is the method if ``name`` is only a number.

    Returns:
        The method, and the seed; None if the name does not end in a seed.

    Example:
        >>> split_seed("grpo_seed1", "runs"), split_seed("2", "grpo"), split_seed("lr1e-3", "runs")
        (('grpo', 1), ('grpo', 2), ('lr1e-3', None))
    """
    match = _NUMBERED.fullmatch(name)
    if match is None or _POWER.search(match["stem"] or ""):
        return name, None
    return (parent if match["stem"] in (None, "", "seed", "s") else match["stem"]), int(match["seed"])


def _recipe(path: Path) -> dict[str, Any] | None:
    try:
        recipe = strict_yaml.load_yaml(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read ({reason}); expected a recipe. Repair or remove the file") from error
    if not isinstance(recipe, dict):
        raise DataError(f"{path} contains {type(recipe).__name__}; expected a mapping. Repair or remove the file")
    return recipe


def _settings(value: Any) -> Any:
    """Return nested settings without keys that identify a single run, and without None. Lists become mappings."""
    if isinstance(value, list):
        value = {str(place): item for place, item in enumerate(value)}
    if not isinstance(value, dict):
        return value
    kept = {str(key): item for key, item in value.items() if item is not None}
    return {
        key: _settings(item)
        for key, item in kept.items()
        if isinstance(item, dict | list) or not (key in _OF_ONE_RUN or "seed" in key)
    }


def _of_recipe(recipe: Mapping[str, Any]) -> str:
    """Return the method of a recipe as text. Code that it names is not imported: a recipe among logs is data."""
    method = recipe.get("method") or "rvpo"
    try:
        if isinstance(method, str):
            name, options = read_text(method)
            method = {"name": name, **options}
        return spell(method_of_record(method))
    except (ConfigError, TypeError):  # for example a recipe of another version
        return str(method)


def _of_record(first: AdvantageConfig, last: AdvantageConfig) -> str:
    """Return the method as text. Records of version 1 store k per step: the text has its range if it moved."""
    text = str(last)
    start, end = (getattr(config.method, "k", None) for config in (first, last))
    if isinstance(start, float) and isinstance(end, float) and start != end:
        return re.sub(r"\bk=[^,]+", f"k={start:.2g}..{end:.2g}", text)
    return text
