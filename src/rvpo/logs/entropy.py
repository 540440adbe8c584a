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

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rvpo.errors import DataError
from rvpo.logs.metric_files import METRICS, folder_of_run, number_of, rows, states
from rvpo.logs.run import Run

KEYS = ("entropy", "actor/entropy", "train/entropy", "actor/entropy_loss")
"""Names of the entropy: in TRL, in verl, in TRL's logs in trackers, and in older versions of verl."""

ROUNDING = 1e-6
"""Rounding may move an entropy of 0 this far below 0."""


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
    folder = folder_of_run(run.path)
    for path in (folder / METRICS, *states(folder)):
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


def _read(path: Path) -> Entropy | None:
    """Return the entropy in a file; None if it has none. Damaged lines are skipped."""
    entries = list(rows(path))
    for key in KEYS:
        # If a step was logged twice, it was repeated after a resume: the later value belongs to the run that went on.
        by_step = {step: value for step, row in entries if (value := number_of(row.get(key))) is not None}
        if by_step and min(by_step.values()) >= -ROUNDING:
            return Entropy(dict(sorted(by_step.items())), key, path)
    return None
