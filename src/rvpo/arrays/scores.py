"""z-scores of each channel within its group, for NumPy arrays: the same numbers as :mod:`rvpo.core.normalize`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rvpo.arrays.groups import Array, Bools, Partition
from rvpo.core.aggregate import TIE


@dataclass(frozen=True)
class GroupScores:
    """z-scores of N completions on M channels, with the means and deviations that they were computed with.

    Attributes:
        z: (N, M), 0 where dead, NaN where missing.
        live: (N, M), True where the channel is scored and its rewards differ within the group.
        missing: (N, M), True where the completion was not scored.
        mean: (P, M) mean reward of the group, 0 where nothing was scored.
        std: (P, M) standard deviation in the group, 0 where not live.
    """

    z: Array
    live: Bools
    missing: Bools
    mean: Array
    std: Array

    def columns(self, kept: Bools) -> GroupScores:
        """Return some of the columns, (M,)."""
        z, live, missing = self.z[:, kept], self.live[:, kept], self.missing[:, kept]
        return GroupScores(z, live, missing, self.mean[:, kept], self.std[:, kept])


def group_zscore(rewards: Array, groups: Partition, *, eps: float, ddof: int = 1, rtol: float = 1e-6) -> GroupScores:
    """Normalise every channel within its group.

    Args:
        rewards: (N, M), NaN = missing.
        groups: the partition of the rows into groups.
        eps: number added to the standard deviation, in reward units.
        ddof: 1 for the sample standard deviation, 0 for the population's.
        rtol: a channel is dead in a group if its relative range is at most this.
    """
    missing = np.isnan(rewards)
    is_complete = not missing.any()

    def filled(x: Array, value: float) -> Array:
        return x if is_complete else np.where(missing, value, x)

    low = groups.min(filled(rewards, np.inf))
    high = groups.max(filled(rewards, -np.inf))
    scored = groups.sum(~missing)
    magnitude = np.maximum(np.maximum(np.abs(low), np.abs(high)), eps)
    with np.errstate(invalid="ignore", over="ignore"):  # where nothing was scored, low is inf and high is -inf
        live = (scored > 1) & (high - low > rtol * magnitude)
    # Shifting by the minimum of the group first keeps all digits when rewards are large and close together.
    low = np.where(scored == 0, 0.0, low)
    shifted = filled(rewards - groups.broadcast(low), 0.0)
    shifted_mean = groups.sum(shifted) / np.maximum(scored, 1)
    deviation = filled(shifted - groups.broadcast(shifted_mean), 0.0)
    variance = groups.sum(deviation * deviation) / np.maximum(scored - ddof, 1)
    std = np.where(live, np.sqrt(variance), 0.0)
    live_rows = groups.broadcast(live) & ~missing
    z = deviation / groups.broadcast(np.where(live, std + eps, 1.0))
    z = filled(np.where(live_rows, z, 0.0), np.nan)
    return GroupScores(z, live_rows, missing, low + shifted_mean, std)


def at_the_mean(rewards: Array, scores: GroupScores, outside: Bools, groups: Partition) -> tuple[Array, GroupScores]:
    """Give cells outside the normalisation the mean of the other cells: z = 0.

    Args:
        rewards: (N, M), NaN at these cells.
        scores: scores of ``rewards``.
        outside: (N, M), these cells.
        groups: the partition of the rows into groups.

    Returns:
        The rewards, with the mean of the others at these cells, and the scores.
    """
    ranks = groups.broadcast(groups.max(scores.live) > 0)
    filled = np.where(outside, groups.broadcast(scores.mean), rewards)
    return filled, replace(
        scores,
        z=np.where(outside, 0.0, scores.z),
        live=np.where(outside, ranks, scores.live),
        missing=scores.missing & ~outside,
    )


def normalised(shares: Array) -> Array:
    """Scale rows (N, M) to sum to 1; rows of zeros stay zero."""
    total = shares.sum(-1, keepdims=True)
    return shares / np.where(total == 0, 1.0, total)


def bottlenecks(z: Array, live: Bools) -> Array:
    """Return the lowest live channel of each completion, (N, M): rows sum to 1, ties share, 0 without live channels.

    Args:
        z: (N, M) z-scores.
        live: (N, M), which cells are live.
    """
    known = np.where(live, z, 0.0)
    lowest = np.where(live, known, np.inf).min(-1, keepdims=True)
    return normalised((live & (known - lowest <= TIE)).astype(np.float64))
