"""Training runs for tests: as curves in memory, and as folders with logs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rvpo.compare.comparison import TrainingComparison, TrainingRow
from rvpo.compare.curves import RunCurves
from rvpo.logs.schema import METADATA

NAN = math.nan


def curves(
    name: str,
    seed: int | None,
    mean: Mapping[str, Sequence[float]],
    *,
    steps: Sequence[int] | None = None,
    **given: Any,
) -> RunCurves:
    """Build a run from the mean rewards of its channels; its rewards are seen to span [0, 1]."""
    values = np.array(list(mean.values()), dtype=float).T
    seen = {channel: (0.0, 1.0) for channel, curve in mean.items() if not np.isnan(curve).all()}
    told = {"seen": seen, "ranges": {}, **given}
    every = np.array(steps or range(1, len(values) + 1), dtype=np.int64)
    return RunCurves(f"runs/{name}", name, tuple(mean), every, values, seed=seed, **told)


def completions(folder: Path, mean: Mapping[str, Sequence[float | None]], **extra: Any) -> Path:
    """Write TRL's completions of a run: 2 prompts of 2 completions a step, 0.1 below and above a channel's mean."""
    (folder / "completions").mkdir(parents=True)
    for i in range(len(next(iter(mean.values())))):
        rewards = {
            name: [None if curve[i] is None else curve[i] + d for d in (-0.1, 0.1) * 2] for name, curve in mean.items()
        }
        columns = {"step": [i + 1] * 4, "prompt": ["a", "a", "b", "b"], "completion": ["x"] * 4}
        # Advantages differ between steps, or the reader takes a step for the same generation logged again
        table = pa.table(
            columns
            | {name: pa.array(values, pa.float64()) for name, values in rewards.items()}
            | {"advantage": [float(i), 1.0, 2.0, 3.0]}
        )
        pq.write_table(table, folder / "completions" / f"completions_{i + 1:05d}.parquet")
    for name, values in extra.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    return folder


def record(folder: Path, cells: Sequence[tuple[int, int, str, float | None]], ks: Sequence[float]) -> Path:
    """Write the record of our own engines, with those columns that are needed: cells of (step, completion, channel)."""
    (folder / "channels").mkdir(parents=True)
    for step, k in enumerate(ks, 1):
        own = [cell for cell in cells if cell[0] == step]
        n = len(own)
        table = pa.table(
            {
                "step": pa.array([step] * n, pa.int64()),
                "batch": pa.array([0] * n, pa.int64()),
                "completion": pa.array([cell[1] for cell in own], pa.int64()),
                "group": pa.array([0] * n, pa.int64()),
                "channel": pa.array([cell[2] for cell in own], pa.string()),
                "counts": pa.array([1.0] * n, pa.float64()),
                "reliability": pa.array([1.0] * n, pa.float64()),
                "reward": pa.array([cell[3] for cell in own], pa.float64()),
                "advantage": pa.array([0.0] * n, pa.float64()),
                "tokens": pa.array([None] * n, pa.int64()),
            }
        )
        config = {"method": "rvpo", "k": k, "options": {}}
        about = {"version": 1, "config": config, "ranges": {"right": [-3, 3], "style": None}, "by_token": False}
        table = table.replace_schema_metadata({METADATA: json.dumps(about)})
        pq.write_table(table, folder / "channels" / f"{step:06d}.parquet")
    return folder


def seeds(method: str, ends: Sequence[float], channel: str = "c") -> list[RunCurves]:
    """Build runs that rise or fall in a straight line from 0.5 to ``ends``, over 5 steps."""
    return [curves(f"{method}-{seed}", seed, {channel: np.linspace(0.5, end, 5)}) for seed, end in enumerate(ends)]


def rows_of(found: TrainingComparison, measure: str, group: str | None = None) -> dict[str | None, TrainingRow]:
    return {row.channel: row for row in found.rows if row.measure == measure and group in (None, row.group)}
