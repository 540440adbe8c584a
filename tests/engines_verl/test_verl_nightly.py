"""Every mode, worker count and kind of reward for 30 steps: ``make test-nightly``, twenty minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rig.run import Run, TrainingFailedError, rubrics, train

pytestmark = pytest.mark.slow
STEPS = 30


def mean(run: Run, channel: str, steps: range) -> float:
    return sum(run.metrics[step][f"rvpo/{channel}/mean"] for step in steps) / len(steps)


@pytest.mark.parametrize("mode", ["sync", "colocate_async"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("ragged", [False, True], ids=["two_channels", "rubrics"])
def test_channels_improve(tmp_path: Path, mode: str, workers: int, ragged: bool):
    names = ["channels"] if ragged else ["vowels", "brief"]
    ours = ["algorithm.adv_estimator=rvpo", f"+algorithm.rvpo.reward_keys=[{','.join(names)}]"]
    task = rubrics(tmp_path) if ragged else []
    options: dict[str, Any] = {"entry": "rvpo.verl", "workers": workers, "mode": mode, "steps": STEPS}
    run = train(tmp_path, *task, *ours, **options)
    assert list(run.metrics) == list(range(1, STEPS + 1))
    for name in names:
        first, last = mean(run, name, range(1, 6)), mean(run, name, range(STEPS - 4, STEPS + 1))
        print(f"{mode}, {workers} worker(s), {name}: {first:.2f} -> {last:.2f}, {run.seconds:.0f} s")
        assert last > first + 0.15, name


def test_verls_own_gdpo_fails_in_its_trainer(tmp_path: Path):
    """Ours takes the same command line (test_verl_training.py). When this fails, verl has mended it."""
    line = ["algorithm.adv_estimator=gdpo", "+algorithm.gdpo_reward_keys=[vowels,brief]"]
    with pytest.raises(TrainingFailedError, match=r"KeyError: 'key \"prompts\" not found in TensorDict"):
        train(tmp_path, *line, steps=2)


def test_a_reward_that_does_not_come_stops_the_run_with_its_name(tmp_path: Path):
    ours = ["algorithm.adv_estimator=rvpo", "+algorithm.rvpo.reward_keys=[vowels,short]"]
    with pytest.raises(TrainingFailedError) as told:
        train(tmp_path, *ours, entry="rvpo.verl")
    assert "error: the reward function returned score, vowels, brief, but not the reward 'short'" in str(told.value)


def test_a_run_of_plain_verl_goes_on_with_ours(tmp_path: Path):
    train(tmp_path, "algorithm.adv_estimator=grpo", "trainer.save_freq=2", steps=2)
    ours = ["algorithm.adv_estimator=lift", "+algorithm.rvpo.reward_keys=[vowels,brief]"]
    run = train(tmp_path, *ours, entry="rvpo.verl", steps=4)
    assert list(run.metrics) == [1, 2, 3, 4]
    assert "rvpo/vowels/weight" not in run.metrics[2]
    assert "rvpo/vowels/weight" in run.metrics[3]
    assert "method 'lift' begins anew" in run.log
