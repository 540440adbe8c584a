"""How far every channel of a run got, step by step, and the few numbers that a curve comes to.

T steps, K channels, a window of w steps::

    share          (mean reward of a step - lowest) / (highest - lowest), in [0, 1]
    window         mean of w consecutive steps, T - w + 1 of them
    first, last    the first window and the last
    best           the highest window
    drop           best - last: what was lost again, >= 0, by chance too
    auc            mean over all steps
    worst channel  in each window the channel with the lowest share; its auc is the mean over windows

Best and last are means over a window because single steps are noise, of which a maximum picks the luckiest. The lowest
channel is looked for in windows for the same reason. What was not scored is left out and never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rvpo.core import AdvantageConfig
from rvpo.core.channels import Range
from rvpo.errors import DataError
from rvpo.logs.run import Batch, Run

Array = NDArray[np.float64]

WINDOW = 0.05
"""Default width of a window, as a share of the steps."""


@dataclass(frozen=True)
class RunCurves:
    """What a run attained: T steps, K channels.

    Attributes:
        path: of its logs.
        name: of the run.
        channels: K names.
        steps: (T,) int64, ascending.
        mean: (T, K) mean reward of a step, NaN where none was scored.
        seen: channel -> lowest and highest reward of any completion; channels that were never scored are absent.
        ranges: channel -> declared lowest and highest reward; those of which nobody did are absent.
        seed: of the training; None where nothing tells it.
        configs: how the run aggregated at its first and its last step; None where the logs do not say.
        notes: of how the logs were understood.
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


def read_curves(run: Run, progress: Callable[[int], None] | None = None) -> RunCurves:
    """Read a run batch by batch.

    Args:
        run: from :func:`rvpo.logs.open.open_run`.
        progress: called with the number of steps that were read.

    Raises:
        DataError: a file is damaged, or nothing was scored.
    """
    k = len(run.channels)
    sums: dict[int, Array] = {}  # step -> (2, K): sums of rewards, and how many there were
    lowest, highest = np.full(k, math.inf), np.full(k, -math.inf)
    first: AdvantageConfig | None = None
    last: AdvantageConfig | None = None
    for batch in run.batches():
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
        raise DataError(f"{run.path} holds no reward at all, allowed is a run with scored completions: leave it out")
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
        notes=run.notes,
    )


def _scored(batch: Batch) -> tuple[NDArray[np.int64], Array]:
    """Return channel and reward of every cell that has one, (cells,)."""
    rewards = batch.rewards
    there = ~rewards.isnan()
    if batch.applies is not None:
        there &= batch.applies
    return batch.channel.expand(rewards.shape)[there].numpy(), rewards[there].numpy()


def scales(runs: Sequence[RunCurves]) -> tuple[dict[str, Range], list[str]]:
    """Return channel -> what counts as 0 and as 1 for all runs together, and notes on how that came about.

    It is the declared range; where nobody declared one, the lowest and the highest reward of any completion of any run;
    and where this is one and the same, [0, 1], as far as it lies therein. A declared range is widened to what was seen.
    Channels that are left have no scale.
    """
    found: dict[str, Range] = {}
    notes: list[str] = []
    ways: dict[str, list[str]] = {"declared": [], "lowest and highest that were seen": [], "constant, so taken": []}
    for name in dict.fromkeys(name for run in runs for name in run.channels):
        seen = [run.seen[name] for run in runs if name in run.seen]
        declared = list(dict.fromkeys(run.ranges[name] for run in runs if name in run.ranges))
        if not seen:
            continue
        low, high = min(x for x, _ in seen), max(x for _, x in seen)
        if len(declared) > 1:
            notes.append(f"{name}: runs declare different ranges, {_told(declared)}; the widest counts")
        if declared:
            wide = min(x for x, _ in declared), max(x for _, x in declared)
            if low < wide[0] or high > wide[1]:
                notes.append(f"{name}: rewards from {low:g} to {high:g} leave the declared range {_told([wide])}")
            low, high, way = min(low, wide[0]), max(high, wide[1]), "declared"
        elif low < high:
            way = "lowest and highest that were seen"
        elif 0 <= low <= 1:
            low, high, way = 0.0, 1.0, "constant, so taken"
        else:
            notes.append(f"{name}: always {low:g} and of no declared range, so no share can be told")
            continue
        found[name] = low, high
        ways[way].append(f"{name} {low:g} to {high:g}")
    told = [f"{', '.join(names)} ({way})" for way, names in ways.items() if names]
    return found, [f"0 and 1 stand for: {'; '.join(told)}.", *notes] if told else notes


def _told(ranges: Sequence[Range]) -> str:
    return " and ".join(f"[{low:g}, {high:g}]" for low, high in ranges)


def shares(run: RunCurves, limits: Mapping[str, Range], steps: NDArray[np.int64]) -> Array:
    """Return the share that each of the channels in ``limits`` attained at some steps of a run.

    Args:
        run: that has all ``steps``.
        limits: channel -> lowest and highest reward, K' of them.
        steps: (T',) ascending.

    Returns:
        (T', K'), NaN where nothing was scored, or the run has no such channel.
    """
    rows = run.mean[np.searchsorted(run.steps, steps)]
    place = {name: j for j, name in enumerate(run.channels)}
    out: Array = np.full((len(steps), len(limits)), math.nan)
    for j, (name, (low, high)) in enumerate(limits.items()):
        if name in place:
            out[:, j] = (rows[:, place[name]] - low) / (high - low)
    return out


def windows(values: Array, width: int) -> Array:
    """Return the mean of every ``width`` consecutive steps, (T, …) -> (T - width + 1, …); NaN is left out."""
    return _means(values, np.arange(len(values) - width + 1), width)


def smoothed(values: Array, width: int, *, trailing: bool = False) -> Array:
    """Return a moving average, (T, …) -> (T, …), over fewer steps at the ends; NaN is left out.

    Args:
        values: T steps.
        width: of the window; one that is even reaches a step further back than ahead.
        trailing: whether it ends at the step; else the step is in its middle.
    """
    return _means(values, np.arange(len(values)) - (width - 1 if trailing else width // 2), width)


def _means(values: Array, starts: NDArray[np.int64], width: int) -> Array:
    """Return the mean of ``width`` steps from each start, as far as these exist; NaN where none is scored."""
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
    """Return the lowest channel of each row, (T, K) -> (T,); NaN where a row has none."""
    found: Array = np.where(np.isnan(values), math.inf, values).min(axis=1, initial=math.inf)
    return np.where(np.isinf(found), math.nan, found)


def measures(windowed: Array, every: Array) -> dict[str, float]:
    """Return what a curve comes to; see the module's text. NaN where it was not scored.

    Args:
        windowed: (W,) means of windows.
        every: (T,) what the auc is the mean of.
    """
    known, scored = windowed[~np.isnan(windowed)], every[~np.isnan(every)]
    best, last = float(known.max()) if len(known) else math.nan, float(windowed[-1])
    auc = float(scored.mean()) if len(scored) else math.nan
    return {"first": float(windowed[0]), "best": best, "last": last, "auc": auc, "drop": best - last}
