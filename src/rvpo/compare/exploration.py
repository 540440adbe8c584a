"""What runs explore, next to each other: questions solved by none, some and all, Pass@k, entropy, step by step.

All runs are counted by the same notion of a solved question (:mod:`rvpo.core.solved`): the same channels, and the same
rewards from which on a completion meets them. Shares solved by none, some and all depend on the size of the groups, so
they are compared where all runs have the same one; Pass@k does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rvpo.compare.curves import RunCurves
from rvpo.core.channels import Range
from rvpo.core.solved import SHARES
from rvpo.diagnose.questions import GROUPS, SCORED, Lines, QuestionSums, count_questions, merged
from rvpo.errors import ConfigError
from rvpo.logs.entropy import find_entropy
from rvpo.logs.run import Run
from rvpo.statistics import Array

ENTROPY = "entropy"

SAME_SIZE = 0.05
"""Relative difference of the scored completions per question up to which shares are compared."""


@dataclass(frozen=True)
class Explored:
    """What all runs have.

    Attributes:
        names: Q quantities, such as ``"solved by none"``, ``"pass@8"`` and ``"entropy"``.
        values: (S, Q) of each run, in order; NaN where nothing was counted.
        notes: sentences that a reader needs to know.
    """

    names: tuple[str, ...]
    values: tuple[Array, ...]
    notes: tuple[str, ...]


def explored_in(runs: Sequence[RunCurves], steps: NDArray[np.int64], solved: Sequence[str] = ()) -> Explored:
    """Read runs again, and return what they have found at their common steps.

    Args:
        runs: of all groups, in order.
        steps: (S,) that all of them have.
        solved: channels that a completion has to meet to solve its question; empty: as the runs say.

    Raises:
        ConfigError: not all runs have a channel of ``solved``.
    """
    lines, notes = _lines(runs, solved)
    columns: list[dict[str, Array]] = [{} for _ in runs]
    if lines is not None:
        every = [_counted(run, lines) for run in runs]
        for found, run, sums in zip(columns, runs, every, strict=True):
            found |= _shares(sums, np.searchsorted(run.steps, steps), len(run.channels))
        notes += _left_out(columns, every)
    for found, run in zip(columns, runs, strict=True):
        found |= _entropy(run, steps)
    lacking = [run.name for run, found in zip(runs, columns, strict=True) if ENTROPY not in found]
    if 0 < len(lacking) < len(runs):
        notes.append(f"No entropy was found in the logs of {', '.join(lacking[:6])}, so none is compared.")
    names = tuple([name for name in columns[0] if all(name in found for found in columns)])
    notes += _aligned(columns, names)
    names = tuple([name for name in names if not all(np.isnan(found[name]).all() for found in columns)])
    values = tuple([np.stack([found[name] for name in names], -1) for found in columns]) if names else ()
    return Explored(names, values, tuple(notes))


def _left_out(columns: Sequence[dict[str, Array]], every: Sequence[QuestionSums]) -> list[str]:
    """Take out the shares where runs have different numbers of completions per question, and say so."""
    sizes = sorted({sums.size for sums in every})
    if len(sizes) > 1:
        told = f"Groups have {' and '.join(map(str, sizes))} completions"
    else:
        # Groups of a run may be of several sizes, and not every completion is scored.
        scored = [sums.sums[SCORED][:, -1].sum() / max(sums.sums[GROUPS][:, -1].sum(), 1) for sums in every]
        if max(scored) - min(scored) <= SAME_SIZE * max(scored):
            return []
        told = f"Questions have {min(scored):.1f} to {max(scored):.1f} scored completions on average"
    for found in columns:
        for name in SHARES:
            found.pop(f"solved by {name}")
    return [f"{told}, on which shares solved by none, some and all depend: these are left out."]


def _aligned(columns: Sequence[dict[str, Array]], names: Sequence[str]) -> list[str]:
    """Leave out steps that not all runs have counted, and say so: later ones are not to be compared with earlier ones.

    Entropy is left as it is, which runs log every few steps.
    """
    fewer = []
    for name in names:
        if name == ENTROPY:
            continue
        absent = np.any([np.isnan(found[name]) for found in columns], axis=0)
        if absent.any():
            fewer.append(f"{name} at {int((~absent).sum())}")
            for found in columns:
                found[name] = np.where(absent, np.nan, found[name])
    return (
        [f"Compared at the steps at which all runs have enough scored completions: {', '.join(fewer)}."]
        if fewer
        else []
    )


def _lines(runs: Sequence[RunCurves], solved: Sequence[str]) -> tuple[Lines | None, list[str]]:
    """Return one notion of a solved question for all runs, None if there is none, and what to say of it."""
    everywhere = [name for name in runs[0].channels if all(name in run.channels for run in runs)]
    shown = merged(run.shown for run in runs)
    seen = {name: one for name, one in shown.items() if name in everywhere}
    if not seen:
        return None, []
    unknown = [run.name for run in runs if run.run is not None and _groups_are_guessed(run.run)]
    if unknown:
        return None, [
            "Solved questions are not compared: which completions answer one question is a guess in the logs of "
            f"{', '.join(unknown[:6])} (--group, --group-size)."
        ]
    said = {run.run.solved for run in runs if run.run is not None}
    named = tuple(solved) or (next(iter(said)) if len(said) == 1 else ())
    known = {*everywhere, *(name.rpartition("/")[0] for name in everywhere)}
    lacking = [name for name in named if name not in known]
    if lacking and solved:
        raise ConfigError(
            f"--solved names the channel {lacking[0]!r}, which not all runs have; expected {', '.join(everywhere)}: "
            "name one of them"
        )
    if lacking:
        return None, [f"Solved questions are not compared: not all runs have the channel {lacking[0]} (--solved NAME)."]
    lines = Lines(seen, _widest(runs), named)
    if not lines.counting:
        return None, [f"No channel of {', '.join(named) or 'those trained on'} is in all runs: nothing to solve."]
    notes = []
    if len(said) > 1 and not solved:
        notes.append("Runs differ in what counts as solved: here, all channels that are trained on (--solved NAME).")
    if lines.unknown:
        notes.append(
            f"Solved questions are not compared: which rewards of {', '.join(lines.unknown)} count as met is not "
            "known. Name the channels that a solved question meets (--solved NAME)."
        )
        return None, notes
    notes.append(f"A question is solved by completions that meet {', '.join(lines.counting)}; Pass@k is unbiased.")
    if apart := [name for name, one in shown.items() if name not in everywhere and one.trained and not named]:
        notes.append(f"{', '.join(apart[:6])} does not count there, as not all runs have it.")
    return lines, notes


def _groups_are_guessed(run: Run) -> bool:
    first = next(run.batches(), None)
    return bool(first and first.groupings)


def _widest(runs: Sequence[RunCurves]) -> Mapping[str, Range | None]:
    """Return the declared ranges; of different ones the widest, as shares have it."""
    found: dict[str, Range | None] = {}
    for run in runs:
        for name, (low, high) in run.ranges.items():
            known = found.get(name) or (low, high)
            found[name] = (min(known[0], low), max(known[1], high))
    return found


def _counted(run: RunCurves, lines: Lines) -> QuestionSums:
    assert run.run is not None  # those without logs show no channels
    return count_questions(run.run, lines, {int(step): i for i, step in enumerate(run.steps)})


def _shares(sums: QuestionSums, rows: NDArray[np.int64], solved: int) -> dict[str, Array]:
    """Return the shares and Pass@k of solved questions, (S,) each."""
    found = {f"solved by {name}": sums.series(name, solved)[rows] for name in SHARES}
    return found | {f"pass@{k}": sums.series(f"pass@{k}", solved)[rows] for k in sums.ks}


def _entropy(run: RunCurves, steps: NDArray[np.int64]) -> dict[str, Array]:
    found = None if run.run is None else find_entropy(run.run)
    if found is None:
        return {}
    values = np.array([found.by_step.get(int(step), np.nan) for step in steps])
    return {} if np.isnan(values).all() else {ENTROPY: values}
