"""``channels/``: every channel of every completion, as parquet, for reports and replays.

:mod:`rvpo.logs.schema` says what the columns and the metadata are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from rvpo.core.ragged import Score
from rvpo.files import whole
from rvpo.logs.schema import EVALUATION, METADATA, RELIABILITY, SCHEMA, STRUCTURE, VERSION, last_step
from rvpo.step.aggregator import Aggregated

_Cell = tuple[int, int, str, Score | None]  # row, column, reward function, and the score of a family


class ChannelTable:
    """Writes a file for each step, again when the step generates more. A resumed run overwrites its steps."""

    def __init__(self, folder: Path, extra: Mapping[str, pa.DataType] | None = None) -> None:
        """Write below ``folder``, which is made on first use; ``extra`` are an engine's own columns."""
        self._folder, self._extra = folder, dict(extra or {})
        self._path = folder
        self._step: int | None = None  # of the last training batch, and of the one before it
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
            done: what the batch came to.
            trained: whether the policy is trained on it; else it is an evaluation.
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


def _table(done: Aggregated, per_completion: Mapping[str, Sequence[Any]], extra: Mapping[str, pa.DataType]) -> pa.Table:
    """Lay out a batch: reward functions that are one channel, column by column, then families, row by row."""
    cells = [*_plain_cells(done), *_family_cells(done), *_made_cells(done)]
    values = {
        **{name: [column[i] for i, *_ in cells] for name, column in per_completion.items()},
        **_of_scores(cells, done.importance),
        **_of_result(cells, done),
    }
    schema = SCHEMA
    for name, kind in extra.items():
        schema = schema.append(pa.field(name, kind))
    return pa.table({name: pa.array(values[name], kind) for name, kind in zip(schema.names, schema.types, strict=True)})


def _plain_cells(done: Aggregated) -> Iterator[_Cell]:
    """Yield the cells of reward functions that are one channel each."""
    own = {family.name for family in done.families if not family.only_monitored}
    made = {} if done.layout is None else done.layout.made
    plain = [name for name in done.importance if name not in own and name not in made]
    for column, name in enumerate(plain):
        for i, applies in enumerate(done.result.applies[:, column].tolist()):
            if applies:
                yield i, column, name, None


def _family_cells(done: Aggregated) -> Iterator[_Cell]:
    """Yield the cells of rubrics."""
    for family in done.families:
        assert done.table is not None  # where there are families
        first = done.table.first_column[family.name]
        for i, row in enumerate(family.rows):
            yield from ((i, column, family.name, score) for column, score in enumerate(row, first))


def _made_cells(done: Aggregated) -> Iterator[_Cell]:
    """Yield the cells of channels that structures made."""
    for name, column in ({} if done.layout is None else done.layout.made).items():
        for i, applies in enumerate(done.result.applies[:, column].tolist()):
            if applies:
                yield i, column, name, None


_NONE = Score("", None)


def _of_scores(cells: Sequence[_Cell], importance: Mapping[str, float]) -> dict[str, list[Any]]:
    """Return the columns that come from the scores of rubrics; empty for functions that are one channel."""
    scores = [score or _NONE for *_, score in cells]
    return {
        "reward_function": [name for _, _, name, _ in cells],
        "criterion": [score.channel or None for score in scores],
        "text": [score.text for score in scores],
        "labels": [list(score.labels) for score in scores],
        "weight": [importance[name] if score is None else score.weight for _, _, name, score in cells],
        "reason": [score.reason for score in scores],
        "detail": [score.detail for score in scores],
    }


def _of_result(cells: Sequence[_Cell], done: Aggregated) -> dict[str, list[Any]]:
    """Return the columns that come from what was aggregated."""
    result, shape = done.result, done.result.applies.shape
    rows, columns = [cell[0] for cell in cells], [cell[1] for cell in cells]

    def take(x: Tensor) -> list[Any]:
        return x.detach().cpu()[rows, columns].tolist() if cells else []

    scored = take(result.applies & ~result.missing)
    known = scored if done.layout is None else take(result.applies & ~result.rewards.isnan())
    found = {
        "channel": [done.channels.names[k] for k in take(done.channels.index.expand(shape))],
        "counts": take(done.weights),
        "reward": _where(take(result.rewards), known),
        "live": take(result.live),
        "z": _where(take(result.z), scored),
        "responsibility": take(result.responsibilities),
    }
    if done.layout is not None and _is_structured(done):
        entered = done.layout.entered
        found["entered"] = _where(take(entered), take(result.applies & ~entered.isnan()))
        found["outside"] = take(done.layout.outside)
    if done.reliability is not None:
        found["reliability"] = take(done.reliability.expand(shape))
    return found


def _is_structured(done: Aggregated) -> bool:
    """Whether rewards may have entered the aggregation otherwise than they were scored."""
    return done.structures is not None and bool(done.structures.parts)


def _where(values: Sequence[float], there: Sequence[bool]) -> list[float | None]:
    return [value if known else None for value, known in zip(values, there, strict=True)]
