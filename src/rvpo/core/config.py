"""Frozen configs that fail when they are built, not in the middle of a run."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from rvpo.errors import ConfigError

METHODS = ("rvpo", "rvpo_explicit", "hard_min", "gdpo", "grpo")
WHITEN = ("batch", "group", "none")
DEAD_CHANNELS = ("drop", "keep")
MISSING = ("drop", "error")

T = TypeVar("T")


@dataclass(frozen=True)
class AdvantageConfig:
    """Every choice that turns rewards into advantages, apart from the weights and the schedule of k.

    Attributes:
        method: ``"rvpo"`` (soft minimum), ``"rvpo_explicit"`` (mean minus variance), ``"hard_min"``, ``"gdpo"`` (mean
            of z-scores) or ``"grpo"`` (weighted sum of raw rewards, normalised within the group).
        k: risk coefficient of ``"rvpo"``, in [0, inf]; 0 is ``"gdpo"``, inf is ``"hard_min"``. None is 1.0.
        beta: variance penalty of ``"rvpo_explicit"``, >= 0; to second order ``beta = k / 2``. None is 0.5.
        eps: added to every standard deviation, in reward units; TRL uses 1e-4, verl 1e-6.
        ddof: 1 for the sample standard deviation (as TRL and verl), 0 for the population's.
        rtol: relative range at or below which a channel counts as constant in its group.
        whiten: ``"batch"`` (as published), ``"group"`` or ``"none"``. None picks ``"batch"``, and ``"group"`` for
            ``"grpo"``, whose definition it is.
        dead_channels: ``"drop"`` leaves a channel that is constant in its group out of the aggregation, ``"keep"`` lets
            its Z of 0 take part. None picks ``"keep"`` for ``"grpo"`` and ``"gdpo"``, as published, else ``"drop"``.
        missing: ``"drop"`` leaves an unscored channel out for that completion, ``"error"`` refuses NaN.
    """

    method: str = "rvpo"
    k: float | None = None
    beta: float | None = None
    eps: float = 1e-4
    ddof: int = 1
    rtol: float = 1e-6
    whiten: str | None = None
    dead_channels: str | None = None
    missing: str = "drop"

    def __post_init__(self) -> None:
        """Fill in the method's defaults and refuse impossible values."""
        require("method", self.method, METHODS)
        if self.whiten is None:
            object.__setattr__(self, "whiten", "group" if self.method == "grpo" else "batch")
        if self.dead_channels is None:
            object.__setattr__(self, "dead_channels", "keep" if self.method in ("grpo", "gdpo") else "drop")
        for option, owner, default in (("k", "rvpo", 1.0), ("beta", "rvpo_explicit", 0.5)):
            if self.method == owner and getattr(self, option) is None:
                object.__setattr__(self, option, default)
            elif self.method != owner and getattr(self, option) is not None:
                raise ConfigError(
                    f"{option} is {getattr(self, option)!r}, but method {self.method!r} has no {option}: drop it, or "
                    f"use method {owner!r}"
                )
        require("whiten", self.whiten, WHITEN)
        require("dead_channels", self.dead_channels, DEAD_CHANNELS)
        require("missing", self.missing, MISSING)
        require("ddof", self.ddof, (0, 1))
        if self.k is not None:
            require_number("k", self.k, math.inf, closed=True)
        if self.beta is not None:
            require_number("beta", self.beta, math.inf)
        require_number("eps", self.eps, math.inf)
        require_number("rtol", self.rtol, 1)
        if self.method == "grpo" and (self.whiten, self.dead_channels) != ("group", "keep"):
            raise ConfigError(
                f"method 'grpo' with whiten={self.whiten!r} and dead_channels={self.dead_channels!r} is not GRPO, "
                "which normalises the sum of all rewards within the group: leave both unset, or use method 'gdpo'"
            )

    @property
    def risk(self) -> float:
        """The rule's place between the mean (0) and the minimum (inf): k, and what k is in the limits."""
        if self.method == "hard_min":
            return math.inf
        return self.k or 0.0

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> AdvantageConfig:
        """Build from a plain mapping, for example a recipe's section. Unknown keys are an error."""
        return build(cls, mapping, "method options")


def build(cls: type[T], mapping: object, what: str) -> T:
    """Build a config dataclass from a mapping, refusing unknown keys by name.

    Raises:
        ConfigError: when ``mapping`` is no mapping, or has a key that ``cls`` does not.
    """
    allowed = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{what}: {mapping!r} is not a mapping with the keys {', '.join(allowed)}")
    unknown = [key for key in mapping if key not in allowed]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), allowed, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"{what}: unknown key {unknown[0]!r}{hint}; allowed are {', '.join(allowed)}")
    return cls(**mapping)


def require(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise ConfigError unless ``value`` is one of ``allowed`` (True is not taken for 1)."""
    if isinstance(value, bool) or value not in allowed:
        raise ConfigError(f"{name} is {value!r}, allowed are {', '.join(map(repr, allowed))}")


def require_number(name: str, value: object, high: float, *, closed: bool = False) -> None:
    """Raise ConfigError unless ``value`` is a number in [0, high), or in [0, high] where ``closed``."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (0 <= value < high or (closed and value == high)):  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}, allowed is a number in [0, {high}{']' if closed else ')'}")
