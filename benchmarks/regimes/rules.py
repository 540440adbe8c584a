"""The rules that the regimes compare: methods by their texts, each with a ``rvpo.Aggregator`` of its own per run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor
from train import Factory, Rule

import rvpo
from rvpo.core.methods.registry import build_method, read_texts, spell
from rvpo.step.trust import Again, Reliability

RULES: Mapping[str, str] = {
    "GRPO": "grpo",
    "GDPO": "gdpo",
    "RVPO k=1": "rvpo:k=1",
    "RVPO k=2": "rvpo:k=2",
    "RVPO k=0.5 to 2": "rvpo:k=linear(0.5,2)",
    "LIFT": "lift",
    "LIFT, needs only": "lift:margin=-1",
    "LIFT, guard only": "lift:kappa=0",
    "RVPO adaptive k": "rvpo:k=adaptive",
    "RVPO-explicit": "rvpo_explicit",
    "hard-min": "hard_min",
    "CTWA": "ctwa",
    "Lagrangian 0.9": "lagrangian:thresholds={0:0.9}",
    "smooth Tchebycheff": "smooth_tchebycheff",
    "RVPO k=5": "rvpo:k=5",
    "GDPO, trust": "gdpo",
    "RVPO k=2, trust": "rvpo:k=2",
    "LIFT, trust": "lift",
    "LIFT of before": "lift_z",
}
"""Methods by a name for people. The channels of the task are named "0", "1", …; channel 0 is the format."""
MAIN = tuple(RULES)[:8]
"""Compared in every cell; the others in some."""
TRUST = ", trust"
"""End of the names of rules that estimate how reliable channels are: a tenth of the completions is judged twice."""

# The aggregator warns once per run of channels that a soft minimum suppresses, which is what is measured here.
logging.getLogger("rvpo.step.aggregator").setLevel(logging.ERROR)


def named(methods: str) -> list[str]:
    """Return names of rules for methods as text, separated by blanks: one of :data:`RULES`, or else the text itself.

    >>> named("gdpo lift:kappa=3 my_rules.py:cvar")
    ['GDPO', 'lift:kappa=3', 'my_rules.py:cvar']
    """
    known = {spell(build_method(text)): name for name, text in reversed(RULES.items()) if not name.endswith(TRUST)}
    texts = [spell(method) for method in read_texts(methods)]
    return [known.get(text, text) for text in texts]


def factory(name: str, generations: int) -> Factory:
    """Return what makes the rule of one run.

    Args:
        name: one of :data:`RULES`, or a method as text.
        generations: G.
    """
    method, twice = RULES.get(name, name), 0.1 if name.endswith(TRUST) else 0.0

    def make() -> Rule:
        aggregator = None

        def rule(rewards: Tensor, step: int, steps: int, again: Tensor | None = None) -> Tensor:
            nonlocal aggregator
            if aggregator is None:
                reliability = Reliability(twice=twice) if twice else None
                names = [str(j) for j in range(rewards.shape[1])]
                aggregator = rvpo.Aggregator(method, names, reliability=reliability)
            rows = list(range(step % 10, rewards.shape[0], 10))
            return aggregator(
                rewards,
                num_generations=generations,
                progress=step / max(steps - 1, 1),
                again=Again(rows, again[rows], []) if again is not None else None,
            ).advantages

        return rule

    make.judges_twice = bool(twice)  # type: ignore[attr-defined]
    return make
