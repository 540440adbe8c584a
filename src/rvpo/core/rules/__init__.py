"""The methods, as rules: each takes a batch and what it remembers, and gives one number a completion.

The mathematics stands on a page for each family, the equations at its top: ``aggregate`` (RVPO and its limits),
``lift``, ``scalarise``, ``reweigh``, ``riskpo``, ``adaptive``. Here each method has its options, with their defaults
and limits, and says how a batch is put to those formulas. Engines know none of this: they pass rewards and keep the
state. A new method is a class here and a line in :data:`RULES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rvpo.core.rules.base import Batch, Outcome, Rule
from rvpo.core.rules.over_batches import CTWA, Lagrangian, Lift
from rvpo.core.rules.over_channels import (
    Explicit,
    HardMin,
    Mean,
    SmoothTchebycheff,
    SoftMin,
    Tchebycheff,
    WeightedSum,
)
from rvpo.core.rules.over_questions import RiskPO
from rvpo.errors import ConfigError
from rvpo.text.suggest import did_you_mean

__all__ = [
    "CTWA",
    "RULES",
    "Batch",
    "Explicit",
    "HardMin",
    "Lagrangian",
    "Lift",
    "Mean",
    "Outcome",
    "RiskPO",
    "Rule",
    "SmoothTchebycheff",
    "SoftMin",
    "Tchebycheff",
    "WeightedSum",
    "build_rule",
    "rule_options",
]

RULES: Mapping[str, type[Any]] = {
    "rvpo": SoftMin,
    "rvpo_explicit": Explicit,
    "hard_min": HardMin,
    "gdpo": Mean,
    "grpo": WeightedSum,
    "lift": Lift,
    "tchebycheff": Tchebycheff,
    "smooth_tchebycheff": SmoothTchebycheff,
    "lagrangian": Lagrangian,
    "ctwa": CTWA,
    "riskpo": RiskPO,
}


def rule_options(method: str) -> tuple[str, ...]:
    """Return the names of a method's own options."""
    return tuple(option.name for option in fields(RULES[method]))


def build_rule(method: str, options: Mapping[str, Any]) -> Rule:
    """Build a method's rule.

    Raises:
        ConfigError: an unknown method or option, or a value that cannot work.
    """
    if not isinstance(method, str) or method not in RULES:
        raise ConfigError(f"method is {method!r}, allowed are {', '.join(map(repr, RULES))}")
    allowed = rule_options(method)
    for option, value in options.items():
        if option in allowed:
            continue
        owners = [name for name in RULES if option in rule_options(name)]
        if owners:
            raise ConfigError(
                f"{option} is {value!r}, but method {method!r} has no {option}: drop it, or use method "
                + " or ".join(map(repr, owners))
            )
        close = did_you_mean(option, allowed)
        raise ConfigError(f"{option} is no option of method {method!r}{close}; it has {', '.join(allowed) or 'none'}")
    rule: Rule = RULES[method](**options)
    return rule
