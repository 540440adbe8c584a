"""Intervals and tests on scores of items: what is signal, and what is noise.

The items of a benchmark are taken for a sample of those that could have been asked. Several epochs of an item are one
cluster: they are averaged first, and the items are what is resampled, flipped and counted. n items, R runs::

    mean_interval         of one run's mean
    difference_interval   of mean(B - A) on common items
    sign_flip, mcnemar    p of "B is as good as A", two-sided;  holm: of several such p
    over_seeds            the same for methods that were trained several times: over items and seeds
    needed_items          how many items would tell a difference
    paired, rescaled      the differences that these take, and the weights of items where others are missing

Scores are taken as they are. A benchmark that clips its *mean* (HealthBench, at 0) is tested on unclipped items: a
clipped mean is no mean of items, and two models below the clip would look alike.

What each of them is worth at 20, 60, 198 and 1,000 items: ``benchmarks/evals/calibration.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 10_000
EXACT = 14  # differences of which all 2^14 signs are tried
FEWEST = 6  # differing items with which a two-sided sign test can reach 0.05 at all: 2 / 2^6
CELLS = 2_000_000  # of a matrix of resamples that is held at a time
ROUNDING = 1e-12  # of the largest score: what lies below is no difference; 0.1 is not (0.1 + 0.1 + 0.1) / 3


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and how far it can be trusted.

    Attributes:
        mean: None without items.
        low: lower end; None where none can be given: for fewer than two items, or where nothing varies.
        high: upper end, as ``low``.
        items: n, those that have a value.
    """

    mean: float | None
    low: float | None
    high: float | None
    items: int


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """What training again with other seeds, and asking other items, would give.

    Attributes:
        interval: of the mean or the difference of means.
        p: two-sided p value of "it is 0".
        seed_variance: the part of the squared standard error that more items do not lessen.
    """

    interval: Interval
    p: float
    seed_variance: float


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
    """Return the mean over items, each the mean of its epochs, with its interval.

    Scores of 0 or 1 have Wilson's score interval (J. Am. Stat. Assoc. 22, 1927) at the effective number of items
    n* = m (1 - m) / v, v being the squared standard error of the mean m, with quantiles of t (n* as in E. Korn and B.
    Graubard, Survey Methodology 24, 1998). It does not collapse where all items are met or none is, which a bootstrap
    does. Strata have one each; the ends' distances from the means add up in squares (G. Zou and A. Donner, Stat. Med.
    27, 2008).

    Other scores have the bootstrap of :func:`difference_interval`. Where fewer than six items differ from the commonest
    score of their stratum, it has nothing to resample, and the interval is Student's. Where none differs, there is no
    interval: such scores do not say how far another item's could lie away.

    Args:
        values: one a row, (rows,); None or NaN where missing: left out, see :func:`rescaled`.
        ids: of the items; rows of one id are its epochs.
        weights: of rows in the mean; None: all 1. An item has the mean of its rows'. That of a row whose value is
            missing may be None, which is unknown.
        strata: of rows, where the benchmark fixes how many items are of each kind; an item has its first row's.
        binary: whether a row's score is 0 or 1 by its nature, also if ``values`` are means of such; None: whether all
            ``values`` are.
        level: of the interval.
        resamples: of the bootstrap.
        seed: of the bootstrap.
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
    t = float(stats.t.ppf((1 + level) / 2, max(1, len(x) - len(kinds))))
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

    The percentile bootstrap over items, its quantiles spread so that on symmetric data it is as wide as the interval of
    Student's t (T. Hesterberg 2014, arXiv 1411.5279, "expanded percentile"): the plain one is too narrow for few items.
    Where fewer than six items deviate from the commonest difference of their stratum there is nothing to resample.
    There, as D. Bonett and R. Price do for pairs of 0/1 (J. Educ. Behav. Stat. 37, 2012), one item more is taken to be
    won and one lost, and the interval is that of the normal theory around the mean of these n + 2. They are won and
    lost by the largest difference, and by no less than 1, the scale of scores, where fewer than six items differ.

    Args:
        differences: (n,) one an item, B - A, none missing; see :func:`paired`.
        weights: (n,) of items in the mean; None: all 1.
        strata: (n,) kinds of which the benchmark fixes the number of items; each is resampled by itself.
        level: of the interval.
        resamples: of the bootstrap.
        seed: of the bootstrap.
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
    half = float(stats.t.ppf((1 + level) / 2, len(d) + 1)) * math.sqrt((share * share) @ (d2 - centre) ** 2)
    return Interval(float(d @ w / w.sum()), centre - half, centre + half, len(d))


def sign_flip(
    differences: ArrayLike, *, weights: ArrayLike | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Return the two-sided p value of "the difference of an item is as likely with either sign".

    If A and B are equally good at every item this holds, whatever the scores look like. The statistic is |sum w d|.
    All signs are tried for up to 14 differences that are not 0 (R. Fisher 1935); else ``resamples`` random ones are,
    and p = (1 + as extreme) / (1 + resamples), which keeps its level (B. Phipson and G. Smyth 2010, arXiv 1603.05766).

    Args:
        differences: (n,) one an item, B - A, none missing, unclipped; see :func:`paired`.
        weights: (n,) of items in the mean; None: all 1.
        resamples: random signs.
        seed: of the random signs.
    """
    d = np.asarray(differences, dtype=float)
    terms = d if weights is None else d * np.asarray(weights, dtype=float)
    terms = np.sort(terms[terms != 0])  # p does not depend on the order of items
    size = np.abs(terms).sum()
    extreme = abs(terms.sum()) - 1e-10 * size  # sums that differ by rounding alone are ties
    if len(terms) <= EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(terms))))
        return float(np.mean(np.abs(signs @ terms) >= extreme)) if len(terms) else 1.0
    rng, count, total = np.random.default_rng(seed), 0, terms.sum()
    for rows in _chunks(resamples, len(terms)):
        bits = np.unpackbits(rng.integers(0, 256, (rows, -(-len(terms) // 8)), dtype=np.uint8), axis=1)
        count += int((np.abs(2 * (bits[:, : len(terms)] @ terms) - total) >= extreme).sum())
    return (1 + count) / (1 + resamples)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Return the exact two-sided p value for pairs of 0/1: those that differ are tosses of a fair coin.

    Q. McNemar (Psychometrika 12, 1947), with the binomial distribution. It is :func:`sign_flip` with all signs, for any
    number of items; for few differing ones it rejects less often than its level says.

    Args:
        a: (n,) 0 or 1.
        b: (n,) 0 or 1, of the same items.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    won, lost = int((second > first).sum()), int((second < first).sum())
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def holm(pvalues: Sequence[float]) -> list[float]:
    """Return p values of a family such that one of them below 0.05 is a finding among all of them.

    The smallest of m is multiplied by m, the next by m - 1, …, and none falls below the one before it (S. Holm, Scand.
    J. Statist. 6, 1979). It holds however the tests depend on each other.
    """
    adjusted, highest = [0.0] * len(pvalues), 0.0
    for rank, i in enumerate(sorted(range(len(pvalues)), key=pvalues.__getitem__)):
        highest = max(highest, min(1.0, (len(pvalues) - rank) * pvalues[i]))
        adjusted[i] = highest
    return adjusted


def needed_items(
    differences: ArrayLike,
    difference: float | None = None,
    *,
    weights: ArrayLike | None = None,
    level: float = 0.05,
    power: float = 0.8,
    seed_variance: float = 0.0,
) -> int | None:
    """Return how many items of the same kind, asked as often, would tell a difference.

    ::

        n = f s^2 / (delta^2 - f seed_variance) + z_{1-level/2}^2 / 2,      f = (z_{1-level/2} + z_power)^2

    the usual sample size of a paired test (for evaluations: E. Miller 2024, arXiv 2411.00640); the last term is for s^2
    being estimated (W. Guenther, Am. Statist. 35, 1981). s^2 is the observed variance of an item's difference (for
    weighted means, n times the squared standard error). Where delta is the observed difference, the result is as
    uncertain as this is: at an observed p of 0.05, it is twice the items there are.

    Args:
        differences: (n,) one an item, B - A.
        difference: delta; None: the observed one.
        weights: (n,) of items in the mean; None: all 1.
        level: of the two-sided test; that of Holm's strictest step for one of m tests is 0.05 / m.
        power: probability that the test then finds it.
        seed_variance: squared standard error that comes from training seeds; more items do not lessen it.

    Returns:
        None where no number can be told: fewer than two items, no two items that differ differently, a difference of
        0, or one that only more training seeds would tell.
    """
    d = np.asarray(differences, dtype=float)
    w = np.ones_like(d) if weights is None else np.asarray(weights, dtype=float)
    if len(d) < 2 or not w.sum() > 0 or alike(d):
        return None
    share = w / w.sum()
    mean = float(d @ share)
    delta = mean if difference is None else difference
    variance = len(d) ** 2 / (len(d) - 1) * float((share * share) @ (d - mean) ** 2)
    z = float(stats.norm.ppf(1 - level / 2))
    factor = (z + float(stats.norm.ppf(power))) ** 2
    left = delta * delta - factor * seed_variance
    return math.ceil(factor * variance / left + z * z / 2) if left > 0 else None


def over_seeds(
    b: ArrayLike, a: ArrayLike | None = None, *, weights: ArrayLike | None = None, level: float = LEVEL
) -> OverSeeds:
    """Return the mean of a method trained R times, or the difference of two such, over items *and* training seeds.

    All runs answer all items, so a score is method + seed + item + what this seed makes of this item, and::

        squared standard error  =  v_items + sum over methods of max(0, v_seeds - v_both)
        v_items    of the mean over items of the scores (or differences) averaged over runs
        v_seeds    variance of the run means / R
        v_both     what v_seeds and v_items count twice: mean square of the residuals / (R n)

    the two-way random-effects analysis of variance. Quantiles are those of t with Satterthwaite's degrees of freedom
    (Biometrics Bull. 2, 1946), taken with the undiminished v_seeds, so that a spread of seeds that happens to look
    small is not believed, and at least R - 1. Methods may spread differently. A bootstrap over two or three runs would
    be too narrow where the seeds spread: by 1 - 1/R in the variance, and for want of t.

    Where neither items nor seeds vary, there is no interval, and p is that of :func:`sign_flip`.

    Args:
        b: (R_b, n) scores, one row a run, R_b >= 2, n >= 2, none missing.
        a: (R_a, n) of the other method on the same items, R_a >= 2, or None.
        weights: (n,) of items in the mean; None: all 1.
        level: of the interval.
    """
    methods = [np.asarray(x, dtype=float) for x in ((b,) if a is None else (b, a))]
    n = methods[0].shape[1]
    share = np.full(n, 1 / n) if weights is None else np.asarray(weights, dtype=float) / np.sum(weights)
    wide = n / (n - 1) * share * share

    d = paired(methods[0], np.zeros(n) if a is None else methods[1])
    mean = float(d @ share)
    v_items = float(wide @ (d - mean) ** 2)
    seed_variance, spread = 0.0, v_items**2 / (n - 1)
    for x in methods:
        runs, r = x @ share, len(x)
        residual = (x - x.mean(0)) - (runs - runs.mean())[:, None]
        v_seeds = float(runs.var(ddof=1)) / r
        v_both = float((wide @ residual.T**2).sum()) / (r * (r - 1))
        seed_variance += max(0.0, v_seeds - v_both)
        spread += v_seeds**2 / (r - 1)
    variance = v_items + seed_variance
    if variance <= (ROUNDING * max(float(np.abs(x).max()) for x in methods)) ** 2:
        return OverSeeds(Interval(mean, None, None, n), sign_flip(d, weights=share), 0.0)
    df = max(variance**2 / spread, min(map(len, methods)) - 1)
    half = float(stats.t.ppf((1 + level) / 2, df)) * math.sqrt(variance)
    p = 2 * float(stats.t.sf(abs(mean) / math.sqrt(variance), df))
    return OverSeeds(Interval(mean, mean - half, mean + half, n), p, seed_variance)


def paired(b: ArrayLike, a: ArrayLike) -> Array:
    """Return the differences B - A, (n,), of scores averaged over runs; what is due to rounding alone is 0.

    Args:
        b: (n,) or (R_b, n) scores, none missing.
        a: (n,) or (R_a, n) scores of the same items.
    """
    y, x = (np.atleast_2d(np.asarray(scores, dtype=float)) for scores in (b, a))
    d: Array = y.mean(0) - x.mean(0)
    noise = ROUNDING * max(float(np.abs(scores).max(initial=0)) for scores in (x, y))
    d[np.abs(d) <= noise] = 0.0
    return d


def alike(values: ArrayLike) -> bool:
    """Tell whether values are equal but for rounding; (n,), n >= 1."""
    x = np.asarray(values, dtype=float)
    return bool(np.ptp(x) <= ROUNDING * np.abs(x).max())


def rescaled(weights: ArrayLike, strata: ArrayLike, scored: ArrayLike) -> Array | None:
    """Return the weights of the scored items, such that a stratum keeps its share of the mean.

    A benchmark's weights are for all items that it asks. Where some are missing, the others of their stratum stand for
    them: their weights are scaled to the sum of the stratum's. Else a mean over categories would drift to those of
    which nothing is missing.

    Args:
        weights: (n,) of all items; NaN where unknown, as it is where there is no reply: the mean of its stratum's.
        strata: (n,) kinds.
        scored: (n,) whether the item has a score, and so takes part in the mean.

    Returns:
        (scored items,), or None: there is no mean, because a stratum has lost all its items.
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
    """Return means, weights and strata's numbers of the items that have a value, (n,) each, in the order of ids.

    Weights are None where there is no mean.
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
    """Return the mean of each item's rows, those that are NaN left out; NaN where all are."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        return np.bincount(item[known], rows[known], items) / np.bincount(item[known], minlength=items)


def _point(x: Array, w: Array | None) -> Interval:
    """Return a mean of which nothing is known beside itself."""
    return Interval(None if w is None or not w.sum() > 0 else float(x @ w / w.sum()), None, None, len(x))


def _deviating(x: Array, h: NDArray[np.intp]) -> int:
    """Return how many items do not have the commonest value of their stratum, rounding aside."""
    found, noise = 0, ROUNDING * float(np.abs(x).max())
    for own in (x[h == k] for k in np.unique(h)):
        values, times = np.unique(own, return_counts=True)
        found += int((np.abs(own - values[times.argmax()]) > noise).sum())
    return found


def _students(x: Array, w: Array, h: NDArray[np.intp], level: float) -> Interval:
    """Return Student's interval of the weighted mean, variances being those within strata."""
    mean, share, variance, kinds = float(x @ w / w.sum()), w / w.sum(), 0.0, np.unique(h)
    for own in (h == k for k in kinds):
        n, part = int(own.sum()), share[own]
        if not alike(x[own]) and part.sum() > 0:
            variance += n / (n - 1) * float((part * part) @ (x[own] - x[own] @ part / part.sum()) ** 2)
    if variance == 0:
        return Interval(mean, None, None, len(x))
    half = float(stats.t.ppf((1 + level) / 2, max(1, len(x) - len(kinds)))) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, len(x))


def _wilson(x: Array, w: Array, t: float) -> tuple[float, float, float]:
    """Return the weighted mean of values in [0, 1], and the ends of its interval at the quantile t."""
    share, n = w / w.sum(), len(x)
    mean = float(x @ w / w.sum())
    # Of a ratio, by linearisation.
    variance = n / (n - 1) * float((share * share) @ (x - mean) ** 2) if np.ptp(x) > 0 else 0.0
    # Values that are all alike have no variance to go by: they are taken for 0/1 (Kish's number, with weights).
    effective = mean * (1 - mean) / variance if variance > 0 else 1 / float(share @ share)
    z2 = t * t / effective
    centre = (mean + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * max(mean * (1 - mean), 0.0) + z2 * z2 / 4) / (1 + z2)
    return mean, min(centre - half, mean), max(centre + half, mean)


def _bootstrap(x: Array, w: Array, h: NDArray[np.intp], level: float, resamples: int, seed: int) -> Interval:
    """Return the expanded percentile interval of the weighted mean, each stratum resampled by itself."""
    rng, sums, totals = np.random.default_rng(seed), np.zeros(resamples), np.zeros(resamples)
    for stratum in np.unique(h):
        own, weight = (x * w)[h == stratum], w[h == stratum]
        # Where values repeat, as accuracies do, how often each is drawn is all there is to draw.
        values, times = np.unique(np.stack([own, weight], 1), axis=0, return_counts=True)
        if 8 * len(values) < len(own):
            drawn = rng.multinomial(len(own), times / len(own), size=resamples) @ values
            sums, totals = sums + drawn[:, 0], totals + drawn[:, 1]
            continue
        equal, done = bool(np.ptp(weight) == 0), 0
        for rows in _chunks(resamples, len(own)):
            drawn = rng.integers(0, len(own), (rows, len(own)), dtype=np.int32)
            part = slice(done, done + rows)
            sums[part] += own[drawn].sum(1)
            totals[part] += len(own) * weight[0] if equal else weight[drawn].sum(1)
            done += rows
    n, df = len(x), max(1, len(x) - len(np.unique(h)))
    outside = stats.norm.cdf(-stats.t.ppf((1 + level) / 2, df) * math.sqrt(n / df))
    means = sums[totals > 0] / totals[totals > 0]
    low, high = np.quantile(means, [outside, 1 - outside])
    return Interval(float(x @ w / w.sum()), float(low), float(high), n)


def _chunks(rows: int, width: int) -> list[int]:
    """Split rows such that a chunk of this width stays small in memory."""
    size = max(1, CELLS // max(width, 1))
    return [min(size, rows - start) for start in range(0, rows, size)]
