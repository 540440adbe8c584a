"""Which rows of a table were trained on, and in which step: steps that come back, evaluations, several runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rvpo.logs.run import Guess

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Texts = Callable[[], Sequence[str | None] | None]

TRAINING = ("train", "training", "rollout", "rollouts", "learn")
EVALUATION = ("eval", "evaluation", "val", "valid", "validation", "test", "dev", "heldout", "held_out", "holdout")
TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")
MANY_RUNS = 50  # more values are names of something else


@dataclass
class Batches:
    """The rows of a table in time.

    Attributes:
        steps: (N,) step of each row.
        parts: (N,) rows of one step in different parts were not generated together: another run, or the step again.
        kept: (N,) bool, which rows count.
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
    told = np.array(["" if value is None else value.strip().lower() for value in values])
    flag = name.lower() in ("eval", "is_eval", "evaluation", "is_train")
    trained, evaluated = np.isin(told, TRAINING), np.isin(told, EVALUATION)
    if flag and not evaluated.any():
        yes, no = np.isin(told, TRUE), np.isin(told, FALSE)
        trained, evaluated = (yes, no) if name.lower() == "is_train" else (no, yes)
    if not evaluated.any():
        return False
    if not trained.any():
        if flag or evaluated.all():
            batches.guesses.append(
                Guess(
                    f"all rows are those of an evaluation, by column {name!r}",
                    "nothing was trained on them, so that no advantage used them",
                    "the log of the training",
                    trust=0.7,
                )
            )
        return True
    left = evaluated & batches.kept
    batches.kept &= ~evaluated
    batches.notes.append(f"{int(left.sum()):,} rows of an evaluation (column {name!r}) are left out")
    return True


def separate_runs(batches: Batches, name: str, values: Sequence[str | None]) -> bool:
    """Give the rows of several runs parts of their own; return whether a column holds the names of runs."""
    seen = {value: number for number, value in enumerate(dict.fromkeys(values))}
    codes = np.array([seen[value] for value in values])
    rows = np.bincount(codes)
    if not 1 < len(seen) <= MANY_RUNS or rows.min() < 8:
        return False
    if len(np.unique(np.stack([batches.steps, codes], 1), axis=0)) == len(np.unique(batches.steps)):
        return False  # each step has one name: parts of a run, such as after a resume
    batches.parts = codes
    batches.guesses.append(
        Guess(
            f"the rows are those of {len(seen)} runs (column {name!r}), judged together",
            "runs may differ in what they neglect",
            "one file per run",
            trust=0.8,
        )
    )
    return True


def separate_repeated_steps(batches: Batches, numbers: Mapping[str, Array], texts: Texts) -> None:
    """Where steps go back, give each pass a part of its own; rows that are there twice count once.

    Args:
        batches: rows of the table.
        numbers: (N,) columns in which rows that are there twice agree.
        texts: reads the completions, None where there are none; they must agree, too.
    """
    order = np.flatnonzero(batches.kept)
    steps = batches.steps[order]
    back = np.flatnonzero(np.diff(steps) < 0) + 1
    distinct = len(np.unique(steps))
    if not len(back) or len(back) > 3 + distinct // 10:
        return  # in order, or in no order at all
    passes = np.zeros(len(order), dtype=np.int64)
    passes[back] = 1
    passes = np.cumsum(passes)
    if len(order) < 2 * len(np.unique(np.stack([passes, steps], 1), axis=0)):
        return  # rows in no order at all
    first = dict(zip(steps[::-1].tolist(), passes[::-1].tolist(), strict=True))
    again = np.array([number > first[step] for step, number in zip(steps.tolist(), passes.tolist(), strict=True)])
    if not again.any():
        return
    copies = _copies(order, steps, passes, again, numbers, texts)
    if copies.any():
        batches.kept[order[copies]] = False
        told = f"{int(copies.sum()):,} rows are there twice, step by step: they count once"
        batches.notes.append(told)
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
            f"{_steps(repeated)} there more than once with other completions, and each time counts",
            "the file may hold several runs" if whole else "the run was probably resumed from an older checkpoint",
            "--steps, or one file per run",
            trust=0.8 if whole else 0.95,
        )
    )


def _copies(
    order: Ints,
    steps: Ints,
    passes: Ints,
    again: Bools,
    numbers: Mapping[str, Array],
    texts: Texts,
) -> Bools:
    """Return which rows of repeated steps are the same, number by number and text by text, as before."""
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
