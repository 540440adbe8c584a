"""Tests: p of "B is as good as A", two-sided, and of several such."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike

from rvpo.statistics.base import RESAMPLES, ROUNDING, Array, chunks

EXACT = 14  # differences of which all 2^14 signs are tried
ASSIGNMENTS = 20_000  # of runs to two methods, all of which are tried: up to 8 runs against 8


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
    for rows in chunks(resamples, len(terms)):
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
    if not won + lost:
        return 1.0
    from scipy import stats  # takes half a second

    return float(stats.binomtest(won, won + lost).pvalue)


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


def permutation(b: ArrayLike, a: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Return the two-sided p value of "which of the two methods a run has makes no difference to it".

    The statistic is |mean(b) - mean(a)|. All C(R_a + R_b, R_b) ways to call R_b of the runs B's are tried where they
    are at most 20,000 (E. Pitman 1937); else ``resamples`` random ones are, and p = (1 + as extreme) / (1 + resamples),
    as in :func:`sign_flip`. It holds its level whatever the runs' distribution, bistable seeds included, as long as it
    is the same for both methods; methods that are equal in the mean alone, and spread differently, are another matter.

    Args:
        b: (R_b,) one number a run, none missing, R_b >= 1.
        a: (R_a,) of the other method, R_a >= 1.
        resamples: random assignments.
        seed: of the random assignments.
    """
    y, x = (np.sort(np.asarray(values, dtype=float)) for values in (b, a))
    pooled = np.concatenate([y, x])
    n, r = len(pooled), len(y)
    largest = float(np.abs(pooled).max())
    if largest > 0:
        pooled = pooled / largest  # numbers near the smallest that there are would lose their difference below
    noise = ROUNDING * n
    pooled = pooled - pooled.mean()  # now the sum of B's runs alone tells the difference of means
    extreme = abs(float(pooled[:r].sum())) - noise
    if math.comb(n, r) <= ASSIGNMENTS:
        return float(np.mean(np.abs(_assignments(n, r) @ pooled) >= extreme))
    rng, count = np.random.default_rng(seed), 0
    for rows in chunks(resamples, n):
        chosen = rng.random((rows, n)).argsort(axis=1)[:, :r]
        count += int((np.abs(pooled[chosen].sum(1)) >= extreme).sum())
    return (1 + count) / (1 + resamples)


def smallest_p(b: int, a: int | None = None, *, resamples: int = RESAMPLES) -> float:
    """Return the smallest p that so many runs can give, whatever they score.

    Args:
        b: number of runs of one method, or of pairs.
        a: number of runs of the other, for :func:`permutation`; None: pairs, for :func:`sign_flip`.
        resamples: as of these.
    """
    if a is None:
        return min(1.0, 2.0 / 2**b) if b <= EXACT else 1 / (1 + resamples)
    ways = math.comb(a + b, b)
    # Where both have as many runs, exchanging them gives the same absolute difference.
    return min(1.0, (2 if a == b else 1) / ways) if ways <= ASSIGNMENTS else 1 / (1 + resamples)


@lru_cache(maxsize=8)
def _assignments(n: int, r: int) -> Array:
    """Return all ways to choose r of n, (C(n, r), n) of 0 and 1."""
    chosen = np.array(list(combinations(range(n), r)))
    members: Array = np.zeros((len(chosen), n))
    np.put_along_axis(members, chosen, 1.0, axis=1)
    return members
