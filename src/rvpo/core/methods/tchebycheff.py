"""Tchebycheff scalarisations: the distance from the ideal of the channel that is furthest from it.

These are the classic alternatives to a weighted sum. Each rule takes the attained shares ``x`` (N, M) (rewards on their
scales in [0, 1], so that 1 is the ideal point) and the channel shares ``p`` (N, M), as in :mod:`rvpo.core.aggregate`.
It returns the value (N,), in units of x, and the responsibilities (N, M). The value is used like GRPO's weighted sum:
it is normalised within the group afterwards. M' is the number of channels that take part in the row (p_j > 0), and
D_j = M' p_j (1 - x_j) is the distance to the ideal, which is 1 - x_j for equal weights::

    augmented Tchebycheff   S = -( max_j D_j + rho * sum_j p_j (1 - x_j) )        rho = 0: plain Tchebycheff
    smooth Tchebycheff      S = -mu ln( sum_j exp(D_j / mu) )                     mu -> 0: plain Tchebycheff

Augmented: Steuer and Choo 1983; a rho of 0.05 is usual (ParEGO, Knowles 2006), and as rho -> inf completions are
ordered as by the weighted sum. Smooth: Lin et al. 2024, arXiv 2402.19078. It lies in [plain - mu ln M', plain], and as
mu -> inf, S + mu ln M' becomes the weighted sum -sum_j p_j (1 - x_j).

For x in [0, 1] values are at most 0 and do not fall when a channel rises. If all channels are fully attained, they are
0 (augmented) and -mu ln M' (smooth). For the augmented rule dS/dx_j is p_j (M' t_j + rho), where t are the shares of
the channels tied for the maximum. For the smooth rule it is M' p_j t_j, where t = softmax(D / mu). The responsibilities
are dS/dx scaled to a sum of 1. A channel with p = 0 is ignored, even if its value is NaN. A row whose shares are all 0
has value 0 and responsibilities 0.

Rows of a group are comparable only if the same channels take part, because a channel that is left out has no distance,
and mu ln M' depends on their number. So a missing x must be filled, for instance with its group's mean, not left out.
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
from rvpo.errors import ConfigError


@dataclass(frozen=True)
class Tchebycheff(Method):
    """``tchebycheff``: distance of the channel that is furthest from its ideal.

    Attributes:
        rho: weight of the augmenting sum, >= 0; 0 is the plain rule.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.Tchebycheff())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [-0.27, 1.28, 0.12, -1.13]
    """

    name: ClassVar[str] = "tchebycheff"
    summary: ClassVar[str] = "distance of the channel that falls furthest short of its range's top"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "An interactive weighted Tchebycheff procedure for multiple objective programming",
        authors="Ralph E. Steuer and Eng-Ung Choo",
        year=1983,
    )
    own_whiten: ClassVar[str] = "group"
    own_dead_channels: ClassVar[str] = "keep"
    largest_reward: ClassVar[float] = 1e300  # it compares shares of a scale
    uses_z: ClassVar[bool] = False
    rho: float = 0.05

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_number("rho", self.rho, math.inf)

    @property
    def traits(self) -> tuple[str, ...]:
        """It compares levels of rewards, not only their order within a group."""
        return ("levels",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Score every completion by :func:`tchebycheff`."""
        x, p = _shortfalls(batch)
        return _of_scale(batch, p, tchebycheff(x, p, self.rho))


@dataclass(frozen=True)
class SmoothTchebycheff(Method):
    """``smooth_tchebycheff``: its smooth form, arXiv 2402.19078.

    Attributes:
        mu: temperature in units of attained share, > 0.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.SmoothTchebycheff())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [-0.25, 1.27, 0.13, -1.14]
    """

    name: ClassVar[str] = "smooth_tchebycheff"
    summary: ClassVar[str] = "the smooth form of tchebycheff"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", "2402.19078", "Lin and others", 2024
    )
    own_whiten: ClassVar[str] = "group"
    own_dead_channels: ClassVar[str] = "keep"
    largest_reward: ClassVar[float] = 1e300  # it compares shares of a scale
    uses_z: ClassVar[bool] = False
    mu: float = 0.1

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require_number("mu", self.mu, math.inf)
        if self.mu == 0:
            raise ConfigError("mu is 0; expected a number above 0. Its limit is tchebycheff:rho=0")

    @property
    def traits(self) -> tuple[str, ...]:
        """It compares levels of rewards, not only their order within a group."""
        return ("levels",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Score every completion by :func:`smooth_tchebycheff`."""
        x, p = _shortfalls(batch)
        return _of_scale(batch, p, smooth_tchebycheff(x, p, self.mu))


def _shortfalls(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return attained shares (N, M) and the shares of the channels (N, M) for a scalarisation.

    A missing attained share is filled with its group's mean.
    """
    x = batch.attained
    scored = (~x.isnan()).to(x.dtype)
    count = batch.groups.sum(scored)
    mean = batch.groups.broadcast(batch.groups.sum(x.nan_to_num(nan=0.0)) / count.clamp(min=1))
    p = aggregate.normalised(batch.weights * batch.groups.broadcast((count > 0).to(scored.dtype)))
    return torch.where(scored > 0, x, mean), p


def _of_scale(batch: Batch, p: Tensor, rule: tuple[Tensor, Tensor]) -> Outcome:
    """Return the outcome of a scalarisation. In units of z, a channel counts by its spread."""
    value, responsibilities = rule
    std = batch.groups.broadcast(batch.scores.std) * batch.scores.live
    low, high = batch.scales.frames.to(p).unbind(1)
    # The scale of a reward that never changed has no width, so it cannot turn a spread into attained shares.
    width = batch.channels.broadcast(torch.where(high > low, high - low, torch.inf))
    takes_part = ((batch.weights > 0) & ~batch.scores.missing).any(-1)
    return Outcome(value, aggregate.normalised(responsibilities * std / width), takes_part)


def tchebycheff(x: Tensor, p: Tensor, rho: float) -> tuple[Tensor, Tensor]:
    """Return augmented Tchebycheff, ``rho`` in [0, inf). Channels tied for the maximum decide in proportion to p."""
    shortfall, distance, equal, count = _distances(x, p)
    worst, tied = aggregate.hard_min(-distance, equal)
    return worst - rho * (p * shortfall).sum(-1), aggregate.normalised(p * (count * tied + rho))


def smooth_tchebycheff(x: Tensor, p: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    """Return smooth Tchebycheff with temperature ``mu`` in (0, inf), in units of x; 1e-6 to 1e3 are tested.

    It is the soft minimum of -D with k = 1/mu and equal shares 1/M', minus mu ln M'. That offset is Lin et al.'s. It is
    the same for all rows with M' channels.
    """
    _, distance, equal, count = _distances(x, p)
    softened, decides = aggregate.soft_min(-distance, equal, 1 / mu)
    return softened - mu * count[:, 0].clamp(min=1).log(), aggregate.normalised(p * decides)


def _distances(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return 1 - x (N, M), its weighted form D (N, M), equal shares (N, M) and M' (N, 1); 0 where p = 0."""
    takes_part = p > 0
    count = takes_part.sum(-1, keepdim=True).to(x.dtype)
    shortfall = (1 - x).masked_fill(~takes_part, 0.0)
    return shortfall, count * p * shortfall, aggregate.normalised(takes_part.to(x.dtype)), count
