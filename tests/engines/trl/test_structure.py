"""Structures and monitored rewards through ``RVPOTrainer``: trained on, recorded, replayed; rubric dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")

import pandas as pd
import pyarrow.parquet as pq
from test_records import ROWS, STEPS, scores
from tiny_run import G, Scripted, even, from_table, make_trainer, prompts, rubric_prompts

import rvpo
from rvpo.core import AdvantageConfig
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.errors import ConfigError
from rvpo.logs.open import open_run
from rvpo.rewards.rubric import RubricReward
from rvpo.step.structure import Gate
from rvpo.trl import RVPOConfig

UNIT = {f"channel_{j}": [0, 1] for j in range(3)}


def trained(model: Path, output: Path, rewards: list[Any], **options: Any) -> Any:
    trainer = make_trainer(
        model,
        output,
        rewards,
        **{"max_steps": STEPS, "per_device_train_batch_size": ROWS, "log_completions": True, "dataset": prompts(16)}
        | options,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("method", "structure"),
    [
        ("gdpo", "gate(channel_0)"),
        ("lift", "only_where(channel_1,channel_0)"),
        ("rvpo:k=2", ["gate(channel_0,factor=0.5,over=[channel_1])", "all_of(channel_1,channel_2)"]),
    ],
)
def test_a_run_with_structure_is_replayed(tiny_model_dir: Path, tmp_path: Path, method: str, structure: Any):
    trained(tiny_model_dir, tmp_path, from_table(scores(), 0), method=method, structure=structure, reward_ranges=UNIT)
    run = open_run(tmp_path)
    assert run.structure
    assert "that entered the aggregation" in run.notes[-1]
    # Every step equals the aggregator on the table of rewards, and the record gives it again.
    agg = rvpo.Aggregator(method, list(UNIT), ranges=UNIT, structure=structure)
    for table, logged in zip(scores(), run.batches(), strict=True):
        out = agg(torch.tensor([[float("nan") if x is None else x for x in row] for row in table]), num_generations=G)
        np.testing.assert_allclose(logged.advantages, out.advantages.double().numpy(), rtol=0, atol=1e-5)
    again = replay(run, [AdvantageConfig("gdpo")])
    assert again.own_difference is not None
    assert again.own_difference < 1e-6
    assert again.rules[0].problem is None
    assert diagnose(run).channels


def test_a_monitored_reward_is_logged_and_decides_nothing(tiny_model_dir: Path, tmp_path: Path):
    table = [[[*row, float(i % 5)] for i, row in enumerate(step)] for step in scores()]
    with_it = trained(tiny_model_dir, tmp_path / "a", from_table(table, 0), method="lift", monitor=["channel_3"])
    trained(tiny_model_dir, tmp_path / "b", from_table(scores(), 0), method="lift")
    for one, other in zip(open_run(tmp_path / "a").batches(), open_run(tmp_path / "b").batches(), strict=True):
        np.testing.assert_allclose(one.advantages, other.advantages, rtol=1e-6, atol=1e-6)
    assert open_run(tmp_path / "a").monitor == ("channel_3",)
    logged = [entry for entry in with_it.state.log_history if "rvpo/channel_3/mean" in entry]
    assert len(logged) == STEPS
    assert logged[0]["rvpo/channel_3/mean"] == pytest.approx(1.875)
    # TRL's own total is that of what is trained on.
    first = torch.tensor([[float("nan") if x is None else x for x in row] for row in scores()[0]])
    assert logged[0]["reward"] == pytest.approx(first.nansum(1).mean().item(), abs=1e-4)
    known = pq.read_schema(tmp_path / "a" / "channels" / "000001.parquet").names
    assert "entered" not in known


def test_the_config_keeps_plain_texts():
    config = RVPOConfig(
        "out",
        structure=[Gate("safe"), {"name": "all_of", "parts": ["a", "b"]}],
        monitor="gold",
        use_cpu=True,
        bf16=False,
    )
    assert config.structure == ["gate(safe)", "all_of(a,b)"]
    assert config.monitor == ["gold"]
    assert config.to_dict()["structure"] == config.structure
    with pytest.raises(ConfigError, match="did you mean 'gate'"):
        RVPOConfig("out", structure=["gat(safe)"], use_cpu=True, bf16=False)


def test_dropout_asks_half_of_the_positive_criteria(tiny_model_dir: Path, tmp_path: Path):
    sizes = [8, 3, 5]
    verdicts = [[[1.0] * max(sizes)] * (3 * G)] * 2
    judged = RubricReward(Scripted(verdicts), dropout=0.5)
    trainer = trained(
        tiny_model_dir,
        tmp_path,
        [even, judged],
        dataset=rubric_prompts(sizes),
        per_device_train_batch_size=3 * G,
        max_steps=2,
    )
    record = pd.concat(pd.read_parquet(path) for path in sorted((tmp_path / "channels").glob("*.parquet")))
    asked = record[record.criterion.notna()].groupby(["step", "completion"]).criterion.agg(frozenset).reset_index()
    by_group = record.drop_duplicates(["step", "completion"])[["step", "completion", "group"]].merge(asked)
    # One mask per group and step. Criterion 1 is negative and stays. Of 7 positive ones 4 stay, of 4 three, of 2 all.
    assert (by_group.groupby(["step", "group"]).criterion.nunique() == 1).all()
    assert {len(mask) for mask in by_group.criterion} == {5, 4, 3}
    assert record.reason.dropna().empty
    totals = [
        entry["rvpo/rubric/judge/dropped"]
        for entry in trainer.state.log_history
        if "rvpo/rubric/judge/dropped" in entry
    ]
    assert totals == [G * (3 + 0 + 1), 2 * G * (3 + 0 + 1)]
