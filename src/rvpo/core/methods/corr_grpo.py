"""CorrGRPO: centred rewards over the root of the sum of their correlations, arXiv 2609.36820.

::

    A = sum_j w_j (R_j - mean_j) / sqrt( sum_i sum_j w_i w_j rho_ij + epsilon )      within the group, no whitening

rho_ij is Pearson's correlation of channels i and j within the group; a constant channel has none, and counts as 0. With
u_j the deviations of channel j scaled to length 1, the sum is the square of the length of sum_j w_j u_j, so it is never
negative and needs no M x M matrix. A missing reward adds 0, the mean of its group, to both.

**Limits.** One channel: the centred reward, without a scale. Independent channels: the sum over sqrt(M).

**Failure case.** Channels that oppose each other. Their correlations sum to nearly 0, and the quotient explodes: two
opposed binary rewards of scale 1 and 3 give advantages of +-1000 at epsilon = 1e-6. `epsilon` is the only bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require_positive
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.moments import deviations, population_std


@dataclass(frozen=True)
class CorrGRPO(Method):
    """``corr_grpo``: centred rewards over the root of the sum of their correlations, within the group.

    Attributes:
        epsilon: number added to the sum of the correlations, > 0.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.CorrGRPO())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.12, 0.34, 0.2, -0.66]
    """

    name: ClassVar[str] = "corr_grpo"
    summary: ClassVar[str] = "sum of centred rewards over the root of the sum of their correlations"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper("CorrGRPO", "2609.36820", year=2026)
    own_whiten: ClassVar[str] = "none"
    uses_z: ClassVar[bool] = False
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_positive("epsilon", self.epsilon)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Centre, sum and divide within each group."""
        groups, w = batch.groups, batch.weights
        deviation = deviations(batch.rewards, batch.scores, batch.groups)
        length = groups.broadcast(groups.sum(deviation.square()).sqrt())
        unit = deviation / length.masked_fill(length == 0, 1.0)
        correlations = groups.sum((w * unit).sum(-1, keepdim=True).square())  # (P, 1)
        aggregated = (w * deviation).sum(-1) / (groups.broadcast(correlations)[:, 0] + self.epsilon).sqrt()
        spread = groups.broadcast(population_std(deviation, batch.scores, batch.groups))
        return Outcome(aggregated, aggregate.normalised(w * spread * batch.scores.live))
