"""Channels that are judged twice: what is asked again, what it leaves behind, and what it changes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

from tiny_run import (
    G,
    N,
    Scripted,
    even,
    high,
    make_trainer,
    parameters,
    recording,
    rubric_prompts,
    run_job_twice,
    steps,
)

from rvpo.engines.trl.judged_twice import _rows as rows_to_judge_twice
from rvpo.errors import ConfigError
from rvpo.rewards.rubric import Question, RubricReward, Verdict
from rvpo.step.trust import Reliability
from rvpo.trl import RVPOConfig, RVPOTrainer


def twice(share: float) -> dict[str, Reliability]:
    """Return what makes a trainer score a share of completions a second time; nothing where that is 0."""
    return {"reliability": Reliability(twice=share)} if share else {}


class Flaky:
    """``high``, but every second judgement of the same completion comes out the other way round."""

    __name__ = "flaky"

    def __init__(self) -> None:
        self.asked: Counter[tuple[int, ...]] = Counter()
        self.sizes: list[int] = []

    def __call__(self, completion_ids: list[list[int]], log_extra: Any, **_: Any) -> list[float]:
        self.sizes.append(len(completion_ids))
        log_extra("seen", [len(ids) for ids in completion_ids])
        again = len(completion_ids) < N
        return [float((ids[0] >= 20) != again) for ids in completion_ids]


def test_a_flaky_channel_loses_trust_and_a_steady_one_keeps_it(tiny_model_dir: Path, tmp_path: Path):
    flaky, options = Flaky(), {"max_steps": 12, "log_completions": True}
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, flaky], given=twice(0.5), **options)
    trainer.train()
    logged = [entry for _, entry in sorted(steps(trainer).items())]
    assert flaky.sizes == [N, N // 2] * 12
    assert {entry["rvpo/even/reliability"] for entry in logged} == {1.0}  # a function of the text alone
    trust = [entry["rvpo/flaky/reliability"] for entry in logged]
    # The first batch is judged before anything is known; then every pair differs, so noise only adds up.
    assert trust[0] == 1.0
    assert trust == sorted(trust, reverse=True)
    assert trust[-1] < 0.5


def test_the_second_judgement_leaves_no_traces(tiny_model_dir: Path, tmp_path: Path):
    """A steady channel is trusted in full, so the run is the same as without, to the bit."""
    runs = {}
    for share in (0.0, 0.3):
        seen: list = []
        options = {"trainer": recording(seen), "log_completions": True}
        trainer = make_trainer(tiny_model_dir, tmp_path / str(share), [even, high], given=twice(share), **options)
        trainer.train()
        runs[share] = seen, parameters(trainer).tolist(), steps(trainer)
    assert runs[0.3][:2] == runs[0.0][:2]
    trusted = {key for entry in runs[0.3][2].values() for key in entry} - {
        key for entry in runs[0.0][2].values() for key in entry
    }
    assert trusted == {"rvpo/even/reliability", "rvpo/high/reliability"}


class TwoMinds(Scripted):
    """A judge whose second opinion on criterion 0 is always the opposite, and who notes what it is asked."""

    def __init__(self, table: list) -> None:
        super().__init__(table)
        self.questions: list[list[Question]] = []

    async def judge(self, questions: list[Question]) -> list[list[Verdict]]:
        self.questions.append(questions)
        if not questions[0].repeat:
            return await super().judge(questions)
        rows = rows_to_judge_twice(0.5, N, 3, self.generation - 1)
        first = [self.table[self.generation - 1][row] for row in rows]
        return [
            [Verdict(1 - value if j == 0 else value) for j, (value, _) in enumerate(zip(row, q.criteria, strict=False))]
            for row, q in zip(first, questions, strict=True)
        ]


def test_rubrics_are_judged_anew_by_label(tiny_model_dir: Path, tmp_path: Path):
    """Criterion 0 is essential, criterion 1 the pitfall: only the first label loses trust; first verdicts stay."""
    table = [[[float((row + step + j) % 2) for j in range(2)] for row in range(N)] for step in range(4)]
    judge = TwoMinds(table)
    reward = RubricReward(judge)
    trainer = make_trainer(
        tiny_model_dir,
        tmp_path,
        [reward, even],
        dataset=rubric_prompts([2] * 12),
        given=twice(0.5),
        max_steps=4,
        save_strategy="steps",
        save_steps=4,
    )
    trainer.train()
    assert [[question.repeat for question in asked] for asked in judge.questions] == [[0] * N, [1] * (N // 2)] * 4
    last = steps(trainer)[4]
    assert last["rvpo/rubric/essential/reliability"] < 0.7
    assert last["rvpo/rubric/pitfall/reliability"] == last["rvpo/even/reliability"] == 1.0
    assert last["rvpo/rubric/essential/mean"] == 0.5  # of the first verdicts: every second row is met
    kept = json.loads((tmp_path / "checkpoint-4" / "rvpo_state.json").read_text())
    assert sorted(kept["evidence"]["names"]) == ["even", "rubric/essential", "rubric/pitfall"]
    assert kept["remembered"] == {}


def test_resumed_evidence_is_the_uninterrupted_runs(tiny_model_dir: Path, tmp_path: Path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "method": "lift"}
    whole = make_trainer(tiny_model_dir, tmp_path / "whole", [even, Flaky()], given=twice(0.5), **options)
    whole.train()
    resumed = make_trainer(tiny_model_dir, tmp_path / "resumed", [even, Flaky()], given=twice(0.5), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert steps(resumed) == steps(whole)
    assert parameters(resumed).tolist() == parameters(whole).tolist()


@pytest.mark.xdist_group("processes")
def test_two_processes_share_their_evidence(tiny_model_dir: Path, tmp_path: Path):
    """Each judges a third of its six completions again; the evidence holds the pairs of both."""
    rewards = torch.rand(3, 12, 2, generator=torch.Generator().manual_seed(0)).tolist()
    options = {"per_device_train_batch_size": 6, "num_generations": G, "max_steps": 3, "save_strategy": "steps"}
    options |= {"save_steps": 3, "method": "lift"}
    job = {"model": str(tiny_model_dir), "output": str(tmp_path), "options": options, "table": rewards, "twice": 0.3}
    first, second = run_job_twice(job)
    assert first["parameters"] == second["parameters"]
    evidence = json.loads((tmp_path / "checkpoint-3" / "rvpo_state.json").read_text())["evidence"]
    # Four pairs a step, of which each step keeps 99 in a hundred.
    assert evidence["pairs"] == pytest.approx([4 * (1 + 0.99 + 0.99**2)] * 2)
    assert min(evidence["noise"]) > 0  # the table's second answers are those of other rows


def test_another_methods_memory_begins_anew(tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    make_trainer(tiny_model_dir, tmp_path, **options, method="lift").train()
    switched = make_trainer(tiny_model_dir, tmp_path, **options, method="ctwa")
    switched.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert "is what method 'lift' remembered; method 'ctwa' begins anew" in caplog.text
    kept = json.loads((tmp_path / "checkpoint-3" / "rvpo_state.json").read_text())
    assert (kept["method"], sorted(kept["remembered"])) == ("ctwa", ["covariance", "scales", "weights"])


def test_a_lost_memory_is_told(tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "method": "lift"}
    make_trainer(tiny_model_dir, tmp_path, **options).train()
    (tmp_path / "checkpoint-1" / "rvpo_state.json").unlink()
    make_trainer(tiny_model_dir, tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert "There is no" in caplog.text
    assert "method 'lift' begins anew" in caplog.text


def test_a_threshold_for_no_channel_fails_before_training(tiny_model_dir: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"lagrangian names the channel 'hig'.*; expected one of even, high"):
        make_trainer(tiny_model_dir, tmp_path, method="lagrangian:thresholds={hig:0.9}")


def test_rows_are_chosen_by_seed_and_step_alone():
    assert len(rows_to_judge_twice(0.01, 8, 0, 0)) == 1  # never none, or nothing would ever be known
    assert rows_to_judge_twice(1.0, 8, 0, 0) == list(range(8))
    chosen = [rows_to_judge_twice(0.25, 64, 0, step) for step in range(8)]
    assert all(len(rows) == 16 and rows == sorted(set(rows)) for rows in chosen)
    assert len({tuple(rows) for rows in chosen}) == 8
    assert chosen[3] == rows_to_judge_twice(0.25, 64, 0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"twice": 1.5}, r"reliability: twice is 1.5; expected a number in \[0, 1\]"),
        ({"twice": 0.1, "method": "grpo"}, "reliability is set, but method 'grpo' aggregates rewards"),
        ({"given": {"even": 2}}, r"reliability of 'even' is 2; expected a number in \[0, 1\]"),
        ({"given": {"even": 0.5}, "method": "tchebycheff"}, "reliability is set, but method 'tchebycheff'"),
        ({"given": {"od": 0.5}}, "reliability names the channel 'od'; expected one of even, high"),
    ],
)
def test_refusals(tmp_path: Path, options: dict, message: str):
    """Before the model is loaded: there is none in this folder."""
    args = RVPOConfig(str(tmp_path), use_cpu=True, bf16=False, num_generations=G, method=options.pop("method", "rvpo"))
    with pytest.raises(ConfigError, match=message):
        _with_reliability(args, options)


def _with_reliability(args: RVPOConfig, options: dict) -> None:
    RVPOTrainer("no/such/model", [even, high], args, reliability=Reliability(**options))
