"""Write ``channels/``: every channel of every completion, as parquet, for reports and replays.

:mod:`rvpo.logs.schema` describes the columns and the metadata.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from rvpo.core.ragged import Score
from rvpo.files import whole
from rvpo.logs.schema import EVALUATION, METADATA, RELIABILITY, SCHEMA, STRUCTURE, VERSION, last_step
from rvpo.step.aggregator import Aggregated

Ints = NDArray[np.int64]


class ChannelTable:
    """Writes one file per step, and rewrites it when the step generates more. A resumed run overwrites its steps."""

    def __init__(self, folder: Path, extra: Mapping[str, pa.DataType] | None = None) -> None:
        """Write to ``folder``, which is created on first use; ``extra`` are an engine's own columns."""
        self._folder, self._extra = folder, dict(extra or {})
        self._path = folder
        self._step: int | None = None  # step of the last training batch, and of the one before it
        self._follows: int | None = None
        self._batches: list[pa.Table] = []
        self._completions = 0

    def add(
        self,
        step: int,
        done: Aggregated,
        *,
        trained: bool = True,
        extra: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            step: number of the training step.
            done: result of the batch.
            trained: whether the policy is trained on it; otherwise it is an evaluation.
            extra: the engine's own columns, N values each.
        """
        path = self._folder / f"{'' if trained else EVALUATION}{step:06d}.parquet"
        if path != self._path:
            self._path, self._batches, self._completions = path, [], 0
            if trained:
                self._follows = self._step if self._step is not None else last_step(self._folder, before=step)
                self._step = step
        rows = len(done.result.advantages)
        per_completion = {
            "step": [step] * rows,
            "batch": [len(self._batches)] * rows,
            "completion": list(range(self._completions, self._completions + rows)),
            "group": done.result.groups.index.tolist(),
            "advantage": done.result.advantages.tolist(),
            "tokens": [None] * rows if done.tokens is None else done.tokens.tolist(),
            **(extra or {}),
        }
        own = self._extra | (RELIABILITY if done.reliability is not None else {})
        own |= STRUCTURE if _is_structured(done) else {}
        self._batches.append(_table(done, per_completion, own))
        self._completions += rows
        about = {
            "version": VERSION,
            "config": done.config.to_mapping(),
            "progress": done.progress,
            "ranges": dict(zip(done.channels.names, done.channels.ranges, strict=True)),
            **({"structure": [], "monitor": []} if done.structures is None else done.structures.to_record()),
            "solved": list(done.solved),
            "schedules": dict(done.schedules),
            "by_token": done.tokens is not None,
            "follows": self._follows if trained else None,
            "written": time.time(),
        }
        metadata = {METADATA: json.dumps(about)}
        with whole(path) as partial:
            pq.write_table(pa.concat_tables(self._batches).replace_schema_metadata(metadata), partial)


@dataclass(frozen=True)
class _Part:
    """The C cells of one reward function, in order.

    Attributes:
        function: name of the reward function.
        rows: (C,) completion of each cell.
        columns: (C,) column of each cell.
        scores: (C,) scores of a rubric; None for a function that is one channel.
    """

    function: str
    rows: Ints
    columns: Ints
    scores: Sequence[Score] | None = None


def _table(done: Aggregated, per_completion: Mapping[str, Sequence[Any]], extra: Mapping[str, pa.DataType]) -> pa.Table:
    """Return a batch as a table: reward functions that are one channel by column, then families by row."""
    parts = [*_plain_parts(done), *_family_parts(done), *_made_parts(done)]
    rows = np.concatenate([np.zeros(0, np.int64), *(part.rows for part in parts)])
    columns = np.concatenate([np.zeros(0, np.int64), *(part.columns for part in parts)])
    schema = SCHEMA
    for name, kind in extra.items():
        schema = schema.append(pa.field(name, kind))
    row = pa.array(rows)
    values = {
        **{name: pa.array(column, schema.field(name).type).take(row) for name, column in per_completion.items()},
        **_of_scores(parts, done.importance),
        **_of_result(rows, columns, done),
    }
    return pa.table([values[name] for name in schema.names], schema=schema)


def _plain_parts(done: Aggregated) -> Iterator[_Part]:
    """Yield the cells of reward functions that are one channel each."""
    own = {family.name for family in done.families if not family.only_monitored}
    made = {} if done.layout is None else done.layout.made
    plain = [name for name in done.importance if name not in own and name not in made]
    for column, name in enumerate(plain):
        yield _of_column(done, name, column)


def _family_parts(done: Aggregated) -> Iterator[_Part]:
    """Yield the cells of rubrics."""
    for family in done.families:
        assert done.table is not None  # families always have a table
        scores = [score for row in family.rows for score in row]
        lengths = np.array([len(row) for row in family.rows], dtype=np.int64)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(len(scores)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield _Part(family.name, rows, done.table.first_column[family.name] + places, scores)


def _made_parts(done: Aggregated) -> Iterator[_Part]:
    """Yield the cells of channels that structures made."""
    for name, column in ({} if done.layout is None else done.layout.made).items():
        yield _of_column(done, name, column)


def _of_column(done: Aggregated, function: str, column: int) -> _Part:
    rows = done.result.applies[:, column].nonzero()[:, 0].cpu().numpy()
    return _Part(function, rows, np.full_like(rows, column))


def _of_scores(parts: Sequence[_Part], importance: Mapping[str, float]) -> dict[str, pa.Array]:
    """Return the columns that come from the scores of rubrics; empty for functions that are one channel."""
    before = sum(len(part.rows) for part in takewhile(lambda part: part.scores is None, parts))
    scores = [score for part in parts for score in part.scores or ()]
    after = sum(len(part.rows) for part in parts) - before - len(scores)

    def between(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        return pa.concat_arrays([pa.nulls(before, kind), pa.array(values, kind), pa.nulls(after, kind)])

    lengths = [len(part.rows) for part in parts]
    weights = [
        np.full(len(part.rows), importance[part.function])
        if part.scores is None
        else np.array([score.weight for score in part.scores], dtype=np.float64)
        for part in parts
    ]
    labels = [list(score.labels) for score in scores]
    return {
        "reward_function": _named([part.function for part in parts], np.repeat(np.arange(len(parts)), lengths)),
        "criterion": between([score.channel or None for score in scores], pa.string()),
        "text": between([score.text for score in scores], pa.string()),
        "labels": pa.concat_arrays([_empty_lists(before), pa.array(labels, _LABELS), _empty_lists(after)]),
        "weight": pa.array(np.concatenate([np.zeros(0), *weights])),
        "reason": between([score.reason for score in scores], pa.string()),
        "detail": between([score.detail for score in scores], pa.string()),
    }


_LABELS = SCHEMA.field("labels").type


def _empty_lists(count: int) -> pa.Array:
    offsets = pa.array(np.zeros(count + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array([], pa.string())).cast(_LABELS)


def _named(names: Sequence[str], numbers: Ints) -> pa.Array:
    """Return the name of each number."""
    return pa.array(names, pa.string()).take(pa.array(numbers))


def _of_result(rows: Ints, columns: Ints, done: Aggregated) -> dict[str, pa.Array]:
    """Return the columns that come from the aggregation."""
    result, shape = done.result, done.result.applies.shape
    cells = torch.from_numpy(rows), torch.from_numpy(columns)

    def take(x: Tensor) -> NDArray[Any]:
        found = x.detach().cpu()[cells]
        return (found.double() if found.is_floating_point() else found).numpy()

    def where(x: Tensor, known: NDArray[np.bool_]) -> pa.Array:
        return pa.array(take(x), mask=~known)

    scored = take(result.applies & ~result.missing)
    known = scored if done.layout is None else take(result.applies & ~result.rewards.isnan())
    found = {
        "channel": _named(done.channels.names, take(done.channels.index.expand(shape))),
        "counts": pa.array(take(done.weights)),
        "reward": where(result.rewards, known),
        "live": pa.array(take(result.live)),
        "z": where(result.z, scored),
        "responsibility": pa.array(take(result.responsibilities)),
    }
    if done.layout is not None and _is_structured(done):
        entered = done.layout.entered
        found["entered"] = where(entered, take(result.applies & ~entered.isnan()))
        found["outside"] = pa.array(take(done.layout.outside))
    if done.reliability is not None:
        found["reliability"] = pa.array(take(done.reliability.expand(shape)))
    return found


def _is_structured(done: Aggregated) -> bool:
    """Whether rewards may have entered the aggregation with other values than their scores."""
    return done.structures is not None and bool(done.structures.parts)
