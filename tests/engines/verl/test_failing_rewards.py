"""Reward functions that raise or return no score, in real trainings on the CPU; see rig/README.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig.run import GENERATIONS, PROMPTS, TrainingFailedError, train

OURS = ["algorithm.adv_estimator=rvpo", "+algorithm.rvpo.reward_keys=[vowels,brief]"]
CAUSE = "JSONDecodeError: Expecting property name enclosed in double quotes"


def function(name: str) -> str:
    return f"reward.custom_reward_function.name={name}"


def test_lost_prompts_are_counted_and_the_run_goes_on(tmp_path: Path):
    run = train(tmp_path, *OURS, function("raises_for_some"), "trainer.test_freq=3", entry="rvpo.verl", steps=3)
    assert list(run.metrics) == [1, 2, 3]
    total = 0
    for step, metrics in run.metrics.items():
        there = len({row["completion"] for row in run.channels(step)})
        assert metrics["rvpo/lost/completions"] == PROMPTS * GENERATIONS - there
        total += metrics["rvpo/lost/completions"]
    assert total > 0
    assert "of 32 rollouts that were asked for until step" in run.log
    assert "by ValueError: cannot read the answer (in raises_for_some)" in run.log
    assert "The validation after step 3 lost" in run.log


@pytest.mark.parametrize("mode", ["sync", pytest.param("colocate_async", marks=pytest.mark.slow)])
def test_a_reward_function_that_always_raises_ends_the_run_with_its_error(tmp_path: Path, mode: str):
    with pytest.raises(TrainingFailedError) as told:
        train(tmp_path, *OURS, function("raises_always"), entry="rvpo.verl", steps=3, mode=mode)
    assert "error: " in str(told.value)
    assert CAUSE in str(told.value)
    assert "(in raises_always, from raw_decode)" in str(told.value)


@pytest.mark.slow
def test_lost_prompts_are_counted_in_colocate_async(tmp_path: Path):
    run = train(tmp_path, *OURS, function("raises_for_some"), entry="rvpo.verl", steps=3, mode="colocate_async")
    assert list(run.metrics) == [1, 2, 3]
    assert sum(metrics["rvpo/lost/completions"] for metrics in run.metrics.values()) >= GENERATIONS


@pytest.mark.slow
def test_missing_scores_train_and_validate(tmp_path: Path):
    """Also where groups are filtered by a part that is missing for some completions."""
    filtered = ["algorithm.filter_groups.enable=True", "algorithm.filter_groups.metric=vowels"]
    settings = [*filtered, "trainer.test_freq=3", "trainer.v1.sampler.custom_sampler.path=null"]
    run = train(tmp_path, *OURS, *settings, function("misses_scores"), entry="rvpo.verl", steps=3)
    assert list(run.metrics) == [1, 2, 3]
    assert any(metrics["rvpo/vowels/missing"] > 0 for metrics in run.metrics.values())
    assert all(value == value for metrics in run.metrics.values() for value in metrics.values())  # none is NaN
    assert 0 <= run.metrics[3]["val-core/vowels-and-brief/reward/mean@1"] <= 1
