"""Reward functions that raise or return no score, in real trainings on the CPU; see rig/README.md."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset
from rig.run import GENERATIONS, PROMPTS, TrainingFailedError, train

from rvpo.engines.verl.data import write_parquet
from rvpo.rewards.rubric import Criterion, Rubric

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
    assert "of the 32 rollouts that were requested until step" in run.log
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


JUDGE = """
import json
from rvpo.rewards.rubric import Verdict

class Judge:
    \"\"\"Notes what it is asked, and is gone after so many questions.\"\"\"

    def __init__(self, log, most):
        self.log, self.most, self.asked = log, most, 0

    async def judge(self, questions):
        with open(self.log, "a") as file:
            file.writelines(json.dumps([q.prompt[-1]["content"], q.completion]) + "\\n" for q in questions)
        self.asked += len(questions)
        gone = Verdict.missing("connection", "nobody is there")
        return [
            [gone if self.asked > self.most else Verdict(float("a" in q.completion)) for _ in q.criteria]
            for q in questions
        ]

    async def check(self): ...

    def usage(self):
        return {"questions": self.asked}
"""


def test_an_outage_of_the_judge_saves_a_checkpoint_from_which_the_batch_is_generated_again(tmp_path: Path):
    """Without save_freq. The judge answers for two steps in each process; the same command goes on after the outage."""
    (tmp_path / "mine.py").write_text(JUDGE)
    words = ["".join(letters) for letters in zip("abcdefghijklmnop" * 4, "qrstuvwxyzabcdef" * 4, strict=True)]
    rubric = Rubric((Criterion("asked", "Is it?"), Criterion("short", "At most six.", rule={"max_chars": 6}))).to_json()
    rows = [{"prompt": [{"role": "user", "content": f"{w}{i % 7}"}], "rubric": rubric} for i, w in enumerate(words)]
    write_parquet(Dataset.from_list(rows), tmp_path / "data.parquet", data_source="judged", split="train")
    most, log = 2 * PROMPTS * GENERATIONS, tmp_path / "asked.jsonl"
    judge = f"{{kind: '{tmp_path}/mine.py:Judge', log: '{log}', most: {most}}}"
    arguments = [
        f"data.train_files={tmp_path}/data.parquet",
        f"data.val_files={tmp_path}/data.parquet",
        "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards",
        "reward.custom_reward_function.name=compute_score",
        f"+reward.custom_reward_function.reward_kwargs.rewards=[{{function: rubric, options: {{judge: {judge}}}}}]",
        "algorithm.adv_estimator=lift",
    ]
    with pytest.raises(TrainingFailedError) as told:
        train(tmp_path / "run", *arguments, entry="rvpo.verl", steps=4)
    assert "verdicts are missing (connection 32)" in str(told.value)
    assert "Stopped after step 2, " in str(told.value)
    assert "global_step_2 is saved: the same command continues from there" in str(told.value)
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    run = train(tmp_path / "run", *arguments, entry="rvpo.verl", steps=4)
    assert list(run.metrics) == [1, 2, 3, 4]
    assert run.metrics[2]["rvpo/rubric/judge/questions"] == most
    assert run.metrics[4]["rvpo/rubric/judge/questions"] == most
    again = [json.loads(line) for line in log.read_text().splitlines()]
    batch = PROMPTS * GENERATIONS
    assert Counter(map(tuple, again[:batch])) == Counter(map(tuple, asked[most:]))
    assert "begins anew" not in run.log, "what LIFT remembers is in the checkpoint"
