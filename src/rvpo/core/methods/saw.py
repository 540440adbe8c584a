"""SAW: channels count by their coefficient of variation, arXiv 2606.07705.

::

    CV_j = std over the batch of R_j / (mean over the batch of R_j - low_j)      low_j: low end of the range
    c_j  = M CV_j / sum_i CV_i                                                   1 for all where every CV is 0
    A    = sum_j w_j c_j Z_j           of="gdpo": z-scores, whitened over the batch
    A    = sum_j w_j c_j R_j           of="grpo": rewards, normalised within the group

The rule has no state. A channel that is rarely met has a small mean, and so a large weight. M counts the scored
channels of weight above 0. A missing reward adds 0; for z-scores that is the mean of its group.

**Limits.** All CV equal: GDPO, or GRPO. A channel that is constant over the batch has weight 0.

**Failure cases.** A channel that is nearly always met has a CV near 0, and is not protected. If the low end of a range
is far below all actual rewards, the mean is large and the channel has little influence. A guessed range leads to a
guessed weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.metrics import WEIGHT

EPS = 1e-8  # the authors' value, in both denominators
OF = ("gdpo", "grpo")


@dataclass(frozen=True)
class SAW(Method):
    """``saw``: channels weighed by their coefficient of variation over the batch.

    Attributes:
        of: what is summed: ``"gdpo"`` sums z-scores, ``"grpo"`` sums rewards.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.SAW())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.31, 0.75, 0.41, -1.47]
    """

    name: ClassVar[str] = "saw"
    summary: ClassVar[str] = "sum of z-scores weighed by each channel's coefficient of variation"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper("SAW", "2606.07705", year=2026)
    own_dead_channels: ClassVar[str] = "keep"
    sums_weights: ClassVar[bool] = True
    of: str = "gdpo"

    def __post_init__(self) -> None:
        """Refuse impossible values. By default rewards are normalised within the group."""
        super().__post_init__()
        require("of", self.of, OF)
        if self.of == "grpo" and self.whiten is None:
            object.__setattr__(self, "whiten", "group")

    @property
    def uses_z(self) -> bool:  # type: ignore[override]
        """True if z-scores are summed."""
        return self.of == "gdpo"

    @property
    def traits(self) -> tuple[str, ...]:
        """It reads levels of rewards over all groups."""
        return ("levels", "shared-weights", *(("missing-as-0",) if self.of == "grpo" else ()))

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Measure how much each channel varies, then sum."""
        channels, w = batch.channels, batch.weights
        c = self._coefficients(batch)
        shares = w * channels.broadcast(c) * batch.present
        rewards = batch.rewards.masked_fill(batch.scores.missing, 0.0)
        summed = (shares * (batch.z if self.of == "gdpo" else rewards)).sum(-1)
        if self.of == "grpo":
            shares = shares * batch.groups.broadcast(batch.scores.std) * batch.scores.live
        metrics = {f"{name}/{WEIGHT}": value for name, value in zip(channels.names, c.tolist(), strict=True)}
        return Outcome(
            summed, aggregate.normalised(shares), (batch.present & (batch.weights > 0)).any(-1), metrics=metrics
        )

    def _coefficients(self, batch: Batch) -> Tensor:
        """Return c of each channel, (K,); 0 for channels that were not scored."""
        channels = batch.channels
        low = batch.scales.frames[:, 0].to(batch.rewards)
        read = batch.rewards.masked_fill(batch.weights == 0, torch.nan)
        shifted = (read - channels.broadcast(low)).clamp(min=0.0)
        (scored,) = batch.shards.sum(channels.total((~read.isnan()).to(read.dtype)))
        mean = batch.means(shifted)
        deviation = (shifted - channels.broadcast(mean)).masked_fill(read.isnan(), 0.0)
        (squares,) = batch.shards.sum(channels.total(deviation.square()))
        std = (squares / (scored - 1).clamp(min=1)).sqrt()
        cv = (std / (mean.abs() + EPS)).masked_fill(scored == 0, 0.0)
        counted = (scored > 0).to(cv.dtype)
        if not bool((cv > 0).any()):
            return counted
        return cv / (cv.sum() + EPS) * counted.sum()
