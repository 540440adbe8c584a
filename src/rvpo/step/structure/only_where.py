"""A conditional channel: it ranks only completions of a group that meet another channel (PAPO, arXiv 2603.26535).

::

    Z_style(g) = (R(g) - mean) / (std + eps)      over the completions of the group with s_correct >= threshold
    Z_style(g) = 0                                for the others, and for all if fewer than two meet it

So style is learned from correct completions only, and never at the cost of correctness. With GDPO this is PAPO: the
weighted mean is (Z_correct + w Z_style) / (1 + w) in *every* row, because a completion that does not meet the condition
takes part with z = 0 instead of being left out. ``gdpo:unscored=zero,whiten=none`` gives PAPO's sum itself; PAPO does
not whiten.

For methods that read rewards instead of z-scores, such a completion has the mean of the others, so its deviation is 0.
Their statistics over the run (attained shares, covariances) leave these completions out. If it is not known whether a
completion meets the condition, the channel is missing there.

**Failure case.** While fewer than two completions of most groups are correct, the channel teaches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from rvpo.core.channels import owner_of
from rvpo.core.lazy import torch
from rvpo.errors import ConfigError
from rvpo.step.structure.base import Known, Layout, Structure, require_name, require_threshold


@dataclass(frozen=True)
class OnlyWhere(Structure):
    """``only_where(style,correct)``: style ranks the completions that meet ``correct``, and is 0 elsewhere.

    Attributes:
        channel: name of the conditional channel.
        meets: name of the condition's channel; ``-name`` is a cost.
        threshold: smallest attained share at which the condition is met, in (0, 1].
    """

    name: ClassVar[str] = "only_where"
    positional: ClassVar[str] = "channel,meets"
    channel: str
    meets: str
    threshold: float = 1.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        require_name("only_where: channel", self.channel)
        require_name("only_where: meets", self.meets)
        require_threshold("only_where: threshold", self.threshold)

    def check(self, known: Known) -> Known:
        """See :meth:`Structure.check`."""
        what = str(self)
        channel, meets = known.named(self.channel, what), known.named(self.meets, what)
        if channel != self.channel:
            raise ConfigError(f"{what}: the channel is {self.channel!r}; expected it without a sign, {channel!r}")
        if channel == meets:
            raise ConfigError(f"{what} names {channel!r} twice; expected a channel and another one as its condition")
        known.counts(channel, what)
        if known.weights.get(owner_of(channel, known.names) or "", 1.0) == 0:
            raise ConfigError(f"{what}: the weight of {channel!r} is 0; expected a channel that counts. Drop {what}")
        known.need_range(meets, what)
        known.counts_everywhere(meets, what)
        return replace(known, conditional={**known.conditional, channel: what})

    def apply(self, layout: Layout) -> Layout:
        """Mark the cells of completions that do not meet the condition as outside."""
        holds = layout.condition(self.meets, self.threshold, str(self))
        condition, _ = layout.find(self.meets)
        cells = layout.find(self.channel)[0] & ~condition & (layout.weights > 0)
        outside = layout.outside | (cells & (holds == 0)[:, None])
        # An infinite reward does not change: later checks refuse it and name its place.
        gone = (outside | (cells & holds.isnan()[:, None])) & ~layout.entered.isinf()
        return replace(
            layout,
            entered=layout.entered.masked_fill(gone, torch.nan),
            outside=outside,
            metrics=layout.told(str(self), self.meets, holds),
        )
