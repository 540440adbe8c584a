"""Convert a table with one row per completion to a run: find steps, groups, rewards, advantages, and list guesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvpo.errors import ConfigError, DataError
from rvpo.logs.guess import Guess
from rvpo.logs.run import Columns, LoggedBatch, Run, Texts
from rvpo.logs.tables import batches as batching
from rvpo.logs.tables import groups as grouping
from rvpo.logs.tables import names as naming
from rvpo.logs.tables import rewards as choosing
from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.groups import Labels
from rvpo.logs.tables.look import look
from rvpo.logs.tables.marks import marks_of_missing
from rvpo.logs.tables.steps import steps_column, trained
from rvpo.logs.tables.table import Table
from rvpo.logs.tables.values import (
    Array,
    Ints,
    first_number,
    given,
    group_candidates,
    labels_of,
    numbers_of,
    texts_of,
)

FEWEST_CENTRED = 2  # groups
FEW_GROUPS = 8  # with fewer groups, a text may be the same in all rows of a group by chance
SAME_IN_GROUPS = 0.9  # a text that is the same within this share of the groups is not a completion
MANY_CONTRADICTIONS = 0.5


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
        prompts, completions = (texts_of(self.table, name) if with_texts else None for name in self.texts)
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
    step = steps_column(table, columns.step, guesses)
    completion = given(table, "completion", columns.completion)
    likely = [completion] if completion else naming.of_role(known, "completion")
    prompt = given(table, "prompt", columns.prompt) or next(iter(naming.of_role(known, "prompt")), None)
    advantage = given(table, "advantage", columns.advantage) or first_number(table, "advantage")
    values = _candidates(table, columns, {step, advantage, prompt, *likely[:1], table.group, "line", "file"})
    batches = trained(table, step, values, likely)
    advantages = None if advantage is None else _used(numbers_of(table, advantage), advantage, batches, guesses)
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
        _weights(table, chosen, values, notes),
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
        if few or grouping.share_of_level(ids, labels_of(table, name, kept).codes) < SAME_IN_GROUPS:
            return name
        notes.append(
            f"{name!r} does not contain the completions, because it is the same in all rows of (nearly) every group. "
            "So it is not used to check whether identical completions got different scores"
        )
    return None


def _candidates(table: Table, columns: Columns, taken: set[str | None]) -> dict[str, Array]:
    """Read the columns that may be rewards: those with numbers, and those that the user named."""
    named = _named_rewards(table, columns.rewards) or ()
    roles = {name for role in ("step", "group", "run", "phase") for name in naming.of_role(table.columns, role)}
    found = {}
    for name, column in table.columns.items():
        is_role = name in taken or name in roles or naming.key(name) in naming.ROLES["advantage"]
        is_fraction = column.kind == "number" and not column.whole
        is_role = is_role or (naming.may_identify_groups(name) and not is_fraction)
        usable = not is_role and not column.repeated and not column.doubt
        is_object = any(other.startswith(f"{name}.") for other in table.columns)  # null if the object is absent
        empty = column.kind == "empty" and choosing.class_of(column) == "marked" and not is_object
        if name in named or (usable and (column.numeric or empty)):
            found[name] = numbers_of(table, name)
    return found


def _named_rewards(table: Table, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the columns that the user named, also by the last part of their names.

    Raises:
        ConfigError: there is no such column, or there are several.
    """
    if names is None:
        return None
    found = []
    for name in names:
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
    table: Table, values: Mapping[str, Array], kept: Ints, groups: Ints, named: Sequence[str] | None
) -> str | None:
    """Return a column that sums to 0 within every group and whose name does not show its role; None without one."""
    if named is not None:
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


def _weights(
    table: Table, chosen: choosing.Chosen, values: Mapping[str, Array], notes: list[str]
) -> list[float] | None:
    """Return weights from the logs or from the total; None if a method could not use them."""
    weights = None if chosen.weights is None else [abs(weight) for weight in chosen.weights]  # costs are negated
    if all(name in table.weights for name in chosen.rewards):
        weights = [table.weights[name] for name in chosen.rewards]
    elif weights is None and (columns := _columns_of_weights(table, chosen.rewards)):
        weights = [table.columns[name].low for name in columns]
        notes.append(f"weights are from the columns {', '.join(columns)} (--weights sets others)")
    elif weights is None and (factors := _factors(chosen.rewards, values)):
        weights = [factor for _, factor in factors]
        columns = [name for name, _ in factors]
        notes.append(f"weights are those of the weighted columns {', '.join(columns)} (--weights sets others)")
    return weights if weights is not None and min(weights) >= 0 < max(weights) else None


def _factors(rewards: Sequence[str], values: Mapping[str, Array]) -> list[tuple[str, float]]:
    """Return the weighted column of each reward, such as ``weighted_rewards/a``, and its factor; all or none."""
    found = []
    for reward in rewards:
        plain = values[reward]
        names = [name for name in values if naming.is_product(name, of=reward)]
        if len(names) != 1:
            return []
        product = values[names[0]]
        known = np.isfinite(plain) & np.isfinite(product)
        size = float((plain[known] ** 2).sum())
        factor = float((plain[known] * product[known]).sum()) / size if size else 0.0
        same = np.allclose(product[known], factor * plain[known], rtol=1e-4, atol=1e-6 * abs(factor))
        if factor <= 0 or not same or not np.array_equal(np.isfinite(plain), np.isfinite(product)):
            return []
        # The columns are often rounded, and weights are written with few digits.
        found.append((names[0], float(f"{factor:.4g}")))
    return found


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
        lines = numbers_of(table, table.group)[kept].astype(np.int64)
        return grouping.Grouping(grouping.codes_of(lines), "each line of the file is a group")
    named = given(table, "group", columns.group)
    candidates = [named] if named else group_candidates(table)
    texts = {name: labels_of(table, name, kept) for name in candidates}
    for name in list(texts):
        if (unknown := _without_id(texts[name])).any():
            if named or len(texts) == 1:
                row = int(kept[unknown.argmax()])
                raise DataError(
                    f"{table.where(row)}: the group (column {name!r}) is null or -1; expected an id. Add it"
                )
            del texts[name]
    unusual = {}
    if not named and not any(grouping.pairs_rows(rows, labels) for labels in texts.values()):
        unusual = dict(_unusual_groups(table, rows, kept))
        texts = unusual or texts
    by_column = grouping.by_column(rows, texts, named is not None) if texts else None
    found = by_column or grouping.by_advantages(rows) or grouping.by_sizes(rows)
    if found is None:
        raise ConfigError(_no_groups(table, rows))
    if unusual:
        why = "its name is not a usual one for groups, but its values repeat as those of groups do"
        found.guesses.append(Guess(found.said, why, "--group", trust=0.95))
    return found


def _unusual_groups(table: Table, rows: grouping.Rows, kept: Ints) -> Iterator[tuple[str, Labels]]:
    """Yield the columns whose names and values are like those of groups, although the names are not usual ones."""
    for name, column in table.columns.items():
        if naming.may_identify_groups(name) and (column.kind == "text" or (column.kind == "number" and column.whole)):
            labels = labels_of(table, name, kept)
            if not _without_id(labels).any() and grouping.fits_groups(rows, labels):
                yield name, labels


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
        if column.kind == "empty" and kind in ("marked", "named") and name not in taken:
            why = "its name is that of a reward, but no row has a value, so this reward was never scored"
            yield Guess(f"{name!r} is left out", why, "--rewards", trust=1.0)
        elif likely and column.doubt:
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
