"""Every mode, worker count and kind of reward for 30 steps: ``make test-nightly``, twenty minutes on two cores."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from rig.run import GENERATIONS, PROMPTS, TrainingFailedError, rubrics, train

from fault_server import FaultServer, degree
from rvpo.engines.verl.data import write_parquet
from rvpo.rewards.rubric import Criterion, Rubric

pytestmark = pytest.mark.slow
STEPS = 30


# By which the mean of the last five steps exceeds that of the first five. Which weights an asynchronous rollout meets
# depends on time, so those runs differ from each other, and they learn more slowly.
MARGIN = {"sync": 0.15, "colocate_async": 0.05}


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
        means = [metrics[f"rvpo/{name}/mean"] for metrics in run.metrics.values()]
        first, last = sum(means[:5]) / 5, sum(means[-5:]) / 5
        print(f"{mode}, {workers} worker(s), {name}: {first:.2f} -> {last:.2f}, {run.seconds:.0f} s")
        assert last > first + MARGIN[mode], name


def test_verls_own_gdpo_fails_in_its_trainer(tmp_path: Path):
    """Ours takes the same command line (test_rubric_training.py). If this fails, verl has fixed it."""
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


def rubric(i: int) -> Rubric:
    """Return one criterion that a rule decides, and two to four that a judge is asked about."""
    asked = tuple(Criterion(f"asked{j}", f"Statement {j} of prompt {i}.", tags=("asked",)) for j in range(2 + i % 3))
    return Rubric((Criterion("short", "At most six letters.", category="form", rule={"max_chars": 6}), *asked))


def test_rubrics_judged_by_a_server_in_the_reward_workers(tmp_path: Path):
    """Two reward workers, a tenth of the judge's answers faulty: every verdict is right or missing."""
    draw = random.Random(0)
    words = sorted({"".join(draw.choices(string.ascii_lowercase, k=4)) for _ in range(64)})
    rows = [
        {"prompt": [{"role": "user", "content": word}], "rubric": rubric(i).to_json()} for i, word in enumerate(words)
    ]
    write_parquet(Dataset.from_list(rows), tmp_path / "judged.parquet", data_source="judged", split="train")
    with FaultServer(fault_rate=0.1, seed=1, faults=["429", "500", "timeout", "drop"]) as server:
        judge = f"{{kind: endpoint, base_url: '{server.url}', model: {server.model}, cache: '{tmp_path}/judge.sqlite', "
        judge += "timeout: 5.0, retries: 4}"
        run = train(
            tmp_path / "run",
            f"data.train_files={tmp_path}/judged.parquet",
            f"data.val_files={tmp_path}/judged.parquet",
            "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards",
            "reward.custom_reward_function.name=compute_score",
            f"+reward.custom_reward_function.reward_kwargs.rewards=[{{function: rubric, options: {{judge: {judge}}}}}]",
            "+reward.custom_reward_function.reward_kwargs.num_workers=${reward.num_workers}",
            "reward.num_workers=2",
            "algorithm.adv_estimator=rvpo",
            "+algorithm.rvpo.judge_twice=0.25",
            entry="rvpo.verl",
            steps=4,
        )
        # Asked once; a question that is asked for the second judgement, too, is answered twice.
        assert max(server.answered.values()) <= 2
        last = run.metrics[4]
        assert last["rvpo/rubric/judge/all/calls"] >= last["rvpo/rubric/judge/calls"] >= server.answered.total() - 1
        assert last["rvpo/rubric/judge/retries"] > 0
        assert 0 < last["rvpo/rubric/asked/reliability"] <= 1
        assert server.faults_sent.total() > 0
    assert list(run.metrics) == [1, 2, 3, 4]
    missing = 0
    for step in run.metrics:
        cells = pq.read_table(run.folder / f"rollouts/channels/{step:06d}.parquet").to_pylist()
        assert len({cell["completion"] for cell in cells}) == PROMPTS * GENERATIONS
        outputs = {rollout["uid"].rpartition("_")[0]: rollout["output"] for rollout in run.rollouts[step]}
        for cell in cells:
            reply = outputs[cell["session"]]
            if cell["criterion"] == "short":
                assert cell["reward"] == float(len(reply) <= 6)
            elif cell["reward"] is None:
                missing += 1
                assert cell["reason"]
            else:
                assert cell["reward"] == float(degree(reply, cell["text"]) >= 0.5)
        assert {"rvpo/rubric/form/mean", "rvpo/rubric/asked/mean"} <= run.metrics[step].keys()
    print(f"{missing} verdicts missing after {server.faults_sent.total()} faults")


@pytest.mark.parametrize("mode", ["sync", "colocate_async"])
def test_two_nodes(tmp_path: Path, mode: str):
    """Two Ray node processes on this machine, a worker of the actor on each, and reward workers on both."""
    ours = ["algorithm.adv_estimator=lift", "+algorithm.rvpo.reward_keys=[vowels,brief]", "reward.num_workers=2"]
    options: dict[str, Any] = {"entry": "rvpo.verl", "workers": 2, "nodes": 2, "mode": mode}
    train(tmp_path, *ours, "trainer.save_freq=3", steps=3, **options)
    run = train(tmp_path, *ours, "trainer.save_freq=3", steps=6, **options)
    assert list(run.metrics) == list(range(1, 7))
    assert "begins anew" not in run.log
    assert len({event["event"] for event in run.events}) > 0
    for step in run.metrics:
        assert len({row["completion"] for row in run.channels(step)}) == PROMPTS * GENERATIONS
