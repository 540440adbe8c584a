"""Intervals of means and of differences over items, and the weights of the scored items where others are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvpo.statistics.base import LEVEL, RESAMPLES, ROUNDING, Array, Interval, alike, chunks
from rvpo.statistics.distributions import normal_below, t_quantile

FEWEST = 6  # number of differing items with which a two-sided sign test can reach 0.05 at all: 2 / 2^6


def mean_interval(
    values: Sequence[float | None] | ArrayLike,
    ids: Sequence[str],
    *,
    weights: Sequence[float | None] | None = None,
    strata: Sequence[str] | None = None,
    binary: bool | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean over items with its interval. An item's score is the mean of its epochs.

    Scores of 0 or 1 get Wilson's score interval (J. Am. Stat. Assoc. 22, 1927) with quantiles of t. It uses the
    effective number of items n* = m (1 - m) / v, where v is the squared standard error of the mean m (n* as in E. Korn
    and B. Graubard, Survey Methodology 24, 1998). Unlike a bootstrap, this interval does not collapse if all items or
    no items are met. Each stratum has its own interval; squared distances of the ends from the means are added (G. Zou
    and A. Donner, Stat. Med. 27, 2008).

    Other scores get the bootstrap of :func:`difference_interval`. If fewer than six items differ from the most common
    score of their stratum, there is too little to resample, and the interval is Student's. If no item differs, there is
    no interval: such scores do not show how much the score of another item could differ.

    Args:
        values: (rows,), one score per row. None or NaN is missing and left out, see :func:`rescaled`.
        ids: id of each row's item. Rows with the same id are epochs of one item.
        weights: weight of each row in the mean; None sets all to 1. An item has the mean weight of its rows. The weight
            of a row whose value is missing may be None, for unknown.
        strata: stratum of each row, if the benchmark fixes the number of items per kind. An item has the stratum of its
            first row.
        binary: whether a row's score can only be 0 or 1, even if ``values`` are means of several such scores. None
            checks whether all ``values`` are 0 or 1.
        level: confidence level of the interval.
        resamples: number of resamples of the bootstrap.
        seed: random seed of the bootstrap.
    """
    x, w, h = _by_item(values, ids, weights, strata)
    if w is None or len(x) < 2 or not w.sum() > 0:
        return _point(x, w)
    if binary is None:
        rows = np.array(values, dtype=float)
        binary = bool(np.isin(rows[~np.isnan(rows)], (0, 1)).all())
    if not binary and _deviating(x, h) < FEWEST:
        return _students(x, w, h, level)
    if not binary:
        return _bootstrap(x, w, h, level, resamples, seed)
    kinds = [k for k in np.unique(h) if w[h == k].sum() > 0]
    t = t_quantile((1 + level) / 2, max(1, len(x) - len(kinds)))
    share = np.array([w[h == k].sum() for k in kinds]) / w.sum()
    means, lows, highs = (
        np.array(found) for found in zip(*(_wilson(x[h == k], w[h == k], t) for k in kinds), strict=True)
    )
    mean = float(x @ w / w.sum())
    below, above = (math.sqrt((share * share) @ (ends - means) ** 2) for ends in (lows, highs))
    return Interval(mean, max(mean - below, 0.0), min(mean + above, 1.0), len(x))


def difference_interval(
    differences: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    strata: Sequence[str] | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean of paired differences with its interval.

    This is the percentile bootstrap over items. Its quantiles are spread so that on symmetric data the interval is as
    wide as that of Student's t (T. Hesterberg 2014, arXiv 1411.5279, "expanded percentile"), because the plain
    bootstrap is too narrow for few items.

    If fewer than six items deviate from the most common difference of their stratum, there is too little to resample.
    Then one item is added that B wins and one that B loses, as D. Bonett and R. Price do for pairs of 0/1 (J. Educ.
    Behav. Stat. 37, 2012). The interval is that of normal theory around the mean of these n + 2 items. The added items
    are won and lost by the largest difference. If fewer than six items differ, they are won and lost by at least 1, the
    scale of scores.

    Args:
        differences: (n,) B - A, one per item, none missing; see :func:`paired`.
        weights: (n,) weights of the items in the mean; None sets all to 1.
        strata: (n,) kind of each item, if the benchmark fixes the number of items per kind. Each kind is resampled
            separately.
        level: confidence level of the interval.
        resamples: number of resamples of the bootstrap.
        seed: random seed of the bootstrap.
    """
    d = np.asarray(differences, dtype=float)
    w = np.ones_like(d) if weights is None else np.asarray(weights, dtype=float)
    if len(d) < 2 or not w.sum() > 0:
        return _point(d, w)
    h = np.zeros(len(d), dtype=np.intp) if strata is None else np.unique(list(strata), return_inverse=True)[1]
    if _deviating(d, h) >= FEWEST:
        return _bootstrap(d, w, h, level, resamples, seed)
    scale = max(0.0 if np.count_nonzero(d) >= FEWEST else 1.0, float(np.abs(d).max()))
    d2, share = np.append(d, [-scale, scale]), np.append(w, [w.mean()] * 2)
    share /= share.sum()
    centre = float(d2 @ share)
    half = t_quantile((1 + level) / 2, len(d) + 1) * math.sqrt((share * share) @ (d2 - centre) ** 2)
    return Interval(float(d @ w / w.sum()), centre - half, centre + half, len(d))


def rescaled(weights: ArrayLike, strata: ArrayLike, scored: ArrayLike) -> Array | None:
    """Return the weights of the scored items, such that each stratum keeps its share of the mean.

    A benchmark defines weights for all of its items. If items are missing, the scored items of the same stratum
    represent them: their weights are scaled to the weight of the whole stratum. Otherwise a mean over categories would
    drift towards the categories without missing items.

    Args:
        weights: (n,) weights of all items. NaN is unknown, as for an item without a reply, and is replaced by the mean
            weight of the stratum.
        strata: (n,) stratum of each item.
        scored: (n,) whether the item has a score, and so takes part in the mean.

    Returns:
        (scored items,) weights, or None if there is no mean because a stratum has lost all its items.
    """
    w: Array = np.array(weights, dtype=float)
    of, kept = np.asarray(strata), np.asarray(scored, dtype=bool)
    for stratum in np.unique(of[~kept]):
        own = of == stratum
        known = w[own & ~np.isnan(w)]
        share = float(own.sum() * known.mean()) if len(known) else math.nan
        left = float(w[own & kept].sum())
        if share != 0 and not left > 0:
            return None
        w[own] *= share / left if left else 1.0
    left_over: Array = w[kept]
    return left_over


def _by_item(
    values: Sequence[float | None] | ArrayLike,
    ids: Sequence[str],
    weights: Sequence[float | None] | None,
    strata: Sequence[str] | None,
) -> tuple[Array, Array | None, NDArray[np.intp]]:
    """Return means, weights and stratum numbers of the items that have a value, (n,) each, in the order of ids.

    Weights are None if there is no mean.
    """
    number = {id_: i for i, id_ in enumerate(sorted(set(ids)))}
    item = np.fromiter((number[id_] for id_ in ids), dtype=np.intp, count=len(ids))
    h = np.zeros(len(number), dtype=np.intp)
    if strata is not None:
        h[item[::-1]] = np.unique(list(strata), return_inverse=True)[1][::-1]  # the first row's is written last
    x, w = (
        _means(np.array(rows, dtype=float), item, len(number))
        for rows in (values, np.ones(len(item)) if weights is None else weights)
    )
    scored = ~np.isnan(x)
    return x[scored], rescaled(w, h, scored), h[scored]


def _means(rows: Array, item: NDArray[np.intp], items: int) -> Array:
    """Return the mean of each item's rows without those that are NaN; NaN if all rows are."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        return np.bincount(item[known], rows[known], items) / np.bincount(item[known], minlength=items)


def _point(x: Array, w: Array | None) -> Interval:
    """Return a mean without an interval."""
    return Interval(None if w is None or not w.sum() > 0 else float(x @ w / w.sum()), None, None, len(x))


def _deviating(x: Array, h: NDArray[np.intp]) -> int:
    """Return how many items differ from the most common value of their stratum by more than rounding error."""
    found, noise = 0, ROUNDING * float(np.abs(x).max())
    for own in (x[h == k] for k in np.unique(h)):
        values, times = np.unique(own, return_counts=True)
        found += int((np.abs(own - values[times.argmax()]) > noise).sum())
    return found


def _students(x: Array, w: Array, h: NDArray[np.intp], level: float) -> Interval:
    """Return Student's interval of the weighted mean, with the variances within strata."""
    mean, share, variance, kinds = float(x @ w / w.sum()), w / w.sum(), 0.0, np.unique(h)
    for own in (h == k for k in kinds):
        n, part = int(own.sum()), share[own]
        if not alike(x[own]) and part.sum() > 0:
            variance += n / (n - 1) * float((part * part) @ (x[own] - x[own] @ part / part.sum()) ** 2)
    if variance == 0:
        return Interval(mean, None, None, len(x))
    half = t_quantile((1 + level) / 2, max(1, len(x) - len(kinds))) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, len(x))


def _wilson(x: Array, w: Array, t: float) -> tuple[float, float, float]:
    """Return the weighted mean of values in [0, 1], and the ends of its interval at the quantile t."""
    share, n = w / w.sum(), len(x)
    mean = float(x @ w / w.sum())
    # The variance of a ratio, by linearisation.
    variance = n / (n - 1) * float((share * share) @ (x - mean) ** 2) if np.ptp(x) > 0 else 0.0
    # Equal values have no variance. They are treated as 0/1 values (Kish's effective number, with weights).
    effective = mean * (1 - mean) / variance if variance > 0 else 1 / float(share @ share)
    z2 = t * t / effective
    centre = (mean + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * max(mean * (1 - mean), 0.0) + z2 * z2 / 4) / (1 + z2)
    return mean, min(centre - half, mean), max(centre + half, mean)


def _bootstrap(x: Array, w: Array, h: NDArray[np.intp], level: float, resamples: int, seed: int) -> Interval:
    """Return the expanded percentile interval of the weighted mean. Each stratum is resampled separately."""
    rng, sums, totals = np.random.default_rng(seed), np.zeros(resamples), np.zeros(resamples)
    for stratum in np.unique(h):
        own, weight = (x * w)[h == stratum], w[h == stratum]
        # Values such as accuracies repeat. It is enough to draw how often each distinct value occurs.
        values, times = np.unique(np.stack([own, weight], 1), axis=0, return_counts=True)
        if 8 * len(values) < len(own):
            drawn = rng.multinomial(len(own), times / len(own), size=resamples) @ values
            sums, totals = sums + drawn[:, 0], totals + drawn[:, 1]
            continue
        equal, done = bool(np.ptp(weight) == 0), 0
        for rows in chunks(resamples, len(own)):
            drawn = rng.integers(0, len(own), (rows, len(own)), dtype=np.int32)
            part = slice(done, done + rows)
            sums[part] += own[drawn].sum(1)
            totals[part] += len(own) * weight[0] if equal else weight[drawn].sum(1)
            done += rows
    n, df = len(x), max(1, len(x) - len(np.unique(h)))
    outside = normal_below(-t_quantile((1 + level) / 2, df) * math.sqrt(n / df))
    means = sums[totals > 0] / totals[totals > 0]
    low, high = np.quantile(means, [outside, 1 - outside])
    return Interval(float(x @ w / w.sum()), float(low), float(high), n)
