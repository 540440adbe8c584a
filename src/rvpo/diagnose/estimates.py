"""From sums over groups to values, and to their intervals: a bootstrap over groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from rvpo.diagnose.diagnosis import Estimate
from rvpo.diagnose.group_sums import SLOT
from rvpo.statistics.distributions import normal_below, t_quantile

Array = NDArray[np.float64]
LEVEL = 0.95
RESAMPLES = 1000
RIDGE = 1e-6  # added to the diagonal of a correlation matrix
HELD = 5_000_000  # most numbers of a resampled table in memory at a time
FEWEST = 8  # fewest groups for an interval: with fewer, there are too few different resamples


def _ratio(numerator: str, denominator: str) -> Callable[[Array], Array]:
    def value(sums: Array) -> Array:
        return _divided(sums[..., SLOT[numerator]], sums[..., SLOT[denominator]])

    return value


def _correlation(sums: Array) -> Array:
    """Pool within groups: a group counts more if its advantages and the channel vary more."""
    aa, zz = sums[..., SLOT["aa"]], sums[..., SLOT["zz"]]
    # If the channel varies but the advantages are constant, the correlation is 0, not unknown.
    unmoved = (zz > 0) & (aa <= 1e-12 * zz)
    known = _divided(sums[..., SLOT["az"]], np.sqrt(np.maximum(aa * zz, 0)))
    return np.where(unmoved, 0.0, np.clip(known, -1, 1))


def _fair(sums: Array) -> Array:
    """The mean of m independent channels with equal shares has the correlation 1 / sqrt(m) with each of them."""
    return 1 / np.sqrt(np.maximum(_divided(sums[..., SLOT["company"]], sums[..., SLOT["live"]]), 1))


def _trend(sums: Array) -> Array:
    n, t, tt = (sums[..., SLOT[name]] for name in ("scored", "time", "time2"))
    spread = n * tt - t * t
    slope = _divided(n * sums[..., SLOT["time_reward"]] - t * sums[..., SLOT["reward"]], spread)
    return np.where(spread > 1e-9 * np.maximum(n * n, 1), slope, np.nan)


def _reliability(sums: Array) -> Array:
    again = _divided(sums[..., SLOT["again_ss"]], sums[..., SLOT["again_dof"]])
    within = _divided(sums[..., SLOT["within_ss"]], sums[..., SLOT["within_dof"]])
    return np.clip(1 - _divided(again, within), 0, 1)


VALUES: Mapping[str, Callable[[Array], Array]] = {
    "mean": _ratio("reward", "scored"),
    "trend": _trend,
    "early": _ratio("early_reward", "early_scored"),
    "late": _ratio("late_reward", "late_scored"),
    "scored": _ratio("scored", "cells"),
    "live": _ratio("live", "cells"),
    "live_groups": _ratio("groups_live", "groups_scored"),
    "correlation": _correlation,
    "fair": _fair,
    "punished": _ratio("punished", "compared"),
    "responsibility": _ratio("responsibility", "signal"),
    "bottleneck": _ratio("bottleneck", "signal"),
    "ceiling": _ratio("late_top", "late_scored"),
    "reliability": _reliability,
    "unexplored": _ratio("unexplored", "met_groups"),
    "suppressed": _ratio("suppressed", "met_groups"),
}
"""Each takes sums (…, K, slots) and gives (…, K), NaN where undefined."""


OF_RANKED = ("correlation", "pull", "punished")
"""Statistics over the groups within which a channel varies. These may be few even in a long run."""

EVIDENCE = {"again_dof": 20, "again_groups": 10}
"""Fewest comparisons of identical completions, and fewest groups with such completions, to estimate noise."""


def values(sums: Array) -> dict[str, Array]:
    """Return each statistic of sums (…, K, slots) as (…, K)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: of(sums) for name, of in VALUES.items()}


def pulls(pairs: Array, alive: NDArray[np.bool_]) -> Array:
    """Return how far each channel moves the advantage while the others stay the same; the average channel has 1.

    These are the coefficients of the regression of the advantage on the z-scores of all channels, within groups. For
    GDPO they are proportional to the weights, for GRPO to weights times spreads. A channel without influence that is
    correlated with an influential channel has a correlation with the advantage, but no coefficient.

    Args:
        pairs: (…, K, K + 1) sums of z_j z_l, and of z_j a.
        alive: (K,) bool, channels that enter the average.

    Returns:
        (…, K), NaN if the channel is never live, 0 if no channel moves the advantage.
    """
    c, b = pairs[..., :-1], pairs[..., -1]
    k = c.shape[-1]
    spread = np.sqrt(np.maximum(np.einsum("...jj->...j", c), 0))
    there = spread > 0
    scale = np.where(there, spread, 1)
    correlation = c / scale[..., :, None] / scale[..., None, :]
    # Identical channels share their coefficient; without the ridge, this would divide 0 by 0.
    ridged = correlation + np.eye(k) * np.where(there, RIDGE, 1)[..., :, None]
    beta = np.linalg.solve(ridged, (b / scale)[..., None])[..., 0] / scale
    counted = there & alive
    average = np.abs(np.where(counted, beta, 0)).sum(-1, keepdims=True) / np.maximum(counted.sum(-1, keepdims=True), 1)
    return np.where(there, np.where(average > 0, beta / np.where(average > 0, average, 1), 0.0), np.nan)


def resampled_pulls(pairs: Array, alive: NDArray[np.bool_], resamples: int, seed: int) -> Array | None:
    """Return :func:`pulls` of ``resamples`` bootstrap draws of the groups, (R, K); None for too few groups."""
    there = pairs[np.einsum("bjj->b", pairs[..., :-1]) > 0]
    if len(there) < FEWEST:
        return None
    return np.concatenate([pulls(sums, alive) for sums in _drawn(there, resamples, seed)])


def resampled(blocks: Array, resamples: int, seed: int) -> dict[str, Array] | None:
    """Return each statistic of ``resamples`` bootstrap draws of the groups, (R, K); None for too few groups.

    Args:
        blocks: (B, K, slots) sums of groups; empty blocks do not count as groups.
        resamples: R, number of draws.
        seed: random seed of the draws.
    """
    there = blocks[blocks[..., SLOT["cells"]].sum(1) > 0]
    if len(there) < FEWEST:
        return None
    parts = [values(sums) for sums in _drawn(there, resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _drawn(groups: Array, resamples: int, seed: int) -> Iterator[Array]:
    """Yield sums over B groups, drawn with replacement from (B, …), as (r, …) at a time."""
    rng = np.random.default_rng(seed)
    flat = groups.reshape(len(groups), -1)
    step = max(1, HELD // flat.shape[1])
    for start in range(0, resamples, step):
        draws = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), min(step, resamples - start))
        yield (draws.astype(float) @ flat).reshape(-1, *groups.shape[1:])


def estimated(
    blocks: Array, pairs: Array, *, known: bool, dead: float, level: float, resamples: int, seed: int
) -> tuple[dict[str, list[Estimate]], dict[str, Array] | None]:
    """Return each statistic of each channel with its interval, and the draws (R, K) of the intervals.

    Args:
        blocks: (B, K, slots) sums of groups.
        pairs: (B, K, K + 1), see :func:`pulls`.
        known: whether any completion has an advantage.
        dead: a channel enters the average of the pulls if its rewards differ within at least this share of its groups.
        level: level of the intervals.
        resamples: R, draws of the bootstrap over groups.
        seed: random seed of the bootstrap.
    """
    total = blocks.sum(0)
    draws = resampled(blocks, resamples, seed)
    alive = total[:, SLOT["groups_live"]] >= dead * total[:, SLOT["groups_scored"]]
    drawn_pulls = resampled_pulls(pairs, alive, resamples, seed)
    few = np.any([total[:, SLOT[slot]] < least for slot, least in EVIDENCE.items()], axis=0)
    if draws is not None:
        draws["pull"] = np.full_like(draws["mean"], np.nan) if drawn_pulls is None else drawn_pulls
        draws["reliability"][:, few] = np.nan
    groups = int((blocks[..., SLOT["cells"]].sum(1) > 0).sum())
    moved = pulls(pairs.sum(0), alive) if known else np.full(len(total), np.nan)
    found = estimates(total, draws, groups, level, {"pull": moved})
    found["reliability"] = [Estimate(None) if few[j] else e for j, e in enumerate(found["reliability"])]
    return found, draws


def estimates(
    sums: Array, draws: Mapping[str, Array] | None, groups: int, level: float, extra: Mapping[str, Array]
) -> dict[str, list[Estimate]]:
    """Return each statistic of each channel with its interval.

    The intervals are expanded percentiles (T. Hesterberg 2014, arXiv 1411.5279), as wide as Student's t on symmetric
    data. Plain percentiles are too narrow for few groups.

    Args:
        sums: (K, slots) sums of the run.
        draws: resampled statistics, from :func:`resampled`.
        groups: number of groups that were resampled.
        level: level of the intervals.
        extra: further statistics (K,); their draws are also in ``draws``.
    """
    n = max(groups, 2)
    ranked = sums[..., SLOT["groups_live"]]
    outside = normal_below(-t_quantile((1 + level) / 2, n - 1) * float(np.sqrt(n / (n - 1))))
    found = {}
    for name, value in {**values(sums), **extra}.items():
        drawn = None if draws is None else draws.get(name)
        known = [drawn is not None and not (name in OF_RANKED and n < FEWEST) for n in ranked]
        found[name] = [
            _estimate(x, drawn[:, k] if drawn is not None and known[k] else None, outside) for k, x in enumerate(value)
        ]
    return found


def _estimate(value: float, drawn: Array | None, outside: float) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None)
    known = None if drawn is None else drawn[~np.isnan(drawn)]
    if known is None or len(known) < 20:
        return Estimate(float(value))
    low, high = np.quantile(known, [outside, 1 - outside])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def _divided(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b != 0, a / np.where(b == 0, 1, b), np.nan)
