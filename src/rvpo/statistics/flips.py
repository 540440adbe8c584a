"""Paired comparisons over few seeds: every flip of the signs, for one comparison and for a family of them."""

from __future__ import annotations

import numpy as np

from rvpo.statistics.base import Array


def sign_flip_test(differences: Array) -> tuple[Array, Array]:
    """Test paired differences (C, S) against a symmetric null, by all 2^S flips of the seeds.

    The statistic is abs(sum d) / sqrt(sum d^2), which orders flips as the t statistic does and stays finite. A flip
    turns a seed in all cells at once, as cells share the seeds. For the family of C cells the step-down max-t procedure
    of Westfall and Young (1993): Holm's has no chance here, its smallest p being C * 2 / 2^S.

    Returns:
        Two-sided p (C,) of each cell alone, and p (C,) adjusted for the family.
    """
    seeds = differences.shape[1]
    flips = 1 - 2 * (np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1)
    norm = np.sqrt((differences**2).sum(1))
    statistic = np.abs(flips @ differences.T) / np.where(norm > 0, norm, 1)  # (2^S, C), the first row unflipped
    observed = statistic[0] - 1e-9  # flips that tie but for rounding count
    order = np.argsort(-observed, kind="stable")
    largest = np.maximum.accumulate(statistic[:, order[::-1]], axis=1)[:, ::-1]  # over this cell and those after it
    adjusted = np.empty(len(observed))
    adjusted[order] = np.maximum.accumulate((largest >= observed[order]).mean(0))
    return (statistic >= observed).mean(0), adjusted


def holm(p: Array) -> Array:
    """Return p (C,) adjusted by Holm's procedure."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
