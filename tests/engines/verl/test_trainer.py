"""What the trainer keeps in verl's checkpoints, and what it takes from those of older versions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.metric_utils import process_validation_metrics

import rvpo
from rvpo.engines.verl.last_step import save_last_step
from rvpo.engines.verl.trainer import ChannelAdvantages
from rvpo.step.memory import FILE

# As written in a run of lift_z when it was called lift, after the first two of BATCHES.
OLD = (
    '{"method": "lift", "remembered": {"attained": {"names": ["vowels", "brief"], "total": [0.185, '
    '0.21250000000000002], "weight": [0.36000000000000004, 0.36000000000000004]}, "covariance": {"names": ["vowels", '
    '"brief"], "total": [[0.04497267486072985, 0.019999406775600588], [0.019999406775600588, 0.044983741492534104]], '
    '"weight": [0.36000000000000004, 0.36000000000000004]}}, "evidence": {}}'
)
BATCHES = [
    [[1, 0.5], [0, -0.5], [0.5, 1], [0, 0]],
    [[0.25, -1], [1, 0], [0.75, 0.5], [0.5, 1]],
    [[0, 1], [1, 0], [1, -1], [0.5, 0.5]],
]
# What that version gave for the third batch.
THIRD = [-0.8658359809559109, 0.8658359809559109, 0.8643961558626712, -0.8643961558626712]


class Verl:
    """What the trainer asks of verl's own."""

    def _save_checkpoint(self) -> None: ...

    def _load_checkpoint(self) -> None: ...

    def _val_metrics_update(
        self, sources: list[str], uids: list[str], infos: dict[str, Any], turns: list[int], **kwargs: Any
    ) -> Any:
        return process_validation_metrics(sources, uids, infos, **kwargs)


class Trainer(ChannelAdvantages, Verl):
    def __init__(self, folder: Path, step: int, method: str = "lift_z", **trainer: Any) -> None:
        self._aggregator = rvpo.Aggregator(method, ["vowels", "brief"], ranges={"brief": (-1, 1)})
        self.global_steps = step
        settings = {"default_local_dir": str(folder), "resume_mode": "auto", "resume_from_path": None, **trainer}
        self.config = OmegaConf.create({"trainer": settings})

    def advantages(self, batch: list[list[float]]) -> list[float]:
        rewards = torch.tensor(batch, dtype=torch.float64)
        result: list[float] = self._aggregator(rewards, groups=[0, 0, 1, 1]).advantages.tolist()
        return result


def old_checkpoint(folder: Path, step: int = 2) -> Path:
    path = folder / f"global_step_{step}"
    path.mkdir(parents=True)
    (path / FILE).write_text(OLD)
    return path


def test_a_checkpoint_of_the_version_before_goes_on_to_the_last_digits(tmp_path: Path):
    old_checkpoint(tmp_path)
    trainer = Trainer(tmp_path, 2)
    trainer._load_checkpoint()
    assert trainer.advantages(BATCHES[2]) == pytest.approx(THIRD, abs=1e-12)


def test_resume_path_names_the_folder(tmp_path: Path):
    path = old_checkpoint(tmp_path / "elsewhere", 7)
    trainer = Trainer(tmp_path, 7, resume_mode="resume_path", resume_from_path=str(path))
    trainer._load_checkpoint()
    assert trainer.advantages(BATCHES[2]) == pytest.approx(THIRD, abs=1e-12)


def test_the_same_batches_are_remembered_as_that_version_did(tmp_path: Path):
    trainer = Trainer(tmp_path, 2)
    for batch in BATCHES[:2]:
        trainer.advantages(batch)
    trainer._save_checkpoint()
    saved, old = json.loads((tmp_path / "global_step_2" / FILE).read_text()), json.loads(OLD)
    assert (saved["method"], old["method"]) == ("lift_z", "lift")  # renamed
    for name, moment in old["remembered"].items():
        assert saved["remembered"][name]["names"] == moment["names"]
        for key in ("total", "weight"):
            assert torch.tensor(saved["remembered"][name][key]).flatten().tolist() == pytest.approx(
                torch.tensor(moment[key]).flatten().tolist(), abs=1e-12
            )


def test_a_checkpoint_of_another_method_begins_anew_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    old_checkpoint(tmp_path)
    trainer = Trainer(tmp_path, 2, "ctwa")
    with caplog.at_level(logging.WARNING):
        trainer._load_checkpoint()
    assert "what method 'lift' remembered; method 'ctwa' begins anew" in caplog.text
    assert trainer.advantages(BATCHES[0]) == Trainer(tmp_path, 0, "ctwa").advantages(BATCHES[0])


def test_a_run_from_the_start_reads_no_checkpoint(tmp_path: Path):
    old_checkpoint(tmp_path, 0)
    trainer = Trainer(tmp_path, 0)
    trainer._load_checkpoint()
    assert trainer._aggregator.state_dict()["remembered"] == {}


def test_what_is_remembered_goes_where_verl_uploads_a_checkpoint(tmp_path: Path):
    trainer = Trainer(tmp_path / "local", 3, default_hdfs_dir=str(tmp_path / "remote"))
    trainer.advantages(BATCHES[0])
    trainer._save_checkpoint()
    uploaded = tmp_path / "remote" / "global_step_3" / FILE
    assert uploaded.read_text() == (tmp_path / "local" / "global_step_3" / FILE).read_text()
    Trainer(tmp_path / "local", 4, "gdpo", default_hdfs_dir=str(tmp_path / "remote"))._save_checkpoint()
    assert not (tmp_path / "remote" / "global_step_4").exists(), "nothing is remembered"


# --- rewards that end the run -----------------------------------------------------------------------------------------


class Data:
    """A dataloader, as far as a checkpoint asks."""

    def __init__(self, place: int) -> None:
        self.place = place

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}


class Stopped(Trainer):
    """In the middle of a step; its checkpoints note what verl's would hold."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder, step)
        self.train_dataloader = Data(step)
        self.fails = False

    def _save_checkpoint(self) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        folder = Path(self.config.trainer.default_local_dir)
        folder.mkdir(exist_ok=True)
        (folder / "latest_checkpointed_iteration.txt").write_text(str(self.global_steps))
        (folder / "data.json").write_text(json.dumps([self.global_steps, self.train_dataloader.state_dict()]))


def test_the_last_finished_step_is_saved_with_its_place_in_the_data(tmp_path: Path):
    trainer = Stopped(tmp_path, 3)
    told = save_last_step(trainer, None, {"place": 2})
    assert json.loads((tmp_path / "data.json").read_text()) == [2, {"place": 2}]
    assert told == f"Stopped after step 2, {tmp_path}/global_step_2 is saved: the same command continues from there"
    assert (trainer.global_steps, trainer.train_dataloader.state_dict()) == (3, {"place": 3})
    trainer.fails = True  # it need not be saved again
    assert "global_step_2 has it: the same" in save_last_step(trainer, None, {"place": 2})


def test_before_the_first_step_there_is_nothing_to_save(tmp_path: Path):
    assert save_last_step(Stopped(tmp_path, 1), None, {}) == "Nothing was trained yet: start again"
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_cannot_be_saved_does_not_hide_the_reason(tmp_path: Path):
    trainer = Stopped(tmp_path, 3)
    trainer.fails = True
    told = save_last_step(trainer, None, {})
    assert "no checkpoint could be saved (OSError: [Errno 28] No space left on device)" in told
    assert trainer.global_steps == 3


# --- validations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reward", "score", "vowels"])
def test_a_missing_number_does_not_spoil_the_means_of_a_validation(tmp_path: Path, name: str):
    trainer = Trainer(tmp_path, 1)
    infos = {name: [1.0, float("nan"), 0.5, np.float32("nan")], "rvpo": [None] * 4}
    found = trainer._val_metrics_update(["s"] * 4, ["a", "a", "b", "b"], infos, [])
    assert found["s"][name]["mean@1"] == 0.75


def test_a_validation_without_any_number_has_no_mean(tmp_path: Path):
    found = Trainer(tmp_path, 1)._val_metrics_update(["s"], ["a"], {"reward": [float("nan")]}, [])
    assert "reward" not in found["s"]


def test_a_missing_acc_is_not_a_zero_but_a_lost_rollout_is_as_in_verl(tmp_path: Path):
    """Of two rollouts per prompt: one of a is missing, one of b was lost."""
    infos = {"acc": [1.0, float("nan"), 1.0]}
    counts = {("s", "a"): 2, ("s", "b"): 2}
    found = Trainer(tmp_path, 1)._val_metrics_update(["s"] * 3, ["a", "a", "b"], infos, [], expected_acc_counts=counts)
    assert found["s"]["acc"]["mean@1"] == 1.0
    assert found["s"]["acc"]["mean@2"] == 0.5
    assert counts == {("s", "a"): 2, ("s", "b"): 2}  # verl's own is left as it was


def test_metrics_that_are_undefined_are_left_out(tmp_path: Path):
    class Base:
        def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            metrics.update({"critic/score/mean": float("nan"), "critic/score/max": np.float64("nan"), "perf/mfu": 0.5})

    metrics: dict[str, Any] = {}
    type("Both", (ChannelAdvantages, Base), {"__init__": lambda self: None})()._compute_metrics(None, metrics)
    assert metrics == {"perf/mfu": 0.5}
