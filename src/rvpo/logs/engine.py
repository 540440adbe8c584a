"""Determine which engine wrote the logs of a run, so that advice can use the engine's own option names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rvpo.logs.run import COMPLETIONS, Run
from rvpo.logs.schema import FOLDER, METADATA, SCHEMA

TRL, VERL = "trl", "verl"
DUMPED = {"input", "output", "score"}
"""Columns that every row of verl's ``rollout_data_dir`` has."""

_PEEK = 1_000_000  # most bytes of a line that are read


def engine_of(run: Run) -> str | None:
    """Return :data:`TRL` or :data:`VERL`; None if the logs do not show who wrote them."""
    if run.kind == COMPLETIONS:
        return TRL
    if run.kind == FOLDER:
        return VERL if "uid" in _columns(_first(run.path, FOLDER)) - set(SCHEMA.names) else TRL
    return VERL if _columns(_first(run.path)) >= DUMPED else None


def function_weights(run: Run) -> list[float] | None:
    """Return the weight of each channel if all channels are reward functions; None if some are criteria of a rubric.

    The weight is NaN if the logs do not contain it, or if it follows a schedule, because no single number is right.
    """
    first = _first(run.path, FOLDER) if run.kind == FOLDER else None
    if first is not None and pq.read_table(first, columns=["criterion"], partitioning=None)["criterion"].drop_null():
        return None
    batch = next(run.batches(), None)
    weights = [math.nan] * len(run.channels)
    if batch is None or batch.weights is None:
        return weights
    channel = np.broadcast_to(batch.channel, batch.weights.shape).flatten().tolist()
    for j, weight in zip(channel, batch.weights.flatten().tolist(), strict=True):
        weights[j] = weight
    for name in _schedules(first) if first is not None else ():
        if name in run.channels:
            weights[run.channels.index(name)] = math.nan
    return weights


def _schedules(path: Path) -> list[str]:
    """Return the reward functions whose weights follow a schedule, by the metadata of a record."""
    try:
        about = json.loads((pq.read_schema(path).metadata or {})[METADATA])
        return list(about.get("schedules", {}))
    except (pa.ArrowException, OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return []


def _first(path: Path, inner: str = "") -> Path | None:
    """Return the first parquet or JSONL file of a run."""
    if not path.is_dir():
        return path
    folder = path / inner if (path / inner).is_dir() else path
    return min((file for file in folder.iterdir() if file.suffix in (".parquet", ".jsonl")), default=None)


def _columns(path: Path | None) -> set[str]:
    """Return the names of a file's columns; empty if it cannot be read, because other code reports that error."""
    if path is None:
        return set()
    try:
        if path.suffix == ".parquet":
            return set(pq.read_schema(path).names)
        with path.open("rb") as lines:
            row = json.loads(lines.readline(_PEEK))
    except (pa.ArrowException, OSError, ValueError, RecursionError):
        return set()
    return {str(name) for name in row} if isinstance(row, dict) else set()
