"""Compare training runs, grouped by method over seeds: is one method better on a channel, or was it luck?

Each run gives one number per measure and channel (:mod:`rvpo.compare.curves`), and the runs are the sample. So p is
about methods, not about checkpoints. The test is a permutation test, paired by seed if both groups have the same seeds.
Some runs are bistable: they end at 0.98 or at 0.00. A t test assumes that runs are normally distributed, and a
permutation test does not. Its price is that a few runs cannot give a small p. Then the verdict says so, and says how
many seeds could.

Holm's adjustment is over all channels and all compared groups within a measure. The worst channel, which methods
against neglect are meant to improve, is a family of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rvpo import statistics as st
from rvpo.compare.comparison import MEASURES, OF_EXPLORATION, RunNumbers, TrainingComparison, TrainingGroup, TrainingRow
from rvpo.compare.curves import (
    WINDOW_SHARE,
    RunCurves,
    SharedShape,
    numbers_of_groups,
    on_different_scales,
    scales,
    shared_steps,
    shares,
)
from rvpo.compare.engine import CompareOptions, Sample, baseline_first, judge_samples
from rvpo.compare.exploration import Explored, explored_in
from rvpo.errors import ConfigError, DataError

CURVE_POINTS = 200
"""Maximum number of points of a curve. Curves are smoothed, so little is lost between points."""

PAIRED_LEVEL = 0.05
"""Runs are not paired if this many pairs cannot reach this level and the same number of unpaired runs can."""

MOST_SEEDS = 100
"""If more seeds than this would be needed, the verdict does not say how many."""


def compare_trainings(
    groups: Mapping[str, Sequence[RunCurves]],
    *,
    baseline: str | None = None,
    window: int | None = None,
    trailing: bool = False,
    unpaired: bool = False,
    level: float = st.LEVEL,
    resamples: int = st.RESAMPLES,
    seed: int = 0,
    notes: Sequence[str] = (),
    solved: Sequence[str] = (),
) -> TrainingComparison:
    """Compare groups of training runs with one of them.

    Args:
        groups: name -> runs with different seeds; from :func:`~rvpo.compare.run_groups.group_runs`.
        baseline: name of the group that the others are compared with; None is the first group.
        window: number of steps averaged for first, best and last, and for smoothed curves; None is 5% of the steps.
        trailing: smooth curves over the steps before; otherwise over those around. Measures do not depend on it.
        unpaired: do not pair by seed, even if both groups have the same seeds.
        level: confidence level of the intervals; the significance level of the tests is 1 - level.
        resamples: number of random assignments, if there are too many to try all.
        seed: random seed of the assignments.
        notes: notes on how the runs were found.
        solved: channels that a completion has to meet to solve its question; empty uses those that the runs declare.

    Raises:
        ConfigError: there are fewer than two groups, the baseline does not exist, or level or window is out of range.
        DataError: the runs have no step in common, or no channel whose share can be computed.
    """
    groups = baseline_first(
        groups,
        baseline,
        found=f"{len(groups)} group of runs ({', '.join(groups)})",
        next_step="add runs of another method, or name the groups with NAME=FOLDER,FOLDER",
    )
    options = CompareOptions(level, resamples, seed)
    runs = [run for group in groups.values() for run in group]
    steps = _common_steps(runs)
    width = _width(window, len(steps))
    limits, of_scales = scales(runs)
    if not limits:
        raise DataError(f"no channel can be compared; expected one whose rewards differ ({'; '.join(of_scales)})")
    share = [shares(run, limits, steps) for run in runs]
    scored: NDArray[np.bool_] = np.array([~np.isnan(x).all(axis=0) for x in share])  # (runs, K)
    names, apart = tuple(limits), on_different_scales(runs)
    common = np.logical_and.reduce(scored) & np.array([name not in apart for name in names])
    points = np.unique(np.linspace(0, len(steps) - 1, CURVE_POINTS).round().astype(int))
    compared, scarce = shared_steps(share)
    shape = SharedShape(names, common, compared, width, points, trailing)
    made = numbers_of_groups(groups, share, shape)
    channels: list[str | None] = [None] if common.any() else []
    channels += [name for name, anywhere in zip(names, np.logical_or.reduce(scored), strict=True) if anywhere]
    samples = [
        _sample(measure, channel, made[0], group, unpaired, options, channel in apart)
        for measure in MEASURES
        for group in made[1:]
        for channel in channels
    ]
    rows = judge_samples(samples, options)
    found = explored_in(runs, steps, solved)
    explored = _explored(groups, found, shape)
    return TrainingComparison(
        baseline=made[0].name,
        level=level,
        window=width,
        first=int(steps[0]),
        last=int(steps[-1]),
        count=len(steps),
        steps=tuple(steps[points].tolist()),
        scales=limits,
        worst_of=tuple(name for name, everywhere in zip(names, common, strict=True) if everywhere),
        groups=tuple(made),
        rows=rows,
        notes=(
            *_of_groups(groups),
            *notes,
            *_of_logs(runs),
            *_of_copies(runs),
            *_of_steps(runs, steps, width),
            *of_scales,
            *_of_channels(runs, names, scored, common, bool(apart)),
            *_of_shared_steps(share, names, compared, scarce, steps),
            *_of_tests(made, rows, unpaired, level),
            *found.notes,
        ),
        exploration=_tests_of_exploration(explored, found.names, unpaired, options),
        explored=tuple(explored),
    )


def _explored(groups: Mapping[str, Sequence[RunCurves]], found: Explored, shape: SharedShape) -> list[TrainingGroup]:
    """Return the groups with quantities of exploration in place of channels; an empty list without exploration."""
    if not found.names:
        return []
    compared, _ = shared_steps(found.values)
    common = np.zeros(len(found.names), bool)  # quantities have no worst one
    return numbers_of_groups(
        groups, found.values, replace(shape, channels=found.names, common=common, compared=compared)
    )


def _tests_of_exploration(
    made: Sequence[TrainingGroup], names: Sequence[str], unpaired: bool, options: CompareOptions
) -> tuple[TrainingRow, ...]:
    """Test the exploration of runs. Each measure is a family of its own."""
    samples = [
        _sample(measure, name, made[0], group, unpaired, options)
        for measure in OF_EXPLORATION
        for group in made[1:]
        for name in names
    ]
    return judge_samples(samples, options)


def _width(window: int | None, steps: int) -> int:
    width = max(1, round(WINDOW_SHARE * steps)) if window is None else window
    if not 1 <= width <= steps:
        raise ConfigError(f"window is {width} steps; expected 1 to {steps}, the number of steps that all runs have")
    return width


def _common_steps(runs: Sequence[RunCurves]) -> NDArray[np.int64]:
    """Return the steps that all runs have, (S,).

    Raises:
        DataError: no step is in all runs.
    """
    steps = runs[0].steps
    for run in runs[1:]:
        both = np.intersect1d(steps, run.steps)
        if not len(both):
            raise DataError(
                f"{run.path} has steps {run.steps[0]} to {run.steps[-1]}, {runs[0].path} has {runs[0].steps[0]} to "
                f"{runs[0].steps[-1]}, and no step is in all runs; expected runs that logged the same steps. Leave one "
                "of them out"
            )
        steps = both
    return steps


# --- samples -----------------------------------------------------------------------------------------------------


def _sample(
    measure: str,
    channel: str | None,
    a: TrainingGroup,
    b: TrainingGroup,
    unpaired: bool,
    options: CompareOptions,
    apart: bool = False,
) -> Sample[TrainingRow]:
    """Compare one measure on the runs that have it. Without a test, the verdict is final.

    Args:
        measure: one of ``MEASURES``.
        channel: name of the channel; None for the worst channel.
        a: baseline.
        b: other group.
        unpaired: whether runs are not paired by seed.
        options: options of the tests.
        apart: whether the runs log the channel on different scales.
    """
    runs_a, runs_b = ([run for run in group.runs if run.of(channel).get(measure) is not None] for group in (a, b))
    by_pair = not unpaired and len(runs_a) > 1 and why_unpaired(runs_a, runs_b) is None
    if by_pair:
        runs_a, runs_b = (sorted(runs, key=lambda run: run.seed or 0) for runs in (runs_a, runs_b))
    x, y = (
        tuple(value for run in runs if (value := run.of(channel).get(measure)) is not None) for runs in (runs_a, runs_b)
    )
    nothing = st.Interval(None, None, None, 0)
    row = TrainingRow(b.name, measure, channel, x, y, nothing, nothing)
    if not x or not y:
        lacking = " and ".join(group.name for group, values in ((a, x), (b, y)) if not values)
        row = replace(row, verdict=f"missing: no run of {lacking} has it")
    elif apart:
        row = replace(row, verdict="not compared: the runs log it on different scales")
    else:
        difference, effect = (f(y, x, by_pair=by_pair, level=options.level) for f in (st.runs_interval, st.hedges_g))
        row = replace(row, difference=difference, effect=effect)
        if min(len(x), len(y)) < 2:
            single = " and ".join(group.name for group, values in ((a, x), (b, y)) if len(values) == 1)
            row = replace(row, verdict=f"no p: only one run of {single}, so the variation over seeds is unknown")
        else:
            p = st.sign_flip(st.paired(y, x), **options.drawn) if by_pair else st.permutation(y, x, **options.drawn)
            smallest = st.smallest_p(len(y), None if by_pair else len(x), resamples=options.resamples)
            row = replace(row, test="paired" if by_pair else "unpaired", p=p, smallest=smallest)
    why_not, more = partial(_why_not, row, options.resamples), "drops more" if measure == "drop" else "higher"
    return Sample(row, (a.name, b.name), (measure, channel is None), why_not, more, row.smallest or 0.0)


def _why_not(row: TrainingRow, resamples: int, level: float, impossible: str) -> str:
    """Return why a difference is not significant, and how many seeds would be needed."""
    a, b, by_pair = row.a, row.b, row.test == "paired"
    if impossible:
        runs = f"{len(b)} pairs of seeds" if by_pair else f"{len(b)} runs against {len(a)}"
        enough = st.seeds_for_level(level, by_pair=by_pair, resamples=resamples)
        then = "no number of seeds would change that" if enough is None else f"at least {enough} seeds each"
        return f"with {runs} {impossible}; {then}"
    if st.alike([*a, *b]):
        return "all runs are equal"
    needed = st.needed_seeds(b, a, by_pair=by_pair, level=level, resamples=resamples)
    if needed is None:
        return ""
    about = max(needed, min(len(a), len(b)) + 1)  # the present number of seeds did not suffice
    number = f"about {about}" if about <= MOST_SEEDS else f"more than {MOST_SEEDS}"
    return f"{number} seeds each would be needed for a difference of this size"


def why_unpaired(a: Sequence[RunNumbers], b: Sequence[RunNumbers]) -> str | None:
    """Return why runs are not paired by seed; None if they are."""
    for run in (*a, *b):
        if run.seed is None:
            return f"the seed of {run.name} is unknown"
    for runs in (a, b):
        seeds = [run.seed for run in runs]
        if twice := [run for run in runs if seeds.count(run.seed) > 1]:
            return f"seed {twice[0].seed} occurs twice, in {twice[0].path} and {twice[1].path}"
    ours, theirs = (sorted(run.seed for run in runs if run.seed is not None) for runs in (a, b))
    if ours != theirs:
        return f"seeds are {', '.join(map(str, ours))} and {', '.join(map(str, theirs))}"
    n = len(ours)
    # This depends on the number of runs, not on their results.
    if n > 1 and st.smallest_p(n, None) > PAIRED_LEVEL >= st.smallest_p(n, n):
        return f"{n} pairs cannot give a p of {PAIRED_LEVEL}, but {n} runs against {n} can"
    return None


# --- notes -------------------------------------------------------------------------------------------------------


def _of_steps(runs: Sequence[RunCurves], steps: NDArray[np.int64], width: int) -> Iterator[str]:
    most = max(runs, key=lambda run: len(run.steps))
    least = min(runs, key=lambda run: len(run.steps))
    if len(most.steps) > len(steps):
        yield (
            f"Runs differ in their steps, so only the {len(steps)} steps from {steps[0]} to {steps[-1]} that all runs "
            f"have are compared. {least.name} has {len(least.steps)}, {most.name} has {len(most.steps)}."
        )
    yield (
        f"Numbers are shares of the range attained, over steps {steps[0]} to {steps[-1]}. first, best, last: means of "
        f"{width} step{'s' * (width > 1)} (--window). drop: best - last, above 0 by chance, too. auc: mean over all "
        "steps."
    )


def _of_groups(groups: Mapping[str, Sequence[RunCurves]]) -> Iterator[str]:
    for name, group in groups.items():
        yield f"{name}: {_some([run.name for run in group])}"


def _of_logs(runs: Sequence[RunCurves]) -> Iterator[str]:
    """Yield notes on how logs were read, one line for all runs that share a note."""
    for note in dict.fromkeys(note for run in runs for note in run.notes):
        names = [run.name for run in runs if note in run.notes]
        yield f"{_some(names) if len(names) < len(runs) else 'all runs'}: {note}"


def _of_channels(
    runs: Sequence[RunCurves],
    names: Sequence[str],
    scored: NDArray[np.bool_],
    common: NDArray[np.bool_],
    some_apart: bool,
) -> Iterator[str]:
    absent = {
        name: [run.name for run, there in zip(runs, column, strict=True) if not there]
        for name, column in zip(names, scored.T, strict=True)
    }
    partly = {name: lacking for name, lacking in absent.items() if lacking}
    for name, lacking in partly.items():
        yield f"{name} is missing in {_some(lacking)}, so its numbers are from the other runs."
    scale = ", on one scale" if some_apart else ""
    if not common.any():
        yield f"The worst channel is not compared: no channel is in all runs{scale}."
    elif not common.all():
        of = ", ".join(name for name, everywhere in zip(names, common, strict=True) if everywhere)
        yield f"The worst channel is one of those in all runs{scale}: {of}."


def _of_shared_steps(
    share: Sequence[st.Array],
    names: Sequence[str],
    compared: NDArray[np.bool_],
    scarce: NDArray[np.bool_],
    steps: NDArray[np.int64],
) -> Iterator[str]:
    """Yield notes on channels that some runs did not score at all steps at which others did."""
    scored = np.stack([~np.isnan(x) for x in share])  # (runs, S, K)
    for j, name in enumerate(names):
        having = scored[scored[:, :, j].any(axis=1), :, j]
        if not len(having) or (having == having[0]).all():
            continue
        shared = int(having.all(axis=0).sum())
        if scarce[j]:
            yield (
                f"{name}: only {shared} of {len(steps)} steps were scored in all runs, so each run counts with the "
                "steps that it scored. A difference may come from the steps."
            )
        else:
            kept = steps[compared[:, j]]
            yield (
                f"{name}: best, drop and auc are over the {shared} of {len(steps)} steps at which all runs scored it, "
                f"from step {kept[0]} to {kept[-1]}. A run without scores at the end has no last."
            )


def _of_copies(runs: Sequence[RunCurves]) -> Iterator[str]:
    """Yield a note on runs with the same rewards at every step: copies, or a seed without an effect."""
    first: dict[bytes, str] = {}
    for run in runs:
        if not (run.mean[:-1] != run.mean[1:]).any():
            continue  # constant rewards are equal without being copies
        key = run.steps.tobytes() + np.ascontiguousarray(run.mean).tobytes()
        if key in first:
            yield (
                f"{first[key]} and {run.name} have the same rewards at every step. If one is a copy of the other, or "
                "the seed has no effect, remove one of them: p regards them as two independent runs."
            )
        first.setdefault(key, run.name)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 8 else f"{', '.join(names[:6])} and {len(names) - 6} more"


def _of_tests(
    groups: Sequence[TrainingGroup], rows: Sequence[TrainingRow], unpaired: bool, level: float
) -> Iterator[str]:
    baseline, *others = groups
    for group in others:
        why = "--unpaired" if unpaired else why_unpaired(baseline.runs, group.runs)
        if min(len(baseline.runs), len(group.runs)) > 1:
            yield (
                f"{group.name} against {baseline.name}: "
                + ("paired by seed." if why is None else f"not paired by seed ({why}).")
            )
    if any(row.test for row in rows):
        yield (
            f"p: permutation test, two-sided. Holm: p adjusted for all channels{' and groups' * (len(others) > 1)}, "
            "for each measure by itself, and for the worst channel by itself. The verdict follows from it. "
            f"[low, high]: {level:.0%} interval, which assumes that runs are normally distributed. g: difference in "
            "standard deviations of runs (Hedges)."
        )
    if single := [group.name for group in groups if len(group.runs) == 1]:
        yield (
            f"One run of {', '.join(single)}: numbers without p, because the variation over seeds is unknown. Train "
            "several seeds."
        )
    paired = [row for row in rows if row.test == "paired" and "is possible" in row.verdict]
    if paired:
        n = len(paired[0].a)
        yield (
            f"{n} pairs of seeds cannot give a p below {st.smallest_p(n):.2g}. Unpaired (--unpaired), {n} runs against "
            f"{n} can give {st.smallest_p(n, n):.2g}, but do not use what runs of one seed have in common."
        )
