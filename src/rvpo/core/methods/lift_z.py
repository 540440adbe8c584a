"""LIFT in units of z-scores: the first form of :mod:`rvpo.core.methods.lift`, kept for old runs and for comparison.

Older records and texts call it ``lift``; replay reads them as ``lift_z``. Use ``lift`` for new runs: its guarantee also
holds if rewards exclude each other, and that of this rule does not.

A soft minimum over the z-scores of one completion (RVPO) guards channels that are mostly met and suppresses channels
that are rarely met, because in units of a group's spread a rare success is an outlier and a common failure is not. LIFT
takes the minimum over how far each channel is met *in expectation*, and then prevents that other channels fall.

With a_j in [0, 1] the attained share of channel j (its mean reward on its declared scale, a running mean over batches),
Z_j its group z-score and C = mean over completions of Z Z^T (a running mean as well)::

    lambda_j proportional to w_j exp(-kappa a_j)                     need: large for channels that are met least
    mu       = the argmin below, so that (C (lambda + mu))_j >= m_j  guard: for channels that would fall
    A(g)     = sum_j (lambda_j + mu_j) Z_j(g)

In the code the weights are in u_j = p_j Z_j, where p are the shares of a completion: C = mean u u^T and A = sum_j
(need_j + mu_j) u_j. There need_j is lambda_j / p_j, and ``mu`` contains mu_j / p_j. That is the same if p is constant,
and allows rubrics that differ from prompt to prompt. The logged weight is need_j + mu_j.

**What it maximises.** lambda is the gradient, by a, of the soft minimum -(1/kappa) ln sum_j w_j exp(-kappa a_j): the
entropic worst case over channels, within ln(M)/kappa of the lowest a_j. kappa -> 0 is GDPO's mean, kappa -> inf raises
only the lowest channel.

**What it forbids.** Tilting the policy by its advantage, pi' ~ pi exp(step * A), changes the mean of channel j at the
rate Cov(A, R_j) within groups, that is (C (lambda + mu))_j in units of the channel's spread. GDPO lowers channel j
exactly if its row of C sums to less than 0, for example if ten channels disagree with it. A is the projection of
lambda's advantage onto those that lower no channel, by more than a margin m_j = margin * rms(A_lambda) * rms(Z_j)::

    min over A of  mean (A - A_lambda)^2 / 2   subject to  mean A Z_j >= m_j     =>  A = Z (lambda + mu), with
    mu = argmin over mu >= 0 of  mu^T C mu / 2 + mu^T (C lambda - m)

A cone always contains 0, so without a margin there is a solution. Margins that cannot be met, for channels that are
opposites, are limited by a ridge on the diagonal of C.

**No signal.** A channel that is dead in every group has a row of zeros in C and no part in the constraint.

The rule is ours. Its parts are known: entropic worst case over tasks (group DRO, arXiv 1911.08731), and projection onto
directions that lower no objective (MGDA, Desideri 2012; GEM, arXiv 1706.08840), here M by M, on rewards instead of
gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require_horizon, require_number
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome
from rvpo.core.metrics import WEIGHT
from rvpo.core.nonnegative import least_nonnegative
from rvpo.core.running_mean import RunningMean
from rvpo.errors import ConfigError

RIDGE = 0.02  # as a share of each channel's own variance


@dataclass(frozen=True)
class LIFTZ(Method):
    """``lift_z``: the first version of LIFT, in units of z-scores.

    Attributes:
        kappa: how much more the channel that is met least counts, >= 0: a channel met 1/kappa less often weighs e times
            as much.
        margin: how far above 0 the advantage's correlation with every channel is kept, in [-1, 1). With -1 there is no
            guard, and the weights are the needs.
        horizon: number of batches over which attained shares and correlations are averaged, >= 1.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.LIFTZ(), state={})
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.55, 0.69, 0.24, -1.47]
    """

    name: ClassVar[str] = "lift_z"
    summary: ClassVar[str] = "the first form of lift, in units of z-scores, for old runs and comparison"
    by_sums: ClassVar[bool] = True
    own_dead_channels: ClassVar[str] = "keep"
    kappa: float = 6.0
    margin: float = 0.2
    horizon: float = 5.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_number("kappa", self.kappa, math.inf)
        if isinstance(self.margin, bool) or not isinstance(self.margin, (int, float)) or not -1 <= self.margin < 1:
            raise ConfigError(
                f"margin is {self.margin!r}; expected a correlation in [-1, 1). 0 lets no channel fall, -1 lets all"
            )
        require_horizon(self.horizon)

    @property
    def remembers(self) -> bool:
        """Attained shares and correlations are means over batches."""
        return True

    @property
    def traits(self) -> tuple[str, ...]:
        """All rows share weights that depend on the whole batch."""
        return ("shared-weights",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Update the running means with this batch, then weight its channels by them."""
        channels, names, p = batch.channels, batch.channels.names, batch.p
        # Statistics of this batch per channel.
        attained_now = batch.means(batch.attained)  # (K,)
        u, shares = channels.pool(p * batch.z), channels.pool(p)  # (N, K) each
        takes_part = (batch.scores.live & (p > 0)).any(-1)
        products, taking, completions, mean_shares, with_share, moving = batch.shards.sum(
            u.T @ u,
            takes_part.sum(),
            torch.tensor(len(p)),
            shares.sum(0),
            (shares > 0).sum(0),
            (u != 0).sum(0),
        )
        together = (with_share > 0) & (taking > 0)
        covariance_now = (products / taking.clamp(min=1)).masked_fill(~(together[:, None] & together), torch.nan)
        # Running means, including this batch.
        attained = RunningMean.from_state(state.get("attained"), 1).update(names, attained_now, self.horizon)
        moments = RunningMean.from_state(state.get("covariance"), 2).update(names, covariance_now, self.horizon)
        a, c = attained.mean(names), moments.mean(names).nan_to_num(nan=0.0)
        new_state = {"attained": attained.to_state(), "covariance": moments.to_state()}
        # lambda and mu, then A.
        here = together.cpu().double()
        need = needs(a, (mean_shares / completions).cpu().double(), self.kappa)
        mu = payers(c * here[:, None] * here, need, self.margin)
        # A channel that is dead in this batch has only its decayed past in C, which would give a huge mu. Its z is 0.
        weights = need + mu * (moving > 0).cpu()
        factor = weights.to(p)[channels.index]  # factor of each cell
        return Outcome(
            (p * factor * batch.z).sum(-1),
            # A dead channel decides nothing, even if it is met least.
            aggregate.normalised(p * factor * batch.scores.live),
            takes_part,
            state=new_state,
            metrics={f"{name}/{WEIGHT}": weight for name, weight in zip(names, weights.tolist(), strict=True)},
        )


def needs(attained: Tensor, weights: Tensor, kappa: float) -> Tensor:
    """Return lambda (K,), scaled so that its mean under ``weights`` is 1.

    Args:
        attained: (K,) running attained shares in [0, 1]; NaN = never scored, whose need is the average.
        weights: (K,) importance, >= 0, not all 0.
        kappa: option of the method, >= 0.
    """
    seen = ~attained.isnan()
    counts = seen & (weights > 0)
    lowest = attained[counts].min() if bool(counts.any()) else 0.0
    need = torch.exp(-kappa * (attained - lowest).clamp(min=0))
    average = (weights * need)[seen].sum() / weights[seen].sum().clamp(min=torch.finfo(need.dtype).tiny)
    return torch.where(seen & (average > 0), need / average, 1.0)


def payers(covariance: Tensor, need: Tensor, margin: float) -> Tensor:
    """Return mu (K,), which is added to ``need`` so that no channel falls.

    Args:
        covariance: (K, K) mean of u u^T, where u is a completion's z-scores times the shares of their channels.
        need: (K,) lambda.
        margin: m_j in units of rms(A_lambda) rms(Z_j): 0 lets no channel fall, a larger value makes all rise a little.
    """
    variance = covariance.diagonal()
    rms = (need @ covariance @ need).clamp(min=0).sqrt()
    falls = covariance @ need - margin * rms * variance.sqrt()
    mu = torch.zeros_like(need)
    alive = (variance > 0).nonzero()[:, 0]
    # In units of each channel's spread, a channel that has almost decayed from C is as well determined as the others.
    spread = variance[alive].sqrt()
    ridged = covariance[alive][:, alive] / spread / spread[:, None] + RIDGE * torch.eye(len(alive)).to(covariance)
    mu[alive] = least_nonnegative(ridged, falls[alive] / spread) / spread
    return mu
