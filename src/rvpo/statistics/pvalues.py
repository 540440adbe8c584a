"""Tests: two-sided p values of "B is as good as A", and their adjustment for several tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike

from rvpo.statistics.base import RESAMPLES, ROUNDING, Array, chunks

EXACT = 14  # up to so many differences, all 2^14 signs are tried
ASSIGNMENTS = 20_000  # up to so many assignments of runs to two methods, all are tried: 8 runs against 8


def sign_flip(
    differences: ArrayLike, *, weights: ArrayLike | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Return the two-sided p value of "each item's difference is equally likely with either sign".

    This is true if A and B are equally good at every item, whatever the distribution of scores. The statistic is
    |sum w d|. For up to 14 differences that are not 0, all signs are tried (R. Fisher 1935). For more, ``resamples``
    random signs are tried and p = (1 + as extreme) / (1 + resamples), which keeps its level (B. Phipson and G. Smyth
    2010, arXiv 1603.05766).

    Args:
        differences: (n,) B - A, one per item, none missing, unclipped; see :func:`paired`.
        weights: (n,) weights of the items in the mean; None sets all to 1.
        resamples: number of random signs.
        seed: random seed of the signs.
    """
    d = np.asarray(differences, dtype=float)
    terms = d if weights is None else d * np.asarray(weights, dtype=float)
    terms = np.sort(terms[terms != 0])  # p does not depend on the order of items
    size = np.abs(terms).sum()
    extreme = abs(terms.sum()) - 1e-10 * size  # sums that differ within rounding error are ties
    if len(terms) <= EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(terms))))
        return float(np.mean(np.abs(signs @ terms) >= extreme)) if len(terms) else 1.0
    rng, count, total = np.random.default_rng(seed), 0, terms.sum()
    for rows in chunks(resamples, len(terms)):
        bits = np.unpackbits(rng.integers(0, 256, (rows, -(-len(terms) // 8)), dtype=np.uint8), axis=1)
        count += int((np.abs(2 * (bits[:, : len(terms)] @ terms) - total) >= extreme).sum())
    return (1 + count) / (1 + resamples)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Return the exact two-sided p value for pairs of 0/1, under which each differing pair is a toss of a fair coin.

    This is the test of Q. McNemar (Psychometrika 12, 1947) with the binomial distribution. It equals :func:`sign_flip`
    with all signs, for any number of items. If few items differ, it rejects less often than its level.

    Args:
        a: (n,) scores, 0 or 1.
        b: (n,) scores of the same items, 0 or 1.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    won, lost = int((second > first).sum()), int((second < first).sum())
    if not won + lost:
        return 1.0
    from scipy import stats  # takes half a second

    return float(stats.binomtest(won, won + lost).pvalue)


def holm(pvalues: Sequence[float]) -> list[float]:
    """Return p values adjusted for a family of tests: one below 0.05 is significant among all of them.

    The smallest of m is multiplied by m, the next by m - 1, …, and each is at least the one before it (S. Holm, Scand.
    J. Statist. 6, 1979). The adjustment is valid for any dependence between the tests.
    """
    adjusted, highest = [0.0] * len(pvalues), 0.0
    for rank, i in enumerate(sorted(range(len(pvalues)), key=pvalues.__getitem__)):
        highest = max(highest, min(1.0, (len(pvalues) - rank) * pvalues[i]))
        adjusted[i] = highest
    return adjusted


def permutation(b: ArrayLike, a: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Return the two-sided p value of "the method makes no difference to a run".

    The statistic is |mean(b) - mean(a)|. All C(R_a + R_b, R_b) ways to assign R_b of the runs to B are tried if they
    are at most 20,000 (E. Pitman 1937). Otherwise ``resamples`` random assignments are tried and
    p = (1 + as extreme) / (1 + resamples), as in :func:`sign_flip`. The test keeps its level for any distribution of
    runs that is the same for both methods, including bistable seeds. It does not if the methods have equal means but
    different spreads.

    Args:
        b: (R_b,) one number per run, none missing, R_b >= 1.
        a: (R_a,) the same for the other method, R_a >= 1.
        resamples: number of random assignments.
        seed: random seed of the assignments.
    """
    y, x = (np.sort(np.asarray(values, dtype=float)) for values in (b, a))
    pooled = np.concatenate([y, x])
    n, r = len(pooled), len(y)
    largest = float(np.abs(pooled).max())
    if largest > 0:
        pooled = pooled / largest  # otherwise differences of subnormal numbers would be lost below
    noise = ROUNDING * n
    pooled = pooled - pooled.mean()  # now the sum of B's runs determines the difference of means
    extreme = abs(float(pooled[:r].sum())) - noise
    if math.comb(n, r) <= ASSIGNMENTS:
        return float(np.mean(np.abs(_assignments(n, r) @ pooled) >= extreme))
    rng, count = np.random.default_rng(seed), 0
    for rows in chunks(resamples, n):
        chosen = rng.random((rows, n)).argsort(axis=1)[:, :r]
        count += int((np.abs(pooled[chosen].sum(1)) >= extreme).sum())
    return (1 + count) / (1 + resamples)


def smallest_p(b: int, a: int | None = None, *, resamples: int = RESAMPLES) -> float:
    """Return the smallest p value that this number of runs can give, whatever their scores.

    Args:
        b: number of runs of one method, or of pairs.
        a: number of runs of the other method, for :func:`permutation`; None for pairs, with :func:`sign_flip`.
        resamples: number of random assignments or signs of these tests.
    """
    if a is None:
        return min(1.0, 2.0 / 2**b) if b <= EXACT else 1 / (1 + resamples)
    ways = math.comb(a + b, b)
    # If both methods have the same number of runs, exchanging them gives the same absolute difference.
    return min(1.0, (2 if a == b else 1) / ways) if ways <= ASSIGNMENTS else 1 / (1 + resamples)


@lru_cache(maxsize=8)
def _assignments(n: int, r: int) -> Array:
    """Return all ways to choose r of n, (C(n, r), n) of 0 and 1."""
    chosen = np.array(list(combinations(range(n), r)))
    members: Array = np.zeros((len(chosen), n))
    np.put_along_axis(members, chosen, 1.0, axis=1)
    return members
