"""Parquet or JSONL with named columns, from any trainer: one row a completion, one column a reward.

Usual names are found by themselves; rewards may stand in an object ``rewards``. Without a column of the step all rows
are one batch. Files are looked at first, and only the columns that are needed are held; texts where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from rvpo.errors import ConfigError, DataError
from rvpo.logs.read_trl import floats, text_of_cell
from rvpo.logs.run import Columns, LoggedBatch, Run, Texts
from rvpo.logs.table_files import Column, columns_in, read_columns

USUAL: Mapping[str, tuple[str, ...]] = {
    "group": ("group", "group_id", "prompt_id", "uid", "prompt", "question", "problem", "query"),
    "step": ("step", "global_step", "training_step", "iteration"),
    "advantage": ("advantage", "advantages", "adv", "advs", "A_hat"),
    "prompt": ("prompt", "prompts", "input", "question", "problem", "query"),
    "completion": ("completion", "completions", "response", "output", "text"),
}
REWARD_PREFIXES = ("reward/", "rewards/", "reward.", "rewards.", "reward_", "rewards_")

TOTALS = frozenset(
    ("reward", "rewards", "score", "total", "sum", "mean", "avg", "average", "std", "overall", "combined", "weighted")
)
"""Mostly made of the channels, and none; --rewards can still name them."""

NEVER_REWARDS = frozenset(
    ("index", "row", "id", "rank", "epoch", "seed", "tokens", "length", "truncated", "n_tok", "__index_level_0__")
)
NEVER_ENDINGS = ("_id", "_index", "_len", "_length", "_tokens", "_tok", "_step", "_time", "_seed", "_std", "_mean")
LOOKED_AT = 5_000  # rows, for a column that is the sum of others


def open_tables(path: Path, paths: Sequence[Path], columns: Columns) -> Run:
    """Open tables of a run.

    Raises:
        ConfigError: a column that is named, or a group, cannot be found.
        DataError: a file is damaged, or a column does not hold what it should.
    """
    there: dict[str, Column] = {}
    for file in paths:
        for column in columns_in(file):
            there[column.name] = there.get(column.name, column).together(column)
    if not there:
        raise DataError(f"{path} has no rows; expected one a completion: check how it was written")
    names = list(there)
    found = {role: _find(path, names, role, getattr(columns, role)) for role in USUAL}
    if columns.group_size is not None:
        found["group"] = None
    rewards = _given(columns.rewards, names) or _rewards(path, list(there.values()), set(filter(None, found.values())))
    if absent := [name for name in rewards if name not in names]:
        raise ConfigError(
            f"{path} has no column {absent[0]!r} for a reward; expected {', '.join(names)}: name others (--rewards)"
        )
    if found["group"] is None and columns.group_size is None:
        raise ConfigError(
            f"{path} has the columns {', '.join(names)}, and none tells which rows answer one prompt: name it with "
            "--group, or the number of completions of a prompt with --group-size"
        )
    numbers = list(dict.fromkeys([*rewards, *filter(None, (found["advantage"],))]))
    table = read_columns(path, paths, [*numbers, *filter(None, (found["group"], found["step"]))])
    if not len(table):
        raise DataError(f"{path} has no rows; expected one a completion: check how it was written")
    groups = _groups(path, table, found["group"], columns.group_size)
    steps = np.zeros(len(table), dtype=np.int64) if found["step"] is None else _steps(path, table, found["step"])
    values = {name: floats(table[name], f"{path}, column {name!r}") for name in numbers}
    texts = {role: name for role in ("prompt", "completion") if (name := found[role])}
    return Run(
        path,
        "table",
        tuple(_short(name, rewards) for name in rewards),
        tuple(np.unique(steps).tolist()),
        partial(_read, values, rewards, found["advantage"], groups, steps, partial(read_columns, path, paths), texts),
        notes=tuple(_notes(found, columns, rewards, values, groups)),
    )


def _notes(
    found: Mapping[str, str | None],
    columns: Columns,
    rewards: Sequence[str],
    values: Mapping[str, Tensor],
    groups: Tensor,
) -> Iterator[str]:
    """Say how the table was understood, and what may be misunderstood."""
    yield f"rewards are the columns {', '.join(rewards)} (--rewards names others)"
    size = columns.group_size
    yield f"groups are those of column {found['group']!r}" if size is None else f"groups are blocks of {size}"
    if columns.rewards is None:
        for name in rewards:
            if _is_centred(values[name], groups):
                yield f"{name!r} sums to 0 in every group, as an advantage does: name it (--advantage), or the rewards"
    if found["step"] is not None:
        yield f"steps are those of column {found['step']!r}"
    for name in sums_of_others({name: values[name] for name in rewards}):
        yield f"{name!r} is a weighted sum of other rewards: if it is a total, name the rewards without it (--rewards)"
    if found["step"] is None:
        yield "there is no column of the step: all rows are one batch, and nothing can be said over time"
        blocks = 1 + int((groups[1:] != groups[:-1]).sum())
        if size is None and blocks > len(set(groups.tolist())):
            yield "ids of groups come back after others: if they start anew in each step, name its column (--step)"


def _is_centred(values: Tensor, groups: Tensor) -> bool:
    """Tell whether values sum to 0 in every group, without being 0."""
    values, groups = values[:LOOKED_AT].nan_to_num(nan=0.0), groups[:LOOKED_AT]
    last = groups == groups[-1]  # may be cut off
    sums = torch.zeros(int(groups.max()) + 1, dtype=values.dtype).index_add(0, groups[~last], values[~last])
    return bool(values.abs().max() > 1e-3) and bool(sums.abs().max() < 1e-3) and not bool(last.all())


def sums_of_others(values: Mapping[str, Tensor]) -> list[str]:
    """Return the names of columns that are sums of two or more others, each with a weight above 0."""
    names = list(values)
    x = torch.stack([values[name][:LOOKED_AT] for name in names], 1)
    x = x[~x.isnan().any(1)]
    if len(x) < 3 * len(names) or len(names) < 3:
        return []
    centred = (x - x.mean(0)).numpy()
    spread = centred.std(0)
    found = []
    for j, name in enumerate(names):
        others = [i for i in range(len(names)) if i != j and spread[i] > 0]
        if len(others) < 2 or spread[j] == 0:
            continue
        weights, _, rank, _ = np.linalg.lstsq(centred[:, others], centred[:, j], rcond=None)
        off = np.abs(centred[:, others] @ weights - centred[:, j]).max() / spread[j]
        counted = weights > 1e-6
        if rank == len(others) and off < 1e-5 and counted.sum() >= 2 and (weights[~counted] > -1e-6).all():
            found.append(name)
    return found


def _read(
    values: Mapping[str, Tensor],
    rewards: Sequence[str],
    advantage: str | None,
    groups: Tensor,
    steps: Any,
    load: Any,
    texts: Mapping[str, str],
    with_texts: bool,
) -> Iterator[LoggedBatch]:
    order = np.argsort(steps, kind="stable")
    words = load(list(texts.values())) if with_texts and "completion" in texts else None
    for part in np.split(order, np.flatnonzero(np.diff(steps[order])) + 1):
        rows = torch.from_numpy(part)
        yield LoggedBatch(
            int(steps[part[0]]),
            torch.stack([values[name][rows] for name in rewards], 1),
            groups[rows],
            torch.arange(len(rewards)),
            None if advantage is None else values[advantage][rows],
            texts=None if words is None else _texts(words, texts, part),
        )


def _texts(words: pa.Table, texts: Mapping[str, str], rows: Any) -> Texts:
    prompts, completions = (
        [text_of_cell(value) for value in words[texts[role]].take(pa.array(rows)).to_pylist()]
        if role in texts
        else [""] * len(rows)
        for role in ("prompt", "completion")
    )
    return Texts(prompts, completions)


def _find(path: Path, names: Sequence[str], role: str, given: str | None) -> str | None:
    if given is not None:
        if given not in names:
            raise ConfigError(
                f"{path} has no column {given!r} (--{role}); expected {', '.join(names)}: name one of them"
            )
        return given
    return next((name for name in USUAL[role] if name in names), None)


def _given(rewards: tuple[str, ...] | None, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the columns that were named, also by what stands behind ``rewards.``."""
    if rewards is None:
        return None
    full = {name: next((p + name for p in REWARD_PREFIXES if p + name in names), name) for name in rewards}
    return tuple(name if name in names else full[name] for name in rewards)


def _rewards(path: Path, columns: Sequence[Column], taken: set[str]) -> tuple[str, ...]:
    """Return the columns that are rewards by their names: those with a prefix, else all numbers that may be one."""
    taken = taken | {name for names in USUAL.values() for name in names}
    numbers = {column.name: column.empty for column in columns if column.numeric and column.name not in taken}
    marked = [name for name in numbers if name.startswith(REWARD_PREFIXES) and not _is_total(name)]
    plain = [
        name
        for name, empty in numbers.items()
        if not empty
        and name.lower() not in TOTALS | NEVER_REWARDS
        and not name.lower().endswith(NEVER_ENDINGS)
        and not (name.startswith(REWARD_PREFIXES) and _is_total(name))
    ]
    if found := marked or plain:
        return tuple(found)
    raise ConfigError(
        f"{path} has the columns {', '.join(column.name for column in columns)}, and none is clearly a reward: name "
        "them with --rewards a,b,c"
    )


def _is_total(name: str) -> bool:
    inner = next((name.removeprefix(prefix) for prefix in REWARD_PREFIXES if name.startswith(prefix)), name)
    return inner.lower() in TOTALS or inner.lower().endswith(("_std", "_mean"))


def _short(name: str, names: Sequence[str]) -> str:
    """Return a reward's name without a prefix that all of them share."""
    for prefix in REWARD_PREFIXES:
        if all(other.startswith(prefix) and not other.removeprefix(prefix).isdecimal() for other in names):
            return name.removeprefix(prefix) or name
    return name


def _groups(path: Path, table: pa.Table, name: str | None, size: int | None) -> Tensor:
    if name is None:
        assert size is not None  # one of both is there
        if len(table) % size:
            raise ConfigError(
                f"--group-size is {size}, but {path} has {len(table)} rows, which are no blocks of that size: name the "
                "column of the group instead (--group)"
            )
        return torch.arange(len(table)) // size
    column = table[name].combine_chunks()
    if pa.types.is_nested(column.type):
        column = pa.array([text_of_cell(value) for value in column.to_pylist()])
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}, row {row}: the group (column {name!r}) is null; expected an id: add it")
    return torch.from_numpy(np.asarray(column.dictionary_encode().indices, dtype=np.int64))


def _steps(path: Path, table: pa.Table, name: str) -> Any:
    steps = floats(table[name], f"{path}, column {name!r}")
    if bool(steps.isnan().any()) or bool((steps != steps.round()).any()):
        row = int((steps.isnan() | (steps != steps.round())).nonzero()[0])
        raise DataError(f"{path}, row {row}: the step is {steps[row].item()}; expected a whole number: fix it")
    return steps.long().numpy()
