"""DVAO: rewards around their group's mean, over the sum of their standard deviations, arXiv 2605.25604.

::

    A = sum_j w_j (R_j - mean_j) / ( sum_j w_j std_j + epsilon )       within the group, population std, no whitening

The advantage of a group in which the channels agree has size 1. If they oppose each other, the numerator cancels and
the denominator does not, so such groups have small advantages. A missing reward adds 0, the mean of its group.

**Limits.** One channel: GRPO with the population's standard deviation. A reward on a much larger scale dominates.

**Failure cases.** A channel counts by its standard deviation, so a rarely met one has little influence: if a share q of
completions meets it, its std is sqrt(q (1 - q)) times its range. In the outside replication at 1.5B, 2 of 6 runs lost
the format (`docs/results/arena.md`).
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
class DVAO(Method):
    """``dvao``: centred rewards over the sum of their standard deviations, within the group.

    Attributes:
        epsilon: number added to the denominator, in units of the weighted rewards.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.DVAO())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.23, 0.62, 0.36, -1.2]
    """

    name: ClassVar[str] = "dvao"
    summary: ClassVar[str] = "sum of centred rewards over the sum of their standard deviations, within the group"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "DVAO: Dynamic Variance-adaptive Advantage Optimization for Multi-reward Reinforcement Learning",
        "2605.25604",
        "Guochao Jiang and Jingyi Song and Guofeng Quan and Chuzhan Hao and Guohua Liu and Yuewei Zhang",
        2026,
    )
    own_whiten: ClassVar[str] = "none"
    uses_z: ClassVar[bool] = False
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_positive("epsilon", self.epsilon)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Centre, sum and divide within each group."""
        deviation = deviations(batch.rewards, batch.scores, batch.groups)
        spread = batch.groups.broadcast(population_std(deviation, batch.scores, batch.groups))
        scale = (batch.weights * spread).sum(-1)
        aggregated = (batch.weights * deviation).sum(-1) / (scale + self.epsilon)
        return Outcome(aggregated, aggregate.normalised(batch.weights * spread * batch.scores.live))
