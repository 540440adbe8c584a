"""What all of them share: an interval, the differences that they take, and what counts as equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 10_000
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


def chunks(rows: int, width: int) -> list[int]:
    """Split rows such that a chunk of this width stays small in memory."""
    size = max(1, CELLS // max(width, 1))
    return [min(size, rows - start) for start in range(0, rows, size)]
