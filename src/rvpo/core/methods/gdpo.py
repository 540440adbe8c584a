"""GDPO: the weighted mean of z-scores, arXiv 2601.05242.

::

    A = sum_j p_j Z_j        p: shares of the weights

Each channel is normalised within its group before the sum, so channels of different scale count the same. The limit
k -> 0 of RVPO. **Failure case.** A surplus on one channel pays for a failure on another; channel j falls wherever its
row of the correlation matrix of the z-scores sums to less than 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.methods.base import Batch, Method, Outcome, Paper


@dataclass(frozen=True)
class GDPO(Method):
    """``gdpo``: the weighted mean of z-scores."""

    name: ClassVar[str] = "gdpo"
    summary: ClassVar[str] = "weighted mean of z-scores"
    paper: ClassVar[Paper | None] = Paper(
        "GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization",
        "2601.05242",
        "Shih-Yang Liu and Xin Dong and Ximing Lu and Shizhe Diao and Peter Belcak and others",
        2026,
    )
    own_dead_channels: ClassVar[str] = "keep"

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.mean`."""
        return Outcome(*aggregate.mean(batch.z, batch.p))
