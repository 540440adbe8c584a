"""``metric_for_best_model``: a clear message if an evaluation does not log it, or logs it without a value."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping
from typing import Any

from rvpo.engines.trl.reward_calls import Failure
from rvpo.errors import ConfigError

logger = logging.getLogger(__name__)

_SHOWN = 6


def missing_best_metric(trainer: Any, metrics: Mapping[str, Any]) -> Failure | None:
    """Return a failure if an evaluation does not log the metric of the best model, otherwise None.

    Args:
        trainer: the trainer, whose arguments name the metric.
        metrics: the metrics that an evaluation logged.
    """
    name = trainer.args.metric_for_best_model
    if name is None or _key(name) in metrics:
        return None
    return Failure(
        f"metric_for_best_model is {name!r}, but an evaluation does not log {_key(name)!r}; expected one of those that "
        f"it logs, such as {_near(name, metrics)}. Set metric_for_best_model to one of them",
        ConfigError,
    )


def has_best_metric(trainer: Any, metrics: Mapping[str, Any]) -> bool:
    """Return whether the metric of the best model has a finite value, and warn once if it does not.

    A metric may be undefined in an evaluation, such as the responsibility of a reward that ranked nothing. Such an
    evaluation cannot be the best one.
    """
    name = trainer.args.metric_for_best_model
    if name is None:
        return True
    value = metrics.get(_key(name))
    if isinstance(value, int | float) and math.isfinite(value):
        return True
    if not getattr(trainer, "_warned_of_best_metric", False):
        trainer._warned_of_best_metric = True
        defined = {key: seen for key, seen in metrics.items() if isinstance(seen, int | float) and math.isfinite(seen)}
        logger.warning(
            "metric_for_best_model is %r, whose value is %s in the evaluation at step %d: an evaluation without a "
            "value never counts as the best. Metrics with a value include %s. This warning is shown once.",
            name,
            value,
            trainer.state.global_step,
            _near(name, defined),
        )
    return False


def _key(name: str) -> str:
    """Return the name under which an evaluation logs a metric, as transformers looks it up."""
    return name if name.startswith("eval_") else f"eval_{name}"


def _near(name: str, metrics: Mapping[str, Any]) -> str:
    """Return the closest names first, then the first of the other names."""
    names = [key for key in metrics if key.startswith("eval_") and not _of_the_machine(key)]
    near = difflib.get_close_matches(_key(name), names, n=_SHOWN, cutoff=0.5)
    return ", ".join(map(repr, [*near, *(key for key in names if key not in near)][:_SHOWN]))


def _of_the_machine(key: str) -> bool:
    return key.endswith(("runtime", "per_second", "model_preparation_time"))
