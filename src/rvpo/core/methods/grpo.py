"""GRPO: the weighted sum of raw rewards, normalised within the group, arXiv 2402.03300.

::

    S = sum_j w_j R_j        A = (S - mean of the group) / (std of the group + eps)      whiten=group, the default
                             A = (S - mean of the group) / (std of the batch + eps)      whiten=batch
                             A =  S - mean of the group                                  whiten=none, as Dr. GRPO

These are ``scale_rewards="group"``, ``"batch"`` and ``"none"`` of ``trl.GRPOConfig``. The std of the batch is that of
S, around the mean of all rows.

**Missing rewards.** ``unscored="zero"``, the default, equals TRL's trainer: a reward that was not scored adds nothing
to the sum, as if it were 0. A completion with a missing reward is then compared with completions that have it, and
looks worse (or better, if rewards are negative). ``unscored="left_out"`` does not count it: the deviations of the
scored rewards represent the others, by weight. Without missing values both are the plain sum. A completion without any
reward does not take part.

**Failure case.** A channel counts by its standard deviation, so a reward on a small scale is ignored if another one
differs within the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require
from rvpo.core.lazy import Tensor
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.errors import ConfigError

UNSCORED = ("zero", "left_out")


@dataclass(frozen=True)
class GRPO(Method):
    """``grpo``: the weighted sum of raw rewards, normalised within the group.

    Attributes:
        unscored: what a missing reward adds to the sum: ``"zero"`` adds nothing, as in TRL; ``"left_out"`` adds an
            estimate from the other rewards of the completion.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.GRPO())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.28, 0.75, 0.44, -1.47]
    """

    name: ClassVar[str] = "grpo"
    summary: ClassVar[str] = "weighted sum of raw rewards, normalised within the group"
    by_sums: ClassVar[bool] = True
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
    centres_groups: ClassVar[bool] = True
    unscored: str = "zero"

    def __post_init__(self) -> None:
        """Refuse options with which it would not be GRPO."""
        super().__post_init__()
        require("unscored", self.unscored, UNSCORED)
        if self.whiten == "token" or self.dead_channels not in (None, "keep"):
            raise ConfigError(
                f"method 'grpo' with whiten={self.whiten!r} and dead_channels={self.dead_channels!r} is not GRPO, "
                "which sums all rewards and compares completions; expected whiten group, batch or none, and "
                "dead_channels unset. Use method 'gdpo'"
            )

    @property
    def traits(self) -> tuple[str, ...]:
        """A missing reward is 0 in TRL's sum."""
        return ("missing-as-0",) if self.unscored == "zero" else ()

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Sum the rewards. In units of z, a channel counts by its standard deviation."""
        w, scores = batch.weights, batch.scores
        if self.unscored == "zero":
            total = (w * batch.rewards.masked_fill(scores.missing, 0.0)).sum(-1)
            takes_part = batch.present.any(-1)
        else:
            total = _left_out(batch)
            takes_part = (batch.p > 0).any(-1)
        shares = w * batch.groups.broadcast(scores.std) * scores.live
        return Outcome(total, aggregate.normalised(shares), takes_part)


def _left_out(batch: Batch) -> Tensor:
    """Return the sum around the group's means, (N,), in which scored rewards represent those that are missing."""
    w, scores, groups = batch.weights, batch.scores, batch.groups
    mean = groups.broadcast(scores.mean)
    scored = w * ~scores.missing
    # A channel without any score in the group has no mean, so it is not part of this group's sum.
    applies = w * groups.broadcast(groups.max((~scores.missing).to(w.dtype)))
    deviation = (scored * (batch.rewards - mean).masked_fill(scores.missing, 0.0)).sum(-1)
    scored_total = scored.sum(-1)
    stand_in = applies.sum(-1) / scored_total.masked_fill(scored_total == 0, 1.0)
    return ((applies * mean).sum(-1) + stand_in * deviation).masked_fill(scored_total == 0, 0.0)
