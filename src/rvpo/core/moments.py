"""Deviations of raw rewards from the mean of their group, for methods that do not use z-scores."""

from __future__ import annotations

from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor
from rvpo.core.normalize import GroupScores


def deviations(rewards: Tensor, scores: GroupScores, groups: Groups) -> Tensor:
    """Return rewards minus their group's mean, (N, M); 0 where a channel is missing, or ranks nothing in the group.

    Args:
        rewards: (N, M), NaN = missing.
        scores: z-scores of the same rewards.
        groups: the partition of rows into groups.
    """
    return (rewards - groups.broadcast(scores.mean)).masked_fill(~scores.live, 0.0)


def population_std(deviation: Tensor, scores: GroupScores, groups: Groups) -> Tensor:
    """Return the standard deviation of each channel within its group, divided by n, (P, M).

    Args:
        deviation: result of :func:`deviations`.
        scores: z-scores of the same rewards.
        groups: the partition of rows into groups.
    """
    count = groups.sum((~scores.missing).to(deviation.dtype))
    return (groups.sum(deviation.square()) / count.clamp(min=1)).sqrt()
