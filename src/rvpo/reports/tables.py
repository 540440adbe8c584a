"""Parquet or JSONL with named columns, from any trainer: one row a completion, one column a reward.

Usual names are found by themselves; rewards may stand in an object ``rewards``. Without a column of the step all rows
are one batch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rvpo.errors import ConfigError, DataError
from rvpo.reports.completions import as_text, floats
from rvpo.reports.records import Batch, Columns, Run, Texts

USUAL: Mapping[str, tuple[str, ...]] = {
    "group": ("group", "group_id", "prompt_id", "uid", "prompt"),
    "step": ("step", "global_step", "training_step", "iteration"),
    "advantage": ("advantage", "advantages"),
    "prompt": ("prompt", "prompts", "input", "question"),
    "completion": ("completion", "completions", "response", "output", "text"),
}
REWARD_PREFIXES = ("reward/", "rewards/", "reward.", "rewards.", "reward_", "rewards_")
NEVER_REWARDS = (
    "index",
    "row",
    "id",
    "rank",
    "epoch",
    "seed",
    "tokens",
    "length",
    "reward",
    "score",
    "__index_level_0__",
)
"""Numbers that are seldom channels (``reward`` and ``score`` are mostly their sum); --rewards can still name them."""


def open_files(path: Path, paths: Sequence[Path], columns: Columns) -> Run:
    """Open tables of a run.

    Raises:
        ConfigError: a column that is named, or a group, cannot be found.
        DataError: a file is damaged, or a column does not hold what it should.
    """
    table = pa.concat_tables([_load(file) for file in paths], promote_options="permissive")
    if not len(table):
        raise DataError(f"{path} has no rows, allowed is one a completion: check how it was written")
    names = table.column_names
    found = {role: _find(path, names, role, getattr(columns, role)) for role in USUAL}
    rewards = columns.rewards or _rewards(path, table, set(filter(None, found.values())))
    if absent := [name for name in rewards if name not in names]:
        raise ConfigError(f"{path} has no column {absent[0]!r} for a reward; it has {', '.join(names)}")
    groups = _groups(path, table, found["group"], columns.group_size)
    step = found["step"]
    steps = np.zeros(len(table), dtype=np.int64) if step is None else _steps(path, table, step)
    order = np.argsort(steps, kind="stable")
    notes = [f"rewards are the columns {', '.join(rewards)} (--rewards names others)"]
    notes.append(
        f"groups are those of column {found['group']!r}" if columns.group_size is None else "groups are blocks"
    )
    if step is None:
        notes.append("there is no column of the step: all rows are one batch, and nothing can be said over time")
    kept = list(dict.fromkeys([*rewards, *(name for name in (found["advantage"],) if name)]))
    values = {name: floats(table[name], f"{path}, column {name!r}") for name in kept}
    texts = {role: table[name] for role in ("prompt", "completion") if (name := found[role])}
    return Run(
        path,
        "table",
        tuple(_short(name, rewards) for name in rewards),
        tuple(np.unique(steps).tolist()),
        partial(_read, values, rewards, found["advantage"], groups, steps, order, texts),
        notes=tuple(notes),
    )


def _read(
    values: Mapping[str, Tensor],
    rewards: Sequence[str],
    advantage: str | None,
    groups: Tensor,
    steps: Any,
    order: Any,
    texts: Mapping[str, pa.ChunkedArray],
    with_texts: bool,
) -> Iterator[Batch]:
    bounds = np.flatnonzero(np.diff(steps[order])) + 1
    for part in np.split(order, bounds):
        rows = torch.from_numpy(part)
        told = None
        if with_texts and "completion" in texts:
            prompts, completions = (
                [as_text(value) for value in texts[role].take(pa.array(part)).to_pylist()]
                if role in texts
                else [""] * len(part)
                for role in ("prompt", "completion")
            )
            told = Texts(prompts, completions)
        yield Batch(
            int(steps[part[0]]),
            torch.stack([values[name][rows] for name in rewards], 1),
            groups[rows],
            torch.arange(len(rewards)),
            None if advantage is None else values[advantage][rows],
            texts=told,
        )


def _load(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        try:
            return _flat(pq.read_table(path, partitioning=None))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read ({error}), allowed is whole parquet: write it again") from error
    rows = []
    with path.open("rb") as lines:  # bytes, so that a wrong encoding is found with its line
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _line_error(path, number, f"{line[:60]!r} ({error})", "repair the line") from error
            if not isinstance(row, dict):
                raise _line_error(path, number, f"a {type(row).__name__}", "wrap it in an object")
            rows.append(row)
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    return _flat(pa.table({name: _column(path, name, [row.get(name) for row in rows]) for name in names}))


def _line_error(path: Path, number: int, seen: str, next_step: str) -> DataError:
    return DataError(f"{path}, line {number}: {seen}, allowed is one JSON object a line, UTF-8: {next_step}")


def _column(path: Path, name: str, values: list[Any]) -> pa.Array:
    """Build a column; numbers of both kinds are one kind, and what no column can hold is kept as JSON."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float, bool} and float in kinds:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if kinds == {dict}:
        keys = list(dict.fromkeys(key for value in values if value for key in value))
        inner = [_column(path, f"{name}.{key}", [None if v is None else v.get(key) for v in values]) for key in keys]
        return pa.StructArray.from_arrays(inner, keys) if keys else pa.nulls(len(values))
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else as_text(value) for value in values], pa.string())


def _flat(table: pa.Table) -> pa.Table:
    """Give the parts of an object ``rewards`` columns of their own, ``rewards.{name}``."""
    for name in [field.name for field in table.schema if pa.types.is_struct(field.type)]:
        if name in ("rewards", "reward"):
            struct = table[name].combine_chunks()
            index = table.column_names.index(name)
            table = table.remove_column(index)
            for part in struct.type:
                table = table.append_column(f"{name}.{part.name}", struct.field(part.name))
    return table


def _find(path: Path, names: Sequence[str], role: str, given: str | None) -> str | None:
    if given is not None:
        if given not in names:
            raise ConfigError(f"{path} has no column {given!r} (--{role}); it has {', '.join(names)}")
        return given
    return next((name for name in USUAL[role] if name in names), None)


def _rewards(path: Path, table: pa.Table, taken: set[str]) -> tuple[str, ...]:
    numbers = [field.name for field in table.schema if _may_be_reward(field) and field.name not in taken]
    marked = [name for name in numbers if name.startswith(REWARD_PREFIXES)]
    found = marked or [name for name in numbers if name.lower() not in NEVER_REWARDS]
    if not found:
        raise ConfigError(
            f"{path} has the columns {', '.join(table.column_names)}, and none is clearly a reward: name them with "
            "--rewards a,b,c"
        )
    return tuple(found)


def _may_be_reward(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_null(kind):  # never scored; only its name can tell that it is a reward
        return str(field.name).startswith(REWARD_PREFIXES)
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _short(name: str, names: Sequence[str]) -> str:
    """Return a reward's name without a prefix that all of them share."""
    for prefix in REWARD_PREFIXES:
        if all(other.startswith(prefix) and not other.removeprefix(prefix).isdecimal() for other in names):
            return name.removeprefix(prefix) or name
    return name


def _groups(path: Path, table: pa.Table, name: str | None, size: int | None) -> Tensor:
    if size is not None:
        if size < 1 or len(table) % size:
            raise ConfigError(
                f"--group-size is {size}, but {path} has {len(table)} rows, which are no blocks of that size: name the "
                "column of the group instead (--group)"
            )
        return torch.arange(len(table)) // size
    if name is None:
        raise ConfigError(
            f"{path} has the columns {', '.join(table.column_names)}, and none tells which rows answer one prompt: "
            "name it with --group, or the number of completions of a prompt with --group-size"
        )
    column = table[name].combine_chunks()
    if pa.types.is_nested(column.type):
        column = pa.array([as_text(value) for value in column.to_pylist()])
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}, row {row}: the group (column {name!r}) is null, allowed is an id: add it")
    return torch.from_numpy(np.asarray(column.dictionary_encode().indices, dtype=np.int64))


def _steps(path: Path, table: pa.Table, name: str) -> Any:
    steps = floats(table[name], f"{path}, column {name!r}")
    if bool(steps.isnan().any()) or bool((steps != steps.round()).any()):
        row = int((steps.isnan() | (steps != steps.round())).nonzero()[0])
        raise DataError(f"{path}, row {row}: the step is {steps[row].item()}, allowed is a whole number: mend it")
    return steps.long().numpy()
