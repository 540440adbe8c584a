"""GD2PO: completions on which the channels disagree are left out, arXiv 2606.16771.

::

    conflict(i)  some Z_j(i) > 0 and some Z_j(i) < 0                        zero is neutral
    hard:  leave out every completion in conflict
    soft:  leave out those in conflict with |sum_j w_j Z_j| / (sum_j w_j |Z_j| + 1e-6) < threshold
    A    = share of the group's completions that were kept * sum_j w_j Z_j   of those that were, whitened over them

Completions that are left out have advantage 0. The rule has no state. A missing reward is neutral, and adds 0.

**Limits.** Channels that never disagree, or soft with threshold 0: GDPO, except for the share.

**Failure cases.** With many channels nearly every completion is in conflict, and most of the signal is lost: only
completions that are better, or worse, on all channels remain. A channel that opposes the others is not learned any
more. In the outside replication at 1.5B, 2 of 6 runs lost the format (`docs/results/arena.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require, require_number
from rvpo.core.lazy import torch
from rvpo.core.methods.base import Batch, Method, Outcome, Paper

FORMS = ("hard", "soft")
NEUTRAL = 1e-8  # z-scores closer to 0 have no sign
KEPT = "gd2po/kept"
EPS = 1e-6  # added to the soft form's denominator


@dataclass(frozen=True)
class GD2PO(Method):
    """``gd2po``: the sum of z-scores without the completions on which the channels disagree.

    Attributes:
        form: ``"hard"`` leaves out every conflict, ``"soft"`` only those without a clear majority.
        threshold: threshold of the soft form, in [0, 1].

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.GD2PO())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.0, 0.71, 0.0, -0.71]
    """

    name: ClassVar[str] = "gd2po"
    summary: ClassVar[str] = "sum of z-scores without the completions on which channels disagree"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "GD2PO: Group-Dynamic Reward-Decoupled Policy Optimization for Mitigating Multi-Reward RL Conflicts",
        "2606.16771",
        year=2026,
    )
    own_dead_channels: ClassVar[str] = "keep"
    sums_weights: ClassVar[bool] = True
    form: str = "hard"
    threshold: float = 0.2

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require("form", self.form, FORMS)
        require_number("threshold", self.threshold, 1, closed=True)

    @property
    def traits(self) -> tuple[str, ...]:
        """It leaves completions out."""
        return ("filters",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Find the conflicts, then sum the others."""
        w, z = batch.weights, batch.z
        heard = (w > 0) & batch.present
        left_out = ((z > NEUTRAL) & heard).any(-1) & ((z < -NEUTRAL) & heard).any(-1)
        summed = (w * z).sum(-1)
        if self.form == "soft":
            left_out &= summed.abs() / ((w * z.abs()).sum(-1) + EPS) < self.threshold
        kept = ~left_out
        scored = heard.any(-1)
        ones = (kept & scored).to(z.dtype)[:, None]
        share = batch.groups.sum(ones) / batch.groups.sum(scored.to(z.dtype)[:, None]).clamp(min=1)
        aggregated = summed * batch.groups.broadcast(share)[:, 0] * kept
        takes_part = kept & scored
        responsibilities = aggregate.normalised(w * batch.present) * kept[:, None]
        total, groups = batch.shards.sum(share.sum(), torch.tensor(batch.groups.count))
        return Outcome(aggregated, responsibilities, takes_part, metrics={KEPT: float(total) / int(groups)})
