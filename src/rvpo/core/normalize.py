"""Per-channel group z-scores, and the three states of a channel in a group.

For one prompt, channel j and completion g (RVPO, arXiv 2605.05750; GDPO, arXiv 2601.05242)::

    Z_j(g) = (R_j(g) - mean_j) / (std_j + eps)        mean and std over the group's scored completions

- **live**: at least two scored completions differ, so the channel ranks them.
- **dead**: scored, but all values of the group are equal: no ranking, Z = 0.
- **missing**: this completion was not scored (NaN). It is left out of mean, std and count; its Z stays NaN.

The paper does not define ``ddof``, dead and missing channels: see ``docs/algorithm.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.shards import WHOLE, Whole


@dataclass(frozen=True)
class GroupScores:
    """Z-scores of N completions on M channels, and the statistics of the groups.

    Attributes:
        z: (N, M), 0 where dead, NaN where missing.
        live: (N, M) bool, True where the channel is scored and ranks the group.
        missing: (N, M) bool, True where the completion was not scored.
        mean: (P, M) group mean of the raw rewards, 0 where nothing was scored.
        std: (P, M) group standard deviation of the raw rewards, 0 where not live.
    """

    z: Tensor
    live: Tensor
    missing: Tensor
    mean: Tensor
    std: Tensor


def group_zscore(rewards: Tensor, groups: Groups, *, eps: float | Tensor, ddof: int, rtol: float) -> GroupScores:
    """Normalise every channel within its group.

    Args:
        rewards: (N, M) floating point, NaN = missing.
        groups: the partition of rows into groups.
        eps: number added to the standard deviation, in reward units.
        ddof: 1 for the sample standard deviation (as TRL and verl), 0 for the population's.
        rtol: a channel is dead in a group when its range is at most ``rtol`` times its largest magnitude, so that
            float noise around a constant is not amplified into a signal.
    """
    missing = rewards.isnan()
    is_complete = not bool(missing.any())

    def filled(x: Tensor, value: float) -> Tensor:
        return x if is_complete else x.masked_fill(missing, value)

    low, high = groups.ends(filled(rewards.detach(), torch.inf), filled(rewards.detach(), -torch.inf))
    scored = groups.sum((~missing).to(rewards.dtype))
    # `eps` is the smallest magnitude: around a constant of zero, differences far below eps are noise, too.
    magnitude = torch.maximum(low.abs(), high.abs()).clamp(min=eps)
    live = (scored > 1) & (high - low > rtol * magnitude)

    # Shifting by the group's minimum first keeps all digits when rewards are large and close together.
    low = low.masked_fill(scored == 0, 0.0)
    shifted = filled(rewards - groups.broadcast(low), 0.0)
    shifted_mean = groups.sum(shifted) / scored.clamp(min=1)
    deviation = filled(shifted - groups.broadcast(shifted_mean), 0.0)
    variance = groups.sum(deviation.square()) / (scored - ddof).clamp(min=1)
    # The inner fill keeps the gradient of the square root finite if the variance is 0.
    std = variance.masked_fill(~live, 1.0).sqrt()

    live_rows = groups.broadcast(live) & ~missing
    z = filled((deviation / groups.broadcast(std + eps)).masked_fill(~live_rows, 0.0), torch.nan)
    return GroupScores(z, live_rows, missing, low + shifted_mean, std.masked_fill(~live, 0.0))


def at_the_mean(rewards: Tensor, scores: GroupScores, outside: Tensor, groups: Groups) -> tuple[Tensor, GroupScores]:
    """Let cells that were left out of the normalisation take part with the mean of the others: z = 0.

    They count as scored, so a weighted mean over the channels keeps the same weights in all rows of the group.

    Args:
        rewards: (N, M), NaN at these cells.
        scores: result of :func:`group_zscore` for ``rewards``.
        outside: (N, M) bool, these cells.
        groups: the partition of rows into groups.

    Returns:
        The rewards, with the mean of the others at these cells (0 where the group has no others), and the scores.
    """
    ranks = groups.broadcast(groups.max(scores.live.to(rewards.dtype)) > 0)
    filled = torch.where(outside, groups.broadcast(scores.mean), rewards)
    return filled, replace(
        scores,
        z=scores.z.masked_fill(outside, 0.0),
        live=torch.where(outside, ranks, scores.live),
        missing=scores.missing & ~outside,
    )


def whiten_by_token(aggregated: Tensor, takes_part: Tensor, tokens: Tensor, shards: Whole = WHOLE) -> Tensor:
    """Whiten as verl does: each row counts as often as it has response tokens.

    With n_i tokens in row i: mean m = sum n_i a_i / sum n_i, variance v = sum n_i (a_i - m)^2 / (sum n_i - 1), and
    (a - m) / sqrt(v + 1e-8), as ``verl.utils.torch_functional.masked_whiten`` on the values spread over the tokens.
    verl whitens the sum of z-scores, we whiten their weighted mean: only the effect of 1e-8 differs.

    Args:
        aggregated: (N,) the rule's value of each row.
        takes_part: (N,) bool, the rows that count; others get 0.
        tokens: (N,) number of tokens that are trained on.
        shards: where the rows of the batch are.

    Returns:
        (N,) in the dtype of ``aggregated``; all 0 if fewer than two tokens count.
    """
    n = tokens.to(aggregated) * takes_part
    total, weighted = shards.sum(n.sum(), (n * aggregated).sum())
    if total < 2:
        return torch.zeros_like(aggregated)
    centred = aggregated - weighted / total
    (squares,) = shards.sum((n * centred.square()).sum())
    variance = squares / (total - 1)
    return (centred * torch.rsqrt(variance + 1e-8)).masked_fill(~takes_part, 0.0)
