"""Rubrics of different length through ``RVPOTrainer``: each prompt's criteria are its channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

import features
import pandas as pd
from tiny_run import (
    G,
    Scripted,
    even,
    from_table,
    make_trainer,
    read_verdicts,
    recording,
    rubric_prompts,
    run_job_twice,
    steps,
)

from reference import reference
from rvpo.errors import DataError, JudgeError, RewardError
from rvpo.judges import MixedJudge, RuleJudge
from rvpo.rewards.rubric import Criterion, Question, Rubric, RubricReward, Verdict

SIZES = [5, 17, 2, 9, 6, 3]
ROWS, STEPS, WIDEST = 3 * G, 3, max(SIZES)


def table(missing: float = 0.15) -> list[list[list[float | None]]]:
    """Verdicts (steps, N, 17): binary, some graded, some missing, a dead criterion, a row without any."""
    generator = torch.Generator().manual_seed(1)
    verdicts = (torch.rand(STEPS, ROWS, WIDEST, generator=generator) > 0.5).double()
    verdicts[..., 0] = torch.rand(STEPS, ROWS, generator=generator).double()
    verdicts[torch.rand(verdicts.shape, generator=generator) < missing] = torch.nan
    verdicts[0, :G, 1] = 1.0
    verdicts[1, 2] = torch.nan
    return [[[None if x != x else x for x in row] for row in step] for step in verdicts.tolist()]


@pytest.fixture
def make(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., Any]:
    def build(rewards: list[Callable], **options: Any) -> Any:
        sizes = {"dataset": rubric_prompts(SIZES), "per_device_train_batch_size": ROWS, "max_steps": STEPS}
        return make_trainer(tiny_model_dir, options.pop("output", tmp_path), rewards, **(sizes | options))

    return build


def expected(
    verdicts: pd.DataFrame, ordinary: list[list[float]], weights: list[float], method: str, **options: Any
) -> list[float]:
    """The float64 reference, on a matrix in which every prompt has columns of its own: no padding is shared."""
    sizes = verdicts.groupby("group").criterion.nunique()
    first = {group: len(ordinary[0]) + int(sizes[:group].sum()) for group in sizes.index}
    width = len(ordinary[0]) + int(sizes.sum())
    rewards = [row + [float("nan")] * (width - len(row)) for row in ordinary]
    w = [weights[: len(row)] + [0.0] * (width - len(row)) for row in ordinary]
    for row in verdicts.itertuples():
        column = first[row.group] + int(row.criterion[1:])
        rewards[row.completion][column] = row.reward
        w[row.completion][column] = weights[-1] * row.weight
    return reference(rewards, [i // G for i in range(ROWS)], method, weights=w, **options).advantages


@pytest.mark.parametrize("method", ["rvpo", "gdpo", "hard_min", "grpo", "rvpo_explicit"])
@pytest.mark.parametrize("weighting", ["uniform", "points"])
def test_advantages_are_those_of_the_reference(make: Callable, tmp_path: Path, method: str, weighting: str):
    seen: list = []
    reward = RubricReward(Scripted(table()), weighting=weighting, max_missing=1.0)
    trainer = make(
        [even, reward],
        trainer=recording(seen),
        method=method,
        reward_weights=[0.5, 2.0],
        log_completions=True,
    )
    trainer.train()
    for step in range(STEPS):
        verdicts = read_verdicts(tmp_path, step + 1)
        scores = pd.read_parquet(tmp_path / "completions" / f"completions_{step + 1:05d}.parquet")["even"]
        want = expected(verdicts, [[float(x)] for x in scores], [0.5, 2.0], method)
        assert seen[step]["all"] == pytest.approx(want, abs=2e-6), step
        assert verdicts.drop_duplicates("completion").sort_values("completion").advantage.tolist() == seen[step]["all"]


def test_the_table_says_what_the_judge_said(make: Callable, tmp_path: Path):
    said = table()
    make([RubricReward(Scripted(said), max_missing=1.0)], log_completions=True).train()
    rows = read_verdicts(tmp_path, 2)
    assert sorted(rows.groupby("group").criterion.nunique()) == sorted(rows.groupby("group").size() // G)
    for row in rows.itertuples():
        verdict = said[1][row.completion][int(row.criterion[1:])]
        if verdict is None:
            assert pd.isna(row.reward)
            assert row.reason == "timeout"
            assert pd.isna(row.z)
        else:
            assert row.reward == (1 - verdict if row.criterion == "c1" else verdict)  # c1 is a pitfall
            assert pd.isna(row.reason)
        assert list(row.labels) == [
            "pitfall" if row.criterion == "c1" else "essential",
            "axis:accuracy" if int(row.criterion[1:]) % 2 else "axis:format",
        ]


def test_metrics_by_category_and_axis(make: Callable, tmp_path: Path):
    trainer = make([even, RubricReward(Scripted(table()), max_missing=1.0)], log_completions=True)
    trainer.train()
    logged = steps(trainer)[1]
    rows = read_verdicts(tmp_path, 1)
    for label, part in {
        "rubric": rows,
        "rubric/pitfall": rows[rows.criterion == "c1"],
        "rubric/essential": rows[rows.criterion != "c1"],
        "rubric/axis:format": rows[[int(name[1:]) % 2 == 0 for name in rows.criterion]],
    }.items():
        assert logged[f"rvpo/{label}/mean"] == pytest.approx(part.reward.mean())
        assert logged[f"rvpo/{label}/std"] == pytest.approx(part.reward.std())
        assert logged[f"rvpo/{label}/missing"] == pytest.approx(part.reward.isna().mean())
        assert logged[f"rvpo/{label}/live"] == pytest.approx(part.live.mean())
        # All completions have signal here, so the responsibilities are means over all of them.
        assert logged[f"rvpo/{label}/responsibility"] == pytest.approx(part.responsibility.sum() / ROWS)
    both = logged["rvpo/rubric/responsibility"] + logged["rvpo/even/responsibility"]
    assert both == pytest.approx(1.0)
    assert logged["rvpo/rubric/judge/calls"] == 1
    assert not any(key.startswith("rvpo/rubric/c0") for key in logged)


def test_single_reward_baselines_monitor_the_criteria(make: Callable, tmp_path: Path):
    """The explicit baseline is one channel; its criteria are in the metrics and take no part."""
    seen: list = []
    said = table()
    reward = RubricReward(Scripted(said), aggregation="explicit", max_missing=1.0)
    trainer = make([reward], trainer=recording(seen), method="grpo", log_completions=True)
    trainer.train()
    rows = read_verdicts(tmp_path, 1)
    scores = []
    for _, part in rows.groupby("completion"):
        scored = part[part.reward.notna()]
        points = [2.0 if name == "c1" else 1.0 + int(name[1:]) for name in scored.criterion]
        scores.append(sum(p * r for p, r in zip(points, scored.reward, strict=True)) / sum(points))
    want = reference([[score] for score in scores], [i // G for i in range(ROWS)], "grpo").advantages
    assert seen[0]["all"] == pytest.approx(want, abs=1e-5)
    logged = steps(trainer)[1]
    assert logged["rvpo/rubric/responsibility"] == 1
    assert logged["rvpo/rubric/criteria/responsibility"] == 0
    assert logged["rvpo/rubric/pitfall/mean"] == pytest.approx(rows[rows.criterion == "c1"].reward.mean())


def test_grpo_on_channels_is_grpo_on_their_weighted_mean(make: Callable, tmp_path: Path):
    """Within a group the weighted sum and the weighted mean differ by a factor only, up to eps."""
    seen: dict[str, list] = {"channels": [], "explicit": []}
    for aggregation, record in seen.items():
        reward = RubricReward(Scripted(table(missing=0.0)), aggregation=aggregation, weighting="points")
        make([reward], trainer=recording(record), method="grpo", output=tmp_path / aggregation).train()
    assert seen["channels"][0]["all"] == pytest.approx(seen["explicit"][0]["all"], abs=2e-3)


@pytest.mark.xdist_group("processes")
def test_two_processes_agree_with_one(tiny_model_dir: Path, tmp_path: Path):
    """Groups lie across processes, and the widest rubric is in one of them only."""
    verdicts, rewards = table(), [[[float(i % 5)] for i in range(ROWS)]] * STEPS
    options = {"max_steps": STEPS, "num_generations": G, "reward_weights": [1.0, 2.0], "log_completions": True}
    seen: list = []
    one = make_trainer(
        tiny_model_dir,
        tmp_path / "one",
        [*from_table(rewards, 0), RubricReward(Scripted(verdicts), max_missing=1.0)],
        trainer=recording(seen),
        dataset=rubric_prompts(SIZES),
        per_device_train_batch_size=ROWS,
        **options,
    )
    one.train()
    two = run_job_twice(
        {
            "model": str(tiny_model_dir),
            "output": str(tmp_path),
            "table": rewards,
            "verdicts": verdicts,
            "sizes": SIZES,
            "options": options | {"per_device_train_batch_size": ROWS // 2},
        }
    )
    for step in range(STEPS):
        for rank in range(2):
            assert two[rank]["advantages"][step]["all"] == seen[step]["all"]
            assert two[rank]["advantages"][step]["local"] == seen[step]["all"][rank * ROWS // 2 :][: ROWS // 2]
        records = (read_verdicts(folder, step + 1) for folder in (tmp_path / "one", tmp_path))
        first, second = (rows.drop(columns="detail") for rows in records)
        pd.testing.assert_frame_equal(first, second)
        want = expected(second, rewards[step], [1.0, 2.0], "rvpo")
        assert seen[step]["all"] == pytest.approx(want, abs=2e-6)
    mine, theirs = steps(one), two[0]["steps"]
    for step, entry in mine.items():
        for key, value in entry.items():
            if key.startswith("rvpo/") and "/judge/" not in key:
                assert theirs[str(step)][key] == pytest.approx(value), key
    assert theirs["1"]["rvpo/rubric/judge/calls"] == 2  # one of each process
    assert theirs["1"]["rvpo/rubric/judge/all/calls"] == 7  # read by both from one cache file


def test_real_rules_beside_an_ordinary_reward(make: Callable, tmp_path: Path):
    """No script: the tiny model's words are checked by rules."""
    rubric = Rubric(
        (
            Criterion("short", "At most three words.", rule={"max_words": 3}),
            Criterion("cat", "Speaks of a cat or a dog.", points=-1.0, rule={"contains_any": ["cat", "dog"]}),
        )
    ).to_json()
    dataset = rubric_prompts([1] * 6).remove_columns("rubric").add_column("rubric", [rubric] * 6)
    trainer = make([even, RubricReward(MixedJudge({"rule": RuleJudge()}))], dataset=dataset, log_completions=True)
    trainer.train()
    rows = read_verdicts(tmp_path, 1)
    texts = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet").completion
    for row in rows.itertuples():
        words = texts[row.completion].split()
        words = [word for word in words if any(c.isalnum() for c in word)]
        met = len(words) <= 3 if row.criterion == "short" else not {"cat", "dog"} & set(words)
        assert row.reward == float(met), texts[row.completion]


def test_prompts_without_a_rubric_keep_their_other_channels(make: Callable):
    dataset = rubric_prompts(SIZES)
    texts = [None if i % 2 else text for i, text in enumerate(dataset["rubric"])]
    dataset = dataset.remove_columns("rubric").add_column("rubric", texts)
    seen: list = []
    trainer = make([even, RubricReward(Scripted(table()), max_missing=1.0)], dataset=dataset, trainer=recording(seen))
    trainer.train()
    assert all(torch.tensor(step["all"]).isfinite().all() for step in seen)
    assert any(any(step["all"]) for step in seen)


def test_a_batch_without_any_rubric_has_no_signal(make: Callable):
    dataset = rubric_prompts([1] * 6).remove_columns("rubric").add_column("rubric", [None] * 6)
    seen: list = []
    for aggregation in ("channels", "explicit"):
        reward = RubricReward(Scripted(table()), aggregation=aggregation)
        make([reward], dataset=dataset, trainer=recording(seen), method="gdpo").train()
    assert not any(any(step["all"]) for step in seen)


def test_totals_are_not_averaged_over_a_logging_window(make: Callable):
    reward = RubricReward(Scripted(table()), max_missing=1.0)
    trainer = make([reward], logging_steps=3)
    trainer.train()
    assert steps(trainer)[3]["rvpo/rubric/judge/calls"] == 3


@pytest.mark.skipif(not features.STREAMS, reason="this TRL takes no streams")
def test_a_stream_is_not_read_before_training(make: Callable, monkeypatch: pytest.MonkeyPatch):
    """It may have no end."""
    looked_at: list = []
    monkeypatch.setattr(RubricReward, "check_rubrics", lambda self, rubrics: looked_at.append(rubrics))
    stream = rubric_prompts(SIZES).to_iterable_dataset()
    trainer = make([RubricReward(Scripted(table()), max_missing=1.0)], dataset=stream)
    trainer.train()
    assert trainer.state.global_step == STEPS
    assert not looked_at


# --- when the judge fails -----------------------------------------------------------------------------------------


class Failing(Scripted):
    """Answers two generations, then nothing, until it is mended."""

    broken_from = 2
    mended = False

    async def judge(self, questions: list[Question]) -> list[list[Verdict]]:
        self.asked = [question.completion for question in questions]
        if self.generation >= self.broken_from and not self.mended:
            return [[Verdict.missing("connection", "no route to host") for _ in q.criteria] for q in questions]
        return await super().judge(questions)


def test_too_many_missing_stop_with_a_checkpoint_and_resume_as_if_nothing_had_been(make: Callable, tmp_path: Path):
    whole_seen: list = []
    whole = make([RubricReward(Scripted(table(0.0)))], output=tmp_path / "whole", trainer=recording(whole_seen))
    whole.train()

    judge = Failing(table(0.0))
    output = tmp_path / "stopped"
    trainer = make([RubricReward(judge)], output=output)
    message = r"'rubric': \d+ of \d+ verdicts are missing \(connection \d+\); expected at most 25%"
    with pytest.raises(JudgeError, match=message) as caught:
        trainer.train()
    assert "checkpoint-2 is saved" in str(caught.value)
    assert "no route to host" in str(caught.value)
    asked_before = judge.asked
    assert json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2

    judge.mended = True
    seen: list = []
    resumed = make([RubricReward(judge)], output=output, trainer=recording(seen))
    resumed.train(resume_from_checkpoint=True)
    assert judge.asked == asked_before  # the same completions, so a cache would have answered
    assert seen[0] == whole_seen[2]
    for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_another_runs_checkpoint_is_not_taken_for_this_ones(make: Callable, tmp_path: Path):
    old = tmp_path / "checkpoint-2"
    old.mkdir()
    (old / "trainer_state.json").write_text('{"global_step": 2, "old": true}')
    with pytest.raises(JudgeError, match="checkpoint-2 is saved"):
        make([RubricReward(Failing(table(0.0)))]).train()
    assert "old" not in json.loads((old / "trainer_state.json").read_text())


def test_stopped_before_the_first_step(make: Callable):
    judge = Failing(table())
    judge.broken_from = 0
    with pytest.raises(JudgeError, match="Stopped after step 0, nothing was trained yet"):
        make([RubricReward(judge)]).train()


def test_evaluation_goes_on_with_missing_verdicts(make: Callable):
    judge = Failing(table())
    judge.broken_from = 0
    trainer = make([RubricReward(judge)], eval_dataset=rubric_prompts([2, 3, 4]), per_device_eval_batch_size=ROWS)
    assert trainer.evaluate()["eval_rvpo/rubric/missing"] == 1


def test_a_missing_verdict_on_a_pitfall_is_no_gain(make: Callable, tmp_path: Path):
    """Were it "not met", the completion with the missing verdict would be as good as the clean one."""
    rubric = Rubric((Criterion("rude", "Is rude.", points=-1.0), Criterion("clear", "Is clear."))).to_json()
    dataset = rubric_prompts([1] * 6).remove_columns("rubric").add_column("rubric", [rubric] * 6)
    rude, clear = [1.0, 0.0, None, 1.0], [1.0, 1.0, 1.0, 0.0]
    said = [[[r, c] for r, c in zip(rude, clear, strict=True)] * 3] * STEPS
    for method, missing in {"gdpo": 0.5, "rvpo": 0.5}.items():
        seen: list = []
        reward = RubricReward(Scripted(said), max_missing=0.5)
        make([reward], dataset=dataset, trainer=recording(seen), method=method, output=tmp_path / method).train()
        met_bad, clean, unknown, worst = seen[0]["all"][:G]
        # Judged on "clear" alone, which it meets: better than the rude and worse than the clean completion.
        assert met_bad < unknown < clean, (method, missing)
        assert worst == min(seen[0]["all"][:G])


def test_a_dead_judge_is_found_before_training(make: Callable):
    class Dead(Scripted):
        async def check(self) -> None:
            raise JudgeError("nobody there")

    trainer = make([RubricReward(Dead(table()))])
    with pytest.raises(JudgeError, match="nobody there"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_malformed_rubrics_are_found_before_training(make: Callable):
    dataset = rubric_prompts(SIZES)
    texts = [*dataset["rubric"][:4], '{"criteria": [{"id": "a", "text": "b", "pionts": 3}]}', "{}"]
    trainer = make(
        [RubricReward(Scripted(table()))], dataset=dataset.remove_columns("rubric").add_column("rubric", texts)
    )
    with pytest.raises(DataError, match=r"row 4, column 'rubric': criterion 0 has the unknown key 'pionts'"):
        trainer.train()


def test_a_group_has_one_rubric():
    from rvpo.core.ragged import Family, Score, assemble

    rows = [[Score("a", 1.0)], [Score("b", 1.0)]]
    with pytest.raises(RewardError, match="completions 0 and 1 answer one prompt, but have different channels"):
        assemble(torch.zeros(2, 1), ["r"], [Family("r", rows)], num_generations=2)
