"""Rubrics: criteria that belong to a prompt. Each criterion is a channel.

- :class:`Rubric` and :class:`Criterion` are the data, and :class:`RubricReward` is the reward function.
- :class:`Judge`, :class:`Question` and :class:`Verdict` are the interface to judges (:mod:`rvpo.judges`).
- :mod:`rvpo.rewards.rubric.scores` turns verdicts into weights, explicit scores and HealthBench's scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rvpo.extras import needs_extra
from rvpo.rewards.rubric.criteria import Criterion, Rubric
from rvpo.rewards.rubric.verdict import REASONS, Judge, Question, Verdict

if TYPE_CHECKING:
    from rvpo.rewards.rubric.reward import RubricReward

__all__ = ["REASONS", "Criterion", "Judge", "Question", "Rubric", "RubricReward", "Verdict"]


def __getattr__(name: str) -> object:
    """Load ``RubricReward`` on first use: it needs torch, and readers and judges do not."""
    if name == "RubricReward":
        with needs_extra("torch", "rubrics as rewards"):
            from rvpo.rewards.rubric.reward import RubricReward

        return RubricReward
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
