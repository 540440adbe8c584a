"""The rules that the regimes compare: every one is ``rvpo.core.compute``, with its state carried from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from train import Factory, Rule

from rvpo.core import AdaptiveK, AdvantageConfig, Schedule, compute, schedules

# Options of AdvantageConfig; "schedule" decides k over training.
RULES: Mapping[str, dict[str, Any]] = {
    "GRPO": {"method": "grpo"},
    "GDPO": {"method": "gdpo"},
    "RVPO k=1": {"method": "rvpo", "k": 1.0},
    "RVPO k=2": {"method": "rvpo", "k": 2.0},
    "RVPO k=0.5 to 2": {"method": "rvpo", "schedule": schedules.linear(0.5, 2.0)},
    "LIFT": {"method": "lift"},
    "LIFT, needs only": {"method": "lift", "options": {"margin": -1.0}},
    "LIFT, guard only": {"method": "lift", "options": {"kappa": 0.0}},
    "RVPO adaptive k": {"method": "rvpo", "k": AdaptiveK()},
    "RVPO-explicit": {"method": "rvpo_explicit"},
    "hard-min": {"method": "hard_min"},
    "CTWA": {"method": "ctwa"},
    "Lagrangian 0.9": {"method": "lagrangian", "options": {"thresholds": {"0": 0.9}}},
    "smooth Tchebycheff": {"method": "smooth_tchebycheff"},
}
MAIN = tuple(RULES)[:8]
OTHERS = tuple(RULES)[8:]
"""Compared in fewer cells."""


def factory(name: str, generations: int) -> Factory:
    """Return what makes one run's rule."""
    options = dict(RULES[name])
    schedule: Schedule | None = options.pop("schedule", None)
    fixed = None if schedule else AdvantageConfig(**options)

    def make() -> Rule:
        state = None

        def rule(rewards: Tensor, step: int, steps: int) -> Tensor:
            nonlocal state
            config = fixed or AdvantageConfig(**options, k=schedule(step / max(steps - 1, 1)))  # type: ignore[misc]
            result = compute(rewards, config, num_generations=generations, state=state)
            state = result.state
            return result.advantages

        return rule

    return make
