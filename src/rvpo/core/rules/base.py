"""What a rule sees, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from rvpo.core import aggregate
from rvpo.core.channels import Channels, State
from rvpo.core.groups import Groups
from rvpo.core.normalize import GroupScores


@dataclass(frozen=True)
class Batch:
    """What a rule sees: N completions on M channels, in float64.

    Attributes:
        rewards: (N, M), NaN = missing.
        weights: (N, M) importance, >= 0.
        scores: group z-scores and the states of the channels.
        present: (N, M) bool, which channels may take part: the live ones, or all that are scored (``dead_channels``).
        groups: which rows belong together.
        channels: the named channels of the run that the cells belong to.
    """

    rewards: Tensor
    weights: Tensor
    scores: GroupScores
    present: Tensor
    groups: Groups
    channels: Channels

    @cached_property
    def z(self) -> Tensor:
        """Z-scores (N, M), 0 where the channel is not present."""
        return self.scores.z.masked_fill(~self.present, 0.0)

    @cached_property
    def attained(self) -> Tensor:
        """Rewards on their declared scale, (N, M) in [0, 1], NaN where missing or of weight 0: those need no scale."""
        return self.channels.attained(self.rewards.masked_fill(self.weights == 0, torch.nan))

    def shares(self, factor: Tensor | float = 1.0) -> Tensor:
        """Weights times ``factor`` as shares (N, M) of the channels present: rows sum to 1, or to 0 where none is."""
        return aggregate.normalised(self.weights * factor * self.present)


@dataclass(frozen=True)
class Outcome:
    """What a rule answers.

    Attributes:
        aggregated: (N,).
        responsibilities: (N, M), rows sum to 1 or are 0.
        takes_part: (N,) bool, False for rows that the whitening leaves out and that get advantage 0.
        state: what the rule wants to see with the next batch; plain data.
        metrics: what it says of this batch, for the logs.
    """

    aggregated: Tensor
    responsibilities: Tensor
    takes_part: Tensor
    state: State = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


class Rule(Protocol):
    """A method with its options. ``whiten`` and ``dead_channels`` are the method's defaults of AdvantageConfig's."""

    whiten: ClassVar[str]
    dead_channels: ClassVar[str]
    uses_z: ClassVar[bool]
    """Whether it aggregates z-scores, and not rewards."""
    remembers: bool
    """Whether it needs its state to go on."""
    names_channels: tuple[str, ...]
    """Channels that its options speak of."""
    risk: float
    """Its place between the mean (0) and the minimum over z-scores (inf); from 1 on rare successes are held back."""

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Aggregate a batch; ``state`` is empty at the start of a run."""
        ...


class Defaults:
    """What most methods are; a method says where it differs."""

    whiten: ClassVar[str] = "batch"
    dead_channels: ClassVar[str] = "keep"
    uses_z: ClassVar[bool] = True
    remembers: ClassVar[bool] = False
    names_channels: ClassVar[tuple[str, ...]] = ()
    risk: ClassVar[float] = 0.0


def of_z(
    p: Tensor,
    rule: tuple[Tensor, Tensor],
    state: State | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Outcome:
    """Complete a rule over z-scores, in which every row with a share takes part."""
    return Outcome(rule[0], rule[1], (p > 0).any(-1), state or {}, metrics or {})
