"""The risk coefficient k as a pure function of training progress.

The paper anneals k linearly from 0.5 to 2.0. The default of ``rvpo`` is a constant k = 1, which held a mostly-met
constraint better in our small runs: ``docs/results/quickstart.md`` compares the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rvpo.core.checks import require_number
from rvpo.errors import ConfigError

ROUNDING = 1e-6
"""A progress may leave [0, 1] by this much."""


def checked_progress(progress: object) -> float | None:
    """Return the share of the training that is done as a number in [0, 1]; None if it is not given.

    Raises:
        ConfigError: it is not a number in [0, 1]. A number of steps or a percentage would count as the end.
    """
    if progress is None:
        return None
    number: Any = progress
    if getattr(progress, "ndim", None) == 0:  # a scalar of torch or NumPy
        number = number.item()
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not -ROUNDING <= number <= 1 + ROUNDING:
        raise ConfigError(
            f"progress is {progress!r}; expected the share of the training that is done, a number in [0, 1]. Pass "
            "progress=step / steps"
        )
    return min(max(float(number), 0.0), 1.0)


@dataclass(frozen=True)
class Schedule:
    """k as a function of training progress: :class:`Linear` or :class:`Cosine`.

    Attributes:
        start: k at progress 0, finite and >= 0 (0 is GDPO's mean). The default is the paper's.
        end: k at progress 1, finite and >= 0.

    Raises:
        ConfigError: a value cannot work.
    """

    start: float = 0.5
    end: float = 2.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("start", "end"):
            require_number(f"{self.kind}: {name} of k", getattr(self, name), math.inf)

    @property
    def kind(self) -> str:
        """Name in texts: ``linear`` or ``cosine``."""
        return type(self).__name__.lower()

    def __str__(self) -> str:
        """Return the schedule as text, such as ``linear(0.5,2)``."""
        return f"{self.kind}({self.start:.12g},{self.end:.12g})"

    def __call__(self, progress: float) -> float:
        """Return k at ``progress``, the share of the training that is done, clamped to [0, 1].

        Raises:
            ConfigError: progress is NaN.
        """
        if math.isnan(progress):
            raise ConfigError("progress is nan; expected the share of the training that is done, a number in [0, 1]")
        return self.start + (self.end - self.start) * self.share(min(max(progress, 0.0), 1.0))

    def share(self, progress: float) -> float:
        """Return the share of the way from start to end at ``progress``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(Schedule):
    """Move from ``start`` to ``end`` in a straight line. The default is the paper's setting.

    Example:
        >>> import rvpo
        >>> rvpo.Linear(0.5, 2.0)(0.5)
        1.25
    """

    def share(self, progress: float) -> float:
        """Return ``progress``."""
        return progress


@dataclass(frozen=True)
class Cosine(Schedule):
    """Move from ``start`` to ``end`` along half a cosine wave, slowly at both ends.

    Example:
        >>> import rvpo
        >>> [round(rvpo.Cosine(0.5, 2.0)(progress), 3) for progress in (0.0, 0.25, 0.5, 1.0)]
        [0.5, 0.72, 1.25, 2.0]
    """

    def share(self, progress: float) -> float:
        """Return (1 - cos(pi progress)) / 2."""
        return (1 - math.cos(math.pi * progress)) / 2
