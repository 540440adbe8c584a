"""Records that a real trainer writes, read back: a run's own method gives its advantages again, whoever trained it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")

import pandas as pd
import trl
from tiny_run import G, Scripted, even, from_table, high, make_trainer, prompts, rubric_prompts

from rvpo.core import AdvantageConfig
from rvpo.core.methods.recorded import Recorded
from rvpo.core.methods.registry import METHODS
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run
from rvpo.rewards.rubric import RubricReward
from rvpo.step.trust import Reliability

STEPS, ROWS, M = 4, 4 * G, 3
OPTIONS = {
    "rvpo": ":k=linear(0.5,2)",
    "rvpo_explicit": ":beta=0.7",
    "lagrangian": ":thresholds={channel_1:0.8},rate=2",
    "riskpo": ":bundle_size=2",
}


def scores(seed: int = 0) -> list[list[list[float]]]:
    """Rewards (steps, N, M) in [0, 1]: binary, graded, rare; some missing, a dead channel in a group, a dead group."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(STEPS, ROWS, M, generator=generator)
    rewards[..., 0] = (rewards[..., 0] > 0.4).float()
    rewards[..., 2] = (rewards[..., 2] > 0.8).float()
    rewards[torch.rand(rewards.shape, generator=generator) < 0.1] = torch.nan
    rewards[1, :G, 1] = 0.5
    rewards[2, G : 2 * G] = 1.0
    return [[[None if x != x else x for x in row] for row in step] for step in rewards.tolist()]  # type: ignore[misc]


def train(model: Path, output: Path, rewards: list[Callable], **options: Any) -> None:
    make_trainer(
        model,
        output,
        rewards,
        **{
            "max_steps": STEPS,
            "per_device_train_batch_size": ROWS,
            "log_completions": True,
            "reward_weights": [1.0, 0.5, 2.0][: len(rewards)],
            "dataset": prompts(16),
        }
        | options,
    ).train()


@pytest.mark.parametrize("method", METHODS)
def test_a_run_s_own_method_gives_its_advantages(tiny_model_dir: Path, tmp_path: Path, method: str):
    text = method + OPTIONS.get(method, "")
    train(tiny_model_dir, tmp_path, from_table(scores(), 0), method=text)
    run = open_run(tmp_path)
    assert (run.kind, run.channels, run.steps) == ("channels", ("channel_0", "channel_1", "channel_2"), (1, 2, 3, 4))
    again = replay(run, [])
    assert again.own == text
    assert again.own_difference is not None
    largest = max(float(np.abs(batch.advantages).max()) for batch in run.batches())
    assert again.own_difference < 1e-6 * max(largest, 1)  # they were logged in float32
    # CTWA has nothing to move in the first steps, and is GDPO.
    other = replay(run, [AdvantageConfig("grpo" if method in ("gdpo", "ctwa") else "gdpo")]).rules[0]
    assert other.largest_difference is not None
    assert other.largest_difference > 0.05  # the comparison can fail


@pytest.mark.parametrize("method", ["rvpo", "lift", "ctwa", "riskpo", "grpo"])
def test_rubrics_of_different_length(tiny_model_dir: Path, tmp_path: Path, method: str):
    generator = torch.Generator().manual_seed(2)
    sizes = [5, 17, 2, 9]
    said = torch.rand(STEPS, ROWS, 17, generator=generator).round()
    said[torch.rand(said.shape, generator=generator) < 0.1] = torch.nan
    verdicts = [[[None if x != x else x for x in row] for row in step] for step in said.tolist()]
    rewards = [even, RubricReward(Scripted(verdicts), weighting="points", max_missing=1.0)]
    train(tiny_model_dir, tmp_path, rewards, method=method + OPTIONS.get(method, ""), dataset=rubric_prompts(sizes))
    run = open_run(tmp_path)
    assert set(run.channels) == {"even", "rubric/essential", "rubric/pitfall"}
    again = replay(run, [])
    assert again.own_difference is not None
    assert again.own_difference < 2e-6
    found = {channel.name: channel for channel in diagnose(run).channels}
    rows = pd.concat(pd.read_parquet(path) for path in sorted((tmp_path / "channels").glob("0*.parquet")))
    for name, part in rows.groupby("channel"):
        assert found[name].mean.value == pytest.approx(part.reward.mean())
        assert found[name].missing == pytest.approx(part.reward.isna().mean())
        assert found[name].live == pytest.approx(part.live.mean())


@pytest.mark.parametrize("method", ["rvpo:k=adaptive", "lift"])  # shrunk z-scores, and a rule that reads reliabilities
def test_trusted_less_and_scheduled_and_several_generations_a_step(tiny_model_dir: Path, tmp_path: Path, method: str):
    train(
        tiny_model_dir,
        tmp_path,
        from_table(scores(), 0),
        method=method,
        given={"reliability": Reliability({"channel_1": 0.4})},
        gradient_accumulation_steps=2,
        steps_per_generation=1,
    )
    run = open_run(tmp_path)
    batches = list(run.batches())
    assert [batch.step for batch in batches] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert batches[0].reliability is not None
    again = replay(run, [])
    assert again.own_difference is not None
    assert again.own_difference < 2e-6


def test_a_method_of_ones_own_is_recorded_and_replayed(tiny_model_dir: Path, tmp_path: Path):
    path = tmp_path / "my_rules.py"
    path.write_text("def half(z, p, *, share=0.5):\n    return share * (z * p).sum(1) + (1 - share) * z.amin(1)\n")
    text = f"{path}:half:share=0.25"
    train(tiny_model_dir, tmp_path / "run", from_table(scores(), 0), method=text)
    run = open_run(tmp_path / "run")
    assert isinstance(run.config.method, Recorded)
    assert str(run.config) == text
    assert f"--method {text}" in replay(run, []).notes[-1]
    again = replay(run, [], assumed=AdvantageConfig(text))
    assert (again.own, again.notes) == (text, ())
    assert again.own_difference < 2e-6


@pytest.fixture(scope="module")
def plain(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of TRL's own trainer, in which nothing of this package takes part."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(
        tiny_model_dir,
        folder,
        [even, high],
        trainer=trl.GRPOTrainer,
        config=trl.GRPOConfig,
        reward_weights=[1.0, 1.0],
        max_steps=6,
        num_iterations=2,  # each generation is logged twice
    )
    return folder


def test_a_run_of_trl_alone(plain: Path):
    assert not (plain / "channels").exists()
    run = open_run(plain)
    assert (run.kind, run.channels) == ("completions", ("even", "high"))
    assert len(list((plain / "completions").glob("*.parquet"))) == 6
    batches = list(run.batches(texts=True))
    assert len(batches) == 3  # what is logged again is passed over
    assert all(np.array_equal(batch.groups, np.arange(ROWS) // G) for batch in batches)
    assert all(batch.texts is not None and len(batch.texts.completions) == ROWS for batch in batches)
    diagnosis = diagnose(run)
    assert (diagnosis.completions, diagnosis.groups, diagnosis.method) == (3 * ROWS, 3 * ROWS // G, "as logged")
    again = replay(run, [])
    assert again.own == "grpo"
    assert again.own_difference is not None
    assert again.own_difference < 1e-5


def test_the_folder_of_completions_is_enough(plain: Path):
    assert open_run(plain / "completions").name == plain.name
    assert diagnose(open_run(plain / "completions")) != diagnose(open_run(plain), seed=1)  # another bootstrap
    assert diagnose(open_run(plain / "completions")).channels == diagnose(open_run(plain)).channels
