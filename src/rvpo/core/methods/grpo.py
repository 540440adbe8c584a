"""GRPO: the weighted sum of raw rewards, normalised within the group, arXiv 2402.03300.

::

    S = sum_j w_j R_j        A = (S - mean of the group) / (std of the group + eps)

**Missing rewards.** A reward that was not scored must not count as 0: the deviations that were scored stand in for the
others by weight. Without missing values this is the plain sum. **Failure case.** A channel counts by its standard
deviation, so a reward on a small scale is ignored wherever another one differs within the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.errors import ConfigError


@dataclass(frozen=True)
class GRPO(Method):
    """``grpo``: the weighted sum of raw rewards, normalised within the group."""

    name: ClassVar[str] = "grpo"
    summary: ClassVar[str] = "weighted sum of raw rewards, normalised within the group"
    paper: ClassVar[Paper | None] = Paper(
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
        "2402.03300",
        "Zhihong Shao and Peiyi Wang and Qihao Zhu and Runxin Xu and Junxiao Song and others",
        2024,
    )
    own_whiten: ClassVar[str] = "group"
    own_dead_channels: ClassVar[str] = "keep"
    uses_z: ClassVar[bool] = False
    sums_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what would not be GRPO."""
        super().__post_init__()
        if self.whiten not in (None, "group") or self.dead_channels not in (None, "keep"):
            raise ConfigError(
                f"method 'grpo' with whiten={self.whiten!r} and dead_channels={self.dead_channels!r} is not GRPO, "
                "which normalises the sum of all rewards within the group; expected both unset. Use method 'gdpo'"
            )

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Sum around the group's means. In units of z a channel counts by its standard deviation."""
        w, scores, groups = batch.weights, batch.scores, batch.groups
        mean = groups.broadcast(scores.mean)
        scored = w * ~scores.missing
        # A channel that nobody in the group was scored on has no mean: it is no part of this group's sum.
        applies = w * groups.broadcast(groups.max((~scores.missing).to(w.dtype)))
        deviation = (scored * (batch.rewards - mean).masked_fill(scores.missing, 0.0)).sum(-1)
        scored_total = scored.sum(-1)
        stand_in = applies.sum(-1) / scored_total.masked_fill(scored_total == 0, 1.0)
        total = ((applies * mean).sum(-1) + stand_in * deviation).masked_fill(scored_total == 0, 0.0)
        shares = w * groups.broadcast(scores.std) * scores.live
        return Outcome(total, aggregate.normalised(shares), (batch.p > 0).any(-1))
