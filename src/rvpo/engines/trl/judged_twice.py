"""Scoring a share of the completions a second time, from which the trust in each channel is estimated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rvpo.rewards.rubric import RubricReward


def rows_to_judge_twice(share: float, rows: int, seed: int, step: int) -> list[int]:
    """Choose which of a process's completions are scored a second time: the same rows on every process.

    With a generator of their own, so that the run draws the same prompts and completions with and without.
    """
    if not share:
        return []
    count = max(1, round(share * rows))
    return sorted(random.Random(f"{seed}/{step}").sample(range(rows), count))


@contextmanager
def second_judgement(trainer: Any, rubrics: Sequence[RubricReward], rows: Sequence[int]) -> Iterator[None]:
    """Let reward functions run a second time without traces: no extra columns or metrics, the first verdicts kept."""
    first = [reward.latest for reward in rubrics]
    environments = trainer.environments
    trainer._log_completion_extra = trainer._log_metric = lambda *_, **__: None
    if environments is not None:
        trainer.environments = [environments[i] for i in rows]
    for reward in rubrics:
        reward.repeat = 1
    try:
        yield
    finally:
        del trainer._log_completion_extra, trainer._log_metric  # the methods are there again
        trainer.environments = environments
        for reward, latest in zip(rubrics, first, strict=True):
            reward.repeat, reward.latest = 0, latest
