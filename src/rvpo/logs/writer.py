"""``channels/``: every channel of every completion, as parquet, for reports and replays.

:mod:`rvpo.logs.schema` says what the columns and the metadata are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from rvpo.core.ragged import Family, Score
from rvpo.files import whole
from rvpo.logs.schema import EVALUATION, METADATA, SCHEMA, VERSION, last_step
from rvpo.step.aggregator import Aggregated

_Cell = tuple[int, int, str, Score | None]  # row, column, reward function, and the score of a family


class ChannelTable:
    """Writes a file for each step, again when the step generates more. A resumed run overwrites its steps."""

    def __init__(self, folder: Path, extra: Mapping[str, pa.DataType] | None = None) -> None:
        """Write below ``folder``, which is made on first use; ``extra`` are an engine's own columns."""
        self._folder = folder
        self._schema = SCHEMA
        for name, kind in (extra or {}).items():
            self._schema = self._schema.append(pa.field(name, kind))
        self._path = folder
        self._step: int | None = None  # of the last training batch, and of the one before it
        self._follows: int | None = None
        self._batches: list[pa.Table] = []
        self._completions = 0

    def add(
        self,
        step: int,
        weights: Mapping[str, float],
        families: Sequence[Family],
        done: Aggregated,
        *,
        trained: bool = True,
        advantages: Tensor | None = None,
        tokens: Tensor | None = None,
        extra: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            step: of the training.
            weights: name of each reward function -> its importance.
            families: those functions that have channels of their own.
            done: what the batch came to.
            trained: whether the policy is trained on it; else it is an evaluation.
            advantages: (N,) that the policy is trained with, where they are not those of ``done``.
            tokens: (N,) number of tokens by which the rows were whitened, if so.
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
            "advantage": (done.result.advantages if advantages is None else advantages).tolist(),
            "tokens": [None] * rows if tokens is None else tokens.tolist(),
            **(extra or {}),
        }
        self._batches.append(_table(weights, families, done, per_completion, self._schema))
        self._completions += rows
        about = {
            "version": VERSION,
            "config": asdict(done.config),
            "ranges": dict(zip(done.channels.names, done.channels.ranges, strict=True)),
            "by_token": tokens is not None,
            "follows": self._follows if trained else None,
            "written": time.time(),
        }
        with whole(path) as partial:
            table = pa.concat_tables(self._batches).replace_schema_metadata({METADATA: json.dumps(about)})
            pq.write_table(table, partial)


def _table(
    weights: Mapping[str, float],
    families: Sequence[Family],
    done: Aggregated,
    per_completion: Mapping[str, Sequence[Any]],
    schema: pa.Schema,
) -> pa.Table:
    """Lay out a batch: reward functions that are one channel, column by column, then families, row by row."""
    result = done.result
    own = {family.name for family in families if not family.only_monitored}
    plain = [name for name in weights if name not in own]
    cells: list[_Cell] = [
        (i, column, name, None)
        for column, name in enumerate(plain)
        for i, applies in enumerate(result.applies[:, column].tolist())
        if applies
    ]
    cells += _family_cells(families, done)
    scores = [score for _, _, _, score in cells]
    rows, columns = [cell[0] for cell in cells], [cell[1] for cell in cells]

    def of_cells(x: Tensor) -> list[Any]:
        return x.detach().cpu()[rows, columns].tolist() if cells else []

    scored = of_cells(result.applies & ~result.missing)
    index = of_cells(done.channels.index.expand(result.applies.shape))
    reliability = None if done.reliability is None else done.reliability.expand(result.applies.shape)
    values: dict[str, list[Any]] = {
        **{name: [column[i] for i in rows] for name, column in per_completion.items()},
        "reward_function": [cell[2] for cell in cells],
        "channel": [done.channels.names[k] for k in index],
        "criterion": [None if score is None else score.channel for score in scores],
        "text": [None if score is None else score.text for score in scores],
        "labels": [[] if score is None else list(score.labels) for score in scores],
        "weight": [
            weights[cell[2]] if score is None else score.weight for cell, score in zip(cells, scores, strict=True)
        ],
        "counts": of_cells(done.weights),
        "reliability": [1.0] * len(cells) if reliability is None else of_cells(reliability),
        "reward": _where(of_cells(result.rewards), scored),
        "reason": [None if score is None else score.reason for score in scores],
        "detail": [None if score is None else score.detail for score in scores],
        "live": of_cells(result.live),
        "z": _where(of_cells(result.z), scored),
        "responsibility": of_cells(result.responsibilities),
    }
    return pa.table({name: pa.array(values[name], kind) for name, kind in zip(schema.names, schema.types, strict=True)})


def _family_cells(families: Sequence[Family], done: Aggregated) -> Iterator[_Cell]:
    for family in families:
        assert done.table is not None  # where there are families
        first = done.table.first_column[family.name]
        for i, row in enumerate(family.rows):
            yield from ((i, column, family.name, score) for column, score in enumerate(row, first))


def _where(values: Sequence[float], there: Sequence[bool]) -> list[float | None]:
    return [value if known else None for value, known in zip(values, there, strict=True)]
