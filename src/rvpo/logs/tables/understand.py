"""Convert a table with one row per completion to a run: find steps, groups, rewards, advantages, and list guesses."""

from __future__ import annotations

import re
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
from rvpo.logs.tables.marks import marks_of_missing
from rvpo.logs.tables.table import Table

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW_ROWS_A_STEP = 2.0
"""A column with fewer rows per value numbers rows, not steps."""

FEWEST_CENTRED = 2  # groups
FEW_GROUPS = 8  # with fewer groups, a text may be the same in all rows of a group by chance
SAME_IN_GROUPS = 0.9  # a text that is the same within this share of the groups is not a completion
MANY_CONTRADICTIONS = 0.5
MOST_COMPARED = 20  # number of columns that are compared to find rows that occur twice
RANK = re.compile(r"(?:^|[^a-z])(?:rank|worker|process|proc|gpu|node|actor|replica|dp)[_-]?\d+", re.IGNORECASE)
"""Names of files and folders of one process of a run."""
LARGEST_STEP = 2.0**53
FEW_WITHOUT_STEP = 0.1  # of the rows
MANY_FALLS = 0.05  # of the rows
SURELY_STEPS = ("step", "global_step", "training_step")


@dataclass(frozen=True)
class Understood:
    """The rows of a table that are used, in the order of the table.

    Attributes:
        table: the table.
        rows: (n,) their indices in the table.
        steps: (n,) steps.
        groups: (n,) ids of groups.
        rewards: (n, M), NaN = missing.
        advantages: (n,), None if not logged.
        totals: (n,), None if not logged.
        weights: (M,), None if unknown.
        texts: columns of the prompt and the completion, None if absent.
        by_size: size -> (n,) ids of groups, if groups are blocks of an unknown size; otherwise empty.
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
            texts = None
            if completions is not None:
                rows = self.rows[part].tolist()
                asked = ["" if prompts is None else prompts[row] or "" for row in rows]
                texts = Texts(asked, [completions[row] or "" for row in rows])
            yield LoggedBatch(
                int(self.steps[part[0]]),
                self.rewards[part],
                grouping.codes_of(self.groups[part]),
                np.arange(self.rewards.shape[1]),
                None if self.advantages is None else self.advantages[part],
                weights=weights,
                texts=texts,
                totals=None if self.totals is None else self.totals[part],
                groupings={size: grouping.codes_of(ids[part]) for size, ids in self.by_size.items()},
            )


def open_tables(path: Path, paths: Sequence[Path], columns: Columns) -> Run:
    """Open tables of a run.

    Raises:
        ConfigError: a named column does not exist, or rewards or groups cannot be determined.
        DataError: a file is damaged, or a column has values of the wrong kind.
    """
    table = look(path, paths)
    known = list(table.columns)
    notes: list[str] = list(table.notes)
    guesses: list[Guess] = []
    step = _steps_column(table, columns.step, guesses)
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
            why = "it sums to 0 within every group, as advantages do"
            guesses.append(Guess(f"the advantages are the column {advantage!r}", why, "--advantage, --rewards"))
    # Constant advantages show nothing about rewards or groups.
    moving = advantages if advantages is not None and np.nanmax(np.abs(advantages[kept]), initial=0.0) > 0 else None
    chosen = _rewards(table, columns, values, kept, ids, moving)
    if moving is not None and columns.group_size is None:
        finer = _without_contradictions(ids, values, kept, chosen, moving, notes, guesses)
        if finer is not None:
            ids, chosen = finer, _rewards(table, columns, values, kept, finer, moving)
    if moving is not None and len(naming.of_role(known, "advantage")) > 1 and columns.advantage is None:
        notes.append(f"advantages are from column {advantage!r}")
    named = columns.rewards is not None
    guesses += marks_of_missing(path, {name: values[name][kept] for name in chosen.rewards}, named)
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
        _weights(table, chosen, notes),
        (prompt, completion),
        found.by_size,
    )
    short = naming.short(chosen.rewards)
    channels = [f"-{short[name]}" if j in costs else short[name] for j, name in enumerate(chosen.rewards)]
    notes += [f"{chosen.rewards[j]!r} is a cost (negative weight in the total), so it is shown negated" for j in costs]
    notes += [f"rewards are the columns {', '.join(chosen.rewards)} (--rewards names others)"]
    notes += [*chosen.notes, *_cells(table, chosen.rewards), found.said, *found.notes, *batches.notes]
    if step is not None:
        notes.append(f"steps are from column {step!r}")
    else:
        notes.append(
            "no column has the step, so all rows count as one batch, without trends over time; --step names the column"
        )
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
        values: columns of numbers that are compared to find rows that occur twice.
        likely: columns that may contain the completions.

    Raises:
        DataError: no row was trained on.
    """
    known = list(table.columns)
    batches = _batches(table, step)
    for name in naming.of_role(known, "phase"):
        batching.leave_out_evaluation(batches, name, _texts(table, name) or [])
    if step is not None:
        for name in naming.of_role(known, "epoch")[:1]:
            if table.columns[name].kind == "number":
                batching.join_epochs(batches, name, _numbers(table, name))
    for name in naming.of_role(known, "run"):
        if batching.separate_runs(batches, name, _texts(table, name) or []):
            break
    if not _separate_ranks(table, batches) and step is not None:
        numbers = dict(list(values.items())[:MOST_COMPARED])
        batching.separate_repeated_steps(batches, numbers, partial(_texts, table, likely[0] if likely else None))
    if not batches.kept.any():
        raise DataError(
            f"{table.path} has no rows of a training; expected one row per completion. Check how the log was written"
        )
    return batches


def _separate_ranks(table: Table, batches: batching.Batches) -> bool:
    """Return whether each file is from one process of a run, so that repeated steps are not repeated.

    The processes may number their prompts independently. Then a group does not span files, unless its prompt is logged
    or the rows of each file are alone in their groups.
    """
    paths = list(dict.fromkeys(part.path for part in table.parts))
    if len(paths) < 2 or not all(RANK.search(path.stem) or RANK.search(path.parent.name) for path in paths):
        return False
    names = _group_candidates(table)
    if any(map(naming.is_prompt, names)):
        return True
    files = np.repeat([paths.index(part.path) for part in table.parts], [part.rows for part in table.parts])
    if names:
        codes = _labels(table, names[0], np.arange(table.rows)).codes
        _, ids = np.unique(np.stack([batches.steps, codes, files], 1), axis=0, return_inverse=True)
        if (np.bincount(ids.reshape(-1)) > 1).mean() < 0.5:
            return True
    batches.parts = batches.parts * len(paths) + files.astype(np.int64)
    why = "each file is from one process, and no column has the prompt, so equal ids may be different prompts"
    batches.guesses.append(Guess("no group has rows from several files", why, "log the prompt, or --group", trust=0.9))
    return True


def _used(advantages: Array, name: str, batches: batching.Batches, guesses: list[Guess]) -> Array | None:
    """Return advantages; None if they are 0 or missing everywhere."""
    known = np.isfinite(advantages)
    if (known & (advantages != 0))[batches.kept].any():
        return advantages
    why = "it is 0 everywhere" if known.any() else "it has no value"
    guesses.append(Guess(f"the column {name!r} is not used", why, "--advantage"))
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
    """Return finer groups if equal rewards have different advantages in a group; None to keep the groups."""
    rewarded = np.stack([values[name][kept] for name in (*chosen.rewards, *filter(None, [chosen.total]))], 1)
    cut = grouping.cut_by_contradictions(ids, rewarded, advantages[kept])
    if cut is not None:
        notes.append(f"groups are cut into {cut[1]} rows each, so that equal rewards have equal advantages in a group")
        return cut[0]
    share = grouping.contradictions(ids, rewarded, advantages[kept])
    if share > MANY_CONTRADICTIONS:
        why = f"in {share:.0%} of the cases, equal rewards have different advantages within a group"
        guesses.append(Guess("groups or rewards may be wrong", why, "--group, --rewards", trust=0.8))
    return None


def _completion(table: Table, likely: Sequence[str], kept: Ints, ids: Ints, notes: list[str]) -> str | None:
    """Return the first column that may contain completions. Expected outputs are the same in all rows of a group.

    With few groups, completions may also be the same by chance.
    """
    few = len(np.unique(ids)) < FEW_GROUPS
    for name in likely:
        if table.columns[name].kind == "empty":
            continue
        if few or grouping.share_of_level(ids, _labels(table, name, kept).codes) < SAME_IN_GROUPS:
            return name
        notes.append(
            f"{name!r} does not contain the completions, because it is the same in all rows of (nearly) every group. "
            "So it is not used to check whether identical completions got different scores"
        )
    return None


def _steps_column(table: Table, given: str | None, guesses: list[Guess]) -> str | None:
    """Return the column of the step: a column of whole numbers that several rows share.

    Of several such columns, one that mostly rises has priority: others count the turns of an episode, for example.
    """
    if given is not None:
        return _given(table, "step", given)
    found = list(_likely_steps(table))
    if not found:
        for name in naming.of_role(table.columns, "step"):
            if table.columns[name].kind == "text":
                why = f"it has texts, such as {table.columns[name].example}"
                what = f"the column {name!r} is not used as the step"
                guesses.append(Guess(what, why, "log numbers, or --step", trust=0.95))
        epoch = next(_shared_numbers(table, naming.of_role(table.columns, "epoch")), None)
        if epoch is not None:
            guesses.append(Guess(f"steps are the epochs of column {epoch!r}", "no column has the step", "--step"))
        return epoch
    if len(found) < 2:
        return next(iter(found), None)
    falls = {name: int((np.diff(_numbers(table, name)) < 0).sum()) for name in found}
    first, best = found[0], min(found, key=lambda name: falls[name])
    if falls[first] <= 3 + MANY_FALLS * table.rows or falls[best] > falls[first] / 2:
        return first
    why = f"{first!r} goes back in {falls[first]:,} of {table.rows:,} rows"
    guesses.append(Guess(f"steps are from column {best!r}, not {first!r}", why, "--step", trust=0.95))
    return best


def _likely_steps(table: Table) -> Iterator[str]:
    for name in naming.of_role(table.columns, "step"):
        column = table.columns[name]
        if column.kind != "number":
            continue
        if not column.whole or column.missing > FEW_WITHOUT_STEP * table.rows:
            if naming.key(name) in SURELY_STEPS:
                yield name  # the code that reads it raises an error
                return
            continue
        yield from _shared_numbers(table, [name])


def _shared_numbers(table: Table, names: Sequence[str]) -> Iterator[str]:
    """Yield the columns of whole numbers that several rows share."""
    for name in names:
        column = table.columns[name]
        if column.kind == "number" and column.whole and column.missing <= FEW_WITHOUT_STEP * table.rows:
            found = _numbers(table, name)
            if table.rows >= FEW_ROWS_A_STEP * len(np.unique(found[np.isfinite(found)])):
                yield name


def _batches(table: Table, step: str | None) -> batching.Batches:
    zeros = np.zeros(table.rows, dtype=np.int64)
    if step is None:
        return batching.Batches(zeros, zeros, zeros == 0)
    steps = _numbers(table, step)
    absent = np.isnan(steps)
    if absent.sum() > FEW_WITHOUT_STEP * table.rows:
        raise DataError(
            f"{table.path}: {int(absent.sum()):,} of {table.rows:,} rows have no step (column {step!r}), the first is "
            f"{table.where(int(absent.argmax()))}; expected one step per completion. Write it into these rows, or "
            "remove them if they are not completions"
        )
    steps = np.where(absent, -1, steps)
    wrong = (steps != np.round(steps)) | (np.abs(steps) > LARGEST_STEP)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{table.where(row)}: the step is {steps[row]}; expected a whole number of at most 2^53. Fix the log"
        )
    found = batching.Batches(steps.astype(np.int64), zeros, ~absent)
    if absent.any():
        rows = f"{int(absent.sum()):,} of {table.rows:,} rows"
        why = f"they have no step (column {step!r}), the first is {table.where(int(absent.argmax()))}"
        found.guesses.append(Guess(f"{rows} are left out", why, "write the step into them", trust=0.98))
    return found


def _candidates(table: Table, columns: Columns, taken: set[str | None]) -> dict[str, Array]:
    """Read the columns that may be rewards: those with numbers, and those that the user named."""
    named = _named_rewards(table, columns.rewards) or ()
    roles = {name for role in ("step", "group", "run", "phase") for name in naming.of_role(table.columns, role)}
    found = {}
    for name, column in table.columns.items():
        is_role = name in taken or name in roles or naming.key(name) in naming.ROLES["advantage"]
        usable = not is_role and not column.repeated and not column.doubt
        is_object = any(other.startswith(f"{name}.") for other in table.columns)  # null if the object is absent
        empty = column.kind == "empty" and choosing.class_of(column) == "marked" and not is_object
        if name in named or (usable and (column.numeric or empty)):
            found[name] = _numbers(table, name)
    return found


def _named_rewards(table: Table, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the columns that the user named, also by the last part of their names.

    Raises:
        ConfigError: there is no such column, or there are several.
    """
    if given is None:
        return None
    found = []
    for name in given:
        ends = [other for other, short in ((o, naming.inner(o)) for o in table.columns) if short == name]
        marked = [other for other in table.columns if other in (f"reward_{name}", f"rewards_{name}", f"score_{name}")]
        matches = [name] if name in table.columns else ends or marked
        if len(matches) != 1:
            found_here = f"several columns {name!r} ({', '.join(matches)})" if matches else f"no column {name!r}"
            raise ConfigError(
                f"{table.path} has {found_here} for a reward; expected one of {', '.join(table.columns)}. Name others "
                "(--rewards)"
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
    """Return a column that sums to 0 within every group and whose name does not show its role; None without one."""
    if given is not None:
        return None
    for name, column in values.items():
        if choosing.class_of(table.columns[name]) in ("unknown", "foreign"):
            share, moving = grouping.centred_share(groups, column[kept])
            if share == 1 and moving >= FEWEST_CENTRED and table.columns[name].low < 0:
                return name
    return None


def _costs(chosen: choosing.Chosen) -> list[int]:
    """Return which rewards are costs: their weight in the total is negative, as for a length penalty."""
    return [j for j, weight in enumerate(chosen.weights or ()) if weight < 0]


def _weights(table: Table, chosen: choosing.Chosen, notes: list[str]) -> list[float] | None:
    """Return weights from the logs or from the total; None if a method could not use them."""
    weights = None if chosen.weights is None else [abs(weight) for weight in chosen.weights]  # costs are negated
    if all(name in table.weights for name in chosen.rewards):
        weights = [table.weights[name] for name in chosen.rewards]
    elif weights is None and (columns := _columns_of_weights(table, chosen.rewards)):
        weights = [table.columns[name].low for name in columns]
        notes.append(f"weights are from the columns {', '.join(columns)} (--weights sets others)")
    return weights if weights is not None and min(weights) >= 0 < max(weights) else None


def _columns_of_weights(table: Table, rewards: Sequence[str]) -> list[str]:
    """Return the constant columns with the weights of rewards: ``reward_weights.a``, ``a_weight``; all or none."""
    level = [n for n, column in table.columns.items() if column.numeric and column.low == column.high]
    named = {n: naming.weighs(n) for n in level if not table.columns[n].missing}
    found = []
    for reward in rewards:
        own = [name for name, what in named.items() if what == naming.inner(reward).lower()]
        if len(own) != 1:
            return []
        found += own
    return found


def _groups(table: Table, columns: Columns, rows: grouping.Rows, kept: Ints) -> grouping.Grouping:
    if columns.group_size is not None:
        return _blocks(table, columns.group_size, rows, kept)
    if columns.group is None and table.group is not None:
        lines = _numbers(table, table.group)[kept].astype(np.int64)
        return grouping.Grouping(grouping.codes_of(lines), "each line of the file is a group")
    named = _given(table, "group", columns.group)
    candidates = [named] if named else _group_candidates(table)
    texts = {name: _labels(table, name, kept) for name in candidates}
    for name in list(texts):
        if (unknown := _without_id(texts[name])).any():
            if named or len(texts) == 1:
                row = int(kept[unknown.argmax()])
                raise DataError(
                    f"{table.where(row)}: the group (column {name!r}) is null or -1; expected an id. Add it"
                )
            del texts[name]
    by_column = grouping.by_column(rows, texts, named is not None) if texts else None
    found = by_column or grouping.by_advantages(rows) or grouping.by_sizes(rows)
    if found is None:
        raise ConfigError(_no_groups(table, rows))
    return found


def _without_id(labels: Labels) -> NDArray[np.bool_]:
    """Return which rows have no id: null, or -1 if all other ids are numbers from 0."""
    ids = labels.values.to_pylist()
    marks = [code for code, value in enumerate(ids) if value in ("-1", "-1.0")]
    if len(ids) > 2 and len(marks) == 1 and all(str(value).isdecimal() for value in ids if value not in ("-1", "-1.0")):
        return np.asarray((labels.codes < 0) | (labels.codes == marks[0]))
    return np.asarray(labels.codes < 0)


def _no_groups(table: Table, rows: grouping.Rows) -> str:
    """Return the message that the groups are unknown, and what is needed."""
    if counts := [name for name in table.columns if naming.counts_outcomes(name)]:
        return (
            f"{table.path} has one row per prompt with counts of its completions ({choosing.listed(counts)}); expected "
            "one row per completion, with its rewards. Log each completion"
        )
    known = "the step is not known" if rows.steps is None else "no group size divides the rows of all steps"
    return (
        f"{table.path} has the columns {choosing.listed(list(table.columns), 20)}, and none shows which rows belong to "
        f"the same prompt ({known}, so group sizes cannot be tried); expected several completions per prompt. Name the "
        "column of the prompt with --group. If the completions of a prompt are consecutive rows, pass their number "
        "with --group-size. A log with one completion per prompt cannot be diagnosed, because rewards are compared "
        "between completions of the same prompt"
    )


def _group_candidates(table: Table) -> list[str]:
    """Return the columns that may identify groups, ids before texts."""
    names = naming.of_role(table.columns, "group")
    return [name for name in names if table.columns[name].kind != "empty"]


def _blocks(table: Table, size: int, rows: grouping.Rows, kept: Ints) -> grouping.Grouping:
    if len(kept) % size:
        raise ConfigError(
            f"--group-size is {size}, but {table.path} has {len(kept)} rows; expected a multiple of it. Name the "
            "column of the group instead (--group)"
        )
    ids = np.arange(len(kept)) // size
    both = grouping.codes_of(np.stack([rows.base, ids], 1))
    if both.max() > ids.max():
        row = int(np.flatnonzero(np.diff(rows.base, prepend=rows.base[0]) != 0)[0])
        raise ConfigError(
            f"--group-size is {size}, but a block of that size spans two steps ({table.where(int(kept[row]))}). Name "
            "the column of the group instead (--group)"
        )
    return grouping.Grouping(ids, f"groups are blocks of {size} rows")


def _left_out(table: Table, chosen: choosing.Chosen, columns: Columns) -> Iterator[Guess]:
    """Yield guesses about columns that may be rewards but could not be read as rewards."""
    if columns.rewards is not None:
        return
    taken = {name for role in naming.ROLES for name in naming.of_role(table.columns, role)}
    for name, column in table.columns.items():
        if name in chosen.rewards or name == chosen.total:
            continue
        kind = choosing.class_of(column)
        likely = kind == "marked" or (kind == "named" and column.numeric)
        if likely and column.doubt:
            yield Guess(f"{name!r} is left out", column.doubt, "--rewards", trust=0.8)
        elif column.kind == "text" and (column.scores > 0 or name not in taken) and _sounds_scored(column):
            why = f"its name is that of a reward, but it has texts, such as {column.example}"
            yield Guess(f"{name!r} is left out", why, "log numbers", trust=0.8)
        elif kind == "foreign" and naming.is_listed(name) and column.low < column.high and not naming.is_setting(name):
            why = "it is in an object of rewards, but its name is that of a time, a counter or an id"
            yield Guess(f"{name!r} is left out", why, "--rewards", trust=0.8)


def _sounds_scored(column: Column) -> bool:
    """Whether a column of texts has the name of a reward or a total; explanations, such as ``judge``, do not count."""
    if choosing.class_of(column) == "marked":
        return column.numbers > 0 or column.scores > 0
    return naming.is_total(column.name) or naming.is_outcome(column.name, flag=True)


def _cells(table: Table, rewards: Sequence[str]) -> Iterator[str]:
    """Yield notes on missing cells of rewards, with the reason."""
    for name in rewards:
        column: Column = table.columns[name]
        if column.odd:
            yield f"{column.odd} cells of {name!r} are not numbers, so they are missing ({column.odd_example})"
        if 0 < column.absent < table.rows:
            yield f"{column.absent:,} of {table.rows:,} rows do not have {name!r}, so it is missing there"


def _given(table: Table, role: str, name: str | None) -> str | None:
    if name is not None and name not in table.columns:
        raise ConfigError(f"{table.path} has no column {name!r} (--{role}); expected one of {', '.join(table.columns)}")
    return name


def _first_number(table: Table, role: str) -> str | None:
    names = naming.of_role(table.columns, role)
    return next((name for name in names if table.columns[name].numeric and not table.columns[name].doubt), None)


def _numbers(table: Table, name: str) -> Array:
    column = table.columns[name]
    if column.kind == "empty":
        return np.full(table.rows, np.nan)
    if not column.numeric:
        raise DataError(
            f"{table.path}, column {name!r} contains text; expected numbers, null if missing. Name another column"
        )
    return table.numbers(name)


def _labels(table: Table, name: str, rows: Ints) -> Labels:
    column = table.read_texts([name])[name].combine_chunks().dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    codes = np.nan_to_num(numbers(pa.chunked_array([column.indices])), nan=-1).astype(np.int64)[rows]
    return Labels(codes, column.dictionary)


def _texts(table: Table, name: str | None) -> list[str | None] | None:
    return None if name is None else table.read_texts([name])[name].to_pylist()
