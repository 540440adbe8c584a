"""Find the rows of a table that were trained on, and their steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from rvpo.errors import DataError
from rvpo.logs.guess import Guess
from rvpo.logs.tables import batches as batching
from rvpo.logs.tables import names as naming
from rvpo.logs.tables.table import Table
from rvpo.logs.tables.values import Array, given, group_candidates, labels_of, numbers_of, texts_of

FEW_ROWS_A_STEP = 2.0
"""A column with fewer rows per value numbers rows, not steps."""

MOST_COMPARED = 20  # number of columns that are compared to find rows that occur twice
RANK = re.compile(r"(?:^|[^a-z])(?:rank|worker|process|proc|gpu|node|actor|replica|dp)[_-]?\d+", re.IGNORECASE)
"""Names of files and folders of one process of a run."""
LARGEST_STEP = 2.0**53
FEW_WITHOUT_STEP = 0.1  # of the rows
MANY_FALLS = 0.05  # of the rows
SURELY_STEPS = ("step", "global_step", "training_step")


def trained(table: Table, step: str | None, values: Mapping[str, Array], likely: Sequence[str]) -> batching.Batches:
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
        batching.leave_out_evaluation(batches, name, texts_of(table, name) or [])
    if step is not None:
        for name in naming.of_role(known, "epoch")[:1]:
            if table.columns[name].kind == "number":
                batching.join_epochs(batches, name, numbers_of(table, name))
    for name in naming.of_role(known, "run"):
        if batching.separate_runs(batches, name, texts_of(table, name) or []):
            break
    if not _separate_ranks(table, batches) and step is not None:
        numbers = dict(list(values.items())[:MOST_COMPARED])
        batching.separate_repeated_steps(batches, numbers, partial(texts_of, table, likely[0] if likely else None))
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
    names = group_candidates(table)
    if any(map(naming.is_prompt, names)):
        return True
    files = np.repeat([paths.index(part.path) for part in table.parts], [part.rows for part in table.parts])
    if names:
        codes = labels_of(table, names[0], np.arange(table.rows)).codes
        _, ids = np.unique(np.stack([batches.steps, codes, files], 1), axis=0, return_inverse=True)
        if (np.bincount(ids.reshape(-1)) > 1).mean() < 0.5:
            return True
    batches.parts = batches.parts * len(paths) + files.astype(np.int64)
    why = "each file is from one process, and no column has the prompt, so equal ids may be different prompts"
    batches.guesses.append(Guess("no group has rows from several files", why, "log the prompt, or --group", trust=0.9))
    return True


def steps_column(table: Table, named: str | None, guesses: list[Guess]) -> str | None:
    """Return the column of the step: a column of whole numbers that several rows share.

    Of several such columns, one that mostly rises has priority: others count the turns of an episode, for example.
    """
    if named is not None:
        return given(table, "step", named)
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
    falls = {name: int((np.diff(numbers_of(table, name)) < 0).sum()) for name in found}
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
            found = numbers_of(table, name)
            if table.rows >= FEW_ROWS_A_STEP * len(np.unique(found[np.isfinite(found)])):
                yield name


def _batches(table: Table, step: str | None) -> batching.Batches:
    zeros = np.zeros(table.rows, dtype=np.int64)
    if step is None:
        return batching.Batches(zeros, zeros, zeros == 0)
    steps = numbers_of(table, step)
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
