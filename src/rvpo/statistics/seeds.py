"""Comparisons of methods that were trained several times, over items *and* seeds, or over runs only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from rvpo.statistics.base import LEVEL, ROUNDING, Array, Interval, alike, paired
from rvpo.statistics.distributions import t_above, t_quantile
from rvpo.statistics.pvalues import sign_flip


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """Result of :func:`over_seeds`: it covers new training seeds and new items.

    Attributes:
        interval: interval of the mean, or of the difference of means.
        p: two-sided p value of "it is 0".
        seed_variance: part of the squared standard error that more items do not reduce.
    """

    interval: Interval
    p: float
    seed_variance: float


def over_seeds(
    b: ArrayLike, a: ArrayLike | None = None, *, weights: ArrayLike | None = None, level: float = LEVEL
) -> OverSeeds:
    """Return the mean of a method trained R times, or the difference of two methods, over items *and* training seeds.

    All runs answer all items. A score is method + seed + item + interaction of seed and item, so::

        squared standard error  =  v_items + sum over methods of max(0, v_seeds - v_both)
        v_items    squared standard error of the mean over items, with scores (or differences) averaged over runs
        v_seeds    variance of the run means / R
        v_both     the part that v_seeds and v_items both count: mean square of the residuals / (R n)

    This is the two-way random-effects analysis of variance. Quantiles are those of t with Satterthwaite's degrees of
    freedom (Biometrics Bull. 2, 1946), at least R - 1. They are computed with v_seeds before the subtraction, so that a
    spread of seeds that is small by chance does not make the interval too narrow. The methods may have different
    spreads. A bootstrap over two or three runs would be too narrow if the seeds spread: its variance is too small by a
    factor of 1 - 1/R, and it does not use quantiles of t.

    If neither items nor seeds vary, there is no interval, and p is that of :func:`sign_flip`.

    Args:
        b: (R_b, n) scores, one row per run, R_b >= 2, n >= 2, none missing.
        a: (R_a, n) scores of the other method on the same items, R_a >= 2, or None.
        weights: (n,) weights of the items in the mean; None sets all to 1.
        level: confidence level of the interval.
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
    half = t_quantile((1 + level) / 2, df) * math.sqrt(variance)
    p = 2 * t_above(abs(mean) / math.sqrt(variance), df)
    return OverSeeds(Interval(mean, mean - half, mean + half, n), p, seed_variance)


def runs_interval(b: ArrayLike, a: ArrayLike, *, by_pair: bool = False, level: float = LEVEL) -> Interval:
    """Return mean(b) - mean(a), for one number per run, with its interval.

    For pairs it is Student's interval. Otherwise it is B. Welch's (Biometrika 34, 1947), which allows different spreads
    of the methods. Both assume normal runs. For a few bistable seeds the interval is only a rough guide; decide by the
    tests of :mod:`rvpo.statistics.pvalues`, which do not assume a normal distribution.

    Args:
        b: (R_b,) one number per run, none missing, R_b >= 1.
        a: (R_a,) the same for the other method. If paired, R_a = R_b, in the same order.
        by_pair: whether the i-th runs of both methods form a pair.
        level: confidence level of the interval.

    Returns:
        The interval. Its ``items`` is the number of runs of both methods, or of pairs. The ends are None for a single
        run, or if the runs of each method (or all pairs) are equal.
    """
    y, x = (np.asarray(values, dtype=float) for values in (b, a))
    mean = float(y.mean() - x.mean())
    parts = [paired(y, x)] if by_pair else [y, x]
    count = sum(map(len, parts))
    if min(map(len, parts)) < 2:
        return Interval(mean, None, None, count)
    variances = [0.0 if alike(part) else float(part.var(ddof=1)) / len(part) for part in parts]
    variance = sum(variances)
    if variance == 0:
        return Interval(mean, None, None, count)
    df = variance**2 / sum(v * v / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    half = t_quantile((1 + level) / 2, df) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, count)


def hedges_g(b: ArrayLike, a: ArrayLike, *, by_pair: bool = False, level: float = LEVEL) -> Interval:
    """Return mean(b) - mean(a) in standard deviations of a method's runs, with its interval.

    ::

        g = J (mean_b - mean_a) / s       J = 1 - 3 / (4 (R_a + R_b - 2) - 1)

    s is pooled over both methods, paired or not, so that g means the same in both designs (L. Hedges, J. Educ. Stat. 6,
    1981). The interval of the population's value assumes normal runs and comes from the noncentral t distribution. It
    is exact for unpaired runs with equal spreads. For pairs its ends are scaled by s_d / s (J. Algina and H. Keselman,
    Educ. Psychol. Meas. 63, 2003).

    Args:
        b: (R_b,) one number per run, none missing.
        a: (R_a,) the same for the other method. If paired, R_a = R_b, in the same order.
        by_pair: whether the i-th runs of both methods form a pair.
        level: confidence level of the interval.

    Returns:
        The interval. Mean and ends are None if a method has fewer than two runs, or if the runs of neither method
        differ. The ends are None if all pairs have the same difference.
    """
    y, x = (np.asarray(values, dtype=float) for values in (b, a))
    df = len(y) + len(x) - 2
    count = len(y) if by_pair else len(y) + len(x)
    if min(len(y), len(x)) < 2 or (alike(y) and alike(x)):
        return Interval(None, None, None, count)
    s = math.sqrt(sum((len(values) - 1) * float(values.var(ddof=1)) for values in (y, x)) / df)
    difference = float(y.mean() - x.mean())
    g = (1 - 3 / (4 * df - 1)) * difference / s
    if by_pair:
        d = paired(y, x)
        if alike(d):
            return Interval(g, None, None, count)
        error, df = float(d.std(ddof=1)) / math.sqrt(len(d)), len(d) - 1
    else:
        error = s * math.sqrt(1 / len(y) + 1 / len(x))
    low, high = (_noncentrality(difference / error, df, p) * error / s for p in ((1 + level) / 2, (1 - level) / 2))
    return Interval(g, low, high, count)


def _noncentrality(t: float, df: int, p: float) -> float:
    """Return the noncentrality at which a noncentral t variable is at most ``t`` with probability p.

    The variable is (Z + noncentrality) / S, so the probability is the mean of Phi(t S - noncentrality) over S. scipy's
    own distribution fails for the huge t of methods whose runs hardly differ.
    """
    from scipy import optimize, special

    scaled = t * _roots(df)
    return float(
        optimize.brentq(lambda x: float(special.ndtr(scaled - x).mean()) - p, scaled.min() - 9, scaled.max() + 9)
    )


@lru_cache(maxsize=64)
def _roots(df: int, points: int = 500) -> Array:
    """Return S = sqrt(chi^2 / df) at equally spaced quantiles, (points,)."""
    from scipy import stats  # takes half a second

    quantiles: Array = stats.chi2.ppf((np.arange(points) + 0.5) / points, df)
    return np.sqrt(quantiles / df)
