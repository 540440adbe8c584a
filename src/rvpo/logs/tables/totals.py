"""Find the columns, and their weights, that make up a logged total or the logged advantages.

A total is a weighted sum of rewards: least squares finds the weights, and a column that adds nothing has no share in
it. Advantages are such a sum, scaled within every group (GRPO divides by the group's deviation). So they show the
direction of a group's totals, but not their length. The weights are those whose sums are parallel to the advantages in
every group; they are an eigenvector. :func:`explain_total` and :func:`explain_advantages` leave out columns that are
not needed, the least likely rewards first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

EXACT = 1e-3
"""Columns explain a total if at most this share of its variance is unexplained, because logs are rounded."""
ALONG = 1e-5
"""Largest share of the sums that may not be parallel to the advantages."""
MOST = 120
"""Most columns that are tried: the time of the search grows with their cube."""
SURE = 20.0
"""Squared t statistic from which on a column has a share: 4.5 standard errors."""
FLOOR = 1e-10
LARGEST = 1e60


@dataclass(frozen=True)
class Fit:
    """The columns that explain a total or advantages.

    Attributes:
        weights: column -> its weight, for columns with a share; for advantages, up to a common factor.
        unexplained: unexplained share of the variance, or of the sums; NaN with too few rows.
        exact: whether only rounding is unexplained.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    unexplained: float = np.nan
    exact: bool = False


def explain_total(total: Array, columns: Mapping[str, Array], groups: Ints) -> Fit:
    """Find the weights with which columns add up to a total.

    Args:
        total: (N,), NaN = missing.
        columns: (N,) each, the least likely rewards first; a missing reward adds nothing.
        groups: (N,) ids of groups. The whole table is tried first, then deviations within groups.
    """
    known = np.isfinite(total)
    for ids in (np.zeros_like(groups), groups):
        fit = _least_squares(total[known], _stacked(columns)[known], list(columns), ids[known])
        if fit.exact:
            return fit
    return fit


def _least_squares(y: Array, x: Array, names: Sequence[str], groups: Ints) -> Fit:
    y, x = deviations(_within_reach(y[:, None]), groups)[:, 0], deviations(_within_reach(x), groups)
    spread = np.sqrt((x * x).sum(0))
    varies = np.flatnonzero(spread > 0)
    yy = float(y @ y)
    if len(varies) > MOST:
        return Fit()
    if yy <= 0 or not len(varies) or len(y) < 3 * len(varies) + 5:
        return Fit({}, np.nan if yy <= 0 or len(varies) else 1.0)
    scaled = x[:, varies] / spread[varies]
    inner, along = scaled.T @ scaled, scaled.T @ y

    def left(kept: list[int]) -> tuple[float, Array]:
        if not kept:
            return 1.0, np.zeros(0)
        weights = np.linalg.lstsq(inner[np.ix_(kept, kept)], along[kept], rcond=1e-10)[0]
        return max(1 - float(along[kept] @ weights) / yy, 0.0), weights

    kept, unexplained = _needed(len(varies), lambda kept: left(kept)[0], len(y))
    weights = left(kept)[1]
    found = {names[varies[i]]: float(w / spread[varies[i]]) for i, w in zip(kept, weights, strict=True)}
    return Fit(found, unexplained, unexplained < EXACT)


def explain_advantages(advantages: Array, columns: Mapping[str, Array], groups: Ints) -> Fit:
    """Find the weights with which columns give the advantages, raw (GRPO) or as z-scores (GDPO).

    Args:
        advantages: (N,), NaN = unknown.
        columns: (N,) each, the least likely rewards first; a missing reward adds nothing.
        groups: (N,) ids of groups.
    """
    known = np.isfinite(advantages)
    groups = groups[known]
    a = deviations(_within_reach(advantages[known][:, None]), groups)[:, 0]
    raw = deviations(_within_reach(_stacked(columns)[known]), groups)
    best = Fit()
    for x in (raw, _standardised(raw, groups)):
        fit = _along(a, x, list(columns), groups)
        if fit.exact:
            return fit
        if not best.unexplained <= fit.unexplained:
            best = fit
    return best


def _along(a: Array, x: Array, names: Sequence[str], groups: Ints) -> Fit:
    count = int(groups.max()) + 1 if len(groups) else 0
    aa = np.bincount(groups, a * a, count)
    moved = aa > 1e-12
    sizes = np.bincount(groups, minlength=count)
    spread = np.sqrt((x * x).sum(0))
    varies = np.flatnonzero(spread > 0)
    evidence = int((sizes - 2).clip(0)[moved].sum())  # a group of two shows nothing about directions
    if not 0 < len(varies) <= MOST or evidence < 5 * len(varies) + 10:
        return Fit()
    scaled = x[:, varies] / spread[varies]
    along = np.stack([np.bincount(groups, scaled[:, j] * a, count) for j in range(len(varies))], 1)
    inner = scaled.T @ scaled
    across = inner - (along[moved] / aa[moved, None]).T @ along[moved]

    def left(kept: list[int]) -> tuple[float, Array]:
        if not kept:
            return 1.0, np.zeros(0)
        part = np.ix_(kept, kept)
        values, vectors = np.linalg.eigh(inner[part] + 1e-12 * np.eye(len(kept)))
        whole = values > 1e-9 * values[-1]
        root = vectors[:, whole] / np.sqrt(values[whole])
        lowest, directions = np.linalg.eigh(root.T @ across[part] @ root)
        return max(float(lowest[0]), 0.0), root @ directions[:, 0]

    kept, unexplained = _needed(len(varies), lambda kept: left(kept)[0], evidence)
    weights = left(kept)[1]
    upwards = np.sign(float((scaled[:, kept] @ weights) @ a)) or 1.0
    found = {names[varies[i]]: float(upwards * w / spread[varies[i]]) for i, w in zip(kept, weights, strict=True)}
    return Fit(found, unexplained, unexplained < ALONG)


def _needed(count: int, left: Callable[[list[int]], float], rows: int) -> tuple[list[int], float]:
    """Leave out columns, in order, as long as the unexplained share does not clearly grow."""
    kept = list(range(count))
    unexplained = left(kept)
    for i in range(count):
        fewer = [j for j in kept if j != i]
        without = left(fewer)
        if without - unexplained <= max(SURE * unexplained / max(rows - len(kept), 1), FLOOR):
            kept, unexplained = fewer, without
    return kept, unexplained


def follows(values: Array, other: Array, groups: Ints) -> bool:
    """Whether two columns are the same within groups, up to a positive factor per group."""
    known = np.isfinite(values) & np.isfinite(other)
    groups = groups[known]
    x, y = (deviations(_within_reach(z[known][:, None]), groups)[:, 0] for z in (values, other))
    xx, yy, xy = (np.bincount(groups, product) for product in (x * x, y * y, x * y))
    across = xx - np.divide(xy * xy, yy, out=np.zeros_like(xy), where=yy > 1e-12)
    return bool(xx.sum() > 0) and bool(across.sum() <= ALONG * xx.sum()) and bool((xy >= -1e-9).all())


def is_copy(values: Array, other: Array) -> bool:
    """Whether a column is another column, scaled and shifted, on all rows."""
    known = np.isfinite(values) & np.isfinite(other)
    if not np.array_equal(np.isfinite(values), np.isfinite(other)) or known.sum() < 2:
        return False
    x, y = (_unit(column[known]) for column in (values, other))
    return x is not None and y is not None and abs(float(x @ y)) >= 1 - 1e-9


def _unit(column: Array) -> Array | None:
    """Return a column minus its mean, scaled to length 1; None if it is constant. Works for any finite numbers."""
    scale = float(np.abs(column).max(initial=0.0))
    if not scale > 0:
        return None
    column = column / scale
    column = column - column.mean()
    length = float(np.sqrt(column @ column))
    return column / length if length > 1e-9 else None


def deviations(x: Array, groups: Ints) -> Array:
    """Return columns (N, M) minus the mean of their group."""
    sizes = np.bincount(groups)
    means = np.stack([np.bincount(groups, column) for column in x.T], 1) / np.maximum(sizes, 1)[:, None]
    deviation = x - means[groups]
    # The deviations of a constant are rounding errors.
    size = np.abs(x).max(0, initial=0.0)
    deviation[np.abs(deviation) < 1e-12 * size] = 0.0
    return np.asarray(deviation)


def _within_reach(x: Array) -> Array:
    """Clip numbers whose squares would overflow; no reward is that large."""
    return np.clip(x, -LARGEST, LARGEST)


def _standardised(deviation: Array, groups: Ints) -> Array:
    squares = np.stack([np.bincount(groups, column * column) for column in deviation.T], 1)
    degrees = np.maximum(np.bincount(groups) - 1, 1)[:, None]
    return deviation / (np.sqrt(squares / degrees) + 1e-4)[groups]


def _stacked(columns: Mapping[str, Array]) -> Array:
    return np.nan_to_num(np.stack(list(columns.values()), 1), nan=0.0)
