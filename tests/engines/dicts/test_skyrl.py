"""SkyRL's trainer mixin, over a stand-in for RayPPOTrainer with the methods that it overrides."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rvpo.engines.skyrl import RVPOMixin
from rvpo.errors import ConfigError, EngineError

UIDS = ["a"] * 4 + ["b"] * 4
OPTIONS: dict[str, Any] = {
    "method": "lift",
    "reward_keys": ["correct", "safe"],
    "reward_ranges": {"correct": [-3, 3]},
    "reward_weights": {"correct": 2.0},
}


class Batch(dict[str, Any]):
    metadata: dict[str, Any]


class StandInTrainer:
    """As skyrl.train.trainer.RayPPOTrainer: totals in, one advantage per row out."""

    def __init__(self, cfg: Any) -> None:
        self.cfg, self.global_step, self.total_training_steps = cfg, 0, 10
        self.all_metrics: dict[str, float] = {}
        self.dynamic_sampling_state = None

    def postprocess_generator_output(self, generator_output: Any, uids: list[str], *_: Any) -> Any:
        return generator_output, uids

    def compute_advantages_and_returns(self, data: Batch) -> Batch:
        data["advantages"] = torch.full_like(data["response_mask"], 99.0)
        data["returns"] = data["advantages"]
        return data

    def save_checkpoints(self) -> str:
        return str(Path(self.cfg.trainer.ckpt_path) / f"global_step_{self.global_step}")

    def load_checkpoints(self) -> tuple[int, Any]:
        steps = sorted(Path(self.cfg.trainer.ckpt_path).glob("global_step_*"))
        return (len(steps), steps[-1]) if steps else (0, None)


class Trainer(RVPOMixin, StandInTrainer):
    rvpo = OPTIONS


def cfg(folder: Path | str, **changes: Any) -> Any:
    algorithm: dict[str, Any] = {
        "advantage_estimator": "grpo",
        "advantage_batch_normalize": False,
        "use_kl_in_reward": False,
        "zero_variance_filter": False,
        "dynamic_sampling": SimpleNamespace(type=None),
    }
    merge = changes.pop("merge_stepwise_output", False)
    return SimpleNamespace(
        trainer=SimpleNamespace(algorithm=SimpleNamespace(**algorithm | changes), ckpt_path=str(folder)),
        generator=SimpleNamespace(merge_stepwise_output=merge),
    )


def step(trainer: Any, metrics: Any, uids: list[str], padding: int = 0, last: Any = None) -> torch.Tensor:
    trainer.global_step += 1
    trainer.postprocess_generator_output({"env_metrics": metrics}, uids)
    mask = torch.ones(len(uids) + padding, 3)
    mask[:, 2] = 0
    data = Batch(response_mask=mask)
    data.metadata = {"uids": uids, "pad_size": padding} | ({} if last is None else {"is_last_step": last})
    found = trainer.compute_advantages_and_returns(data)["advantages"]
    assert torch.equal(found[:, 1:], found[:, :1] * mask[:, 1:])
    return found[:, 0]


def test_advantages_metrics_and_resume(batches: Any, expected: Any, tmp_path: Path):
    for batch, numbers in zip(batches, expected, strict=True):
        trainer = Trainer(cfg(tmp_path))  # a new process for each
        trainer.global_step = trainer.load_checkpoints()[0]
        found = step(trainer, batch, UIDS, padding=2)
        assert found[:8].tolist() == pytest.approx(numbers, abs=1e-6)
        assert found[8:].tolist() == [0.0, 0.0]
        assert trainer.all_metrics["rvpo/safe/missing"] > 0
        trainer.save_checkpoints()
    assert (tmp_path / "global_step_2" / "rvpo_state.json").exists()


def test_steps_of_a_trajectory_share_its_advantage(batches: Any, expected: Any, tmp_path: Path):
    """Only the last step of a trajectory has the environment's metrics."""
    steps = [1, 3, 1, 2, 1, 1, 1, 2]
    metrics = [row for batch, n in zip(batches[0], steps, strict=True) for row in [{}] * (n - 1) + [batch]]
    uids = [uid for uid, n in zip(UIDS, steps, strict=True) for _ in range(n)]
    last = [value for n in steps for value in [False] * (n - 1) + [True]]
    found = step(Trainer(cfg(tmp_path)), metrics, uids, last=last).tolist()
    assert found == pytest.approx([a for a, n in zip(expected[0], steps, strict=True) for _ in range(n)], abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"advantage_estimator": "gae"}, "advantage_estimator is 'gae'; expected 'grpo'"),
        ({"advantage_batch_normalize": True}, "advantage_batch_normalize is True"),
        ({"use_kl_in_reward": True}, "use_kl_in_reward is True"),
        ({"zero_variance_filter": True}, "zero_variance_filter is True"),
        ({"dynamic_sampling": SimpleNamespace(type="filter")}, "dynamic_sampling.type is 'filter'"),
        ({"merge_stepwise_output": True}, "merge_stepwise_output is True"),
    ],
)
def test_settings_that_change_advantages_are_refused(tmp_path: Path, changes: Any, said: str):
    with pytest.raises(ConfigError, match=said):
        Trainer(cfg(tmp_path, **changes))


def test_half_made_setups_are_refused(batches: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RVPO_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="RVPO_CONFIG is not set"):
        type("Mine", (Trainer,), {"rvpo": None})(cfg(tmp_path))
    with pytest.raises(ConfigError, match=r"trainer.ckpt_path is s3://runs"):
        Trainer(cfg("s3://runs"))
    trainer = Trainer(cfg(tmp_path))
    for metrics in (None, batches[0][:7]):
        with pytest.raises(EngineError, match="the generator returned env_metrics for"):
            trainer.postprocess_generator_output({"env_metrics": metrics}, UIDS)
    data = Batch(response_mask=torch.ones(6, 3))
    data.metadata = {}
    with pytest.raises(EngineError, match="before postprocess_generator_output"):
        trainer.compute_advantages_and_returns(data)
    trainer.postprocess_generator_output({"env_metrics": batches[0]}, UIDS)
    with pytest.raises(EngineError, match="has 6 rows with 0 of padding, but 8 completions were generated"):
        trainer.compute_advantages_and_returns(data)
