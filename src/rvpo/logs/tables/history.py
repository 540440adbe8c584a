"""Recognise logs of metrics with one row per step: they have means of rewards, but no single completions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rvpo.errors import DataError
from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.trainers import setting_of_unknown, trainer_of_metrics

STEPS = ("step", "_step", "global_step", "training_step", "train_step", "iteration", "iter", "update", "epoch")
TEXTS = re.compile(r"prompt|completion|response|output|answer|question|problem|messages|content|input", re.IGNORECASE)
METRICS = re.compile(
    r"(^|[/._ -])(loss|lr|learning_rate|grad_norm|pg_loss|policy_loss|throughput|_runtime|wall time)($|[/._ -])"
    r"|/(mean|std|min|max|avg)$|_(mean|std)$|__(MIN|MAX)$|^(actor|critic|perf|timing_s)/|frac_reward_zero_std",
    re.IGNORECASE,
)
FEW_RESTARTS = 0.1  # share of the rows
MOSTLY = 0.5  # share of the rows with a step of their own


def step_name(names: Mapping[str, Column]) -> str | None:
    """Return the column of the step, by its usual names; loggers put folders in front of them."""
    found = [name for name in names if re.split(r"[/.]", name.lower())[-1].replace(" ", "_") in STEPS]
    return min(found, key=lambda name: STEPS.index(re.split(r"[/.]", name.lower())[-1].replace(" ", "_")), default=None)


def is_history(columns: Mapping[str, Column], rows: int, steps: npt.NDArray[np.float64] | None) -> bool:
    """Return whether a table has one row per step, or only metrics.

    Args:
        columns: columns of the table.
        rows: number of rows.
        steps: (N,) step of each row, None without such a column.
    """
    if any(
        column.kind == "text"
        and TEXTS.search(name)
        and column.missing < MOSTLY * rows  # not the settings of a run in its first line
        and not _is_link(name, columns)
        for name, column in columns.items()
    ):
        return False
    metrics = sum(bool(METRICS.search(name)) for name in columns)
    if steps is None:
        return metrics >= 3
    filled = steps[~np.isnan(steps)]
    own = len(np.unique(filled))
    if rows == 1:
        return metrics >= 1
    return own == len(filled) or (metrics >= 1 and own >= MOSTLY * rows) or _restarts(filled)


def _restarts(steps: npt.NDArray[np.float64]) -> bool:
    """Return whether steps rise with one row each and sometimes restart: several runs, one after another."""
    change = np.diff(steps)
    return len(steps) > 2 and bool((change != 0).all()) and float((change < 0).mean()) <= FEW_RESTARTS


def _is_link(name: str, columns: Mapping[str, Column]) -> bool:
    """Return whether a column is part of a link to a table or file, which trackers add to their history."""
    return f"{name.rpartition('.')[0]}._type" in columns


def refuse_history(path: Path, columns: Mapping[str, Column]) -> DataError:
    """Return the error for a table of metrics."""
    trainer = trainer_of_metrics(columns)
    advice = f"{trainer.name}: {trainer.setting}" if trainer else setting_of_unknown()
    shown = ", ".join(list(columns)[:6])
    return DataError(
        f"{path} has one row per step ({shown}): means of rewards, which show nothing about groups; "
        f"expected one row per completion. Log rollouts ({advice})"
    )
