"""Shared parts: the type of an interval, paired differences, and the tolerance within which numbers are equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 10_000
CELLS = 2_000_000  # largest matrix of resamples that is held in memory at a time
ROUNDING = 1e-12  # relative to the largest score; smaller differences are rounding: 0.1 is not (0.1 + 0.1 + 0.1) / 3


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: mean over the items; None without items.
        low: lower end; None if there are fewer than two items, or if nothing varies.
        high: upper end; None if ``low`` is None.
        items: n, the number of items that have a value.
    """

    mean: float | None
    low: float | None
    high: float | None
    items: int


def paired(b: ArrayLike, a: ArrayLike) -> Array:
    """Return the differences B - A, (n,), of scores averaged over runs. Differences within rounding error are 0.

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
    """Return whether all values, (n,) with n >= 1, are equal within rounding error."""
    x = np.asarray(values, dtype=float)
    return bool(np.ptp(x) <= ROUNDING * np.abs(x).max())


def chunks(rows: int, width: int) -> list[int]:
    """Return sizes of chunks of rows, such that a chunk of this width stays small in memory."""
    size = max(1, CELLS // max(width, 1))
    return [min(size, rows - start) for start in range(0, rows, size)]
