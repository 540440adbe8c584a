"""``RVPOConfig``: TRL's ``GRPOConfig`` plus the options of the aggregation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trl import GRPOConfig

from rvpo.core.checks import require_number
from rvpo.errors import ConfigError
from rvpo.step.options import MAPPINGS, AggregationOptions

# GRPOConfig options that choose TRL's own aggregation, which ours replaces, with the only value they may have here.
REPLACED = {"scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize"}


@dataclass
class RVPOConfig(AggregationOptions, GRPOConfig):  # type: ignore[misc]
    """Arguments of :class:`RVPOTrainer`: everything of ``trl.GRPOConfig``, and how rewards become advantages.

    ``reward_weights`` enters every method. ``beta`` stays TRL's KL coefficient; the variance penalty of
    ``"rvpo_explicit"`` is ``variance_beta``. See :class:`rvpo.step.options.AggregationOptions` for the rest.

    Raises:
        ConfigError: for a value or combination that cannot work, and for the TRL options that this aggregation
            replaces (``scale_rewards``, ``multi_objective_aggregation``).
    """

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, *MAPPINGS]  # noqa: RUF012 (transformers' own declaration)

    judge_twice: float = field(
        default=0.0,
        metadata={
            "help": "Share of completions that every reward function scores a second time, to estimate how reliable "
            "each channel is and trust it accordingly; 0 (default) trusts all. A judge that answers greedily, or from "
            "a cache of its own, repeats itself: let it sample."
        },
    )

    def __post_init__(self) -> None:
        """Check the options of both sides before anything is loaded."""
        super().__post_init__()
        for option, only in REPLACED.items():
            if getattr(self, option) != only:
                raise ConfigError(
                    f"{option} is {getattr(self, option)!r}, but RVPOTrainer replaces TRL's aggregation, so it would "
                    f"have no effect: drop it, and choose `method` ('gdpo' is TRL's normalize_then_sum, 'grpo' its "
                    "sum_then_normalize) and `whiten` instead"
                )
        weights = self.reward_weights
        if weights is not None and not (
            isinstance(weights, (list, tuple))
            and all(isinstance(w, (int, float)) and 0 <= w < math.inf for w in weights)
            and any(weights)
        ):
            raise ConfigError(
                f"reward_weights is {weights!r}, allowed is a list of finite numbers >= 0, at least one above 0: "
                "negate a reward inside its reward function instead"
            )
        self.check_aggregation()
        require_number("judge_twice", self.judge_twice, 1, closed=True)
        self.refuse_unused("judge_twice", self.advantage_config(progress=0.0))
