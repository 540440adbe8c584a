"""VeRPO: unit tests weighed by how hard and how rare they are, arXiv 2601.03525.

For channels that are met or not, such as unit tests, with pass rate rho_j in the group::

    c_j      = exp(-alpha rho_j)                                         hard tests count more
    d_j      = sum_i exp( -(rho_j - rho_i)^2 / (2 sigma^2) )              sigma = max(std(rho) / 2, 1e-3)
    c'_j     = c_j / (d_j + 1e-6)                                        ten tests of one pass rate count once
    turn     = sum_j w_j c'_j R_j
    outcome  = discount * 1[every test passes]
    A        = (outcome - mean) + beta (turn - mean)                     within the group, not divided, no whitening

R is the attained share, so graded channels can take part; they pass if they are fully attained. ``discount`` is the
authors' factor for one turn. In ``turn`` a missing reward adds 0, the mean of its group. If tests are missing and all
others pass, it is unknown whether all pass, and ``outcome`` adds 0, too.

**Limits.** alpha = 0 and one pass rate: the share of tests passed, plus the outcome.

**Failure cases.** Tests are compared only by pass rate, so two different tests of equal difficulty count as one. For
rewards that are not tests, and cannot all be met, the outcome has no effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require_number
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome, Paper

EPS = 1e-6  # the authors' value, added to the density
NARROWEST = 1e-3  # sigma
PASSED = 1 - 1e-6  # attained share from which a channel is met


@dataclass(frozen=True)
class VeRPO(Method):
    """``verpo``: tests weighed by difficulty and by how many share it, plus whether all pass.

    Attributes:
        alpha: how much more hard tests count, >= 0.
        beta: weight of the tests relative to the outcome, >= 0.
        discount: factor of the outcome for one turn, in [0, 1].

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.VeRPO())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.07, 0.17, 0.09, -0.33]
    """

    name: ClassVar[str] = "verpo"
    summary: ClassVar[str] = "tests weighed by how hard and how rare they are, plus whether all pass"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "VeRPO: Verifiable Dense Reward Policy Optimization for Code Generation",
        "2601.03525",
        "Longwen Wang and Xuan'er Wu and Xiaohui Hu and Yirui Liu and Yuankai Fan and others",
        2026,
    )
    own_whiten: ClassVar[str] = "none"
    largest_reward: ClassVar[float] = 1e300  # it compares shares of a scale
    uses_z: ClassVar[bool] = False
    alpha: float = 2.0
    beta: float = 1.0
    discount: float = 0.995

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_number("alpha", self.alpha, math.inf)
        require_number("beta", self.beta, math.inf)
        require_number("discount", self.discount, 1, closed=True)

    @property
    def traits(self) -> tuple[str, ...]:
        """It reads levels of rewards: pass rates, and whether all pass."""
        return ("levels",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Weight the tests of each group, then add the outcome."""
        groups, w = batch.groups, batch.weights
        x = batch.attained
        scored = ~x.isnan()
        count = groups.sum(scored.to(x.dtype))
        rate = groups.sum(x.masked_fill(~scored, 0.0)) / count.clamp(min=1)  # (P, M) rho
        counted = self._weights(rate, count > 0)  # (P, M) c'
        shares = w * groups.broadcast(counted)
        turn = (shares * (x - groups.broadcast(rate)).masked_fill(~scored, 0.0)).sum(-1)
        aggregated = self._outcome(x, scored & (w > 0), batch) + self.beta * turn
        spread = groups.broadcast(batch.scores.std) * batch.scores.live
        return Outcome(aggregated, aggregate.normalised(shares * spread))

    def _weights(self, rate: Tensor, there: Tensor) -> Tensor:
        """Return c' of each channel of each group, (P, M); 0 where nothing was scored."""
        number = there.sum(-1, keepdim=True).clamp(min=1)
        mean = rate.masked_fill(~there, 0.0).sum(-1, keepdim=True) / number
        variance = (rate - mean).masked_fill(~there, 0.0).square().sum(-1, keepdim=True) / number
        sigma = (variance.sqrt() / 2).clamp(min=NARROWEST)[:, :, None]
        near = torch.exp(-(rate[:, :, None] - rate[:, None, :]).square() / (2 * sigma.square()))
        density = (near * there[:, None, :]).sum(-1)
        return (torch.exp(-self.alpha * rate) / (density + EPS)).masked_fill(~there, 0.0)

    def _outcome(self, x: Tensor, read: Tensor, batch: Batch) -> Tensor:
        """Return whether all channels pass, centred within the group, (N,); 0 if unknown."""
        fails = (read & (x < PASSED)).any(-1)
        known = fails | ~(batch.scores.missing & (batch.weights > 0) & _asked(batch)).any(-1)
        known &= read.any(-1)
        passes = (known & ~fails).to(x.dtype)[:, None]
        number = batch.groups.sum(known.to(x.dtype)[:, None]).clamp(min=1)
        mean = batch.groups.broadcast(batch.groups.sum(passes) / number)
        return self.discount * (passes - mean)[:, 0].masked_fill(~known, 0.0)


def _asked(batch: Batch) -> Tensor:
    """Return a mask (N, M) of the cells whose channel has a score in the group."""
    scored = (~batch.scores.missing).to(batch.weights.dtype)
    return batch.groups.broadcast(batch.groups.max(scored)) > 0
