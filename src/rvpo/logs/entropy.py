"""Read the entropy of the policy at each step, as trainers log it next to their rollouts.

It is a mean over tokens, in nats, and rollouts do not contain it. Trainers use different names (:data:`KEYS`) and
different files::

    metrics.jsonl               rvpo's: {"step": 3, "entropy": 0.61, …}; one value every logging_steps steps
    trainer_state.json          transformers', also in its checkpoints: {"log_history": [{"step": 3, "entropy": …}, …]}
    the file of verl's logger   {"step": 3, "data": {"actor/entropy": 0.61, …}}; it is elsewhere: pass its path

An entropy over tokens is never negative. A column with negative values, such as a loss with a sign, is not read.

Only the folder of a run is searched. A file next to a single file of rollouts may belong to another run.
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
"""Names of the entropy: in TRL, in verl, in TRL's logs in trackers, and in older versions of verl."""

ROUNDING = 1e-6
"""Rounding may move an entropy of 0 this far below 0."""

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
    """Read a file that the user named.

    Raises:
        DataError: it cannot be read, or has no entropy.
    """
    try:
        found = _read(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); expected a file of metrics. Pass another file"
        ) from None
    if found is None:
        raise DataError(
            f"{path} has no entropy; expected JSON with a step and one of {', '.join(KEYS)}, never negative, such as "
            "metrics.jsonl, trainer_state.json or the file of verl's logger. Pass another file, or omit --metrics"
        )
    return found


def _states(folder: Path) -> list[Path]:
    """Return the states of a folder's checkpoints, the newest first; each contains the whole run up to its step."""
    numbered = [
        (int(number), entry)
        for entry in folder.glob(f"{_CHECKPOINT}*")
        if (number := entry.name.removeprefix(_CHECKPOINT)).isdecimal() and len(number) < 16
    ]
    return [entry / STATE for _, entry in sorted(numbered, reverse=True)]


def _read(path: Path) -> Entropy | None:
    """Return the entropy in a file; None if it has none. Damaged lines are skipped."""
    rows = list(_rows(path))
    for key in KEYS:
        # If a step was logged twice, it was repeated after a resume: the later value belongs to the run that went on.
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
