"""Find the reward and completion that could not be aggregated, for the error that ends a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rvpo.core.methods.registry import spell
from rvpo.core.ragged import Family
from rvpo.engines.trl.reward_calls import Failure, about, place_of_error, public_class
from rvpo.errors import RewardError, RVPOError
from rvpo.text.quoting import escaped


def failure_of(trainer: Any, error: Exception, rewards: Tensor, families: Sequence[Family]) -> Failure:
    """Return the failure of an aggregation: a reward that no method can use, or an error of the method itself.

    Args:
        trainer: trainer whose aggregator raised ``error``.
        error: the error.
        rewards: (N, F) rewards of the reward functions, for all processes.
        families: rubrics of the batch.
    """
    method = spell(trainer.aggregator.config.method)
    if not isinstance(error, RVPOError):
        text = f"method {method!r} raised {type(error).__name__}: {escaped(str(error))}{place_of_error(error)}"
        return Failure(text, RewardError, error)
    cell = _bad_cell(trainer, rewards, families) if isinstance(error, RewardError) else None
    return Failure(cell or escaped(str(error), 2000), public_class(error), error)


def _bad_cell(trainer: Any, rewards: Tensor, families: Sequence[Family]) -> str | None:
    """Return a sentence about the first reward that is infinite, or missing although missing rewards are errors."""
    strict = trainer.aggregator.config.missing == "error"
    of_rubrics = {family.name: family for family in families if not family.only_monitored}
    for j, name in enumerate(trainer.reward_func_names):
        if name in of_rubrics:
            found = _missing_score(of_rubrics[name]) if strict else None
        else:
            found = _bad_row(rewards[:, j], strict)
        if found is not None:
            row, what = found
            return f"reward function {name!r} gave {what} {about(row, *_texts(trainer, len(rewards)))}; expected " + (
                "finite numbers (missing_rewards is 'error')" if strict else "finite numbers, or None"
            )
    return None


def _bad_row(column: Tensor, strict: bool) -> tuple[int, str] | None:
    rows = (~column.isfinite() if strict else column.isinf()).nonzero()
    if not len(rows):
        return None
    value = float(column[int(rows[0])])
    return int(rows[0]), "no reward (None or NaN)" if value != value else str(value)


def _missing_score(family: Family) -> tuple[int, str] | None:
    for row, scores in enumerate(family.rows):
        for score in scores:
            if score.value is None:
                return row, f"no verdict on criterion {escaped(score.channel, 80)!r} ({score.reason or 'unknown'})"
    return None


def _texts(trainer: Any, rows: int) -> tuple[list[Any], list[Any]]:
    """Return the prompts and completions that TRL gathered for its tables; empty if they are not of this batch."""
    prompts, completions = (list(trainer._logs[key])[-rows:] for key in ("prompt", "completion"))
    return (prompts, completions) if len(prompts) == len(completions) == rows else ([], [])
