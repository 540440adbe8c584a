"""RiskPO as a rule: risk across questions, on top of a rule over channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from rvpo.core import riskpo
from rvpo.core.channels import State
from rvpo.core.rules.base import Batch, Outcome, Rule
from rvpo.errors import ConfigError


@dataclass(frozen=True)
class RiskPO(riskpo.RiskPOConfig):
    """``"riskpo"``: risk across questions. See :mod:`rvpo.core.riskpo`, which has the other options.

    Attributes:
        score: what a completion's one score is: a method's name, or a mapping with ``method`` and its options.
            ``"grpo"``, the default, is the weighted sum of raw rewards; a rule over channels stacks both kinds of
            risk. Rules over z-scores see only differences within a group, so questions differ in spread alone.
    """

    whiten: ClassVar[str] = "none"
    remembers: ClassVar[bool] = True
    score: str | Mapping[str, Any] = "grpo"

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        self.over_channels  # noqa: B018 (built now, so that it fails now)

    @cached_property
    def over_channels(self) -> Rule:
        """The rule that gives a completion its score."""
        from rvpo.core.rules import build_rule  # which knows this rule, too

        options = {"method": self.score} if isinstance(self.score, str) else self.score
        options = dict(options) if isinstance(options, Mapping) else {}
        method = options.pop("method", None) or options.pop("name", None)  # a recipe's own word for it
        if not isinstance(method, str) or method == "riskpo":
            raise ConfigError(
                f"score is {self.score!r}, allowed is the name of another method, or a mapping such as "
                "{method: rvpo, k: 2.0}; 'grpo' is one reward, or the weighted sum of several"
            )
        return build_rule(method, options)

    @property
    def names_channels(self) -> tuple[str, ...]:
        """Those of the rule over channels."""
        return self.over_channels.names_channels

    @property
    def dead_channels(self) -> str:
        """The default of the rule over channels."""
        return self.over_channels.dead_channels

    @property
    def risk(self) -> float:
        """That of the rule over channels."""
        return self.over_channels.risk

    @property
    def uses_z(self) -> bool:
        """As the rule over channels does."""
        return self.over_channels.uses_z

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Score every completion by the rule over channels, then bundle the questions."""
        scored = self.over_channels(batch, state.get("score", {}))
        missing = ~(batch.weights * ~batch.scores.missing > 0).any(-1)
        result = riskpo.riskpo(
            scored.aggregated.masked_fill(missing, torch.nan), batch.groups, self, state.get("quantiles")
        )
        new = {"score": scored.state, "quantiles": result.state}
        metrics = {**scored.metrics, **result.metrics}
        return Outcome(result.advantages, scored.responsibilities, result.papers >= 0, new, metrics)
