"""Every choice that turns rewards into advantages, as a frozen config that fails when it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from rvpo.core.adaptive import AdaptiveK
from rvpo.core.checks import require, require_number, unknown_option
from rvpo.core.rules import RULES, Rule, build_rule, rule_options
from rvpo.errors import ConfigError

METHODS = tuple(RULES)
WHITEN = ("batch", "group", "none")
DEAD_CHANNELS = ("drop", "keep")
MISSING = ("drop", "error")


@dataclass(frozen=True)
class AdvantageConfig:
    """Every choice that turns rewards into advantages, apart from the weights and the schedule of k.

    Attributes:
        method: ``"rvpo"`` (soft minimum), ``"rvpo_explicit"`` (mean minus variance), ``"hard_min"``, ``"gdpo"`` (mean
            of z-scores), ``"grpo"`` (weighted sum of raw rewards, normalised within the group), ``"lift"`` (works on
            the channel furthest behind and lets none fall), ``"tchebycheff"``, ``"smooth_tchebycheff"``,
            ``"lagrangian"``, ``"ctwa"`` or ``"riskpo"``; :mod:`rvpo.core.rules` describes each.
        k: risk coefficient of ``"rvpo"``, in [0, inf], or an :class:`rvpo.AdaptiveK`; 0 is ``"gdpo"``, inf is
            ``"hard_min"``. None is 1.0.
        beta: variance penalty of ``"rvpo_explicit"``, >= 0; to second order ``beta = k / 2``. None is 0.5.
        eps: added to every standard deviation, in reward units; TRL uses 1e-4, verl 1e-6.
        ddof: 1 for the sample standard deviation (as TRL and verl), 0 for the population's.
        rtol: relative range at or below which a channel counts as constant in its group.
        whiten: ``"batch"`` (as published), ``"group"`` or ``"none"``. None picks the method's own: ``"group"`` for
            ``"grpo"`` and the scalarisations, ``"none"`` for ``"riskpo"``, else ``"batch"``.
        dead_channels: ``"drop"`` leaves a channel that is constant in its group out of the aggregation, ``"keep"`` lets
            its Z of 0 take part. None picks the method's own: ``"drop"`` for RVPO and its limits, else ``"keep"``.
        missing: ``"drop"`` leaves an unscored channel out for that completion, ``"error"`` refuses NaN.
        options: further options of the method, such as ``{"kappa": 6.0}`` for ``"lift"``.
    """

    method: str = "rvpo"
    k: float | AdaptiveK | None = None
    beta: float | None = None
    eps: float = 1e-4
    ddof: int = 1
    rtol: float = 1e-6
    whiten: str | None = None
    dead_channels: str | None = None
    missing: str = "drop"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Fill in the method's defaults and refuse impossible values."""
        require("method", self.method, METHODS)
        rule = self.rule
        for option in ("k", "beta"):
            if hasattr(rule, option):
                object.__setattr__(self, option, getattr(rule, option))
        for option in ("whiten", "dead_channels"):
            if getattr(self, option) is None:
                object.__setattr__(self, option, getattr(rule, option))
        require("whiten", self.whiten, WHITEN)
        require("dead_channels", self.dead_channels, DEAD_CHANNELS)
        require("missing", self.missing, MISSING)
        require("ddof", self.ddof, (0, 1))
        require_number("eps", self.eps, math.inf)
        require_number("rtol", self.rtol, 1)
        if self.method == "grpo" and (self.whiten, self.dead_channels) != ("group", "keep"):
            raise ConfigError(
                f"method 'grpo' with whiten={self.whiten!r} and dead_channels={self.dead_channels!r} is not GRPO, "
                "which normalises the sum of all rewards within the group: leave both unset, or use method 'gdpo'"
            )

    @cached_property
    def rule(self) -> Rule:
        """The method with its options."""
        own = {option: value for option in ("k", "beta") if (value := getattr(self, option)) is not None}
        if not isinstance(self.options, Mapping):
            raise ConfigError(f"options is {self.options!r}, allowed is a mapping of the options of {self.method!r}")
        if twice := [option for option in own if option in self.options and self.options[option] != own[option]]:
            raise ConfigError(
                f"{twice[0]} is {own[twice[0]]!r}, but options has {self.options[twice[0]]!r} for it: set one of them"
            )
        return build_rule(self.method, {**self.options, **own})

    @property
    def risk(self) -> float:
        """The rule's place between the mean (0) and the minimum (inf) over a completion's channels."""
        return self.rule.risk

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> AdvantageConfig:
        """Build from a plain mapping, for example a recipe's section, in which the method's own options stand flat.

        Raises:
            ConfigError: an unknown key, or a value that cannot work.
        """
        shared = [option.name for option in fields(cls)]
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"method options: {mapping!r} is not a mapping with the keys {', '.join(shared)}")
        method = mapping.get("method", "rvpo")
        require("method", method, METHODS)
        known = {*shared, *(option for name in METHODS for option in rule_options(name))}
        if unknown := [key for key in mapping if key not in known]:
            allowed = [*shared, *(option for option in rule_options(method) if option not in shared)]
            raise unknown_option("method options", unknown[0], allowed)
        given = {key: value for key, value in mapping.items() if key in shared}
        own = {key: value for key, value in mapping.items() if key not in shared}
        options = given.get("options", {})
        if own and isinstance(options, Mapping):  # what is no mapping is refused by the config itself
            options = {**options, **own}
        return cls(**given | {"options": options})
