"""How many items, and how many seeds, a test needs to detect a difference."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from rvpo.statistics.base import RESAMPLES, alike
from rvpo.statistics.distributions import normal_quantile
from rvpo.statistics.pvalues import smallest_p


def needed_items(
    differences: ArrayLike,
    difference: float | None = None,
    *,
    weights: ArrayLike | None = None,
    level: float = 0.05,
    power: float = 0.8,
    seed_variance: float = 0.0,
) -> int | None:
    """Return how many items of the same kind, with as many epochs, a test needs to detect a difference.

    ::

        n = f s^2 / (delta^2 - f seed_variance) + z_{1-level/2}^2 / 2,      f = (z_{1-level/2} + z_power)^2

    This is the usual sample size of a paired test (for evaluations: E. Miller 2024, arXiv 2411.00640). The last term
    corrects for an estimated s^2 (W. Guenther, Am. Statist. 35, 1981). s^2 is the observed variance of an item's
    difference (for weighted means, n times the squared standard error). If delta is the observed difference, the result
    is as uncertain as that difference: at an observed p of 0.05, it is twice the present number of items.

    Args:
        differences: (n,) B - A, one per item.
        difference: delta; None takes the observed difference.
        weights: (n,) weights of the items in the mean; None sets all to 1.
        level: level of the two-sided test. Holm's strictest level for one of m tests is 0.05 / m.
        power: probability that the test then detects the difference.
        seed_variance: part of the squared standard error that comes from training seeds; more items do not reduce it.

    Returns:
        The number, or None if it cannot be determined: for fewer than two items, for equal differences, for a
        difference of 0, or if only more training seeds could detect it.
    """
    d = np.asarray(differences, dtype=float)
    w = np.ones_like(d) if weights is None else np.asarray(weights, dtype=float)
    if len(d) < 2 or not w.sum() > 0 or alike(d):
        return None
    share = w / w.sum()
    mean = float(d @ share)
    delta = mean if difference is None else difference
    variance = len(d) ** 2 / (len(d) - 1) * float((share * share) @ (d - mean) ** 2)
    z = normal_quantile(1 - level / 2)
    factor = (z + normal_quantile(power)) ** 2
    left = delta * delta - factor * seed_variance
    return math.ceil(factor * variance / left + z * z / 2) if left > 0 else None


def seeds_for_level(level: float, *, by_pair: bool = False, resamples: int = RESAMPLES) -> int | None:
    """Return the smallest number of runs per method with which a p value as small as ``level`` is possible at all.

    Args:
        level: level of the test. Holm's strictest level for one of m tests is 0.05 / m.
        by_pair: whether runs are paired by seed. The test is :func:`~rvpo.statistics.sign_flip` for pairs and
            :func:`~rvpo.statistics.permutation` otherwise.
        resamples: number of random signs or assignments of these tests.

    Returns:
        The number of runs, or None if no number is enough.
    """
    numbers = range(1, 64)  # for fewer runs already, assignments are random: more runs change nothing
    return next((n for n in numbers if smallest_p(n, None if by_pair else n, resamples=resamples) <= level), None)


def needed_seeds(
    b: ArrayLike,
    a: ArrayLike,
    *,
    by_pair: bool = False,
    level: float = 0.05,
    power: float = 0.8,
    resamples: int = RESAMPLES,
) -> int | None:
    """Return how many runs per method a test needs to detect the observed difference of means.

    ::

        n = f (s_a^2 + s_b^2) / delta^2 + z_{1-level/2}^2 / 4        f = (z_{1-level/2} + z_power)^2
        n = f s_d^2 / delta^2 + z_{1-level/2}^2 / 2                  for pairs with differences d

    These are the usual sample sizes with W. Guenther's correction for an estimated s^2 (Am. Statist. 35, 1981), and at
    least the number that :func:`seeds_for_level` returns. Delta and s^2 are observed values, so read the result as an
    order of magnitude.

    Args:
        b: (R_b,) one number per run, none missing.
        a: (R_a,) the same for the other method. If paired, R_a = R_b, in the same order.
        by_pair: whether the i-th runs of both methods form a pair.
        level: level of the two-sided test.
        power: probability that the test then detects the difference.
        resamples: number of random signs or assignments of the test.

    Returns:
        The number of runs, or None if it cannot be determined: fewer than two runs, no difference, or no spread.
    """
    y, x = (np.asarray(values, dtype=float) for values in (b, a))
    fewest = seeds_for_level(level, by_pair=by_pair, resamples=resamples)
    if min(len(y), len(x)) < 2 or fewest is None:
        return None
    parts = [y - x] if by_pair else [y, x]
    variance = sum(0.0 if alike(part) else float(part.var(ddof=1)) for part in parts)
    delta = float(y.mean() - x.mean())
    z = normal_quantile(1 - level / 2)
    if alike(np.concatenate([y, x])) or delta == 0 or variance == 0:
        return None
    n = (z + normal_quantile(power)) ** 2 * variance / delta**2 + z * z / (2 * len(parts))
    return max(math.ceil(n), fewest) if math.isfinite(n) else None
