"""A gate: other channels count only in completions that meet one channel.

::

    R'_j = R_j                                if s_gate >= threshold
    R'_j = low_j + factor (R_j - low_j)       otherwise, with [low_j, high_j] the declared range of R_j

``factor=0`` is a hard gate (a veto): the reward is the low end of its range. The gate's channel remains a channel. A
gate never raises a reward: a reward below its range does not change.

**A missing gate** makes the gated channels missing in that completion. Counting them in full would reward a policy for
completions that the gate's judge cannot read. Counting them as the low end would punish it for an outage.

**Failure case.** While the gate rarely holds, almost all rewards of a hard gate are equal, and the gated channels rank
nothing. A soft gate, or a warm start that meets the gate, keeps a signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rvpo.core.channels import owner_of
from rvpo.core.checks import require_number
from rvpo.core.lazy import torch
from rvpo.errors import ConfigError
from rvpo.step.structure.base import Known, Layout, Structure, require_name, require_threshold


@dataclass(frozen=True)
class Gate(Structure):
    """``gate(safe)``: the other channels count only where this one holds.

    Attributes:
        channel: name of the gate's channel; ``-name`` is a cost.
        threshold: smallest attained share at which the gate holds, in (0, 1].
        factor: factor of the other rewards if the gate does not hold, in [0, 1); 0 is a veto.
        over: names of the gated channels; None gates all others of weight above 0.
    """

    name: ClassVar[str] = "gate"
    positional: ClassVar[str] = "channel"
    channel: str
    threshold: float = 1.0
    factor: float = 0.0
    over: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        require_name("gate: channel", self.channel)
        require_threshold("gate: threshold", self.threshold)
        require_number("gate: factor", self.factor, 1)
        if self.over is None:
            return
        if isinstance(self.over, str) or not isinstance(self.over, Sequence) or not self.over:
            raise ConfigError(
                f"gate: over is {self.over!r}; expected names of channels, as in gate(safe,over=[helpful])"
            )
        for name in self.over:
            require_name("gate: over", name)
        object.__setattr__(self, "over", tuple(self.over))

    def check(self, known: Known) -> Known:
        """See :meth:`Structure.check`."""
        what = str(self)
        gate = known.named(self.channel, what)
        known.need_range(gate, what)
        known.counts_everywhere(gate, what)
        if self.over is None:
            silent = [name for name in known.names if known.weights.get(name, 1.0) == 0]
            gated = [n for n in known.names if n not in (gate, owner_of(gate, known.names), *known.replaced, *silent)]
            if not gated and gate == owner_of(gate, known.names):
                raise ConfigError(
                    f"{what} has no channel to gate; expected one of weight above 0 besides {gate!r}. Drop it"
                )
        else:
            gated = [_gated(name, gate, known, what) for name in self.over]
        for name in gated:
            known.need_range(name, what)
        return known

    def apply(self, layout: Layout) -> Layout:
        """Lower the gated rewards where the gate does not hold."""
        what = str(self)
        holds = layout.condition(self.channel, self.threshold, what)
        gate = layout.find(self.channel)[0]
        gated = layout.applies & (layout.weights > 0) & ~gate
        if self.over is not None:
            named = torch.zeros_like(gate)
            for name in self.over:
                named = named | layout.find(name)[0]
            gated = gated & named
        low, _ = layout.ends(gated, what)
        wide = layout.entered.to(low)
        lowered = torch.minimum(low + self.factor * (wide - low), wide).to(layout.entered)
        # An infinite reward does not change: later checks refuse it and name its place.
        gated = gated & layout.entered.isfinite()
        entered = torch.where(gated & (holds == 0)[:, None], lowered, layout.entered)
        entered = entered.masked_fill(gated & holds.isnan()[:, None], torch.nan)
        return replace(layout, entered=entered, metrics=layout.told(what, self.channel, holds))


def _gated(given: str, gate: str, known: Known, what: str) -> str:
    """Return the name of a gated channel.

    Raises:
        ConfigError: the channel does not exist, is the gate itself, or does not count.
    """
    name = known.named(given, what)
    if name != given:
        raise ConfigError(f"{what}: over names {given!r}; expected a channel without a sign, {name!r}")
    known.counts(name, what)
    if name == gate:
        raise ConfigError(f"{what} names {name!r} as the gate and in over; expected other channels in over")
    if known.weights.get(owner_of(name, known.names) or "", 1.0) == 0:
        raise ConfigError(f"{what}: over names {name!r}, whose weight is 0; expected a channel that counts")
    return name
