"""From a table with one row per completion to a run: steps, groups, rewards, advantages, and what was guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rvpo.errors import ConfigError, DataError
from rvpo.logs.guess import Guess
from rvpo.logs.parquet_files import numbers
from rvpo.logs.run import Columns, LoggedBatch, Run, Texts
from rvpo.logs.tables import batches as batching
from rvpo.logs.tables import groups as grouping
from rvpo.logs.tables import names as naming
from rvpo.logs.tables import rewards as choosing
from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.groups import Labels
from rvpo.logs.tables.look import look
from rvpo.logs.tables.table import Table

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW_ROWS_A_STEP = 2.0
"""Rows per value below which a column counts rows and not steps."""

FEWEST_CENTRED = 2  # groups
FEW_GROUPS = 8  # under which a text may be the same in all rows of a group by chance
SAME_IN_GROUPS = 0.9  # of the groups, in which a text is the same in all rows, that make it no completion
MANY_CONTRADICTIONS = 0.5
MOST_COMPARED = 20  # columns, in which rows that are there twice have to agree
LARGEST_STEP = 2.0**53
FEW_WITHOUT_STEP = 0.1  # of the rows
SURELY_STEPS = ("step", "global_step", "training_step")


@dataclass(frozen=True)
class Understood:
    """Rows of a table that count, in the order of the table.

    Attributes:
        table: they come from.
        rows: (n,) their numbers in it.
        steps: (n,) steps.
        groups: (n,) ids.
        rewards: (n, M), NaN = missing.
        advantages: (n,), None without.
        totals: (n,), None without.
        weights: (M,), None where unknown.
        texts: columns of the prompt and the completion, None where there is none.
        by_size: size -> (n,) ids of groups, where they are blocks of an unknown size; else empty.
    """

    table: Table
    rows: Ints
    steps: Ints
    groups: Ints
    rewards: Array
    advantages: Array | None
    totals: Array | None
    weights: Sequence[float] | None
    texts: tuple[str | None, str | None]
    by_size: Mapping[int, Ints]

    def read(self, with_texts: bool) -> Iterator[LoggedBatch]:
        """Yield a batch per step, in order."""
        prompts, completions = (_texts(self.table, name) if with_texts else None for name in self.texts)
        order = np.argsort(self.steps, kind="stable")
        weights = None if self.weights is None else np.array(self.weights, dtype=np.float64)
        for part in np.split(order, np.flatnonzero(np.diff(self.steps[order])) + 1):
            told = None
            if completions is not None:
                rows = self.rows[part].tolist()
                asked = ["" if prompts is None else prompts[row] or "" for row in rows]
                told = Texts(asked, [completions[row] or "" for row in rows])
            yield LoggedBatch(
                int(self.steps[part[0]]),
                self.rewards[part],
                grouping.codes_of(self.groups[part]),
                np.arange(self.rewards.shape[1]),
                None if self.advantages is None else self.advantages[part],
                weights=weights,
                texts=told,
                totals=None if self.totals is None else self.totals[part],
                groupings={size: grouping.codes_of(ids[part]) for size, ids in self.by_size.items()},
            )


def open_tables(path: Path, paths: Sequence[Path], columns: Columns) -> Run:
    """Open tables of a run.

    Raises:
        ConfigError: a column that is named cannot be found, or rewards or groups cannot be told.
        DataError: a file is damaged, or a column does not hold what it should.
    """
    table = look(path, paths)
    known = list(table.columns)
    notes: list[str] = list(table.notes)
    guesses: list[Guess] = []
    step = _steps_column(table, columns.step)
    completion = _given(table, "completion", columns.completion)
    likely = [completion] if completion else naming.of_role(known, "completion")
    prompt = _given(table, "prompt", columns.prompt) or next(iter(naming.of_role(known, "prompt")), None)
    advantage = _given(table, "advantage", columns.advantage) or _first_number(table, "advantage")
    values = _candidates(table, columns, {step, advantage, prompt, *likely[:1], table.group, "line", "file"})
    batches = _trained(table, step, values, likely)
    advantages = None if advantage is None else _used(_numbers(table, advantage), advantage, batches, guesses)
    kept = np.flatnonzero(batches.kept)
    rows = grouping.Rows(
        None if step is None else batches.steps[kept],
        batches.parts[kept],
        None if advantages is None else advantages[kept],
    )
    found = _groups(table, columns, rows, kept)
    ids = found.ids
    if found.kept is not None:
        kept, ids = kept[found.kept], grouping.codes_of(ids[found.kept])
    if completion is None:
        completion = _completion(table, likely, kept, ids, notes)
    if advantages is None and columns.advantage is None:
        advantage = _centred(table, values, kept, ids, columns.rewards)
        if advantage is not None:
            advantages = values.pop(advantage)
            why = "it sums to 0 in every group, as advantages do"
            guesses.append(Guess(f"the advantages are the column {advantage!r}", why, "--advantage, --rewards"))
    # Advantages that never move say nothing about rewards or groups.
    moving = advantages if advantages is not None and np.nanmax(np.abs(advantages[kept]), initial=0.0) > 0 else None
    chosen = _rewards(table, columns, values, kept, ids, moving)
    if moving is not None and columns.group_size is None:
        finer = _without_contradictions(ids, values, kept, chosen, moving, notes, guesses)
        if finer is not None:
            ids, chosen = finer, _rewards(table, columns, values, kept, finer, moving)
    if moving is not None and len(naming.of_role(known, "advantage")) > 1 and columns.advantage is None:
        notes.append(f"advantages are those of column {advantage!r}")
    rewards = np.stack([values[name][kept] for name in chosen.rewards], 1)
    costs = _costs(chosen)
    rewards[:, costs] *= -1
    understood = Understood(
        table,
        kept,
        batches.steps[kept],
        ids,
        rewards,
        None if advantages is None else advantages[kept],
        None if chosen.total is None else values[chosen.total][kept],
        _weights(table, chosen),
        (prompt, completion),
        found.by_size,
    )
    short = naming.short(chosen.rewards)
    channels = [f"-{short[name]}" if j in costs else short[name] for j, name in enumerate(chosen.rewards)]
    notes += [f"{chosen.rewards[j]!r} is a cost, of negative weight in the total: it is shown negated" for j in costs]
    notes += [f"rewards are the columns {', '.join(chosen.rewards)} (--rewards names others)"]
    notes += [*chosen.notes, *_cells(table, chosen.rewards), found.said, *found.notes, *batches.notes]
    if step is not None:
        notes.append(f"steps are those of column {step!r}")
    else:
        notes.append("there is no column of the step: all rows are one batch, and nothing can be said over time")
    return Run(
        path,
        "table",
        tuple(channels),
        tuple(np.unique(batches.steps[kept]).tolist()),
        understood.read,
        notes=tuple(notes),
        guesses=(*guesses, *chosen.guesses, *_left_out(table, chosen, columns), *found.guesses, *batches.guesses),
    )


def _trained(table: Table, step: str | None, values: Mapping[str, Array], likely: Sequence[str]) -> batching.Batches:
    """Return which rows were trained on, and when.

    Args:
        table: all rows.
        step: column of the step.
        values: numbers in which rows that are there twice agree.
        likely: columns that may hold the completions.

    Raises:
        DataError: none was.
    """
    known = list(table.columns)
    batches = _batches(table, step)
    for name in naming.of_role(known, "phase"):
        batching.leave_out_evaluation(batches, name, _texts(table, name) or [])
    for name in naming.of_role(known, "run"):
        if batching.separate_runs(batches, name, _texts(table, name) or []):
            break
    if step is not None:
        numbers = dict(list(values.items())[:MOST_COMPARED])
        batching.separate_repeated_steps(batches, numbers, partial(_texts, table, likely[0] if likely else None))
    if not batches.kept.any():
        raise DataError(
            f"{table.path} has no rows of a training; expected one per completion: check how it was written"
        )
    return batches


def _used(advantages: Array, name: str, batches: batching.Batches, guesses: list[Guess]) -> Array | None:
    """Return advantages, None where they say nothing."""
    known = np.isfinite(advantages)
    if (known & (advantages != 0))[batches.kept].any():
        return advantages
    told = "is 0 everywhere" if known.any() else "has no value"
    guesses.append(Guess(f"the column {name!r} is not used", f"it {told}", "--advantage"))
    return None


def _without_contradictions(
    ids: Ints,
    values: Mapping[str, Array],
    kept: Ints,
    chosen: choosing.Chosen,
    advantages: Array,
    notes: list[str],
    guesses: list[Guess],
) -> Ints | None:
    """Return finer groups where equal rewards have different advantages in a group; None where these groups stay."""
    rewarded = np.stack([values[name][kept] for name in (*chosen.rewards, *filter(None, [chosen.total]))], 1)
    cut = grouping.cut_by_contradictions(ids, rewarded, advantages[kept])
    if cut is not None:
        notes.append(f"groups are cut into {cut[1]} rows each: equal rewards have different advantages otherwise")
        return cut[0]
    share = grouping.contradictions(ids, rewarded, advantages[kept])
    if share > MANY_CONTRADICTIONS:
        why = f"in {share:.0%} of the cases equal rewards have different advantages within a group"
        guesses.append(Guess("groups or rewards may be others", why, "--group, --rewards", trust=0.8))
    return None


def _completion(table: Table, likely: Sequence[str], kept: Ints, ids: Ints, notes: list[str]) -> str | None:
    """Return the first column that may hold completions: expected outputs are the same in all rows of a group.

    In a few groups they may be the same by chance.
    """
    few = len(np.unique(ids)) < FEW_GROUPS
    for name in likely:
        if table.columns[name].kind == "empty":
            continue
        if few or grouping.share_of_level(ids, _labels(table, name, kept).codes) < SAME_IN_GROUPS:
            return name
        notes.append(
            f"{name!r} does not hold the completions, as it is the same in all rows of (nearly) every group: whether "
            "equal completions were scored differently is not checked with it"
        )
    return None


def _steps_column(table: Table, given: str | None) -> str | None:
    """Return the column of the step: one of whole numbers that several rows share."""
    if given is not None:
        return _given(table, "step", given)
    for name in naming.of_role(table.columns, "step"):
        column = table.columns[name]
        if column.kind != "number":
            continue
        if not column.whole or column.missing > FEW_WITHOUT_STEP * table.rows:
            if naming.key(name) in SURELY_STEPS:
                return name  # what is wrong with it is refused where it is read
            continue
        found = _numbers(table, name)
        distinct = len(np.unique(found[np.isfinite(found)]))
        if table.rows >= FEW_ROWS_A_STEP * distinct:
            return name
    return None


def _batches(table: Table, step: str | None) -> batching.Batches:
    zeros = np.zeros(table.rows, dtype=np.int64)
    if step is None:
        return batching.Batches(zeros, zeros, zeros == 0)
    steps = _numbers(table, step)
    absent = np.isnan(steps)
    if absent.sum() > FEW_WITHOUT_STEP * table.rows:
        raise DataError(
            f"{table.path}: {int(absent.sum()):,} of {table.rows:,} rows have no step (column {step!r}), the first is "
            f"{table.where(int(absent.argmax()))}; expected a step per completion: write it into these rows, or remove "
            "them if they are no completions"
        )
    steps = np.where(absent, -1, steps)
    wrong = (steps != np.round(steps)) | (np.abs(steps) > LARGEST_STEP)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{table.where(row)}: the step is {steps[row]}; expected a whole number: fix it")
    found = batching.Batches(steps.astype(np.int64), zeros, ~absent)
    if absent.any():
        rows = f"{int(absent.sum()):,} of {table.rows:,} rows"
        why = f"they have no step (column {step!r}), the first is {table.where(int(absent.argmax()))}"
        found.guesses.append(Guess(f"{rows} are left out", why, "write the step into them", trust=0.98))
    return found


def _candidates(table: Table, columns: Columns, taken: set[str | None]) -> dict[str, Array]:
    """Read what may be a reward: numbers, and what was named."""
    named = _named_rewards(table, columns.rewards) or ()
    roles = {name for role in ("step", "group", "run", "phase") for name in naming.of_role(table.columns, role)}
    found = {}
    for name, column in table.columns.items():
        is_role = name in taken or name in roles or naming.key(name) in naming.ROLES["advantage"]
        usable = not is_role and not column.repeated and not column.doubt
        is_object = any(other.startswith(f"{name}.") for other in table.columns)  # null where it is absent
        empty = column.kind == "empty" and choosing.class_of(column) == "marked" and not is_object
        if name in named or (usable and (column.numeric or empty)):
            found[name] = _numbers(table, name)
    return found


def _named_rewards(table: Table, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the columns that were named, also by the last part of their names.

    Raises:
        ConfigError: there is no such column, or several.
    """
    if given is None:
        return None
    found = []
    for name in given:
        ends = [other for other, short in ((o, naming.inner(o)) for o in table.columns) if short == name]
        marked = [other for other in table.columns if other in (f"reward_{name}", f"rewards_{name}", f"score_{name}")]
        matches = [name] if name in table.columns else ends or marked
        if len(matches) != 1:
            told = f"several columns {name!r} ({', '.join(matches)})" if matches else f"no column {name!r}"
            raise ConfigError(
                f"{table.path} has {told} for a reward; expected {', '.join(table.columns)}: name others (--rewards)"
            )
        found.append(matches[0])
    return tuple(found)


def _rewards(
    table: Table,
    columns: Columns,
    values: Mapping[str, Array],
    kept: Ints,
    groups: Ints,
    advantages: Array | None,
) -> choosing.Chosen:
    numbers = choosing.Numbers(
        table.path,
        {name: table.columns[name] for name in values},
        {name: column[kept] for name, column in values.items()},
        groups,
        None if advantages is None else advantages[kept],
        list(table.columns),
    )
    named = _named_rewards(table, columns.rewards)
    return choosing.choose(numbers) if named is None else choosing.with_total(numbers, list(named))


def _centred(
    table: Table, values: Mapping[str, Array], kept: Ints, groups: Ints, given: Sequence[str] | None
) -> str | None:
    """Return a column that sums to 0 in every group and whose name says nothing; None where there is none."""
    if given is not None:
        return None
    for name, column in values.items():
        if choosing.class_of(table.columns[name]) in ("unknown", "foreign"):
            share, told = grouping.centred_share(groups, column[kept])
            if share == 1 and told >= FEWEST_CENTRED and table.columns[name].low < 0:
                return name
    return None


def _costs(chosen: choosing.Chosen) -> list[int]:
    """Return which rewards a total proves to be costs: their weight in it is negative, as that of a length penalty."""
    return [j for j, weight in enumerate(chosen.weights or ()) if weight < 0]


def _weights(table: Table, chosen: choosing.Chosen) -> list[float] | None:
    """Return weights that the logs hold, or that the total shows; None where a method could not use them."""
    weights = None if chosen.weights is None else [abs(weight) for weight in chosen.weights]  # costs are negated
    if all(name in table.weights for name in chosen.rewards):
        weights = [table.weights[name] for name in chosen.rewards]
    return weights if weights is not None and min(weights) >= 0 < max(weights) else None


def _groups(table: Table, columns: Columns, rows: grouping.Rows, kept: Ints) -> grouping.Grouping:
    if columns.group_size is not None:
        return _blocks(table, columns.group_size, rows, kept)
    if columns.group is None and table.group is not None:
        lines = _numbers(table, table.group)[kept].astype(np.int64)
        return grouping.Grouping(grouping.codes_of(lines), "groups are those of the lines of the file")
    named = _given(table, "group", columns.group)
    candidates = [named] if named else _group_candidates(table)
    texts = {name: _labels(table, name, kept) for name in candidates}
    for name in list(texts):
        if (unknown := texts[name].codes < 0).any():
            if named or len(texts) == 1:
                row = int(kept[unknown.argmax()])
                raise DataError(f"{table.where(row)}: the group (column {name!r}) is null; expected an id: add it")
            del texts[name]
    by_column = grouping.by_column(rows, texts, named is not None) if texts else None
    found = by_column or grouping.by_advantages(rows) or grouping.by_sizes(rows)
    if found is None:
        raise ConfigError(_no_groups(table, rows))
    return found


def _no_groups(table: Table, rows: grouping.Rows) -> str:
    """Say that nothing shows the groups, and what is needed."""
    if counts := [name for name in table.columns if naming.counts_outcomes(name)]:
        return (
            f"{table.path} has one row per prompt with counts of its completions ({choosing.listed(counts)}); expected "
            "one row per completion, with its rewards: log the completions one by one"
        )
    known = "the step is not known" if rows.steps is None else "no number of rows divides all steps"
    return (
        f"{table.path} has the columns {choosing.listed(list(table.columns), 20)}, and none shows which rows answer "
        f"one prompt ({known}, so that no size of groups can be tried); expected several completions per prompt: name "
        "the column of the prompt with --group, or, where the completions of a prompt stand one after another, their "
        "number with --group-size. A log with one completion per prompt cannot be diagnosed: rewards are compared "
        "within a prompt"
    )


def _group_candidates(table: Table) -> list[str]:
    """Return the columns that may be the group's, those of ids before those of texts."""
    names = naming.of_role(table.columns, "group")
    return [name for name in names if table.columns[name].kind != "empty"]


def _blocks(table: Table, size: int, rows: grouping.Rows, kept: Ints) -> grouping.Grouping:
    if len(kept) % size:
        raise ConfigError(
            f"--group-size is {size}, but {table.path} has {len(kept)} rows, which are no blocks of that size: name "
            "the column of the group instead (--group)"
        )
    ids = np.arange(len(kept)) // size
    both = grouping.codes_of(np.stack([rows.base, ids], 1))
    if both.max() > ids.max():
        row = int(np.flatnonzero(np.diff(rows.base, prepend=rows.base[0]) != 0)[0])
        raise ConfigError(
            f"--group-size is {size}, but a block of that size spans two steps ({table.where(int(kept[row]))}): name "
            "the column of the group instead (--group)"
        )
    return grouping.Grouping(ids, f"groups are blocks of {size}")


def _left_out(table: Table, chosen: choosing.Chosen, columns: Columns) -> Iterator[Guess]:
    """Name columns that may be rewards and could not be read as such."""
    if columns.rewards is not None:
        return
    for name, column in table.columns.items():
        if name in chosen.rewards or name == chosen.total:
            continue
        kind = choosing.class_of(column)
        likely = kind == "marked" or (kind == "named" and column.numeric)
        if likely and column.doubt:
            yield Guess(f"{name!r} is left out", column.doubt, "--rewards", trust=0.8)
        elif column.kind == "text" and _sounds_scored(column):
            yield Guess(f"{name!r} is left out", "it is called a reward and holds texts", "write numbers", trust=0.8)


def _sounds_scored(column: Column) -> bool:
    """Whether a column of texts is called like a reward or a total; explanations, such as ``judge``, are not."""
    if choosing.class_of(column) == "marked":
        return column.numbers > 0
    return naming.is_total(column.name) or naming.is_outcome(column.name, flag=True)


def _cells(table: Table, rewards: Sequence[str]) -> Iterator[str]:
    """Say which cells of rewards are missing for a reason."""
    for name in rewards:
        column: Column = table.columns[name]
        if column.odd:
            yield f"{column.odd} cells of {name!r} hold no number and are missing ({column.odd_example})"
        if 0 < column.absent < table.rows:
            yield f"{column.absent:,} of {table.rows:,} rows do not have {name!r}: it is missing there"


def _given(table: Table, role: str, name: str | None) -> str | None:
    if name is not None and name not in table.columns:
        raise ConfigError(
            f"{table.path} has no column {name!r} (--{role}); expected {', '.join(table.columns)}: name one of them"
        )
    return name


def _first_number(table: Table, role: str) -> str | None:
    names = naming.of_role(table.columns, role)
    return next((name for name in names if table.columns[name].numeric and not table.columns[name].doubt), None)


def _numbers(table: Table, name: str) -> Array:
    column = table.columns[name]
    if column.kind == "empty":
        return np.full(table.rows, np.nan)
    if not column.numeric:
        raise DataError(f"{table.path}, column {name!r} holds text; expected numbers, null where missing: name others")
    return table.numbers(name)


def _labels(table: Table, name: str, rows: Ints) -> Labels:
    column = table.read_texts([name])[name].combine_chunks().dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    codes = np.nan_to_num(numbers(pa.chunked_array([column.indices])), nan=-1).astype(np.int64)[rows]
    return Labels(codes, column.dictionary)


def _texts(table: Table, name: str | None) -> list[str | None] | None:
    return None if name is None else table.read_texts([name])[name].to_pylist()
