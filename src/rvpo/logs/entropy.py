"""The entropy of the policy at each step, as trainers log it next to their rollouts.

It is a mean over tokens, in nats, and no rollout holds it. Trainers name it differently (:data:`KEYS`) and keep it in
different files::

    metrics.jsonl               rvpo's: {"step": 3, "entropy": 0.61, …}; a value every logging_steps steps
    trainer_state.json          transformers', also in its checkpoints: {"log_history": [{"step": 3, "entropy": …}, …]}
    the file of verl's logger   {"step": 3, "data": {"actor/entropy": 0.61, …}}; it lies elsewhere, and has to be named

An entropy over tokens is never negative: a column that is (a loss with its sign, say) is not read.

Files are looked for in the folder of a run only: one that lies next to a single file of rollouts may be another run's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.errors import DataError
from rvpo.logs.run import COMPLETIONS, Run
from rvpo.logs.schema import FOLDER

KEYS = ("entropy", "actor/entropy", "train/entropy", "actor/entropy_loss")
"""Names of the entropy: TRL's, verl's, TRL's as trackers have it, and that of older versions of verl."""

ROUNDING = 1e-6
"""How far below 0 rounding may bring the entropy of a policy that is sure."""

METRICS, STATE = "metrics.jsonl", "trainer_state.json"
_CHECKPOINT = "checkpoint-"


@dataclass(frozen=True)
class Entropy:
    """Entropy by step, the name under which it was logged, and the file."""

    by_step: Mapping[int, float]
    key: str
    path: Path


def find_entropy(run: Run) -> Entropy | None:
    """Return the entropy that was logged in the folder of a run; None if none was found."""
    if not run.path.is_dir():
        return None
    folder = run.path.resolve()
    folder = folder.parent if folder.name in (FOLDER, COMPLETIONS) else folder
    for path in (folder / METRICS, folder / STATE, *_states(folder)):
        try:
            found = _read(path) if path.is_file() else None
        except OSError:
            continue
        if found is not None:
            return found
    return None


def read_entropy(path: Path) -> Entropy:
    """Read a file that the user names.

    Raises:
        DataError: it cannot be read, or holds no entropy.
    """
    try:
        found = _read(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a file of metrics: name another") from None
    if found is None:
        raise DataError(
            f"{path} holds no entropy; expected JSON with a step and one of {', '.join(KEYS)}, never negative, such as "
            "metrics.jsonl, trainer_state.json or the file of verl's logger: name another file, or leave --metrics out"
        )
    return found


def _states(folder: Path) -> list[Path]:
    """Return the states of a folder's checkpoints, the newest first: each holds all of the run before it."""
    numbered = [
        (int(number), entry)
        for entry in folder.glob(f"{_CHECKPOINT}*")
        if (number := entry.name.removeprefix(_CHECKPOINT)).isdecimal() and len(number) < 16
    ]
    return [entry / STATE for _, entry in sorted(numbered, reverse=True)]


def _read(path: Path) -> Entropy | None:
    """Return what a file holds; None without entropy. Lines that are damaged are left out."""
    rows = list(_rows(path))
    for key in KEYS:
        # A step that was logged twice was repeated: the later value is that of the run that went on.
        by_step = {step: value for step, row in rows if (value := _number(row.get(key))) is not None}
        if by_step and min(by_step.values()) >= -ROUNDING:
            return Entropy(dict(sorted(by_step.items())), key, path)
    return None


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the step and the metrics of each entry."""
    text = path.read_text("utf-8", errors="replace")
    whole = _parsed(text) if path.suffix == ".json" else None
    history = whole.get("log_history") if isinstance(whole, dict) else None
    entries = history if isinstance(history, list) else map(_parsed, text.split("\n"))
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        step, data = _number(entry.get("step")), entry.get("data")
        if step is not None and step.is_integer():
            yield int(step), data if isinstance(data, dict) else entry


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _number(value: object) -> float | None:
    """Return a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
