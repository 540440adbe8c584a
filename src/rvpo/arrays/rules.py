"""Two calculations of a diagnosis on the rewards of a batch, in NumPy.

- :func:`soft_min` gives z-scores, and how the soft minimum shares the decision between the channels.
- :func:`advantages` gives the advantages of GRPO and of GDPO, which a log without advantages is assumed to have. Other
  methods need the core.

The equations are those of :mod:`rvpo.core.aggregate`, :mod:`rvpo.core.methods.grpo` and :mod:`rvpo.core.methods.gdpo`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rvpo.arrays.groups import Array, Bools, Partition
from rvpo.arrays.scores import GroupScores, at_the_mean, bottlenecks, group_zscore, normalised
from rvpo.core.aggregate import LEAST_K
from rvpo.core.config import AdvantageConfig
from rvpo.core.methods.gdpo import GDPO
from rvpo.core.methods.grpo import GRPO
from rvpo.errors import RewardError


@dataclass(frozen=True)
class Cells:
    """The rewards of a batch, and the recorded facts about each cell.

    Attributes:
        rewards: (N, M), NaN = missing.
        groups: the partition of the rows into groups.
        weights: (M,) or (N, M) importance, 0 = monitored; None: all have the same weight.
        applies: (N, M), False where the column is not a channel of the row; None: all apply.
        outside: (N, M), cells outside the normalisation of their group; None without such cells.
        reliability: (N, M) in [0, 1], how far a cell is trusted; None: fully.
        monitored: whether columns of weight 0 are declared as monitors, which a method does not see.
    """

    rewards: Array
    groups: Partition
    weights: Array | None = None
    applies: Bools | None = None
    outside: Bools | None = None
    reliability: Array | None = None
    monitored: bool = False


@dataclass(frozen=True)
class Shares:
    """The result of the soft minimum on a batch; see :class:`rvpo.core.metrics.Advantages`.

    Attributes:
        rewards: (N, M) as given, NaN = missing.
        z: (N, M), 0 where dead, NaN where missing.
        live: (N, M), True where the channel is scored and its rewards differ within the group.
        missing: (N, M), True where the reward is missing although the channel applies.
        applies: (N, M), False where the column is not a channel of the row.
        responsibilities: (N, M) shares of the decision; rows sum to 1, or are 0 where nothing is live.
        signal: (N,), True where a channel of positive weight is live.
    """

    rewards: Array
    z: Array
    live: Bools
    missing: Bools
    applies: Bools
    responsibilities: Array
    signal: Bools

    def bottlenecks(self) -> Array:
        """Return which channel is the lowest live channel of a completion, (N, M)."""
        return bottlenecks(self.z, self.live)


def soft_min(cells: Cells, k: float, *, eps: float) -> Shares:
    """Return z-scores and the responsibilities of the soft minimum.

    Args:
        cells: rewards of a batch.
        k: risk coefficient in [0, inf].
        eps: number added to every standard deviation, in reward units.

    Raises:
        RewardError: the weights are not valid.
    """
    applies, _, w, scores = _normalised(cells, eps, is_trusting=True)
    present = scores.live
    z = np.where(present, scores.z, 0.0)
    p = normalised(w * present)
    return Shares(
        cells.rewards,
        scores.z,
        scores.live,
        scores.missing & applies,
        applies,
        _responsibilities(z, p, k),
        np.any(scores.live & (w > 0), -1),
    )


def _responsibilities(z: Array, p: Array, k: float) -> Array:
    """Return the derivative of the soft minimum with respect to z, (N, M)."""
    if k < LEAST_K:
        return p
    if k == np.inf:
        return normalised(p * (bottlenecks(z, p > 0) > 0))
    lowest = np.where(p > 0, z, np.inf).min(-1, keepdims=True)
    above = np.where(p > 0, z, lowest) - np.where(np.isinf(lowest), 0.0, lowest)
    return normalised(p * np.exp(-k * np.where(p > 0, above, 0.0)))


def is_known(config: AdvantageConfig) -> bool:
    """Whether :func:`advantages` computes the advantages of a config."""
    return type(config.method) in (GRPO, GDPO) and config.whiten != "token" and not config.wanted


def advantages(cells: Cells, config: AdvantageConfig) -> Array:
    """Return the advantages of GRPO or GDPO, (N,); 0 for rows without signal.

    Args:
        cells: rewards of a batch.
        config: a config for which :func:`is_known` holds.

    Raises:
        RewardError: the weights are not valid, or a reward is missing and the config refuses this.
    """
    method = config.method
    assert isinstance(method, GRPO | GDPO)  # see is_known
    applies, r, w, scores = _normalised(
        cells, config.eps, is_trusting=method.uses_z, ddof=config.ddof, rtol=config.rtol
    )
    if config.missing == "error" and (scores.missing & applies).any():
        raise RewardError('a reward is missing; expected no missing reward (missing="error"). Use missing="drop"')
    seen = _seen_columns(w, cells.monitored)
    eps = config.eps
    if not seen.all():
        r, w, scores = r[:, seen], w[:, seen], scores.columns(seen)
    total, takes_part = (_sum if isinstance(method, GRPO) else _mean)(config, r, w, scores, cells.groups)
    if not method.sums_weights:
        eps = eps / _total_weight(w, scores, takes_part)
    return _whitened(total, takes_part, cells.groups, config, eps)


def _normalised(
    cells: Cells, eps: float, *, is_trusting: bool, ddof: int = 1, rtol: float = 1e-6
) -> tuple[Bools, Array, Array, GroupScores]:
    """Return which cells apply, their rewards, weights and z-scores, (N, M) each."""
    r = cells.rewards
    applies = np.ones(r.shape, dtype=bool) if cells.applies is None else cells.applies
    if cells.applies is not None:
        r = np.where(applies, r, np.nan)
    w = _weights(cells.weights, r)
    outside = None if cells.outside is None else cells.outside & applies
    if outside is not None:
        r = np.where(outside, np.nan, r)
    scores = group_zscore(r, cells.groups, eps=eps, ddof=ddof, rtol=rtol)
    if outside is not None:
        r, scores = at_the_mean(r, scores, outside, cells.groups)
    if is_trusting and cells.reliability is not None:
        trust = np.sqrt(cells.reliability)
        w = normalised(w * trust) * w.sum(-1, keepdims=True)
        scores = GroupScores(scores.z * trust, scores.live, scores.missing, scores.mean, scores.std)
    return applies, r, w, scores


def _weights(weights: Array | None, rewards: Array) -> Array:
    """Return the weights of the cells, (N, M)."""
    if weights is None:
        return np.ones(rewards.shape)
    if weights.shape not in (rewards.shape, rewards.shape[1:]):
        raise RewardError(
            f"weights has shape {weights.shape}; expected ({rewards.shape[1]},) or {rewards.shape}: one per channel"
        )
    # Weights of single rows may all be 0: a batch in which no prompt has a channel of weight has no signal.
    if not (np.isfinite(weights) & (weights >= 0)).all() or (weights.ndim == 1 and not (weights > 0).any()):
        raise RewardError(
            f"weights is {weights.tolist() if weights.size < 20 else 'an array'}; expected finite numbers >= 0, at "
            "least one above 0: change the weight of that channel"
        )
    return np.broadcast_to(weights, rewards.shape)


def _seen_columns(w: Array, monitored: bool) -> Bools:
    """Return which columns a method sees, (M,): all, or those with a weight if monitors are declared."""
    counts: Bools = np.any(w > 0, 0)
    return counts if monitored and counts.any() else np.ones(w.shape[1], dtype=bool)


def _sum(config: AdvantageConfig, r: Array, w: Array, scores: GroupScores, groups: Partition) -> tuple[Array, Bools]:
    """Return GRPO's weighted sum of raw rewards (N,), and the rows that take part."""
    assert isinstance(config.method, GRPO)  # the caller's business
    scored = w * ~scores.missing
    if config.method.unscored == "zero":
        return (w * np.where(scores.missing, 0.0, r)).sum(-1), np.any(~scores.missing, -1)
    mean = groups.broadcast(scores.mean)
    # A channel without a scored completion in the group has no mean, so it is not part of this group's sum.
    applies = w * groups.broadcast(groups.max(~scores.missing))
    deviation = (scored * np.where(scores.missing, 0.0, r - mean)).sum(-1)
    total = scored.sum(-1)
    stand_in = applies.sum(-1) / np.where(total == 0, 1.0, total)
    found = np.where(total == 0, 0.0, (applies * mean).sum(-1) + stand_in * deviation)
    return found, total > 0


def _mean(config: AdvantageConfig, r: Array, w: Array, scores: GroupScores, groups: Partition) -> tuple[Array, Bools]:
    """Return GDPO's weighted mean of z-scores (N,), or its weighted sum, and the rows that take part."""
    assert isinstance(config.method, GDPO)  # the caller's business
    present = scores.live if config.dead_channels == "drop" else ~scores.missing
    z = np.where(present, scores.z, 0.0)
    if config.method.unscored == "zero":
        return (w * z).sum(-1), np.any(present, -1)
    p = normalised(w * present)
    return (p * z).sum(-1), np.any(p > 0, -1)


def _total_weight(w: Array, scores: GroupScores, takes_part: Bools) -> float:
    """Return the weight of the channels scored on a completion, averaged over the rows that take part."""
    total = (w * ~scores.missing).sum(-1) * takes_part
    return float(total.sum() / max(takes_part.sum(), 1)) or 1.0


def _whitened(a: Array, takes_part: Bools, groups: Partition, config: AdvantageConfig, eps: float) -> Array:
    """Centre and scale the aggregate over the batch or the group; rows that take no part get 0 and do not count."""

    def scores_in(part: Partition) -> GroupScores:
        counted = np.where(takes_part, a, np.nan)[:, None]
        return group_zscore(counted, part, eps=eps, ddof=config.ddof, rtol=config.rtol)

    whole = Partition(np.zeros(len(a), dtype=np.int64), 1, len(a))
    if config.method.centres_groups and config.whiten in ("batch", "none"):
        of_group = scores_in(groups)
        centred = a - groups.broadcast(of_group.mean)[:, 0]
        # Rounding errors in a group with equal rewards are not differences.
        centred = np.where(takes_part & of_group.live[:, 0], centred, 0.0)
        return centred if config.whiten == "none" else centred / (scores_in(whole).std[0, 0] + eps)
    if config.whiten == "none":
        return np.where(takes_part, a, 0.0)
    z: Array = np.nan_to_num(scores_in(whole if config.whiten == "batch" else groups).z[:, 0], nan=0.0)
    return z
