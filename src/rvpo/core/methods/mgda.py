"""MGDA on rewards: the shortest mixture of the z-scores of a batch (Désidéri 2012; Sener and Koltun, arXiv 1810.04650).

::

    alpha = argmin over the simplex of || sum_j alpha_j w_j Z_j ||^2        over all completions of the batch
    A     = sum_j alpha_j w_j Z_j

Multiple-gradient descent takes the shortest vector in the convex hull of the gradients. Here the z-scores replace the
gradients, as if the gradients of different completions were orthogonal and of equal length. So it is a bound for rules
that use only rewards, and not MGDA on the policy. To first order a step along A raises every channel by at least
||A||^2: no channel falls. Channels that rank nothing in the batch do not take part. The rule has no state.

**Limits.** Channels that agree share the weight in any way. Two independent channels get half each.

**Failure cases.** A channel that opposes the mean of the others brings the mixture to 0, and learning stops: if ||A||^2
is below 1e-9 of the smallest channel's, the batch has no direction that raises all, and A is 0. Duplicated channels
count once, for any number of copies. A little noise in one channel changes alpha a lot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.metrics import WEIGHT
from rvpo.core.nonnegative import least_nonnegative

STATIONARY = 1e-9  # as a share of the smallest channel's energy: below it, no direction raises all channels


@dataclass(frozen=True)
class MGDA(Method):
    """``mgda``: the shortest mixture of the channels' z-scores over the batch.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.MGDA())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.45, 0.72, 0.31, -1.48]
    """

    name: ClassVar[str] = "mgda"
    summary: ClassVar[str] = "the shortest mixture of the channels' z-scores, which lets none fall to first order"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "Multi-Task Learning as Multi-Objective Optimization", "1810.04650", "Ozan Sener and Vladlen Koltun", 2018
    )
    own_dead_channels: ClassVar[str] = "keep"
    sums_weights: ClassVar[bool] = True

    @property
    def traits(self) -> tuple[str, ...]:
        """The mixture depends on all groups."""
        return ("shared-weights",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Find the mixture, then sum."""
        channels = batch.channels
        columns = channels.pool(batch.weights * batch.z)  # (N, K)
        (gram,) = batch.shards.sum(columns.T @ columns)
        alpha = shortest_mixture(gram.detach().cpu().double())
        shares = batch.weights * channels.broadcast(alpha.to(batch.z)) * batch.present
        metrics = {f"{name}/{WEIGHT}": value for name, value in zip(channels.names, alpha.tolist(), strict=True)}
        takes_part = (batch.present & (batch.weights > 0)).any(-1)
        return Outcome((shares * batch.z).sum(-1), aggregate.normalised(shares), takes_part, metrics=metrics)


def shortest_mixture(gram: Tensor) -> Tensor:
    """Return the weights of the shortest convex mixture of K vectors, (K,); all 0 if the mixture has length 0.

    The minimum over x >= 0 of ||V x||^2 + (sum x - 1)^2 is proportional to the weights, so this is a quadratic program
    over nonnegative vectors.

    Args:
        gram: (K, K) products of the vectors, float64 on the CPU. A vector of length 0 gets no weight.
    """
    weights = torch.zeros(len(gram), dtype=gram.dtype)
    there = gram.diagonal() > 0
    if not bool(there.any()):
        return weights
    inner = gram[there][:, there]
    inner = inner / inner.diagonal().mean()  # so that both terms have similar sizes
    x = least_nonnegative(inner + 1, -inner.new_ones(len(inner)))
    found = x / x.sum()
    if float(found @ inner @ found) > STATIONARY * float(inner.diagonal().min()):
        weights[there] = found
    return weights
