"""Lagrangian: GDPO under constraints, with dual variables that follow the run.

The rule runs after each batch. It takes the state of K persistent channels and statistics of the batch, and returns a
new state; nothing is changed in place. All tensors are (K,) float64, on one device. ``x`` and ``attained`` are attained
shares in [0, 1], see :mod:`rvpo.core.scales`. A channel that was not scored in a batch (NaN) keeps its state.

Maximise sum_j w_j a_j subject to a_j >= tau_j, where a_j is the expected attained share of channel j
under the policy theta::

    L(theta, lambda) = sum_j w_j a_j + sum_j lambda_j (a_j - tau_j)          max over theta, min over lambda >= 0
    dL/dtheta        = sum_j (w_j + lambda_j) da_j/dtheta                    so the channels weigh w + lambda
    -dL/dlambda_j    = tau_j - a_j                                           so lambda_j rises while a_j falls short
    lambda_j        <- clip(lambda_j + eta (tau_j - a_j), 0, lambda_max)

If attained shares are summed with weights w + lambda before they are normalised, the policy gradient is that of L, up
to one factor per group. With z-scores, channel j weighs (w_j + lambda_j) / std_j. Minimising completely over
0 <= lambda <= lambda_max leaves sum_j w_j a_j - lambda_max sum_j relu(tau_j - a_j): a threshold that cannot be reached
costs a bounded penalty. Dual steps in policy gradients: Tessler et al. 2018, arXiv 1805.11074.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import check_lengths, require_known, require_number, require_positive
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.metrics import MULTIPLIER
from rvpo.errors import ConfigError


@dataclass(frozen=True)
class Lagrangian(Method):
    """``lagrangian``: GDPO with channels constrained to thresholds by dual variables.

    Attributes:
        thresholds: name of a channel -> attained share in [0, 1] that it must reach. Other channels are objectives.
        rate: increase of a dual variable per batch and unit of shortfall, > 0.
        ceiling: largest dual variable, > 0.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.Lagrangian({"0": 0.9}), state={})
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.57, 0.68, 0.22, -1.47]
    """

    name: ClassVar[str] = "lagrangian"
    summary: ClassVar[str] = "GDPO with channels held at thresholds by dual variables"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "Reward Constrained Policy Optimization", "1805.11074", "Tessler and others", 2018
    )
    own_dead_channels: ClassVar[str] = "keep"
    thresholds: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.5
    ceiling: float = 10.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        if not isinstance(self.thresholds, Mapping) or not self.thresholds:
            raise ConfigError(
                f"thresholds is {self.thresholds!r}; expected a mapping of channels to the share in [0, 1] that each "
                "must reach, such as lagrangian:thresholds={format:0.9}"
            )
        for name, threshold in self.thresholds.items():
            require_number(f"thresholds: {name}", threshold, 1, closed=True)
        require_positive("rate", self.rate)
        require_positive("ceiling", self.ceiling)

    @property
    def remembers(self) -> bool:
        """Dual variables follow the run."""
        return True

    @property
    def traits(self) -> tuple[str, ...]:
        """All rows share weights that depend on the whole batch."""
        return ("shared-weights",)

    @property
    def names_channels(self) -> tuple[str, ...]:
        """Names of the constrained channels."""
        return tuple(self.thresholds)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Move the dual variables by this batch, then weight its channels by them."""
        names = batch.channels.names
        if batch.channels.index.ndim == 1:  # with rubrics, a name may be absent from a batch
            require_known("thresholds", self.thresholds, names)
        before = batch.channels.by_name(state.get("multipliers", {}), 0.0)
        after = move_multipliers(
            before,
            batch.means(batch.attained).cpu().double(),
            batch.channels.by_name(self.thresholds, torch.nan),
            rate=self.rate,
            ceiling=self.ceiling,
        )
        # Dual variables are in units of a channel's weight, so they are added to it.
        extra = batch.channels.broadcast(after.to(batch.weights)) * (batch.weights > 0)
        p = aggregate.normalised((batch.weights + extra) * batch.present)
        kept = {**state.get("multipliers", {}), **dict(zip(names, after.tolist(), strict=True))}
        metrics = {f"{name}/{MULTIPLIER}": kept[name] for name in self.thresholds if name in kept}
        return Outcome(*aggregate.mean(batch.z, p), state={"multipliers": kept}, metrics=metrics)


def move_multipliers(
    multipliers: Tensor, attained: Tensor, thresholds: Tensor, *, rate: float, ceiling: float
) -> Tensor:
    """Move the dual variables one step. The weights of the channels are then ``w`` plus the result.

    Args:
        multipliers: (K,) dual variables before this batch, in units of the channel weights; they start at 0.
        attained: (K,) mean attained share of each channel over the batch, NaN = not scored.
        thresholds: (K,) required share, NaN = an objective without constraint.
        rate: eta > 0, in weight per unit of attained share and batch.
        ceiling: lambda_max > 0, the largest multiplier.

    Raises:
        RewardError: the three tensors do not have the same length.
    """
    check_lengths(multipliers=multipliers, attained=attained, thresholds=thresholds)
    shortfall = thresholds - attained
    step = rate * shortfall.masked_fill(shortfall.isnan(), 0.0)
    return (multipliers + step).clamp(0.0, ceiling)
