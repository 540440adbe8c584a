"""SA-MRPO: channels count by what they still lack, arXiv 2608.16072.

::

    a_j = mean attained share of channel j over the batch, in [0, 1] on its declared range
    A   = sum_j w_j (1 - a_j)^gamma Z_j

The published rule that is closest to LIFT: it has the need, but no guard. The rule has no state. A missing reward adds
0, the mean of its group.

**Limits.** gamma = 0: GDPO. A channel that is met everywhere has weight 0.

**Failure cases.** A met channel is not protected: its weight is near 0, so the step follows other channels that oppose
it, and its weight rises only after it has been lost. The authors say that there is no guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require_number
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.metrics import WEIGHT


@dataclass(frozen=True)
class SAMRPO(Method):
    """``sa_mrpo``: z-scores weighed by what their channel still lacks.

    Attributes:
        gamma: power of the missing share, >= 0.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.SAMRPO())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.46, 0.71, 0.3, -1.48]
    """

    name: ClassVar[str] = "sa_mrpo"
    summary: ClassVar[str] = "sum of z-scores weighed by what each channel still lacks"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper("SA-MRPO", "2608.16072", year=2026)
    own_dead_channels: ClassVar[str] = "keep"
    sums_weights: ClassVar[bool] = True
    gamma: float = 0.5

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_number("gamma", self.gamma, math.inf)

    @property
    def traits(self) -> tuple[str, ...]:
        """It reads levels of rewards, and averages them over all groups."""
        return ("levels", "shared-weights")

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Weight each channel by the share that it lacks, then sum."""
        channels = batch.channels
        attained = batch.means(batch.attained)  # (K,), NaN where nothing was scored
        lacking = (1 - attained.nan_to_num(nan=1.0)).clamp(min=0.0) ** self.gamma
        shares = batch.weights * channels.broadcast(lacking.to(batch.weights)) * batch.present
        metrics = {f"{name}/{WEIGHT}": value for name, value in zip(channels.names, lacking.tolist(), strict=True)}
        takes_part = (batch.present & (batch.weights > 0)).any(-1)
        return Outcome((shares * batch.z).sum(-1), aggregate.normalised(shares), takes_part, metrics=metrics)
