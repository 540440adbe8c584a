"""Determine which rows of a table were trained on, and when: repeated steps, evaluations, several runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rvpo.logs.guess import Guess
from rvpo.logs.tables import names as naming
from rvpo.text.quoting import quoted

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Texts = Callable[[], Sequence[str | None] | None]

EVALUATION_FLAGS = ("eval", "is_eval", "evaluation", "is_evaluation", "is_validation", "is_val", "is_test")
TRAINING_FLAGS = ("is_train", "is_training", "training")
TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")
MOST_PHASES = 1000
MOST_EPOCHS = 1e6
MANY_RUNS = 50  # a column with more values does not name runs


@dataclass
class Batches:
    """The rows of a table in time.

    Attributes:
        steps: (N,) step of each row.
        parts: (N,) part of each row; rows of one step in different parts are from another run, or a repeated step.
        kept: (N,) bool, which rows are used.
        guesses: what a reader has to check.
        notes: what a reader has to know.
    """

    steps: Ints
    parts: Ints
    kept: Bools
    guesses: list[Guess] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def leave_out_evaluation(batches: Batches, name: str, values: Sequence[str | None]) -> bool:
    """Leave out rows that a column marks as an evaluation; return whether it is such a column."""
    marks = np.array(["" if value is None else value.strip().lower() for value in values])
    flag = naming.inner(name).lower() in (*EVALUATION_FLAGS, *TRAINING_FLAGS)
    trained, evaluated = _phases(marks)
    if flag and not evaluated.any():
        yes, no = np.isin(marks, TRUE), np.isin(marks, FALSE)
        trained, evaluated = (yes, no) if naming.inner(name).lower() in TRAINING_FLAGS else (no, yes)
    if not evaluated.any():
        return False
    if evaluated.all() or (flag and not trained.any()):
        batches.guesses.append(
            Guess(
                f"all rows are from an evaluation, by column {name!r}",
                "nothing was trained on them, so their advantages were never used",
                "use the log of the training",
                trust=0.7,
            )
        )
        return True
    left = evaluated & batches.kept
    batches.kept &= ~evaluated
    said = f"{int(left.sum()):,} rows of an evaluation (column {name!r}) are left out"
    if trained.any() and (trained | evaluated).all():
        batches.notes.append(said)
    else:
        others = ", ".join(quoted(value, 20) for value in np.unique(marks[~evaluated & ~trained])[:3].tolist())
        why = f"other rows have {others} there, and are taken as rows of the training"
        batches.guesses.append(Guess(said, why, "use a log without evaluations", trust=0.95))
    return True


def _phases(marks: NDArray[np.str_]) -> tuple[Bools, Bools]:
    """Return which marks name the training and which an evaluation, also as a word: ``eval_gsm8k``, ``aime/test``."""
    known = {str(mark): re.split(r"[^a-z]+", str(mark)) for mark in np.unique(marks)[:MOST_PHASES]}
    trains = [mark for mark, parts in known.items() if mark in naming.TRAINING or naming.TRAINING.intersection(parts)]
    tests = [
        mark for mark, parts in known.items() if mark in naming.EVALUATION or naming.EVALUATION.intersection(parts)
    ]
    both = set(trains) & set(tests)  # such as train_eval: unknown
    return np.isin(marks, [m for m in trains if m not in both]), np.isin(marks, [m for m in tests if m not in both])


def separate_runs(batches: Batches, name: str, values: Sequence[str | None]) -> bool:
    """Give the rows of each run a part of their own; return whether a column has the names of runs."""
    seen = {value: number for number, value in enumerate(dict.fromkeys(values))}
    codes = np.array([seen[value] for value in values])
    rows = np.bincount(codes)
    if not 1 < len(seen) <= MANY_RUNS or rows.min() < 8:
        return False
    if len(np.unique(np.stack([batches.steps, codes], 1), axis=0)) == len(np.unique(batches.steps)):
        return False  # each step has one name: these are parts of one run, for example after a resume
    batches.parts = codes
    batches.guesses.append(
        Guess(
            f"the rows are from {len(seen)} runs (column {name!r}), and one verdict is given for all",
            "runs may neglect different rewards",
            "use one file per run",
            trust=0.8,
        )
    )
    return True


def separate_repeated_steps(batches: Batches, numbers: Mapping[str, Array], texts: Texts) -> None:
    """If steps go back, give each pass a part of its own; identical copies of rows count once.

    Args:
        batches: rows of the table.
        numbers: columns (N,) of numbers in which copies must agree.
        texts: function that reads the completions, which must agree, too; returns None without completions.
    """
    order = np.flatnonzero(batches.kept)
    steps = batches.steps[order]
    back = _restarts(steps)
    distinct = len(np.unique(steps))
    if not len(back):
        return  # in order, or not ordered at all
    passes = np.zeros(len(order), dtype=np.int64)
    passes[back] = 1
    passes = np.cumsum(passes)
    if len(order) < 2 * len(np.unique(np.stack([passes, steps], 1), axis=0)):
        return  # the rows are not ordered at all
    first = dict(zip(steps[::-1].tolist(), passes[::-1].tolist(), strict=True))
    again = np.array([number > first[step] for step, number in zip(steps.tolist(), passes.tolist(), strict=True)])
    if not again.any():
        return
    copies = _copies(order, steps, passes, again, numbers, texts)
    if copies.any():
        batches.kept[order[copies]] = False
        batches.notes.append(f"{int(copies.sum()):,} rows are identical copies of steps logged before; they count once")
        again &= ~copies
    if not again.any():
        return
    parts = batches.parts.copy()
    parts[order] = batches.parts[order] * (int(passes.max()) + 1) + np.where(again, passes, 0)
    batches.parts = parts
    repeated = np.unique(steps[again])
    whole = len(repeated) == distinct or repeated[0] == steps.min()
    batches.guesses.append(
        Guess(
            f"{_steps(repeated)} logged more than once with different completions, and all of them count",
            "the file may contain several runs" if whole else "the run was probably resumed from an older checkpoint",
            "--steps, or one file per run",
            trust=0.8 if whole else 0.95,
        )
    )


def _restarts(steps: Ints) -> Ints:
    """Return the rows at which steps go back, because a run was resumed or another run follows.

    If that happens often, only returns from the last to the first steps count, and only if the steps rise in between.
    """
    change = np.diff(steps)
    back = np.flatnonzero(change < 0) + 1
    few = 3 + len(np.unique(steps)) // 10
    if len(back) <= few:
        return back
    span = int(steps.max() - steps.min())
    again = back[(-change[back - 1] >= 0.5 * span) & (steps[back] <= steps.min() + 0.1 * span)]
    return again if len(back) - len(again) <= few * (len(again) + 1) and len(again) else back[:0]


def join_epochs(batches: Batches, name: str, epochs: Array) -> bool:
    """Count the steps of all epochs, if they start again in every epoch; return whether they do.

    Args:
        batches: rows of the table.
        name: column of the epoch.
        epochs: (N,) epoch of each row, NaN = unknown.
    """
    known = epochs[batches.kept]
    if not np.isfinite(known).all() or (known != np.floor(known)).any() or np.abs(known).max(initial=0.0) > MOST_EPOCHS:
        return False
    pairs = np.unique(np.stack([batches.steps[batches.kept], known.astype(np.int64)], 1), axis=0)
    steps = np.unique(pairs[:, 0])
    if len(pairs) < 1.5 * len(steps):
        return False
    low, span = int(steps[0]), int(steps[-1] - steps[0]) + 1
    epoch = np.nan_to_num(epochs, nan=0.0).astype(np.int64) - int(known.min())
    batches.steps = np.where(batches.kept, low + epoch * span + (batches.steps - low), batches.steps)
    what = f"the steps of all epochs (column {name!r}) are numbered in sequence"
    batches.guesses.append(Guess(what, "the same steps occur in several epochs", "--step", trust=0.95))
    return True


def _copies(
    order: Ints,
    steps: Ints,
    passes: Ints,
    again: Bools,
    numbers: Mapping[str, Array],
    texts: Texts,
) -> Bools:
    """Return which rows of repeated steps are identical to earlier ones in all numbers and texts."""
    words = texts()
    values = np.stack([column[order] for column in numbers.values()], 1) if numbers else np.zeros((len(order), 0))
    copies = np.zeros(len(order), dtype=bool)
    for step in np.unique(steps[again]):
        rows = np.flatnonzero(steps == step)
        by_pass = [rows[passes[rows] == number] for number in np.unique(passes[rows])]
        for i, part in enumerate(by_pass):
            for before in by_pass[:i]:
                if len(part) != len(before) or not np.array_equal(values[part], values[before], equal_nan=True):
                    continue
                if words is None or [words[order[row]] for row in part] == [words[order[row]] for row in before]:
                    copies[part] = True
    return copies


def _steps(steps: Ints) -> str:
    if len(steps) == 1:
        return f"step {steps[0]} is"
    if len(steps) == steps[-1] - steps[0] + 1:
        return f"steps {steps[0]} to {steps[-1]} are"
    return f"{len(steps)} steps (from {steps[0]} to {steps[-1]}) are"
