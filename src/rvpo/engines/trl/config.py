"""``RVPOConfig``: TRL's ``GRPOConfig`` plus the options of the aggregation."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from typing import Any

from trl import GRPOConfig

from rvpo.core.methods.registry import build_method, spell
from rvpo.errors import ConfigError
from rvpo.step.options import MAPPINGS, AggregationOptions

# GRPOConfig options that choose TRL's own aggregation, which ours replaces, with the only value they may have here.
REPLACED = {"scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize"}


@dataclass
class RVPOConfig(AggregationOptions, GRPOConfig):  # type: ignore[misc]
    """Arguments of :class:`RVPOTrainer`: everything of ``trl.GRPOConfig``, and how rewards become advantages.

    ``method`` is a text (``"lift:kappa=3"``), a mapping or an object (``rvpo.LIFT(kappa=3)``). ``reward_weights``
    enters every method. ``beta`` stays TRL's KL coefficient. See
    :class:`rvpo.step.options.AggregationOptions` for the rest.

    Raises:
        ConfigError: for a value or combination that cannot work, and for the TRL options that this aggregation
            replaces (``scale_rewards``, ``multi_objective_aggregation``).
    """

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, *MAPPINGS]  # noqa: RUF012 (transformers' own declaration)

    def __post_init__(self) -> None:
        """Check the options of both sides before anything is loaded."""
        self.reward_weights: list[float] | None = _as_list(self.reward_weights)
        super().__post_init__()
        for option, only in REPLACED.items():
            if getattr(self, option) != only:
                raise ConfigError(
                    f"{option} is {getattr(self, option)!r}, but RVPOTrainer replaces TRL's aggregation, so it would "
                    "have no effect; expected it unset. Choose `method` instead: gdpo is TRL's normalize_then_sum, "
                    "grpo its sum_then_normalize, and a method's whiten says how advantages are scaled "
                    "(gdpo:whiten=group)"
                )
        weights = self.reward_weights
        if weights is not None and not (
            isinstance(weights, (list, tuple))
            and all(isinstance(w, (int, float)) and 0 <= w < math.inf for w in weights)
            and any(weights)
        ):
            raise ConfigError(
                f"reward_weights is {weights!r}; expected a list of finite numbers >= 0, at least one above 0 (a "
                "tensor or an array of one dimension will do). Negate a reward inside its reward function instead"
            )
        self.check_aggregation()
        if self.advantage_config().whiten == "token":
            raise ConfigError(
                "whiten is 'token', which only verl's engine knows; expected batch, group or none. Drop it from "
                "`method`"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Checkpoints hold the arguments: a method that cannot be pickled, such as a lambda, is kept as its text."""
        state = dict(self.__dict__)
        if not isinstance(self.method, str | dict):
            try:
                pickle.dumps(self.method)
            except Exception:  # whatever somebody's object raises
                state["method"] = spell(build_method(self.method))
        return state

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; a method that is an object as its text."""
        values: dict[str, Any] = super().to_dict()
        if not isinstance(self.method, str | dict):
            values["method"] = spell(build_method(self.method))
        return values


def _as_list(weights: Any) -> Any:
    """Return weights that are a tensor, an array or a list with their numbers as plain ones; all else as it is.

    Checkpoints and trackers keep the config as JSON, and transformers asks whether values are true.
    """
    listed = weights.tolist() if hasattr(weights, "tolist") else weights
    if not isinstance(listed, list | tuple):
        return listed
    return [_plain(weight) for weight in listed]


def _plain(weight: Any) -> Any:
    """Return a number of torch or numpy as one of Python; all else as it is."""
    try:
        return weight.item()
    except (AttributeError, ValueError, RuntimeError):  # a plain number, or an array of several
        return weight
