"""GDPO: the weighted mean of z-scores, arXiv 2601.05242.

::

    A = sum_j p_j Z_j        p: shares of the weights

Each channel is normalised within its group before the sum, so channels of different scale count the same. The limit
k -> 0 of RVPO.

**Missing rewards.** ``unscored="left_out"``, the default, takes the mean over the channels that were scored.
``unscored="zero"`` is TRL's ``normalize_then_sum``: the sum of w_j Z_j, to which a missing reward adds 0, the mean of
its group. Without missing values the whitened advantages are the same.

**Failure case.** A surplus on one channel compensates a failure on another. Channel j falls if its row of the
correlation matrix of the z-scores sums to less than 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.methods.grpo import UNSCORED


@dataclass(frozen=True)
class GDPO(Method):
    """``gdpo``: the weighted mean of z-scores.

    Attributes:
        unscored: how a missing reward counts: ``"left_out"`` takes the mean over the others, ``"zero"`` counts it as
            the mean of its group, as in TRL.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.GDPO())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.45, 0.72, 0.31, -1.48]
    """

    name: ClassVar[str] = "gdpo"
    summary: ClassVar[str] = "weighted mean of z-scores"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization",
        "2601.05242",
        "Shih-Yang Liu and Xin Dong and Ximing Lu and Shizhe Diao and Peter Belcak and others",
        2026,
    )
    own_dead_channels: ClassVar[str] = "keep"
    unscored: str = "left_out"

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require("unscored", self.unscored, UNSCORED)

    @property
    def sums_weights(self) -> bool:  # type: ignore[override]
        """True if missing rewards count: a mean would depend on their number."""
        return self.unscored == "zero"

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.mean`."""
        if self.unscored == "left_out":
            return Outcome(*aggregate.mean(batch.z, batch.p))
        return Outcome((batch.weights * batch.z).sum(-1), batch.p, batch.present.any(-1))
