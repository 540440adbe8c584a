"""The table of channels: one row for each completion and each of its channels, as parquet, for reports and replays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rvpo.core import Advantages
from rvpo.core.channels import ChannelScores, Family

SCHEMA = pa.schema(
    {
        "step": pa.int64(),  # the training step that first uses the completion, from 1; for an evaluation, the last
        "completion": pa.int64(),  # its row among the step's completions, as in completions/
        "group": pa.int64(),
        "reward_function": pa.string(),
        "criterion": pa.string(),  # null for a reward function that is one channel
        "text": pa.string(),
        "labels": pa.list_(pa.string()),
        "weight": pa.float64(),
        "reward": pa.float64(),  # null where missing
        "reason": pa.string(),  # why it is missing
        "detail": pa.string(),
        "live": pa.bool_(),
        "z": pa.float64(),  # null where missing
        "responsibility": pa.float64(),
        "advantage": pa.float64(),  # of the completion
    }
)


def family_rows(
    step: int, families: Sequence[Family], table: ChannelScores, result: Advantages, first_completion: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield the rows of reward functions that have channels of their own."""
    columns = _Columns(step, result, first_completion)
    for family in families:
        first = table.first_column[family.name]
        for i, scores in enumerate(family.rows):
            for column, score in enumerate(scores, first):
                yield columns.cell(i, column) | {
                    "reward_function": family.name,
                    "criterion": score.channel,
                    "text": score.text,
                    "labels": list(score.labels),
                    "weight": score.weight,
                    "reward": score.value,
                    "reason": score.reason,
                    "detail": score.detail,
                }


def column_rows(
    step: int, names: Sequence[str], weights: Sequence[float], result: Advantages
) -> Iterator[dict[str, Any]]:
    """Yield the rows of reward functions that are one channel each; ``names`` are the first columns of the result."""
    columns = _Columns(step, result, 0)
    rewards = result.rewards.tolist()
    for column, (name, weight) in enumerate(zip(names, weights, strict=True)):
        for i, row in enumerate(rewards):
            cell = columns.cell(i, column)
            reward = None if cell["z"] is None else row[column]
            yield cell | {"reward_function": name, "labels": [], "weight": weight, "reward": reward}


class _Columns:
    """What a result says of each of its cells."""

    def __init__(self, step: int, result: Advantages, first_completion: int) -> None:
        self._common, self._first = {"step": step}, first_completion
        self._groups, self._advantages = result.groups.index.tolist(), result.advantages.tolist()
        self._live, self._responsibilities = result.live.tolist(), result.responsibilities.tolist()
        scored = (result.applies & ~result.missing).tolist()
        z = result.z.tolist()
        self._z = [
            [value if there else None for value, there in zip(*row, strict=True)] for row in zip(z, scored, strict=True)
        ]

    def cell(self, i: int, column: int) -> dict[str, Any]:
        return self._common | {
            "completion": self._first + i,
            "group": self._groups[i],
            "live": self._live[i][column],
            "z": self._z[i][column],
            "responsibility": self._responsibilities[i][column],
            "advantage": self._advantages[i],
        }


def write(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema = SCHEMA) -> None:
    """Write a table, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), partial)
    partial.replace(path)
