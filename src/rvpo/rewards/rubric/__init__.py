"""Rubrics: criteria that belong to a prompt, each of them a channel."""

from rvpo.rewards.rubric.criteria import Criterion, Rubric
from rvpo.rewards.rubric.reward import RubricReward
from rvpo.rewards.rubric.verdict import REASONS, Judge, Question, Verdict

__all__ = ["REASONS", "Criterion", "Judge", "Question", "Rubric", "RubricReward", "Verdict"]
