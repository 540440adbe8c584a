"""DARA: channels that rank few groups count more, arXiv 2610.00574.

::

    pi_j = share of the groups in which channel j ranks the completions
    c_j  = min(cap, sqrt( max_i pi_i / pi_j ))
    A    = sum_j w_j [ Z_j + (c_j - 1) max(Z_j, 0) ]        "asymmetric", as published
    A    = sum_j w_j c_j Z_j                                "symmetric"

The z-scores of channel j have the energy pi_j P (G - 1) in a batch of P groups of G completions, so a channel that is
constant in most groups has little influence under GDPO. c_j makes the energies equal, up to the cap. The asymmetric
form does so only for completions above the group's mean. The rule has no state. A missing reward adds 0, the mean of
its group.

**Limits.** All pi_j equal: GDPO. cap = 1: GDPO. With few groups, pi_j and c_j are noisy estimates.

**Failure cases.** c_j depends on how often a channel ranks, not on how well it is met: a channel that is nearly always
met ranks as rarely as one that is nearly never met, and gets the same weight. As with GDPO, a surplus on one channel
can compensate a failure on another. The asymmetric form is not centred: a row with many small gains and losses gains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from rvpo.core import aggregate
from rvpo.core.channels import State
from rvpo.core.checks import require, require_number
from rvpo.core.lazy import torch
from rvpo.core.methods.base import Batch, Method, Outcome, Paper
from rvpo.core.metrics import WEIGHT
from rvpo.errors import ConfigError

FORMS = ("asymmetric", "symmetric")


@dataclass(frozen=True)
class DARA(Method):
    """``dara``: z-scores of channels that rank few groups count more.

    Attributes:
        form: ``"asymmetric"`` raises only what is above the group's mean, ``"symmetric"`` the whole z-score.
        cap: largest factor of a channel, >= 1.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=4, method=rvpo.DARA())
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.45, 0.72, 0.31, -1.48]
    """

    name: ClassVar[str] = "dara"
    summary: ClassVar[str] = "sum of z-scores in which channels that rank few groups count more"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper("DARA", "2610.00574", year=2026)
    own_dead_channels: ClassVar[str] = "keep"
    sums_weights: ClassVar[bool] = True
    form: str = "asymmetric"
    cap: float = 5.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        require("form", self.form, FORMS)
        require_number("cap", self.cap, math.inf)
        if self.cap < 1:
            raise ConfigError(f"cap is {self.cap!r}; expected a number of at least 1, which raises no channel")

    @property
    def traits(self) -> tuple[str, ...]:
        """The weights depend on all groups."""
        return ("shared-weights",)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Count the groups that each channel ranks, then sum."""
        channels, w = batch.channels, batch.weights
        heard = (batch.scores.live & (w > 0)).to(w.dtype)
        ranks = (batch.groups.max(channels.pool(heard)) > 0).to(w.dtype)  # (P, K)
        number, groups = batch.shards.sum(ranks.sum(0), torch.tensor(batch.groups.count))
        ranked = number / int(groups)  # (K,) pi
        raised = (ranked.max() / ranked.masked_fill(ranked == 0, 1.0)).sqrt().clamp(max=self.cap)
        raised = raised.masked_fill(ranked == 0, 1.0)
        c = channels.broadcast(raised)
        applied = c.expand_as(batch.z) if self.form == "symmetric" else 1 + (c - 1) * (batch.z > 0)
        shares = w * applied * batch.present
        metrics = {f"{name}/{WEIGHT}": value for name, value in zip(channels.names, raised.tolist(), strict=True)}
        return Outcome(
            (shares * batch.z).sum(-1),
            aggregate.normalised(shares),
            (batch.present & (batch.weights > 0)).any(-1),
            metrics=metrics,
        )
