"""``channels/{step}.parquet`` beside verl's own dumps, which leave the single rewards out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from rvpo.core.channels import Family
from rvpo.engines import records
from rvpo.engines.aggregator import Aggregated
from rvpo.engines.verl.rows import Sessions

SCHEMA = records.SCHEMA.append(pa.field("session", pa.string())).append(pa.field("uid", pa.string()))
"""Columns: those of every engine; ``session``, ``{uid of the prompt}_{number}``; and ``uid``, that of its last output,
``{session}_{number}``, which verl's own dump has under the same name. That may have padding, this has none.
"""


class ChannelTable:
    """Writes a file for each step. A resumed run overwrites its steps."""

    def __init__(self, folder: Path) -> None:
        """Write below ``folder``, which is made on first use."""
        self._folder = folder

    def write(
        self,
        step: int,
        names: Sequence[str],
        weights: Sequence[float],
        sessions: Sessions,
        families: Sequence[Family],
        done: Aggregated,
        advantages: Tensor,
    ) -> None:
        """Write the channels of a step; ``advantages`` (S,) are those that the policy was trained with."""
        own = {family.name for family in families if not family.only_monitored}
        plain = {name: weight for name, weight in zip(names, weights, strict=True) if name not in own}
        rows = list(records.column_rows(step, list(plain), list(plain.values()), done.result))
        if done.table is not None:
            rows += records.family_rows(step, families, done.table, done.result)
        trained = advantages.tolist()
        for row in rows:
            i = row["completion"]
            row |= {"session": sessions.names[i], "uid": sessions.keys[i], "advantage": trained[i]}
        records.write(self._folder / f"{step:06d}.parquet", rows, SCHEMA)
