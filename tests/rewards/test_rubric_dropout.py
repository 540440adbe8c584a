"""Rubric dropout: which criteria are asked depends on the prompt and the step alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from rvpo.errors import ConfigError
from rvpo.rewards.rubric import Criterion, Question, Rubric, RubricReward, Verdict
from rvpo.rewards.rubric.dropout import kept_criteria


def criteria(positive: int, negative: int = 0) -> tuple[Criterion, ...]:
    good = [Criterion(f"g{i}", f"Says {i}.", points=i + 1) for i in range(positive)]
    return (*good, *[Criterion(f"b{i}", f"Omits {i}.", points=-1) for i in range(negative)])


@pytest.mark.parametrize(
    ("positive", "share", "kept"),
    [
        (1, 0.5, 1),
        (3, 0.5, 3),
        (4, 0.5, 3),
        (6, 0.5, 3),
        (7, 0.5, 4),
        (20, 0.5, 10),
        (10, 0.3, 7),
        (20, 0.99, 3),
        (9, 0, 9),
    ],
)
def test_the_number_that_is_kept(positive: int, share: float, kept: int):
    for step in range(20):
        left = kept_criteria(criteria(positive, 2), share, "prompt", "rubric", step)
        assert left == sorted(set(left))
        assert sum(i < positive for i in left) == kept
        assert left[-2:] == [positive, positive + 1]  # negative ones always stay


def test_the_mask_follows_from_prompt_rubric_and_step_alone():
    masks = {
        (prompt, step): tuple(kept_criteria(criteria(12), 0.5, prompt, "rubric", step))
        for prompt in ("a", "b")
        for step in range(10)
    }
    assert len(set(masks.values())) == 20
    code = (
        "from rvpo.rewards.rubric import Criterion\n"
        "from rvpo.rewards.rubric.dropout import kept_criteria\n"
        "made = [Criterion(f'g{i}', 'x', points=i + 1) for i in range(12)]\n"
        "print(kept_criteria(made, 0.5, 'a', 'rubric', 3))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(list(masks["a", 3]))
    # Over many steps each criterion is asked about equally often.
    counts = [sum(i in kept_criteria(criteria(12), 0.5, "a", "r", step) for step in range(400)) for i in range(12)]
    assert min(counts) > 150
    assert max(counts) < 250


class Noting:
    """A judge that notes what it is asked and finds everything met."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def judge(self, questions: list[Question]) -> list[list[Verdict]]:
        self.asked += [[criterion.id for criterion in question.criteria] for question in questions]
        return [[Verdict(1.0) for _ in question.criteria] for question in questions]

    async def check(self) -> None: ...

    def usage(self) -> dict[str, float]:
        return {}


def call(reward: RubricReward) -> list[float | None]:
    rubric = Rubric(criteria(8, 1)).to_json()
    return asyncio.run(reward(["p"] * 3, ["x", "y", "z"], rubric=[rubric, None, rubric]))


def test_dropped_criteria_are_not_judged_and_are_no_channel():
    judge = Noting()
    reward = RubricReward(judge, dropout=0.5, weighting="points")
    reward.at(7)
    totals = call(reward)
    assert [len(asked) for asked in judge.asked] == [5, 5]
    assert judge.asked[0] == judge.asked[1]
    assert [[score.channel for score in row] for row in reward.latest] == [judge.asked[0], [], judge.asked[0]]
    assert totals[0] is not None
    assert totals[1] is None
    assert sum(score.weight for score in reward.latest[0]) == pytest.approx(5)
    assert reward.dropped == 8
    reward.at(None)  # an evaluation asks all
    call(reward)
    assert len(judge.asked[-1]) == 9
    assert reward.dropped == 8


@pytest.mark.parametrize("value", [1, -0.5, True, "half"])
def test_a_share_that_cannot_work_is_refused(value: Any):
    with pytest.raises(ConfigError, match="dropout is"):
        RubricReward(Noting(), dropout=value)


def test_dropout_needs_somebody_who_knows_the_step():
    with pytest.raises(ConfigError, match="the training step is unknown"):
        call(RubricReward(Noting(), dropout=0.5))
    with pytest.raises(ConfigError, match="no effect on the implicit score"):
        RubricReward(Noting(), dropout=0.5, aggregation="implicit")
