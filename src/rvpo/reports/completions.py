"""``completions/*.parquet``, which TRL's trainers write with ``log_completions=True``: a column a reward, no group ids.

What TRL 1.16 does, and what follows:

- A file is written at every log, with the last generation's completions. One that was logged before (several
  iterations or steps on one generation) is passed over.
- Groups are blocks of equal prompts. Where a prompt stands in several blocks side by side, the blocks are as long as
  the greatest number that divides all of them.
- ``log_extra`` adds columns of its own behind the rewards: name the rewards where these are numbers.
- At a step with an evaluation the file holds the evaluation's completions, and nothing says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rvpo.errors import DataError
from rvpo.reports.records import Batch, Columns, Run, Texts

_NAME = re.compile(r"completions_(\d+)\.parquet")
NEVER_REWARDS = ("step", "prompt", "completion", "advantage", "image", "images")


def files(folder: Path) -> list[Path]:
    """Return the completions of a folder in order of their steps; none where it holds none."""
    found = [path for path in folder.glob("completions_*.parquet") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step)


def open_files(path: Path, paths: Sequence[Path], columns: Columns) -> Run:
    """Open the completions of a run.

    Raises:
        DataError: a file is damaged, or none of its columns is a reward.
    """
    rewards = columns.rewards or _rewards(paths[0])
    size = columns.group_size or _group_size(paths)
    notes = [f"rewards are the columns {', '.join(rewards)} (--rewards names others)"]
    notes.append(
        f"groups of {size} completions, found by their prompts (--group-size sets it)"
        if columns.group_size is None and size
        else "groups are completions of equal prompts that stand together: their number differs"
        if not size
        else f"groups of {size} completions"
    )
    steps = tuple(_step(file) for file in paths)
    return Run(
        path,
        "completions",
        rewards,
        steps,
        partial(_read, list(paths), rewards, size),
        every_batch=steps == tuple(range(1, len(steps) + 1)),
        notes=tuple(notes),
    )


def texts_of(path: Path) -> Texts | None:
    """Return prompts and completions of a file; None where there is none that can be read."""
    try:
        table = pq.read_table(path, columns=["prompt", "completion"], partitioning=None)
    except (pa.ArrowException, OSError, KeyError):
        return None
    return Texts(_texts(table["prompt"]), _texts(table["completion"]))


def _read(paths: Sequence[Path], rewards: tuple[str, ...], size: int, texts: bool) -> Iterator[Batch]:
    before: tuple[Tensor, Tensor] | None = None
    for path in paths:
        wanted = ["prompt", *rewards, "advantage", *(["completion"] if texts else [])]
        table = _table(path, wanted)
        if not len(table):
            continue
        values = torch.stack([_floats(path, table, name) for name in rewards], 1)
        advantages = _floats(path, table, "advantage")
        now = (values.nan_to_num(nan=torch.inf), advantages.nan_to_num(nan=torch.inf))
        if before is not None and all(torch.equal(x, y) for x, y in zip(before, now, strict=True)):
            continue  # the same generation, logged again
        before = now
        prompts = _texts(table["prompt"])
        yield Batch(
            _step(path),
            values,
            _groups(path, prompts, size),
            torch.arange(len(rewards)),
            advantages,
            texts=Texts(prompts, _texts(table["completion"])) if texts else None,
        )


def _groups(path: Path, prompts: Sequence[str], size: int) -> Tensor:
    if size and len(prompts) % size:
        raise DataError(
            f"{path} has {len(prompts)} completions, which are no blocks of {size}: set the number of completions of a "
            "prompt (--group-size)"
        )
    if size:
        return torch.arange(len(prompts)) // size
    starts = [i for i, prompt in enumerate(prompts) if i == 0 or prompt != prompts[i - 1]]
    ids = torch.zeros(len(prompts), dtype=torch.int64)
    ids[starts[1:]] = 1
    return ids.cumsum(0)


def _group_size(paths: Sequence[Path], look_at: int = 50) -> int:
    """Return the number of completions of a prompt, 0 where it differs."""
    size = 0
    for path in paths[:look_at]:
        prompts = _texts(_table(path, ["prompt"])["prompt"])
        starts = [i for i, prompt in enumerate(prompts) if i == 0 or prompt != prompts[i - 1]]
        for start, end in zip(starts, [*starts[1:], len(prompts)], strict=True):
            size = math.gcd(size, end - start)
    return size if size > 1 else 0


def _rewards(path: Path) -> tuple[str, ...]:
    schema = _schema(path)
    names = [field.name for field in schema if pa.types.is_floating(field.type) and field.name not in NEVER_REWARDS]
    if not names:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names)}, none of which is a reward (a floating point number): "
            "name them with --rewards"
        )
    return tuple(names)


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}), allowed is parquet: remove the damaged file") from error


def _table(path: Path, columns: Sequence[str]) -> pa.Table:
    schema = _schema(path)
    if absent := [name for name in columns if name not in schema.names]:
        raise DataError(
            f"{path} has no column {absent[0]!r}, it has {', '.join(schema.names)}: name the columns (--rewards), or "
            "read a single kind of file"
        )
    try:
        return pq.read_table(path, columns=list(dict.fromkeys(columns)), partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}), allowed is whole parquet: remove the file") from error


def _floats(path: Path, table: pa.Table, name: str) -> Tensor:
    return floats(table[name], f"{path}, column {name!r}")


def floats(column: pa.ChunkedArray, where: str) -> Tensor:
    """Return a column of numbers as (N,) float64, null as NaN.

    Raises:
        DataError: it does not hold numbers; ``where`` names it.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return torch.full((len(column),), torch.nan, dtype=torch.float64)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where} holds {kind}, allowed are numbers, null where missing: name other columns")
    values = column.cast(pa.float64()) if not pa.types.is_boolean(kind) else column.cast(pa.int8()).cast(pa.float64())
    return torch.from_numpy(np.array(values.to_numpy(), dtype=np.float64))


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [as_text(value) for value in column.to_pylist()]


def as_text(value: Any) -> str:
    """Return a text as it is, anything else (a chat) as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None  # `files` takes no others
    return int(match[1])
