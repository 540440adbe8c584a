"""Rules that weigh channels by what they remember of the run: LIFT, constraints, covariance targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from rvpo.core import aggregate, lift, reweigh
from rvpo.core.channels import Running, State
from rvpo.core.checks import require_horizon, require_number, require_positive
from rvpo.core.rules.base import Batch, Defaults, Outcome, of_z
from rvpo.errors import ConfigError

MAX_WEIGHT = 1e100


@dataclass(frozen=True)
class Lift(Defaults):
    """``"lift"``: work on the channel that is furthest behind, and let none fall. See :mod:`rvpo.core.lift`.

    Attributes:
        kappa: how much more the furthest behind counts, >= 0: a channel met 1/kappa less often weighs e times as much.
        margin: how far above 0 the advantage's correlation with every channel is kept, in [-1, 1); -1 never binds, and
            leaves the weights of those behind alone.
        horizon: batches over which attained shares and correlations are averaged, >= 1.
    """

    remembers: ClassVar[bool] = True
    kappa: float = 6.0
    margin: float = 0.2
    horizon: float = 5.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        require_number("kappa", self.kappa, math.inf)
        if isinstance(self.margin, bool) or not isinstance(self.margin, (int, float)) or not -1 <= self.margin < 1:
            raise ConfigError(
                f"margin is {self.margin!r}, allowed is a correlation in [-1, 1): 0 lets no channel fall, -1 lets all"
            )
        require_horizon(self.horizon)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Update the running means with this batch, then weigh its channels by them."""
        names, channels, p = batch.channels.names, batch.channels, batch.shares()
        z = channels.pool(p * batch.z)  # (N, K)
        shares = channels.pool(p)
        takes_part = (batch.scores.live & (p > 0)).any(-1)
        rows = takes_part.sum().clamp(min=1)
        together = (shares > 0).any(0) & takes_part.any()
        covariance = (z.T @ z / rows).masked_fill(~(together[:, None] & together), torch.nan)
        attained = Running.from_state(state.get("attained"), 1).update(
            names, channels.mean(batch.attained), self.horizon
        )
        moments = Running.from_state(state.get("covariance"), 2).update(names, covariance, self.horizon)
        need = lift.needs(attained.mean(names), shares.mean(0).cpu().double(), self.kappa)
        here = together.cpu().double()
        mu = lift.payers(moments.mean(names).nan_to_num(nan=0.0) * here[:, None] * here, need, self.margin)
        # A channel that is dead in this batch has only its faded past in C, which would ask for a huge mu; its z is 0.
        weights = need + mu * (z != 0).any(0).cpu()
        factor = channels.spread(weights.to(p))
        return Outcome(
            (p * factor * batch.z).sum(-1),
            # A channel that is dead decides nothing, however far behind it is.
            aggregate.normalised(p * factor * batch.scores.live),
            takes_part,
            {"attained": attained.to_state(), "covariance": moments.to_state()},
            {f"{name}/weight": weight for name, weight in zip(names, weights.tolist(), strict=True)},
        )


@dataclass(frozen=True)
class Lagrangian:
    """``"lagrangian"``: GDPO with channels constrained to thresholds by dual variables. See :mod:`rvpo.core.reweigh`.

    Attributes:
        thresholds: name of a channel -> attained share in [0, 1] that it must reach; channels not named are objectives.
        rate: what a dual variable gains a batch for each unit of shortfall, > 0.
        ceiling: largest dual variable, > 0.
    """

    whiten: ClassVar[str] = "batch"
    dead_channels: ClassVar[str] = "keep"
    uses_z: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    risk: ClassVar[float] = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.5
    ceiling: float = 10.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not isinstance(self.thresholds, Mapping) or not self.thresholds:
            raise ConfigError(
                f"thresholds is {self.thresholds!r}, allowed is a mapping of channels to the share in [0, 1] that each "
                "must reach, such as {format: 0.9}"
            )
        for name, threshold in self.thresholds.items():
            require_number(f"thresholds: {name}", threshold, 1, closed=True)
        require_positive("rate", self.rate)
        require_positive("ceiling", self.ceiling)

    @property
    def names_channels(self) -> tuple[str, ...]:
        """The constrained ones."""
        return tuple(self.thresholds)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Move the dual variables by this batch, then weigh its channels by them."""
        names = batch.channels.names
        if batch.channels.index.ndim == 1:  # the same in every batch; else a name may only be absent from this one
            _require_known("thresholds", self.thresholds, names)
        before = _by_name(state.get("multipliers", {}), names, 0.0)
        after = reweigh.lagrangian(
            reweigh.LagrangianState(before),
            batch.channels.mean(batch.attained).cpu().double(),
            _by_name(self.thresholds, names, torch.nan),
            rate=self.rate,
            ceiling=self.ceiling,
        ).multipliers
        # Dual variables are in units of a channel's weight, so they are added, and not in proportion to it.
        extra = batch.channels.spread(after.to(batch.weights)) * (batch.weights > 0)
        p = aggregate.normalised((batch.weights + extra) * batch.present)
        kept = {**state.get("multipliers", {}), **dict(zip(names, after.tolist(), strict=True))}
        metrics = {f"{name}/multiplier": kept[name] for name in self.thresholds if name in kept}
        return of_z(p, aggregate.mean(batch.z, p), {"multipliers": kept}, metrics)


@dataclass(frozen=True)
class CTWA(Defaults):
    """``"ctwa"``: weights that rise where a channel's covariance with the advantage is too low, arXiv 2602.06869.

    That advantage is the weighted mean of z-scores at unit variance over the batch, whatever ``whiten`` says.

    Attributes:
        target: covariance of advantage and attained share demanded of every channel, >= 0.
        cap: mean attained share at which a channel needs no more weight, in [0, 1].
        rate: step of the logarithm of a weight for each unit of missing covariance, > 0.
        decay: share of the newest batch in the running covariance, in (0, 1].
    """

    remembers: ClassVar[bool] = True
    target: float = 0.1
    cap: float = 0.95
    rate: float = 0.05
    decay: float = 0.1

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        require_number("target", self.target, math.inf)
        require_number("cap", self.cap, 1, closed=True)
        require_positive("rate", self.rate)
        require_number("decay", self.decay, 1, closed=True)
        require_positive("decay", self.decay)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Weigh this batch by the weights from before it, then move them by what its advantages did."""
        names, channels = batch.channels.names, batch.channels
        before = _by_name(state.get("weights", {}), names, 1.0)
        p = batch.shares(channels.spread(before.to(batch.weights)))
        outcome = of_z(p, aggregate.mean(batch.z, p))
        # The covariance is that of the advantage: whitened as the configuration's default does, over the batch.
        a = outcome.aggregated
        counted = outcome.takes_part.to(a.dtype)
        centred = (a - (a * counted).sum() / counted.sum().clamp(min=1)) * counted
        a = centred / (centred.square().sum() / counted.sum().clamp(min=1)).sqrt().clamp(min=1e-12)
        scored = (~batch.attained.isnan()).to(a.dtype)
        x = channels.pool(batch.attained.nan_to_num(nan=0.0)) / channels.pool(scored)  # (N, K), NaN where missing
        moved = reweigh.ctwa(
            reweigh.CTWAState(before, _by_name(state.get("covariance", {}), names, torch.nan)),
            reweigh.group_covariance(a, x, batch.groups).cpu(),
            channels.mean(batch.attained).cpu().double(),
            torch.full_like(before, self.target),
            torch.full_like(before, self.cap),
            rate=self.rate,
            decay=self.decay,
        )
        weights = {**state.get("weights", {}), **dict(zip(names, moved.weights.tolist(), strict=True))}
        if (largest := max(weights.values())) > MAX_WEIGHT:  # only ratios matter, and they never fall
            weights = {name: weight / largest for name, weight in weights.items()}
        covariance = {name: c for name, c in zip(names, moved.covariance.tolist(), strict=True) if not math.isnan(c)}
        new = {
            "weights": weights,
            "covariance": {**state.get("covariance", {}), **covariance},
        }
        metrics = {f"{name}/weight": weight for name, weight in zip(names, before.tolist(), strict=True)}
        return Outcome(outcome.aggregated, outcome.responsibilities, outcome.takes_part, new, metrics)


def _by_name(values: Mapping[str, float], names: tuple[str, ...], missing: float) -> Tensor:
    return torch.tensor([values.get(name, missing) for name in names], dtype=torch.float64)


def _require_known(option: str, named: Mapping[str, float], names: tuple[str, ...]) -> None:
    if unknown := [name for name in named if name not in names]:
        raise ConfigError(f"{option} names the channel {unknown[0]!r}; the channels are {', '.join(names)}")
