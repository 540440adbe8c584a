"""GDPO: the weighted mean of z-scores, arXiv 2601.05242.

::

    A = sum_j p_j Z_j        p: shares of the weights

Each channel is normalised within its group before the sum, so channels of different scale count the same. The limit
k -> 0 of RVPO.

**Missing rewards.** ``unscored="left_out"``, the default, takes the mean over the channels that were scored.
``unscored="zero"`` is TRL's ``normalize_then_sum``: the sum of w_j Z_j, to which a missing reward adds 0, which is the
mean of its group. Without missing values the whitened advantages are the same.

**Failure case.** A surplus on one channel pays for a failure on another; channel j falls wherever its
row of the correlation matrix of the z-scores sums to less than 0.
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
        unscored: what a missing reward does: ``"left_out"``, the mean is over the others; ``"zero"``, it counts as the
            mean of its group, as in TRL.
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
        """A sum if missing rewards count, because a mean would depend on how many there are."""
        return self.unscored == "zero"

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.mean`."""
        if self.unscored == "left_out":
            return Outcome(*aggregate.mean(batch.z, batch.p))
        return Outcome((batch.weights * batch.z).sum(-1), batch.p, batch.present.any(-1))
