"""The risk coefficient k as a pure function of training progress.

The paper anneals k linearly from 0.5 to 2.0. The default here is a constant k = 1, which held a mostly-met
constraint better in our small runs: ``docs/results.md`` compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rvpo.core.checks import build, require_number
from rvpo.errors import ConfigError

KINDS = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """k at a given training progress. Build one with :func:`constant`, :func:`linear` or :func:`cosine`.

    Attributes:
        kind: ``"constant"``, ``"linear"`` or ``"cosine"`` (half a cosine wave from ``start`` to ``end``).
        start: k at progress 0, finite and >= 0 (0 is GDPO's mean).
        end: k at progress 1; must be None for a constant schedule and a number otherwise.
    """

    kind: str = "constant"
    start: float = 1.0
    end: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible combinations."""
        if self.kind not in KINDS:
            raise ConfigError(
                f"schedule kind is {self.kind!r}, allowed are {', '.join(map(repr, KINDS))}, and 'adaptive' in "
                "recipes and RVPOConfig, by which k sets itself"
            )
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None or name == "start":
                require_number(f"schedule {name}", value, math.inf)
        if self.kind == "constant" and self.end is not None:
            raise ConfigError(
                f"a constant schedule has no end, but end is {self.end!r}: drop it, or use linear or cosine"
            )
        if self.kind != "constant" and self.end is None:
            raise ConfigError(f"a {self.kind} schedule needs an end value of k: set it, or use constant")

    def __call__(self, progress: float) -> float:
        """Return k at ``progress``, the share of training that is done; clamped to [0, 1]."""
        if math.isnan(progress):
            raise ConfigError("training progress is nan, allowed is a number in [0, 1]")
        if self.end is None:
            return float(self.start)
        t = min(max(progress, 0.0), 1.0)
        if self.kind == "cosine":
            t = (1 - math.cos(math.pi * t)) / 2
        return self.start + (self.end - self.start) * t

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any] | float) -> Schedule:
        """Build from a recipe: a number (constant) or ``{kind, start, end}``. Unknown keys are an error."""
        if isinstance(value, Mapping):
            return build(cls, value, "schedule")
        return cls(start=value)


def constant(k: float = 1.0) -> Schedule:
    """Keep ``k`` the same throughout."""
    return Schedule("constant", k)


def linear(start: float = 0.5, end: float = 2.0) -> Schedule:
    """Move from ``start`` to ``end`` in a straight line; the default is the paper's setting."""
    return Schedule("linear", start, end)


def cosine(start: float = 0.5, end: float = 2.0) -> Schedule:
    """Move from ``start`` to ``end`` along half a cosine wave: slow at both ends."""
    return Schedule("cosine", start, end)
