"""``RVPOConfig`` takes what users have at hand, and keeps it as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")

from tiny_run import make_trainer
from transformers import TrainerCallback
from trl import GRPOConfig

from rvpo.errors import ConfigError
from rvpo.trl import RVPOConfig

CPU = {"use_cpu": True, "bf16": False, "report_to": "none"}

WEIGHTS = {
    "list": [1.0, 0.5],
    "tuple": (1, 0.5),
    "tensor": torch.tensor([1.0, 0.5]),
    "tensor of bfloat16 with a gradient": torch.tensor([1.0, 0.5], dtype=torch.bfloat16, requires_grad=True),
    "array": np.array([1.0, 0.5], dtype=np.float32),
    "list of tensors": [torch.tensor(1.0), torch.tensor([0.5])],
    "list of numpy numbers": [np.float32(1.0), np.float64(0.5)],
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_become_plain_numbers(tmp_path: Path, kind: str):
    config = RVPOConfig(str(tmp_path), reward_weights=WEIGHTS[kind], **CPU)
    assert list(config.reward_weights) == [1.0, 0.5]
    assert json.loads(config.to_json_string())["reward_weights"] == [1.0, 0.5]


@pytest.mark.parametrize("kind", ["tensor", "array", "list of numpy numbers"])
def test_weights_reach_the_method(tiny_model_dir: Path, tmp_path: Path, kind: str):
    trainer = make_trainer(tiny_model_dir, tmp_path, max_steps=1, reward_weights=WEIGHTS[kind])
    trainer.train()
    assert trainer.aggregator.weights == [1.0, 0.5]


@pytest.mark.parametrize(
    "weights",
    [
        torch.tensor([1.0, -1.0]),
        torch.tensor([1.0, torch.inf]),
        np.array([np.nan, 1.0]),
        torch.zeros(2),
        torch.ones(2, 1),
        torch.tensor(1.0),
        np.array(["1", "2"]),
        {"even": -1.0},
        {"even": "rising"},
        ["linear(0,1)", "linear(0,2)"],
        "1 2",
        2.0,
    ],
    ids=str,
)
def test_weights_that_cannot_work(tmp_path: Path, weights: Any):
    with pytest.raises(ConfigError, match=r"(?s)^reward_weights is .*; expected a list of finite numbers >= 0"):
        RVPOConfig(str(tmp_path), reward_weights=weights, **CPU)


def test_weights_that_a_callback_changes_are_refused(tiny_model_dir: Path, tmp_path: Path):
    """The method would not see them: only the `reward` that TRL logs would follow."""

    class Curriculum(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            trainer.reward_weights = torch.tensor([1.0, 3.0])

    trainer = make_trainer(tiny_model_dir, tmp_path, max_steps=3)
    trainer.add_callback(Curriculum())
    with pytest.raises(ConfigError, match=r"reward_weights of the trainer are \[1.0, 3.0\].*such as 'linear\(0.2,1\)'"):
        trainer.train()


@dataclass
class Theirs(GRPOConfig):
    """Arguments of an engine on top of TRL."""

    own: int = 3


@dataclass
class Ours(RVPOConfig, Theirs):
    pass


def test_arguments_of_another_class_are_taken_over_as_they_are(tmp_path: Path):
    theirs = Theirs(
        str(tmp_path), own=4, num_generations=4, per_device_train_batch_size=8, reward_weights=[1, 2], **CPU
    )
    made = Ours.made_of(theirs, {"method": "lift:kappa=3", "missing_rewards": "error"})
    assert {name: value for name, value in vars(made).items() if name in vars(theirs)} == vars(theirs)
    assert (made.own, made.method, made.missing_rewards, made.advantage_eps) == (4, "lift:kappa=3", "error", 1e-4)
    assert made.generation_batch_size == theirs.generation_batch_size  # which TRL refuses next to steps_per_generation
    assert json.loads(made.to_json_string())["method"] == "lift:kappa=3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lifd"}, "did you mean 'lift'"),
        ({"missing_rewards": "zero"}, "missing_rewards is 'zero'"),
        ({"reward_weights": [-1.0, 1.0]}, "reward_weights"),
        ({"reward_timeout": -1}, "reward_timeout"),
    ],
)
def test_options_of_arguments_that_are_taken_over_are_checked(tmp_path: Path, options, message: str):
    with pytest.raises(ConfigError, match=message):
        Ours.made_of(Theirs(str(tmp_path), **CPU), options)
