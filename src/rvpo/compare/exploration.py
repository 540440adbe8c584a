"""Compare the exploration of runs: questions solved by none, some and all completions, Pass@k, and entropy, per step.

All runs use the same definition of a solved question (:mod:`rvpo.core.solved`): the same channels, and the same
thresholds of their rewards. The shares solved by none, some and all depend on the size of the groups, so they are
compared only if all runs have groups of the same size. Pass@k does not depend on it.
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
"""Largest relative difference in scored completions per question at which shares are still compared."""


@dataclass(frozen=True)
class Explored:
    """The quantities of exploration that all runs have.

    Attributes:
        names: names of Q quantities, such as ``"solved by none"``, ``"pass@8"`` and ``"entropy"``.
        values: one array (S, Q) per run, in order; NaN if nothing was counted.
        notes: sentences that a reader needs to know.
    """

    names: tuple[str, ...]
    values: tuple[Array, ...]
    notes: tuple[str, ...]


def explored_in(runs: Sequence[RunCurves], steps: NDArray[np.int64], solved: Sequence[str] = ()) -> Explored:
    """Read runs again, and return their exploration at their common steps.

    Args:
        runs: runs of all groups, in order.
        steps: (S,) steps that all runs have.
        solved: channels that a completion has to meet to solve its question; empty uses those that the runs declare.

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
        notes.append(f"Entropy is not compared: it was not found in the logs of {', '.join(lacking[:6])}.")
    names = tuple([name for name in columns[0] if all(name in found for found in columns)])
    notes += _aligned(columns, names)
    names = tuple([name for name in names if not all(np.isnan(found[name]).all() for found in columns)])
    values = tuple([np.stack([found[name] for name in names], -1) for found in columns]) if names else ()
    return Explored(names, values, tuple(notes))


def _left_out(columns: Sequence[dict[str, Array]], every: Sequence[QuestionSums]) -> list[str]:
    """Remove the shares if runs have different numbers of completions per question, and return a note about it."""
    sizes = sorted({sums.size for sums in every})
    if len(sizes) > 1:
        reason = f"Groups have {' and '.join(map(str, sizes))} completions"
    else:
        # Groups of a run may be of several sizes, and not every completion is scored.
        scored = [sums.sums[SCORED][:, -1].sum() / max(sums.sums[GROUPS][:, -1].sum(), 1) for sums in every]
        if max(scored) - min(scored) <= SAME_SIZE * max(scored):
            return []
        reason = f"Questions have {min(scored):.1f} to {max(scored):.1f} scored completions on average"
    for found in columns:
        for name in SHARES:
            found.pop(f"solved by {name}")
    return [f"{reason}. Shares solved by none, some and all depend on this number, so they are left out."]


def _aligned(columns: Sequence[dict[str, Array]], names: Sequence[str]) -> list[str]:
    """Leave out steps that some run has not counted, and return a note about it.

    Otherwise later steps of one run would be compared with earlier steps of another. Entropy is not changed, because
    runs log it only every few steps.
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
        [f"These are compared only at steps where all runs have enough scored completions: {', '.join(fewer)}."]
        if fewer
        else []
    )


def _lines(runs: Sequence[RunCurves], solved: Sequence[str]) -> tuple[Lines | None, list[str]]:
    """Return one definition of a solved question for all runs, None if they share none, and notes about it."""
    everywhere = [name for name in runs[0].channels if all(name in run.channels for run in runs)]
    shown = merged(run.shown for run in runs)
    seen = {name: one for name, one in shown.items() if name in everywhere}
    if not seen:
        return None, []
    unknown = [run.name for run in runs if run.run is not None and _groups_are_guessed(run.run)]
    if unknown:
        return None, [
            "Solved questions are not compared: the groups of completions are a guess in the logs of "
            f"{', '.join(unknown[:6])}. Set --group or --group-size."
        ]
    said = {run.run.solved for run in runs if run.run is not None}
    named = tuple(solved) or (next(iter(said)) if len(said) == 1 else ())
    known = {*everywhere, *(name.rpartition("/")[0] for name in everywhere)}
    lacking = [name for name in named if name not in known]
    if lacking and solved:
        raise ConfigError(
            f"--solved names the channel {lacking[0]!r}, which not all runs have; expected one or more of "
            f"{', '.join(everywhere)}"
        )
    if lacking:
        note = f"Solved questions are not compared: not all runs have the channel {lacking[0]}. Set --solved NAME."
        return None, [note]
    lines = Lines(seen, _widest(runs), named)
    if not lines.counting:
        wanted = f"of the channels {', '.join(named)}" if named else "of the channels that are trained on"
        return None, [f"Solved questions are not compared: none {wanted} is in all runs."]
    notes = []
    if len(said) > 1 and not solved:
        notes.append(
            "Runs differ in which channels a solved question has to meet, so all channels that are trained on are "
            "used. Set --solved NAME to choose."
        )
    if lines.unknown:
        notes.append(
            f"Solved questions are not compared: it is not known which rewards of {', '.join(lines.unknown)} count as "
            "met. Set --solved NAME to choose the channels."
        )
        return None, notes
    notes.append(f"A completion solves its question if it meets {', '.join(lines.counting)}. Pass@k is unbiased.")
    if apart := [name for name, one in shown.items() if name not in everywhere and one.trained and not named]:
        notes.append(f"{', '.join(apart[:6])} is not counted there, because not all runs have it.")
    return lines, notes


def _groups_are_guessed(run: Run) -> bool:
    first = next(run.batches(), None)
    return bool(first and first.groupings)


def _widest(runs: Sequence[RunCurves]) -> Mapping[str, Range | None]:
    """Return the declared ranges. If runs declare different ranges, the widest counts, as for shares."""
    found: dict[str, Range | None] = {}
    for run in runs:
        for name, (low, high) in run.ranges.items():
            known = found.get(name) or (low, high)
            found[name] = (min(known[0], low), max(known[1], high))
    return found


def _counted(run: RunCurves, lines: Lines) -> QuestionSums:
    assert run.run is not None  # runs without logs show no channels
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
