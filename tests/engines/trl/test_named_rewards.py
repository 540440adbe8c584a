"""Rewards by name, a mixin in front of any trainer, and a method of one's own, through real trainings."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("trl")

from tiny_run import G, even, high, make_trainer, prompts, recording, steps
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import GRPOTrainer

import rvpo
from rvpo.errors import ConfigError
from rvpo.trl import RVPOConfig, RVPOMixin, RVPOTrainer


def longer(completion_ids: list[list[int]], than: int, **_: Any) -> list[float]:
    return [float(len(ids) > than) for ids in completion_ids]


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def score(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [self.factor * (ids[0] % 2) for ids in completion_ids]


PARTIALS = {"long": functools.partial(longer, than=3), "longest": functools.partial(longer, than=4)}
BOUND = {"half": Scale(0.5).score, "whole": Scale(1.0).score}


@pytest.mark.parametrize("by", ["dict", "names"])
@pytest.mark.parametrize("rewards", [PARTIALS, BOUND], ids=["partials", "bound methods"])
def test_two_of_a_kind_have_names(tiny_model_dir: Path, tmp_path: Path, rewards: dict, by: str):
    functions = rewards if by == "dict" else list(rewards.values())
    given = {} if by == "dict" else {"reward_names": list(rewards)}
    trainer = make_trainer(tiny_model_dir, tmp_path, functions, given=given, method="gdpo", log_completions=True)
    trainer.train()
    for name in rewards:
        assert f"rvpo/{name}/mean" in steps(trainer)[1]
        assert f"rewards/{name}/mean" in steps(trainer)[1]
    table = pd.read_parquet(sorted((tmp_path / "completions").glob("*.parquet"))[-1])
    assert set(rewards) <= set(table.columns)
    assert trainer.aggregator.names == list(rewards)


def test_two_reward_models_in_folders_of_one_name(tiny_model_dir: Path, tmp_path: Path):
    folders = {}
    for seed, name in enumerate(("helpful", "safe")):
        torch.manual_seed(seed)
        folders[name] = str(tmp_path / name / "reward-model")
        AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=1).save_pretrained(folders[name])
        AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folders[name])
    with pytest.raises(ConfigError, match="2 reward functions are named 'reward-model'"):
        make_trainer(tiny_model_dir, tmp_path, list(folders.values()))
    trainer = make_trainer(tiny_model_dir, tmp_path, folders, method="gdpo", max_steps=1)
    trainer.train()
    logged = steps(trainer)[1]
    assert logged["rvpo/helpful/mean"] != logged["rvpo/safe/mean"]


@pytest.mark.parametrize(
    ("rewards", "given", "message"),
    [
        (
            [functools.partial(longer, than=1), functools.partial(longer, than=2)],
            {},
            "2 reward functions are named 'longer'",
        ),
        ([even, high], {"reward_names": ["a"]}, "reward_names has 1 names for 2 reward functions"),
        ([even, high], {"reward_names": ["a", "a"]}, "2 reward functions are named 'a'"),
        ([even, high], {"reward_names": ["a", 1]}, "the name of a reward is 1"),
        ({"a": even}, {"reward_names": ["a"]}, "but reward_funcs names its functions"),
        ({"": even}, {}, "the name of a reward is ''"),
        (
            {"even": even},
            {"args": {"reward_ranges": {"evn": [0, 1]}}},
            "reward_ranges names the channel 'evn'",
        ),
    ],
)
def test_names_are_checked_before_the_model_is_loaded(tmp_path: Path, rewards: Any, given: dict, message: str):
    args = RVPOConfig(str(tmp_path), use_cpu=True, bf16=False, **given.pop("args", {}))
    with pytest.raises(ConfigError, match=message):
        RVPOTrainer("no/such/model", rewards, args, train_dataset=prompts(), **given)


class Theirs(GRPOTrainer):
    """Somebody's trainer with an argument of its own, which also changes what it generates."""

    def __init__(self, *args: Any, bonus: float = 0.0, **kwargs: Any) -> None:
        self.bonus, self.generated = bonus, 0
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.generated += 1
        return super()._generate_and_score_completions(inputs)


class Ours(RVPOMixin, Theirs):
    pass


def test_the_mixin_goes_in_front_of_any_trainer(tiny_model_dir: Path, tmp_path: Path):
    plain = make_trainer(tiny_model_dir, tmp_path / "plain", method="lift")
    plain.train()
    mixed = make_trainer(tiny_model_dir, tmp_path / "mixed", trainer=Ours, given={"bonus": 0.5}, method="lift")
    mixed.train()
    assert (mixed.bonus, mixed.generated) == (0.5, 3)
    assert steps(mixed) == steps(plain)


RULES = """
def cvar(z, p, *, alpha=0.5):
    return z.sort(-1).values[:, : max(1, int(alpha * z.shape[1]))].mean(-1)
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_rules.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    return "my_rules.py:cvar"


def test_a_rule_of_ones_own_trains(tiny_model_dir: Path, tmp_path: Path, rules: str):
    seen: list = []
    trainer = make_trainer(
        tiny_model_dir, tmp_path / "run", trainer=recording(seen), method=f"{rules}:alpha=0.25", log_completions=True
    )
    trainer.train()
    rewards = pd.read_parquet(sorted((tmp_path / "run" / "completions").glob("*.parquet"))[0])[["even", "high"]]
    want = rvpo.advantages(
        torch.tensor(rewards.to_numpy(), dtype=torch.float32), num_generations=G, method=f"{rules}:alpha=0.25"
    )
    assert seen[0]["all"] == want.advantages.tolist()
    record = tmp_path / "run" / "channels" / "000001.parquet"
    assert f'"name": "{rules}", "alpha": 0.25' in _metadata(record)


def _metadata(path: Path) -> str:
    return pq.read_schema(path).metadata[b"rvpo.records"].decode()


@dataclass(frozen=True)
class Mine(rvpo.Method):
    """A class of the script itself."""

    share: float = 0.5

    def __call__(self, batch: Any, state: Any) -> rvpo.Outcome:
        p = batch.p
        seen = state.get("batches", 0) + 1
        value = self.share * (p * batch.z).sum(-1)
        return rvpo.Outcome.of_z(p, (value, p), {"batches": seen}, {"batches": float(seen)})

    @property
    def remembers(self) -> bool:
        return True


def test_an_object_of_the_script_trains_and_is_saved(tiny_model_dir: Path, tmp_path: Path):
    options = {"method": Mine(0.25), "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(tiny_model_dir, tmp_path, **options)
    trainer.train()
    assert [entry["rvpo/batches"] for entry in steps(trainer).values()] == [1, 2, 3]
    assert trainer.args.to_dict()["method"].endswith(":Mine:share=0.25")
    resumed = make_trainer(tiny_model_dir, tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert steps(resumed) == steps(trainer)


def test_a_lambda_trains_through_a_checkpoint(tiny_model_dir: Path, tmp_path: Path):
    method: Any = lambda z, p: (p * z).sum(-1)  # noqa: E731 (as a user may write it)
    trainer = make_trainer(tiny_model_dir, tmp_path, method=method, save_strategy="steps", save_steps=1, max_steps=1)
    trainer.train()
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").exists()
    plain = make_trainer(tiny_model_dir, tmp_path / "gdpo", method="gdpo:dead_channels=drop", max_steps=1)
    plain.train()
    assert steps(trainer)[1]["loss"] == pytest.approx(steps(plain)[1]["loss"], abs=1e-6)
