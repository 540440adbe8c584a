"""A conjunction: several channels become one, the product of their attained shares.

::

    R = prod_j s_j        s_j = (R_j - low_j) / (high_j - low_j) in [0, 1], or 1 - s_j for a cost, written ``-name``

The parts stay in logs and metrics with weight 0. A product rewards a completion only if it meets *all* parts, so a
policy cannot collect points from the easy ones. It is the score of a group of criteria in ProRubric (arXiv
2609.38847). If a part is missing, the product is missing. A part that a prompt does not have (a label of a rubric) is
left out. A part with several cells (the criteria of a rubric) contributes each of them.

**Failure case.** If no completion of a group meets all parts, the product is constant and teaches nothing, although
each part would have ranked the group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rvpo.core.channels import Channels, owner_of
from rvpo.core.checks import require_positive
from rvpo.core.lazy import torch
from rvpo.errors import ConfigError
from rvpo.step.structure.base import Known, Layout, Structure, require_name


@dataclass(frozen=True)
class AllOf(Structure):
    """``all_of(a,b)``: the product of attained shares as one channel in place of its parts.

    Attributes:
        parts: names of channels; ``-name`` is a cost.
        called: name of the new channel; None takes the structure's text.
        weight: importance of the new channel, > 0; None takes the largest weight of its parts.
    """

    name: ClassVar[str] = "all_of"
    positional: ClassVar[str] = "parts"
    parts: Sequence[str]
    called: str | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if isinstance(self.parts, str) or not isinstance(self.parts, Sequence) or not self.parts:
            raise ConfigError(
                f"all_of: parts is {self.parts!r}; expected names of channels, as in all_of(helpful,safe)"
            )
        for part in self.parts:
            require_name("all_of: a part", part)
        object.__setattr__(self, "parts", tuple(self.parts))
        if twice := [part for i, part in enumerate(self.parts) if part in self.parts[:i]]:
            raise ConfigError(
                f"all_of names {twice[0]!r} twice; expected each part once, because shares are multiplied"
            )
        if self.called is not None:
            require_name("all_of: called", self.called)
        if self.weight is not None:
            require_positive("all_of: weight", self.weight)

    @property
    def channel(self) -> str:
        """Name of the new channel."""
        return self.called or str(self)

    def check(self, known: Known) -> Known:
        """See :meth:`Structure.check`."""
        what, channel = str(self), self.channel
        if owner_of(channel, known.names) is not None:
            raise ConfigError(
                f"{what} makes a channel called {channel!r}, which exists already; expected a new name, not that of "
                "a reward or of a label of a rubric. Set called=NAME"
            )
        names = [known.named(part, what) for part in self.parts]
        for name in names:
            known.need_range(name, what)
            known.counts_everywhere(name, what)
        weights = [known.weights.get(owner_of(name, known.names) or "", 1.0) for name in names]
        if self.weight is None and not any(weights):
            raise ConfigError(
                f"all parts of {what} have weight 0, so it would have no weight; expected a weight above 0. Set "
                "weight=1 in it"
            )
        return replace(
            known,
            names=[*known.names, channel],
            ranges={**known.ranges, channel: (0.0, 1.0)},
            weights={**known.weights, channel: self.weight or max(weights)},
            replaced={**known.replaced, **dict.fromkeys(names, what)},
        )

    def apply(self, layout: Layout) -> Layout:
        """Add a column with the product, and set the weights of its parts to 0."""
        product = torch.ones_like(layout.entered[:, :1], dtype=torch.float64)
        weight = torch.zeros_like(layout.weights[:, :1])
        parts = torch.zeros_like(layout.applies)
        for part in self.parts:
            shares, cells = layout.shares(part, str(self))
            product = product.to(shares) * shares.masked_fill(~cells, 1.0).prod(-1, keepdim=True)
            weight = torch.maximum(weight, layout.before.masked_fill(~cells, 0.0).amax(-1, keepdim=True))
            parts = parts | cells
        applies = parts.any(-1, keepdim=True)
        if self.weight is not None:
            weight = torch.full_like(weight, self.weight)
        value = product.masked_fill(~applies, math.nan).to(layout.entered)
        weight = weight.masked_fill(~applies, 0.0)
        column = torch.zeros_like(applies)
        return replace(
            layout,
            rewards=torch.cat([layout.rewards, value], 1),
            entered=torch.cat([layout.entered, value], 1),
            weights=torch.cat([layout.weights.masked_fill(parts, 0.0), weight], 1),
            before=torch.cat([layout.before, weight], 1),
            applies=torch.cat([layout.applies, applies], 1),
            outside=torch.cat([layout.outside, column], 1),
            watched=torch.cat([layout.watched, column], 1),
            channels=_with(layout.channels, self.channel),
            cells={
                **{name: torch.cat([mask, column], 1) for name, mask in layout.cells.items()},
                self.channel: torch.cat([torch.zeros_like(layout.applies), applies], 1),
            },
            made={**layout.made, self.channel: layout.entered.shape[1]},
        )


def _with(channels: Channels, name: str) -> Channels:
    """Return the channels and one more, in a new column at the end."""
    index, number = channels.index, len(channels.names)
    new = index.new_full((*index.shape[:-1], 1), number)
    return Channels((*channels.names, name), torch.cat([index, new], -1), (*channels.ranges, (0.0, 1.0)))
