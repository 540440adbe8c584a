"""verl's other settings with our methods, in real trainings on the CPU: a KL loss, resumes, a judge that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset
from rig.run import TrainingFailedError, train

from rvpo.engines.verl.data import write_parquet
from rvpo.rewards.rubric import Criterion, Rubric

pytestmark = pytest.mark.slow
OURS = ["algorithm.adv_estimator=lift", "+algorithm.rvpo.reward_keys=[vowels,brief]"]


def test_a_kl_loss_is_added_to_ours(tmp_path: Path):
    kl = ["actor_rollout_ref.actor.use_kl_loss=True", "actor_rollout_ref.ref.strategy=fsdp2"]
    run = train(tmp_path, *OURS, *kl, entry="rvpo.verl", steps=2)
    assert "actor/kl_loss" in run.metrics[2]
    assert "rvpo/vowels/weight" in run.metrics[2]


def test_a_resume_with_another_number_of_processes_is_refused_before_ray_starts(tmp_path: Path):
    train(tmp_path, *OURS, "trainer.save_freq=2", entry="rvpo.verl", steps=2)
    with pytest.raises(TrainingFailedError) as told:
        train(tmp_path, *OURS, "trainer.save_freq=2", entry="rvpo.verl", steps=4, workers=2)
    assert "was saved by 1 process(es)" in str(told.value)
    assert "ray init" not in str(told.value)


def test_a_resume_with_other_ranges_begins_its_memory_anew(tmp_path: Path):
    train(tmp_path, *OURS, "trainer.save_freq=2", entry="rvpo.verl", steps=2)
    saved = json.loads((tmp_path / "checkpoints/global_step_2/rvpo_state.json").read_text())
    assert saved["ranges"] == {"vowels": None, "brief": None}
    run = train(tmp_path, *OURS, "+algorithm.rvpo.reward_ranges={brief: [0, 2]}", entry="rvpo.verl", steps=3)
    assert "the range of 'brief' was not declared and is [0, 2] now" in run.log
    assert "so it begins anew" in run.log
    assert run.metrics[3]["rvpo/brief/attained"] <= 0.5


JUDGE = '''
"""A judge that fails in one worker of several: the first that comes."""
import os
from rvpo.rewards.rubric import Verdict


class Judge:
    def __init__(self, folder):
        self.folder = folder

    def fails(self):
        try:
            with open(os.path.join(self.folder, "failing"), "x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            pass
        return open(os.path.join(self.folder, "failing")).read() == str(os.getpid())

    async def judge(self, questions):
        if self.fails():
            raise ConnectionError("the disk of this worker is full")
        return [[Verdict(float("a" in q.completion)) for c in q.criteria] for q in questions]

    async def check(self): ...

    def usage(self):
        return {}
'''


@pytest.mark.parametrize(("allowed", "ends"), [(1.0, False), (0.1, True)])
def test_a_judge_that_fails_in_one_of_two_workers_gives_missing_verdicts(tmp_path: Path, allowed: float, ends: bool):
    (tmp_path / "my_judge.py").write_text(JUDGE)
    rubric = Rubric((Criterion("a", "Has an a."), Criterion("b", "Has an a, too."))).to_json()
    rows = [{"prompt": [{"role": "user", "content": f"{chr(97 + i)}bc"}], "rubric": rubric} for i in range(16)]
    write_parquet(Dataset.from_list(rows), tmp_path / "judged.parquet", data_source="judged", split="train")
    judge = f"{{kind: '{tmp_path}/my_judge.py:Judge', folder: '{tmp_path}'}}"
    options = f"{{judge: {judge}, max_missing: {allowed}}}"
    arguments = [
        f"data.train_files={tmp_path}/judged.parquet",
        f"data.val_files={tmp_path}/judged.parquet",
        "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards",
        "reward.custom_reward_function.name=compute_score",
        f"+reward.custom_reward_function.reward_kwargs.rewards=[{{function: rubric, options: {options}}}]",
        "reward.num_workers=2",
        "algorithm.adv_estimator=gdpo",
    ]
    if ends:
        with pytest.raises(TrainingFailedError, match=r"(?s)error: 'rubric': .* verdicts are missing.*max_missing"):
            train(tmp_path / "run", *arguments, entry="rvpo.verl", steps=2)
        return
    run = train(tmp_path / "run", *arguments, entry="rvpo.verl", steps=2)
    cells = [cell for step in run.metrics for cell in run.channels(step)]
    missing = [cell for cell in cells if cell["reward"] is None]
    assert 0 < len(missing) < len(cells)
    assert {cell["reason"] for cell in missing} == {"judge"}
    assert run.metrics[1]["rvpo/rubric/missing"] > 0
    assert run.metrics[1]["rvpo/lost/completions"] == 0
