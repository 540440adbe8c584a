"""Score a share of the completions a second time, to estimate the trust in each channel.

For :class:`rvpo.step.trust.Reliability` with ``twice`` above 0. A judge that answers greedily, or from its own cache,
gives the same verdict twice. So let the judge sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from rvpo.engines.trl.rubrics import gather_families
from rvpo.rewards.judged import JudgedReward
from rvpo.step.trust import Again


def score_again(
    trainer: Any,
    share: float,
    rubrics: Mapping[str, JudgedReward],
    score: Callable[..., Tensor],
    scored: Sequence[Sequence[Any]],
    rewards: Tensor,
) -> Again:
    """Score some completions of each process a second time. Collective.

    Args:
        trainer: the trainer whose reward functions are called.
        share: share of the completions, above 0.
        rubrics: rubric rewards by the name of their channel.
        score: TRL's ``_calculate_rewards``.
        scored: arguments of ``score``: each has one value per completion of this process.
        rewards: (N, F) result of ``score`` for all processes.
    """
    count = len(scored[0])
    rows = _rows(share, count, trainer.args.seed, trainer._step)
    with _second_judgement(trainer, list(rubrics.values()), rows):
        again = score(*([values[i] for i in rows] for values in scored))
        families = gather_families(rubrics)
    return Again([start + i for start in range(0, rewards.shape[0], count) for i in rows], again, families)


def _rows(share: float, rows: int, seed: int, step: int) -> list[int]:
    """Choose which of a process's completions are scored a second time: the same rows on every process.

    A separate random generator is used, so the run draws the same prompts and completions with and without this.
    """
    count = max(1, round(share * rows))
    return sorted(random.Random(f"{seed}/{step}").sample(range(rows), count))


@contextmanager
def _second_judgement(trainer: Any, rubrics: Sequence[JudgedReward], rows: Sequence[int]) -> Iterator[None]:
    """Let reward functions run a second time without side effects: no extra columns or metrics; keep first verdicts."""
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
        del trainer._log_completion_extra, trainer._log_metric  # makes the class's methods visible again
        trainer.environments = environments
        for reward, latest in zip(rubrics, first, strict=True):
            reward.repeat, reward.latest = 0, latest
