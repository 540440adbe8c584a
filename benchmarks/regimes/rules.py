"""The rules that the regimes compare: every one is ``rvpo.core.compute``, with its state carried from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from train import Factory, Rule

from rvpo.core import AdaptiveK, AdvantageConfig, Channels, Schedule, compute, schedules
from rvpo.core.trust import Evidence, Trust

# Options of AdvantageConfig; "schedule" decides k over training, and "trust" estimates reliabilities from the tenth of
# the completions that is judged twice.
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
    "RVPO k=5": {"method": "rvpo", "k": 5.0},
    "GDPO, trust": {"method": "gdpo", "trust": True},
    "RVPO k=2, trust": {"method": "rvpo", "k": 2.0, "trust": True},
    "LIFT, trust": {"method": "lift", "trust": True},
}
MAIN = tuple(RULES)[:8]
"""Compared in every cell; the others in some."""


def factory(name: str, generations: int) -> Factory:
    """Return what makes one run's rule."""
    options = dict(RULES[name])
    schedule: Schedule | None = options.pop("schedule", None)
    trust = Trust() if options.pop("trust", False) else None
    fixed = None if schedule else AdvantageConfig(**options)

    def make() -> Rule:
        state, evidence = None, Evidence()

        def rule(rewards: Tensor, step: int, steps: int, again: Tensor | None = None) -> Tensor:
            nonlocal state, evidence
            config = fixed or AdvantageConfig(**options, k=schedule(step / max(steps - 1, 1)))  # type: ignore[misc]
            channels = Channels.columns([str(j) for j in range(rewards.shape[1])])
            reliability = None
            if trust:
                known = evidence.reliability(channels.names, trust)
                reliability = [known.get(channel, 1.0) for channel in channels.names]
            result = compute(
                rewards,
                config,
                num_generations=generations,
                channels=channels,
                reliability=reliability,
                state=state,
            )
            state = result.state
            if trust and again is not None:
                chosen = range(step % 10, rewards.shape[0], 10)
                pairs = {
                    channel: [(rewards[i, j].item(), again[i, j].item()) for i in chosen]
                    for j, channel in enumerate(channels.names)
                }
                evidence = evidence.update(rewards, result.groups, channels, pairs, trust)
            return result.advantages

        return rule

    make.judges_twice = bool(trust)  # type: ignore[attr-defined]
    return make
