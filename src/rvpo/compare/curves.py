"""Curves of a run: the share that each channel attained per step, and the few numbers that summarise a curve.

S steps, K channels, a window of w steps::

    share          (mean reward of a step - lowest) / (highest - lowest), in [0, 1]
    window         mean of w consecutive steps, S - w + 1 of them
    first, last    the first window and the last
    best           the highest window
    drop           best - last: what was lost again; >= 0, and above 0 by chance alone
    auc            mean over all steps
    worst channel  in each window the channel with the lowest share; its auc is the mean over windows

Best and last are means over a window, because single steps are noisy and a maximum would pick the luckiest one. The
lowest channel is determined in windows for the same reason. Missing values are left out; they never count as 0.

A channel is compared at the steps at which all runs that have it scored it. Otherwise a run that scored it only early
would be compared with the late steps of another run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rvpo.compare.comparison import Band, RunNumbers, Series, TrainingGroup
from rvpo.core import AdvantageConfig
from rvpo.core.channels import Range
from rvpo.diagnose.questions import Seen, merged, seen_of
from rvpo.errors import DataError
from rvpo.logs.run import LoggedBatch, Run
from rvpo.statistics import Array

WINDOW_SHARE = 0.05
"""Default width of a window, as a share of the steps."""

SHARED_LEAST = 0.5
"""A channel is compared at shared steps if these are at least this share of the steps at which the run that scored it
least often scored it. Runs that score a channel now and then share too few steps."""

WIDER = 2
"""A note is given if the rewards of one run span this many times as much as those of another run."""


@dataclass(frozen=True)
class RunCurves:
    """Mean rewards of a run: S steps, K channels.

    Attributes:
        path: path of the logs.
        name: name of the run.
        channels: K names of channels.
        steps: (S,) int64, ascending.
        mean: (S, K) mean reward per step; NaN if none was scored.
        seen: channel -> lowest and highest reward of any completion; channels that were never scored are absent.
        ranges: channel -> declared lowest and highest reward; channels without a declared range are absent.
        seed: random seed of the training; None if unknown.
        configs: how the run aggregated at its first and its last step; None if the logs do not say.
        notes: notes on how the logs were read.
        shown: what the logs show about each channel, which determines which rewards meet it; empty if unknown.
        run: the logs, to be read again; None if there are none.
    """

    path: str
    name: str
    channels: tuple[str, ...]
    steps: NDArray[np.int64]
    mean: Array
    seen: Mapping[str, Range]
    ranges: Mapping[str, Range]
    seed: int | None = None
    configs: tuple[AdvantageConfig, AdvantageConfig] | None = None
    notes: tuple[str, ...] = ()
    shown: Mapping[str, Seen] = field(default_factory=dict)
    run: Run | None = None


def read_curves(run: Run, progress: Callable[[int], None] | None = None) -> RunCurves:
    """Read a run batch by batch.

    Args:
        run: run from :func:`rvpo.logs.open.open_run`.
        progress: function that is called with the number of steps that were read.

    Raises:
        DataError: a file is damaged, or nothing was scored.
    """
    k = len(run.channels)
    sums: dict[int, Array] = {}  # step -> (2, K): sums and numbers of rewards
    lowest, highest = np.full(k, math.inf), np.full(k, -math.inf)
    first: AdvantageConfig | None = None
    last: AdvantageConfig | None = None
    shown: dict[str, Seen] = {}
    for batch in run.batches():
        shown = merged([shown, seen_of(batch, run)])
        number, reward = _scored(batch)
        if progress is not None and batch.step not in sums:
            progress(1)
        total = sums.setdefault(batch.step, np.zeros((2, k)))
        total += [np.bincount(number, reward, k), np.bincount(number, minlength=k)]
        np.minimum.at(lowest, number, reward)
        np.maximum.at(highest, number, reward)
        first, last = first or batch.config, batch.config or last
    scored = np.isfinite(lowest)
    if not scored.any():
        raise DataError(f"{run.path} has no rewards; expected a run with scored completions. Leave it out")
    steps = sorted(sums)
    with np.errstate(invalid="ignore"):
        mean = np.stack([sums[step][0] / sums[step][1] for step in steps])
    return RunCurves(
        path=str(run.path),
        name=run.name,
        channels=run.channels,
        steps=np.array(steps, dtype=np.int64),
        mean=mean,
        seen={name: (float(lowest[j]), float(highest[j])) for j, name in enumerate(run.channels) if scored[j]},
        ranges={name: limits for name in run.channels if (limits := run.ranges.get(name)) is not None},
        configs=(first, last) if first and last else None,
        notes=(*(f"guessed: {guess}" for guess in run.guesses), *run.notes),
        shown=shown,
        run=run,
    )


def _scored(batch: LoggedBatch) -> tuple[NDArray[np.int64], Array]:
    """Return channel and reward, (cells,) each, of every cell that has a reward."""
    rewards = batch.rewards
    there = ~np.isnan(rewards) & batch.present
    return np.broadcast_to(batch.channel, rewards.shape)[there], rewards[there]


def scales(runs: Sequence[RunCurves]) -> tuple[dict[str, Range], list[str]]:
    """Return a mapping from channel to the rewards that count as 0 and 1 in all runs, and notes about it.

    The scale is the declared range, widened to the rewards that were seen. Without a declared range, it reaches from
    the lowest to the highest reward of any completion of any run. If these are equal and inside [0, 1], the scale is
    [0, 1]. Other channels have no scale.
    """
    found: dict[str, Range] = {}
    notes: list[str] = []
    apart = on_different_scales(runs)
    ways: dict[str, list[str]] = {"declared": [], "lowest and highest reward seen": [], "assumed, constant": []}
    for name in dict.fromkeys(name for run in runs for name in run.channels):
        having = [run for run in runs if name in run.seen]
        seen = [run.seen[name] for run in having]
        declared = list(dict.fromkeys(run.ranges[name] for run in runs if name in run.ranges))
        if not seen:
            continue
        low, high = min(x for x, _ in seen), max(x for _, x in seen)
        if len(declared) > 1:
            notes.append(f"{name}: runs declare different ranges, {_listed(declared)}; the widest counts")
        if declared:
            wide = min(x for x, _ in declared), max(x for _, x in declared)
            if low < wide[0] or high > wide[1]:
                notes.append(f"{name}: rewards from {low:g} to {high:g} leave the declared range {_listed([wide])}")
            low, high, way = min(low, wide[0]), max(high, wide[1]), "declared"
        elif low < high:
            way = "lowest and highest reward seen"
            notes += [] if name in apart else _wider(name, having)
        elif 0 <= low <= 1:
            low, high, way = 0.0, 1.0, "assumed, constant"
        else:
            notes.append(f"{name}: always {low:g} and without a declared range, so its share cannot be computed")
            continue
        found[name] = low, high
        ways[way].append(f"{name} {low:g} to {high:g}")
    notes += [
        f"{name}: its only rewards are {pairs}. So the runs log it on different scales, and it is not compared. Log it "
        "on one scale in all runs"
        for name, pairs in apart.items()
    ]
    scaled = [f"{', '.join(names)} ({way})" for way, names in ways.items() if names]
    return found, [f"Rewards that count as 0 and 1: {'; '.join(scaled)}.", *notes] if scaled else notes


def on_different_scales(runs: Sequence[RunCurves]) -> dict[str, str]:
    """Return the channels with two rewards that are not the same two in all runs, such as 0 and 1 in one.

    One of the runs logs the channel with a weight, for example, so that a higher mean is not a larger share. Channels
    with a declared range are left out: their scale is known.

    Returns:
        Channel -> the rewards of two runs that differ, as text.
    """
    pairs: dict[str, dict[tuple[float, ...], str]] = {}
    for run in runs:
        for name, seen in run.shown.items():
            if seen.few is not None and len(seen.few) == 2:
                pairs.setdefault(name, {}).setdefault(tuple(seen.few), run.name)
    declared = {name for run in runs for name in run.ranges}
    found = {}
    for name, of_runs in pairs.items():
        (one, ours), *others = of_runs.items()
        for two, theirs in others:
            # Rounding to single precision does not count.
            if name not in declared and not np.allclose(one, two, rtol=1e-5, atol=0):
                found[name] = f"{one[0]:g} and {one[1]:g} in {ours}, and {two[0]:g} and {two[1]:g} in {theirs}"
    return found


def _wider(name: str, runs: Sequence[RunCurves]) -> list[str]:
    """Return a note if the rewards of a channel span much more in one run than in another, as other scales would."""
    spans = {run.name: run.seen[name] for run in runs if run.seen[name][0] < run.seen[name][1]}
    ordered = sorted(spans.items(), key=lambda item: item[1][1] - item[1][0])
    if not ordered:
        return []
    (narrow, (a, b)), (wide, (c, d)) = ordered[0], ordered[-1]
    if d - c < WIDER * (b - a):
        return []
    return [
        f"{name}: rewards reach from {a:g} to {b:g} in {narrow}, and from {c:g} to {d:g} in {wide}. If the runs log it "
        "on different scales, its shares are not comparable"
    ]


def _listed(ranges: Sequence[Range]) -> str:
    return " and ".join(f"[{low:g}, {high:g}]" for low, high in ranges)


def shares(run: RunCurves, limits: Mapping[str, Range], steps: NDArray[np.int64]) -> Array:
    """Return the shares that the channels in ``limits`` attained at some steps of a run.

    Args:
        run: run that has all ``steps``.
        limits: channel -> lowest and highest reward, for K' channels.
        steps: (S',) steps, ascending.

    Returns:
        (S', K') shares; NaN if nothing was scored, or if the run lacks the channel.
    """
    rows = run.mean[np.searchsorted(run.steps, steps)]
    place = {name: j for j, name in enumerate(run.channels)}
    out: Array = np.full((len(steps), len(limits)), math.nan)
    for j, (name, (low, high)) in enumerate(limits.items()):
        if name in place:
            out[:, j] = (rows[:, place[name]] - low) / (high - low)
    return out


def shared_steps(share: Sequence[Array]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the steps at which each channel is compared, and for which channels the runs share too few steps.

    Args:
        share: one array (S, K) per run; NaN if nothing was scored.

    Returns:
        (S, K) and (K,). If runs share too few steps of a channel, it is compared at all steps.
    """
    scored = np.stack([~np.isnan(x) for x in share])  # (runs, S, K)
    having: NDArray[np.bool_] = np.asarray(scored.any(axis=1, keepdims=True))
    shared = (scored | ~having).all(axis=0) & having.any(axis=0)
    fewest = np.where(having[:, 0], scored.sum(axis=1), scored.shape[1]).min(axis=0)
    scarce: NDArray[np.bool_] = having.any(axis=(0, 1)) & (shared.sum(axis=0) < SHARED_LEAST * fewest)
    return np.where(scarce, True, shared), scarce


def windows(values: Array, width: int) -> Array:
    """Return the mean of every ``width`` consecutive steps, (S, …) -> (S - width + 1, …). NaN is left out.

    Example:
        >>> windows(np.array([1.0, 3.0, np.nan]), 2).tolist()
        [2.0, 3.0]
    """
    return _means(values, np.arange(len(values) - width + 1), width)


def smoothed(values: Array, width: int, *, trailing: bool = False) -> Array:
    """Return a moving average, (S, …) -> (S, …). It is over fewer steps at the ends. NaN is left out.

    Args:
        values: (S, …) one value per step.
        width: number of steps of the window; an even window reaches one step further back than ahead.
        trailing: whether the window ends at the step; otherwise the step is in its middle.
    """
    return _means(values, np.arange(len(values)) - (width - 1 if trailing else width // 2), width)


def _means(values: Array, starts: NDArray[np.int64], width: int) -> Array:
    """Return the mean of ``width`` steps from each start, without steps outside the run; NaN if none is scored."""
    ends = np.clip(starts + width, 0, len(values))
    starts = np.clip(starts, 0, len(values))
    there = ~np.isnan(values)
    nothing = np.zeros((1, *values.shape[1:]))
    sums, counts = (
        np.concatenate([nothing, np.cumsum(x, axis=0)]) for x in (np.where(there, values, 0.0), there.astype(float))
    )
    with np.errstate(invalid="ignore"):
        means: Array = (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])
    return means


def lowest(values: Array) -> Array:
    """Return the lowest value of each row, (S, K) -> (S,); NaN if a row has no value."""
    found: Array = np.where(np.isnan(values), math.inf, values).min(axis=1, initial=math.inf)
    return np.where(np.isinf(found), math.nan, found)


def measures(windowed: Array, every: Array, ends: Array | None = None) -> dict[str, float]:
    """Return the measures of a curve, as defined at the top of this module. A measure is NaN if nothing was scored.

    Args:
        windowed: (windows,) means of windows.
        every: (S,) values. Their mean is the auc.
        ends: (2,) first and last window, if steps that are not compared count there; None: those of ``windowed``.
    """
    edges = windowed[[0, -1]] if ends is None else ends
    known, scored = windowed[~np.isnan(windowed)], every[~np.isnan(every)]
    best, last = float(known.max()) if len(known) else math.nan, float(windowed[-1])
    auc = float(scored.mean()) if len(scored) else math.nan
    return {"first": float(edges[0]), "best": best, "last": float(edges[1]), "auc": auc, "drop": best - last}


# --- numbers of a run and of a group -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SharedShape:
    """Shape of the numbers of all runs.

    Attributes:
        channels: names of K channels.
        common: (K,) whether all runs have the channel.
        compared: (S, K) whether the channel is compared at the step.
        width: number of steps of a window.
        points: indices of the steps at which curves have points.
        trailing: whether curves are smoothed over the steps before.
    """

    channels: tuple[str, ...]
    common: NDArray[np.bool_]
    compared: NDArray[np.bool_]
    width: int
    points: NDArray[np.int64]
    trailing: bool


def numbers_of_groups(
    groups: Mapping[str, Sequence[RunCurves]], share: Sequence[Array], shape: SharedShape
) -> list[TrainingGroup]:
    """Return the numbers of each group. ``share`` is one array (S, K) of shares per run, in order."""
    each = iter(share)
    return [_group(name, [_numbers(run, next(each), shape) for run in runs], shape) for name, runs in groups.items()]


def _numbers(run: RunCurves, share: Array, shape: SharedShape) -> RunNumbers:
    """Return the numbers of a run, computed from its shares (S, K)."""
    ends = windows(share, shape.width)[[0, -1]]
    share = np.where(shape.compared, share, math.nan)
    windowed = windows(share, shape.width)
    smooth = smoothed(share, shape.width, trailing=shape.trailing)[shape.points]
    found = {name: measures(windowed[:, j], share[:, j], ends[:, j]) for j, name in enumerate(shape.channels)}
    worst = lowest(windowed[:, shape.common])
    any_common = bool(shape.common.any())
    return RunNumbers(
        name=run.name,
        path=run.path,
        seed=run.seed,
        steps=len(run.steps),
        measures={name: _or_none(numbers) for name, numbers in found.items()},
        worst=_or_none(measures(worst, worst)) if any_common else None,
        curves={name: _series(smooth[:, j]) for j, name in enumerate(shape.channels)},
        worst_curve=_series(lowest(smooth[:, shape.common])) if any_common else None,
    )


def _group(name: str, runs: Sequence[RunNumbers], shape: SharedShape) -> TrainingGroup:
    worst = [run.worst_curve for run in runs if run.worst_curve is not None]
    curves = {channel: _band([run.curves[channel] for run in runs]) for channel in shape.channels}
    return TrainingGroup(name, tuple(runs), curves, _band(worst) if worst else None)


def _band(curves: Sequence[Series]) -> Band:
    """Return mean, range and standard deviation over the runs that have a point."""
    x = np.array(curves, dtype=float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # points that no run, or only one run, has become NaN
        mean, low, high, std = np.nanmean(x, 0), np.nanmin(x, 0), np.nanmax(x, 0), np.nanstd(x, 0, ddof=1)
    return Band(_series(mean), _series(low), _series(high), _series(std))


def _series(values: Array) -> Series:
    points = values.round(6).tolist()
    return tuple(None if value != value else value for value in points) if np.isnan(values).any() else tuple(points)


def _or_none(found: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in found.items()}
