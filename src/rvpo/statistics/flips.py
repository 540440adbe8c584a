"""Paired comparisons over few seeds: a test that tries all flips of the signs, for one comparison or a family."""

from __future__ import annotations

import numpy as np

from rvpo.statistics.base import Array


def sign_flip_test(differences: Array) -> tuple[Array, Array]:
    """Test paired differences (C, S) against a symmetric null, by all 2^S flips of the seeds.

    The statistic is abs(sum d) / sqrt(sum d^2). It orders flips as the t statistic does and stays finite. A flip
    changes the sign of a seed in all cells at once, because cells share the seeds. The family of C cells is adjusted by
    the step-down max-t procedure of Westfall and Young (1993). Holm's procedure would rarely reject here: its smallest
    p is C * 2 / 2^S.

    Returns:
        Two-sided p values (C,), one per cell, and p values (C,) adjusted for the family.
    """
    seeds = differences.shape[1]
    flips = 1 - 2 * (np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1)
    norm = np.sqrt((differences**2).sum(1))
    statistic = np.abs(flips @ differences.T) / np.where(norm > 0, norm, 1)  # (2^S, C), the first row unflipped
    observed = statistic[0] - 1e-9  # flips that tie within rounding error count
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
