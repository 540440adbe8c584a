"""Monitored channels: if monitors are declared, the method does not see columns of weight 0.

A monitor is logged and diagnosed, but must not change an advantage. This must hold for anything that a method reads:
raw rewards, covariances, z-scores without their shares, or whether a row was scored at all. A reward of weight 0 that
is not declared as a monitor is still a reward: TRL counts a completion that has only such a reward, and so do `grpo`
and `gdpo:unscored=zero`.
"""

from __future__ import annotations

from dataclasses import replace

from rvpo.core.channels import Channels
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Outcome
from rvpo.core.normalize import GroupScores


def without_monitored(batch: Batch) -> tuple[Batch, Tensor | None]:
    """Return the batch without the columns of weight 0.

    Returns:
        The batch, and the numbers of the columns that are left, or None if all are. A batch in which every column has
        weight 0 does not change: it has no signal.
    """
    (weighted,) = batch.shards.sum((batch.weights > 0).sum(0))
    counts = weighted > 0
    if bool(counts.all()) or not bool(counts.any()):
        return batch, None
    kept = counts.nonzero()[:, 0]

    def take(x: Tensor) -> Tensor:
        return x.index_select(-1, kept)

    scores = batch.scores
    return replace(
        batch,
        rewards=take(batch.rewards),
        weights=take(batch.weights),
        scores=GroupScores(*map(take, (scores.z, scores.live, scores.missing, scores.mean, scores.std))),
        present=take(batch.present),
        z=take(batch.z),
        p=take(batch.p),
        # Keep all names, also of labels that are absent from the batch: options may name them.
        channels=Channels(batch.channels.names, take(batch.channels.index), batch.channels.ranges),
        reliability=None if batch.reliability is None else take(batch.reliability),
        outside=None if batch.outside is None else take(batch.outside),
    ), kept


def widened(outcome: Outcome, kept: Tensor | None, shape: torch.Size) -> Outcome:
    """Return the outcome with responsibilities of 0 for columns that the method did not see.

    Args:
        outcome: outcome of the method.
        kept: numbers of the columns that it saw; None if it saw all.
        shape: (N, M) with all columns.
    """
    if kept is None:
        return outcome
    whole = outcome.responsibilities.new_zeros(shape).index_copy(1, kept, outcome.responsibilities)
    return replace(outcome, responsibilities=whole)
