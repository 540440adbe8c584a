"""Weights of channels that follow the training: a number, a schedule, or phases in which rewards take turns.

::

    2                    the same at every step
    linear(0.2,1)        from 0.2 at the first step to 1 at the last, in a straight line
    cosine(0.2,1)        the same along half a cosine wave
    alternate(1,0)       the training has two phases of equal length: weight 1 in the first, 0 in the second
    alternate(1,0,cycles=3)    the same three times: six phases, in which 1 and 0 take turns

Alternating reinforcement learning over classes of criteria (ARL-RR, arXiv 2603.15646: one class per phase instead of a
scalar of all) is ``alternate(1,0)`` for the channels of one class and ``alternate(0,1)`` for those of the other.

The weight of a step depends only on the progress of the training, so a resumed run continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rvpo.core.checks import build, call_text, require_number
from rvpo.core.schedules import Cosine, Linear, Schedule
from rvpo.errors import ConfigError

LARGEST = 1e30
"""Largest weight. With rewards up to 1e100, the square of a weighted sum is a finite number."""

EXPECTED = "a number >= 0, linear(0.2,1), cosine(0.2,1) or alternate(1,0)"


@dataclass(frozen=True)
class Alternate:
    """Weights that take turns: the training has ``cycles * len(values)`` phases of equal length.

    Attributes:
        values: the weights of the phases in order, each finite and >= 0; at least two.
        cycles: number of repetitions, >= 1.
    """

    values: tuple[float, ...]
    cycles: int = 1

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not isinstance(self.values, list | tuple) or len(self.values) < 2:
            raise ConfigError(f"alternate has the weights {self.values!r}; expected two or more, as in alternate(1,0)")
        for value in self.values:
            require_number("alternate: weight", value, math.inf)
        if type(self.cycles) is not int or not 1 <= self.cycles <= 10_000:
            raise ConfigError(f"alternate: cycles is {self.cycles!r}; expected a whole number from 1 to 10000")
        object.__setattr__(self, "values", tuple(map(float, self.values)))

    def __str__(self) -> str:
        """Return the schedule as text, such as ``alternate(1,0,cycles=3)``."""
        cycles = f",cycles={self.cycles}" if self.cycles > 1 else ""
        return f"alternate({','.join(f'{value:.12g}' for value in self.values)}{cycles})"

    def __call__(self, progress: float) -> float:
        """Return the weight at ``progress``, the share of the training that is done, clamped to [0, 1].

        Raises:
            ConfigError: progress is NaN.
        """
        if math.isnan(progress):
            raise ConfigError("progress is nan; expected the share of the training that is done, a number in [0, 1]")
        stretches = self.cycles * len(self.values)
        # A progress of step / steps at the start of a phase may be slightly below it by rounding.
        stretch = int(min(max(progress, 0.0), 1.0) * stretches + 1e-9)
        return self.values[min(stretch, stretches - 1) % len(self.values)]


Weight = float | Schedule | Alternate


def read_weight(value: object, name: str) -> Weight:
    """Return a weight from any of its forms.

    Args:
        value: a number, a schedule, its text, or a mapping with ``kind``, ``start`` and ``end``.
        name: name of the channel, for the message.

    Raises:
        ConfigError: the value has none of these forms, or cannot work.
    """
    if isinstance(value, Schedule | Alternate):
        return value
    if isinstance(value, str):
        return _read_text(value, name)
    if isinstance(value, Mapping):
        kinds = {"linear": Linear, "cosine": Cosine, "alternate": Alternate}
        options = dict(value)
        kind = options.pop("kind", None)
        if kind not in kinds or (kind != "alternate" and options.keys() != {"start", "end"}):
            raise ConfigError(f"weight of {name!r} is {value!r}; expected {{kind: linear, start: 0.2, end: 1}}")
        return build(kinds[kind], options, f"weight of {name!r}: {kind}")
    require_number(f"weight of {name!r}", value, math.inf)
    return float(value)  # type: ignore[arg-type]  # a number now


def _read_text(text: str, name: str) -> Weight:
    kind, positional, named = call_text(text)
    seen = f"weight of {name!r} is {text!r}"
    if kind == "alternate":
        if unknown := [key for key in named if key != "cycles"]:
            raise ConfigError(f"{seen}, which has {unknown[0]!r}; expected weights, as in alternate(1,0,cycles=3)")
        return Alternate(tuple(positional), **named)
    if kind in ("linear", "cosine"):
        given = dict(zip(("start", "end"), positional, strict=False)) | named
        if len(positional) + len(named) != 2 or given.keys() != {"start", "end"}:
            raise ConfigError(f"{seen}; expected the weights at the start and at the end, as in {kind}(0.2,1)")
        for end, weight in given.items():
            require_number(f"weight of {name!r}: {kind}: {end}", weight, math.inf)
        return (Linear if kind == "linear" else Cosine)(**given)
    raise ConfigError(f"{seen}; expected {EXPECTED}")


def plain_weight(weight: Weight) -> float | str:
    """Return a weight as plain data: a number, or its text."""
    return weight if isinstance(weight, int | float) else str(weight)


def weights_at(weights: Sequence[Weight], progress: float | None, names: Sequence[str]) -> list[float]:
    """Return the weights of a step.

    Args:
        weights: one per name.
        progress: share of the training that is done, in [0, 1]; None if unknown.
        names: names of the channels.

    Raises:
        ConfigError: a weight follows a schedule and ``progress`` is None.
    """
    found = []
    for name, weight in zip(names, weights, strict=True):
        if isinstance(weight, int | float):
            found.append(float(weight))
            continue
        if progress is None:
            raise ConfigError(
                f"progress is None, but the weight of {name!r} follows the schedule {weight}; expected the share of "
                "the training that is done, in [0, 1]. Pass progress=step / steps, or use a fixed weight"
            )
        found.append(weight(progress))
    return found


def mean_weight(weight: Weight) -> float:
    """Return the mean of a weight over the training."""
    if isinstance(weight, Alternate):
        return math.fsum(weight.values) / len(weight.values)
    return (weight.start + weight.end) / 2 if isinstance(weight, Schedule) else float(weight)


def check_weights(weights: Sequence[Weight], names: Sequence[str], what: str = "weights") -> None:
    """Check that weights are never all 0 at the same time.

    Args:
        weights: one per name.
        names: names of the channels.
        what: name of the option, for the message.

    Raises:
        ConfigError: all weights are 0 at some time, or one is above ``LARGEST``.
    """
    for progress in moments(weights):
        now = dict(zip(names, weights_at(weights, progress, names), strict=True))
        if too_large := [name for name in now if now[name] > LARGEST]:
            raise ConfigError(
                f"weight of {too_large[0]!r} is {now[too_large[0]]:g}; expected a number up to {LARGEST:g}. Only the "
                "ratios of weights matter: divide all of them by the largest one"
            )
        if not any(now.values()):
            given = {name: plain_weight(weight) for name, weight in zip(names, weights, strict=True)}
            varies = any(not isinstance(weight, int | float) for weight in weights)
            when = f" at {progress:.0%} of the training" if varies else ""
            raise ConfigError(f"{what} are all 0{when} ({given!r}); expected at least one above 0 at every step")


def moments(weights: Sequence[Weight]) -> list[float]:
    """Return times of the training among which each weight is above 0 at some time if it ever is.

    Linear and cosine weights can be 0 only at an end, or always.
    """
    if all(isinstance(weight, int | float) for weight in weights):
        return [0.0]
    counts = {weight.cycles * len(weight.values) for weight in weights if isinstance(weight, Alternate)}
    ends = sorted({0.0, 1.0, *(i / count for count in counts for i in range(count))})
    middles = [(first + last) / 2 for first, last in pairwise(ends)]
    return sorted({*ends, *middles})
