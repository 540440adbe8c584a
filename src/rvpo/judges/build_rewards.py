"""Build reward functions that ask a judge from the plain values of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from rvpo.importing import is_object_spec, load_callable
from rvpo.judges.build import load_judge
from rvpo.rewards.judged import MAX_MISSING
from rvpo.rewards.pairs import PairJudge
from rvpo.rewards.pairwise import COLUMN, GREEDY, QUESTION, PairwiseReward
from rvpo.rewards.rubric import RubricReward


def rubric_reward(
    judge: str | Mapping[str, Any],
    column: str = "rubric",
    aggregation: str = "channels",
    weighting: str | Mapping[str, float] | None = None,
    max_missing: float = MAX_MISSING,
    dropout: float = 0.0,
) -> RubricReward:
    """Build :class:`rvpo.rewards.rubric.RubricReward` from plain values: the reward ``rubric`` of recipes."""
    return RubricReward(
        load_judge(judge),
        column=column,
        aggregation=aggregation,
        weighting=weighting,
        max_missing=max_missing,
        dropout=dropout,
    )


def pairwise_reward(
    judge: str | Mapping[str, Any],
    against: str = COLUMN,
    column: str = "reference",
    question: str = QUESTION,
    max_missing: float = MAX_MISSING,
) -> PairwiseReward:
    """Build :class:`rvpo.rewards.PairwiseReward` from plain values: the reward ``pairwise`` of recipes.

    ``against`` is also ``module:function`` or ``file.py:function``, which returns the replies to compare with.
    """
    replies: str | Callable[..., Any] = against
    if isinstance(against, str) and against not in (COLUMN, GREEDY) and is_object_spec(against):
        replies = load_callable(against, "against")
    built = cast("PairJudge", load_judge(judge))  # PairwiseReward refuses a judge that cannot compare
    return PairwiseReward(built, against=replies, column=column, question=question, max_missing=max_missing)
