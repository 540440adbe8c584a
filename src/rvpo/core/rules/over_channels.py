"""Rules over the channels of one completion that need no memory: RVPO, its limits and what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rvpo.core import aggregate, scalarise
from rvpo.core.adaptive import AdaptiveK, next_k
from rvpo.core.channels import State
from rvpo.core.checks import build, require_number
from rvpo.core.rules.base import Batch, Defaults, Outcome, of_z
from rvpo.errors import ConfigError


@dataclass(frozen=True)
class SoftMin:
    """``"rvpo"``: the soft minimum over z-scores.

    Attributes:
        k: risk coefficient in [0, inf], or an :class:`AdaptiveK`, by which it sets itself.
    """

    whiten: ClassVar[str] = "batch"
    dead_channels: ClassVar[str] = "drop"
    uses_z: ClassVar[bool] = True
    names_channels: ClassVar[tuple[str, ...]] = ()
    k: float | AdaptiveK = 1.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if isinstance(self.k, Mapping):  # of the options of an AdaptiveK, as asdict gives them
            object.__setattr__(self, "k", build(AdaptiveK, self.k, "adaptive k"))
        if not isinstance(self.k, AdaptiveK):
            require_number("k", self.k, math.inf, closed=True)

    @property
    def risk(self) -> float:
        """K; for one that sets itself the usual 1."""
        return 1.0 if isinstance(self.k, AdaptiveK) else self.k

    @property
    def remembers(self) -> bool:
        """Whether k sets itself."""
        return isinstance(self.k, AdaptiveK)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.soft_min`; an adaptive k remembers its logarithm."""
        p = batch.shares()
        if not isinstance(self.k, AdaptiveK):
            return of_z(p, aggregate.soft_min(batch.z, p, self.k), metrics={"k": self.k})
        k, log_k, reached = next_k(batch.z, p, self.k, state.get("log_k"))
        metrics = {"k": k, f"k_{self.k.measure}": reached}
        return of_z(p, aggregate.soft_min(batch.z, p, k), {"log_k": log_k}, metrics)


@dataclass(frozen=True)
class Explicit(Defaults):
    """``"rvpo_explicit"``: mean minus variance.

    Attributes:
        beta: penalty, >= 0; to second order ``beta = k / 2``.
    """

    dead_channels: ClassVar[str] = "drop"
    beta: float = 0.5

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        require_number("beta", self.beta, math.inf)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.explicit`."""
        p = batch.shares()
        return of_z(p, aggregate.explicit(batch.z, p, self.beta))


@dataclass(frozen=True)
class HardMin(Defaults):
    """``"hard_min"``: the lowest z-score."""

    dead_channels: ClassVar[str] = "drop"
    risk: ClassVar[float] = math.inf

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.hard_min`."""
        p = batch.shares()
        return of_z(p, aggregate.hard_min(batch.z, p))


@dataclass(frozen=True)
class Mean(Defaults):
    """``"gdpo"``: the weighted mean of z-scores, arXiv 2601.05242."""

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.aggregate.mean`."""
        p = batch.shares()
        return of_z(p, aggregate.mean(batch.z, p))


@dataclass(frozen=True)
class WeightedSum(Defaults):
    """``"grpo"``: the weighted sum of raw rewards, normalised within the group."""

    whiten: ClassVar[str] = "group"
    uses_z: ClassVar[bool] = False

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Sum around the group's means. In units of z a channel counts by its standard deviation.

        A missing reward must not count as 0: the deviations that were scored stand in for the others by weight.
        Without missing values this is the plain sum.
        """
        w, scores, groups = batch.weights, batch.scores, batch.groups
        mean = groups.spread(scores.mean)
        scored = w * ~scores.missing
        # A channel that nobody in the group was scored on has no mean: it is no part of this group's sum.
        applies = w * groups.spread(groups.max((~scores.missing).to(w.dtype)))
        deviation = (scored * (batch.rewards - mean).masked_fill(scores.missing, 0.0)).sum(-1)
        scored_total = scored.sum(-1)
        stand_in = applies.sum(-1) / scored_total.masked_fill(scored_total == 0, 1.0)
        total = ((applies * mean).sum(-1) + stand_in * deviation).masked_fill(scored_total == 0, 0.0)
        shares = w * groups.spread(scores.std) * scores.live
        return Outcome(total, aggregate.normalised(shares), (batch.shares() > 0).any(-1))


@dataclass(frozen=True)
class Tchebycheff(Defaults):
    """``"tchebycheff"``: distance of the channel that falls shortest. See :mod:`rvpo.core.scalarise`.

    Attributes:
        rho: weight of the augmenting sum, >= 0; 0 is the plain rule.
    """

    whiten: ClassVar[str] = "group"
    uses_z: ClassVar[bool] = False
    rho: float = 0.05

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        require_number("rho", self.rho, math.inf)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.scalarise.tchebycheff`."""
        x, p = _shortfalls(batch)
        return _of_scale(batch, p, scalarise.tchebycheff(x, p, self.rho))


@dataclass(frozen=True)
class SmoothTchebycheff(Defaults):
    """``"smooth_tchebycheff"``: its smooth form, arXiv 2402.19078. See :mod:`rvpo.core.scalarise`.

    Attributes:
        mu: temperature in units of attained share, > 0.
    """

    whiten: ClassVar[str] = "group"
    uses_z: ClassVar[bool] = False
    mu: float = 0.1

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        require_number("mu", self.mu, math.inf)
        if self.mu == 0:
            raise ConfigError("mu is 0, allowed is a number above 0: method 'tchebycheff' with rho=0 is its limit")

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """See :func:`rvpo.core.scalarise.smooth_tchebycheff`."""
        x, p = _shortfalls(batch)
        return _of_scale(batch, p, scalarise.smooth_tchebycheff(x, p, self.mu))


def _shortfalls(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return attained shares (N, M) and the shares of the channels (N, M) for a scalarisation.

    A channel that is left out cannot fall short, so a missing one is filled with its group's mean.
    """
    x = batch.attained
    scored = (~x.isnan()).to(x.dtype)
    count = batch.groups.sum(scored)
    mean = batch.groups.spread(batch.groups.sum(x.nan_to_num(nan=0.0)) / count.clamp(min=1))
    p = aggregate.normalised(batch.weights * batch.groups.spread((count > 0).to(scored.dtype)))
    return torch.where(scored > 0, x, mean), p


def _of_scale(batch: Batch, p: Tensor, rule: tuple[Tensor, Tensor]) -> Outcome:
    """Complete a scalarisation: in units of z a channel counts by its spread."""
    value, responsibilities = rule
    std = batch.groups.spread(batch.scores.std) * batch.scores.live
    low_high = torch.tensor([limits or (0.0, 1.0) for limits in batch.channels.ranges], dtype=p.dtype)
    width = batch.channels.spread((low_high[:, 1] - low_high[:, 0]).to(p.device))
    takes_part = ((batch.weights > 0) & ~batch.scores.missing).any(-1)
    return Outcome(value, aggregate.normalised(responsibilities * std / width), takes_part)
