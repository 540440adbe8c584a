"""Training runs beside each other, grouped by method over seeds: is one better on a channel, or was it luck?

A run is one number a measure and channel (:mod:`rvpo.compare.curves`), and the runs are the sample: p speaks of
methods, not of checkpoints. It is that of a permutation test, paired by seed where both groups have the same seeds.
Bistable runs, which end at 0.98 or at 0.00, are why: t tests take runs for normal, a permutation test takes them as
they are. Its price is that a few runs cannot give a small p, and then the verdict says so and how many seeds could.

Holm's adjustment is over all channels and all compared groups within a measure; the worst channel, which is what a
method against neglect is for, is a family of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rvpo import statistics as st
from rvpo.compare import rows as compare_rows
from rvpo.compare.comparison import Band, Comparison, Group, Row, RunNumbers, Series
from rvpo.compare.curves import WINDOW, Array, RunCurves, lowest, measures, scales, shares, smoothed, windows
from rvpo.compare.rows import Options
from rvpo.errors import ConfigError, DataError

POINTS = 200
"""Of a curve, at most; it is smoothed, so that little is lost between them."""


def compare(
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
) -> Comparison:
    """Compare groups of runs with one of them.

    Args:
        groups: name -> runs, each with another seed; of :func:`~rvpo.compare.run_groups.group_runs`.
        baseline: name of the group that the others are compared with; None: the first.
        window: steps that first, best and last are means of, and curves are smoothed by; None: 5% of the steps.
        trailing: smooth curves by the steps before; else by those around. Measures do not depend on it.
        unpaired: do not pair by seed where both groups have the same seeds.
        level: of the intervals; differences are told at 1 - level.
        resamples: random assignments, where there are too many to try all.
        seed: of these.
        notes: on how the runs were found.

    Raises:
        ConfigError: fewer than two groups, no such baseline, or a level or window that cannot be.
        DataError: the runs have no step in common, or no channel of which a share can be told.
    """
    groups = _baseline_first(groups, baseline)
    if not 0 < level < 1:
        raise ConfigError(f"level is {level!r}, allowed is 0 < level < 1, such as 0.95")
    runs = [run for group in groups.values() for run in group]
    steps = _common_steps(runs)
    width = _width(window, len(steps))
    limits, of_scales = scales(runs)
    if not limits:
        raise DataError(f"no channel can be compared, allowed is one whose rewards differ: {'; '.join(of_scales)}")
    share = [shares(run, limits, steps) for run in runs]
    scored: NDArray[np.bool_] = np.array([~np.isnan(x).all(axis=0) for x in share])  # (runs, channels)
    names, common = tuple(limits), np.logical_and.reduce(scored)
    shape = _Shape(
        names, common, width, np.unique(np.linspace(0, len(steps) - 1, POINTS).round().astype(int)), trailing
    )
    told = iter([_numbers(run, x, shape) for run, x in zip(runs, share, strict=True)])
    made = [_group(name, [next(told) for _ in group], names) for name, group in groups.items()]
    channels: list[str | None] = [None] if common.any() else []
    channels += [name for name, anywhere in zip(names, np.logical_or.reduce(scored), strict=True) if anywhere]
    options = Options(level, unpaired, resamples, seed)
    rows = compare_rows.rows(made[0], made[1:], channels, options)
    return Comparison(
        baseline=made[0].name,
        level=level,
        window=width,
        first=int(steps[0]),
        last=int(steps[-1]),
        count=len(steps),
        steps=tuple(steps[shape.points].tolist()),
        scales=limits,
        worst_of=tuple(name for name, everywhere in zip(names, common, strict=True) if everywhere),
        groups=tuple(made),
        rows=rows,
        notes=(
            *_of_groups(groups),
            *notes,
            *_of_logs(runs),
            *_of_steps(runs, steps, width),
            *of_scales,
            *_of_channels(runs, names, scored),
            *_of_tests(made, rows, options),
        ),
    )


def _width(window: int | None, steps: int) -> int:
    width = max(1, round(WINDOW * steps)) if window is None else window
    if not 1 <= width <= steps:
        raise ConfigError(f"window is {width} steps, allowed is 1 to {steps}, which all runs have")
    return width


def _baseline_first(groups: Mapping[str, Sequence[RunCurves]], baseline: str | None) -> dict[str, Sequence[RunCurves]]:
    if len(groups) < 2:
        raise ConfigError(
            f"{len(groups)} group of runs ({', '.join(groups)}), allowed are two or more: name runs of another method, "
            "or tell groups apart with NAME=FOLDER,FOLDER"
        )
    first = next(iter(groups)) if baseline is None else baseline
    if first not in groups:
        raise ConfigError(f"baseline is {first!r}, allowed are {', '.join(map(repr, groups))}")
    return {first: groups[first], **groups}


def _common_steps(runs: Sequence[RunCurves]) -> NDArray[np.int64]:
    """Return the steps that all runs have, (T,).

    Raises:
        DataError: there are none.
    """
    steps = runs[0].steps
    for run in runs[1:]:
        both = np.intersect1d(steps, run.steps)
        if not len(both):
            raise DataError(
                f"{run.path} has steps {run.steps[0]} to {run.steps[-1]}, {runs[0].path} {runs[0].steps[0]} to "
                f"{runs[0].steps[-1]}, and all runs have none in common; allowed are runs that logged the same steps: "
                "leave one out"
            )
        steps = both
    return steps


# --- numbers of a run and of a group -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    """What all runs have in common: K channels, which of them all runs have, the window, and the points of curves."""

    channels: tuple[str, ...]
    common: NDArray[np.bool_]
    width: int
    points: NDArray[np.int64]
    trailing: bool


def _numbers(run: RunCurves, share: Array, shape: _Shape) -> RunNumbers:
    """Return what a run's shares (T, K) come to."""
    windowed = windows(share, shape.width)
    smooth = smoothed(share, shape.width, trailing=shape.trailing)[shape.points]
    worst = lowest(windowed[:, shape.common])
    any_common = bool(shape.common.any())
    return RunNumbers(
        name=run.name,
        path=run.path,
        seed=run.seed,
        steps=len(run.steps),
        measures={name: _or_none(measures(windowed[:, j], share[:, j])) for j, name in enumerate(shape.channels)},
        worst=_or_none(measures(worst, worst)) if any_common else None,
        curves={name: _series(smooth[:, j]) for j, name in enumerate(shape.channels)},
        worst_curve=_series(lowest(smooth[:, shape.common])) if any_common else None,
    )


def _group(name: str, runs: Sequence[RunNumbers], channels: Sequence[str]) -> Group:
    worst = [run.worst_curve for run in runs if run.worst_curve is not None]
    curves = {channel: _band([run.curves[channel] for run in runs]) for channel in channels}
    return Group(name, tuple(runs), curves, _band(worst) if worst else None)


def _band(curves: Sequence[Series]) -> Band:
    """Return mean, range and standard deviation over the runs that have a point."""
    x = np.array(curves, dtype=float)
    there = ~np.isnan(x)
    count = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, x, 0.0).sum(axis=0) / count
        std = np.sqrt(np.where(there, (x - mean) ** 2, 0.0).sum(axis=0) / np.where(count > 1, count - 1, np.nan))
    low, high = (
        np.where(count > 0, getattr(np.where(there, x, fill), find)(axis=0), np.nan)
        for fill, find in ((np.inf, "min"), (-np.inf, "max"))
    )
    return Band(_series(mean), _series(low), _series(high), _series(std))


def _series(values: Array) -> Series:
    told = values.round(6).tolist()
    return tuple(None if value != value else value for value in told) if np.isnan(values).any() else tuple(told)


def _or_none(found: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in found.items()}


# --- words -------------------------------------------------------------------------------------------------------


def _of_steps(runs: Sequence[RunCurves], steps: NDArray[np.int64], width: int) -> Iterator[str]:
    most = max(runs, key=lambda run: len(run.steps))
    least = min(runs, key=lambda run: len(run.steps))
    if len(most.steps) > len(steps):
        yield (
            f"Runs differ in their steps: compared are the {len(steps)} from {steps[0]} to {steps[-1]} that all have. "
            f"{least.name} has {len(least.steps)}, {most.name} {len(most.steps)}."
        )
    yield (
        f"Numbers are shares attained, over steps {steps[0]} to {steps[-1]}. first, best, last: means of {width} "
        f"step{'s' * (width > 1)} (--window); drop: best - last, above 0 by chance too; auc: mean over all steps."
    )


def _of_groups(groups: Mapping[str, Sequence[RunCurves]]) -> Iterator[str]:
    for name, group in groups.items():
        yield f"{name}: {_some([run.name for run in group])}"


def _of_logs(runs: Sequence[RunCurves]) -> Iterator[str]:
    """Yield how logs were understood, once for all runs of which the same is to be said."""
    for note in dict.fromkeys(note for run in runs for note in run.notes):
        names = [run.name for run in runs if note in run.notes]
        yield f"{_some(names) if len(names) < len(runs) else 'all runs'}: {note}"


def _of_channels(runs: Sequence[RunCurves], names: Sequence[str], scored: NDArray[np.bool_]) -> Iterator[str]:
    absent = {
        name: [run.name for run, there in zip(runs, column, strict=True) if not there]
        for name, column in zip(names, scored.T, strict=True)
    }
    partly = {name: lacking for name, lacking in absent.items() if lacking}
    for name, lacking in partly.items():
        yield f"{name} is missing in {_some(lacking)}, which are left out of its numbers."
    if len(partly) == len(names):
        yield "There is no worst channel: no channel is in all runs."
    elif partly:
        yield f"The worst channel is one of those in all runs: {', '.join(n for n in names if n not in partly)}."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 8 else f"{', '.join(names[:6])} and {len(names) - 6} more"


def _of_tests(groups: Sequence[Group], rows: Sequence[Row], options: Options) -> Iterator[str]:
    baseline, *others = groups
    for group in others:
        why = "--unpaired" if options.unpaired else compare_rows.why_unpaired(baseline.runs, group.runs)
        if min(len(baseline.runs), len(group.runs)) > 1:
            yield (
                f"{group.name} against {baseline.name}: "
                + ("paired by seed." if why is None else f"not paired by seed ({why}).")
            )
    if any(row.test for row in rows):
        yield (
            f"p: permutation test, two-sided; Holm: adjusted for all channels{' and groups' * (len(others) > 1)}, each "
            "measure by itself, and so is the worst channel. The verdict follows from it. "
            f"[low, high]: {options.level:.0%} interval, which takes runs for normal. g: the difference in standard "
            "deviations of runs (Hedges)."
        )
    if single := [group.name for group in groups if len(group.runs) == 1]:
        yield f"One run of {', '.join(single)}: numbers without p, for how seeds differ is unknown. Train several."
    paired = [row for row in rows if row.test == "paired" and "is possible" in row.verdict]
    if paired:
        n = len(paired[0].a)
        yield (
            f"Pairs of {n} seeds give no p below {st.smallest_p(n):.2g}; unpaired (--unpaired), {n} runs against {n} "
            f"give {st.smallest_p(n, n):.2g}, and lose what runs of one seed have in common."
        )
