"""A resumed run equals the uninterrupted one, wherever in a generation cycle the checkpoint fell."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")
pytest.importorskip("peft")

import tiny_run
from peft import LoraConfig
from tiny_run import N, make_trainer, parameters, prompts, steps, warm_python

from rvpo.engines.trl import buffer
from warm_python import Program

MAX_STEPS, CHECKPOINT = 6, 3
LINEAR_K = {"method": "rvpo:k=linear(0.5,2)"}
SPLIT = {"per_device_train_batch_size": N // 2, "gradient_accumulation_steps": 2}

# name: (options, rows of the dataset, whether the checkpoint falls inside a generation cycle)
CASES: dict[str, tuple[dict[str, Any], int, bool]] = {
    "one generation a step": (LINEAR_K, 12, False),
    "accumulation": (SPLIT, 12, False),
    "two iterations": ({"num_iterations": 2, **LINEAR_K}, 12, True),
    "two iterations of accumulated steps": ({"num_iterations": 2, **SPLIT}, 12, True),
    "two steps a generation": ({"steps_per_generation": 4, **SPLIT}, 12, True),
    "two iterations of two steps": ({"num_iterations": 2, "steps_per_generation": 4, **SPLIT}, 12, True),
    "in the second epoch": ({"num_iterations": 2, **LINEAR_K}, 2, True),
    "between epochs": ({}, 6, False),
    # An epoch is 3 batches, its last step has one batch instead of two.
    "generation not a multiple of accumulation": ({"steps_per_generation": 3, **SPLIT}, 3, True),
    "KL to a reference": ({"num_iterations": 2, "beta": 0.1}, 12, True),
    "LoRA": ({"num_iterations": 2, "peft_config": LoraConfig(task_type="CAUSAL_LM", r=4)}, 12, True),
}


@pytest.mark.parametrize("case", CASES)
def test_resumed_run_equals_the_uninterrupted_one(tiny_model_dir: Path, tmp_path: Path, case: str):
    options, rows, inside = CASES[case]
    options = {"max_steps": MAX_STEPS, "save_strategy": "steps", "save_steps": CHECKPOINT} | options
    whole = make_trainer(tiny_model_dir, tmp_path, dataset=prompts(rows), **options)
    whole.train()
    checkpoint = tmp_path / f"checkpoint-{CHECKPOINT}"
    assert (checkpoint / "rvpo_buffer_0.safetensors").exists() == inside

    resumed = make_trainer(tiny_model_dir, tmp_path, dataset=prompts(rows), **options)
    assert not torch.equal(parameters(resumed), parameters(whole))
    resumed.train(resume_from_checkpoint=str(checkpoint))

    assert steps(resumed) == steps(whole)
    assert sorted(steps(whole)) == list(range(1, MAX_STEPS + 1))
    assert torch.equal(parameters(resumed), parameters(whole))


@pytest.mark.xdist_group("processes")
def test_killed_run_ends_where_the_uninterrupted_one_does(tiny_model_dir: Path, tmp_path: Path):
    """SIGKILL in a reward function, behind a checkpoint inside a generation cycle; a new process goes on from it."""
    options = {
        "max_steps": MAX_STEPS,
        "save_strategy": "steps",
        "save_steps": CHECKPOINT,
        "num_iterations": 2,
        **LINEAR_K,
    }
    job = {"model": str(tiny_model_dir), "output": str(tmp_path / "run"), "options": options}
    result = tmp_path / "run" / "result_0.json"

    killed = run_script(tmp_path, job | {"kill_at": CHECKPOINT + 1})
    assert killed.poll() == -signal.SIGKILL, killed.stderr
    assert not result.exists()
    assert (tmp_path / "run" / f"checkpoint-{CHECKPOINT}" / "rvpo_buffer_0.safetensors").exists()
    resumed = run_script(tmp_path, job | {"resume": True})
    assert resumed.poll() == 0, resumed.stderr
    tiny_run.main(job | {"output": str(tmp_path / "whole")})

    want, got = (json.loads((tmp_path / name / "result_0.json").read_text()) for name in ("whole", "run"))
    assert got["steps"] == want["steps"]
    assert len(want["steps"]) == MAX_STEPS
    assert got["parameters"] == want["parameters"]


def run_script(folder: Path, job: dict[str, Any]) -> Program:
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    (done,) = warm_python().run([tiny_run.__file__, str(path)], [{}])
    return done


# --- the buffer's file --------------------------------------------------------------------------------------------


def test_buffer_round_trip(tmp_path: Path):
    shared = torch.tensor(12.0)  # TRL puts the same tensor into every batch
    whole = torch.arange(12.0).reshape(4, 3)
    batches = [
        {"advantages": whole[:2, 0], "mask": whole[:2] > 1, "ids": torch.arange(3), "n": shared, "old": None},
        {"advantages": whole[2:, 0], "mask": whole[2:] > 1, "ids": torch.arange(3), "n": shared, "num_images": [1, 2]},
    ]
    buffer.save_buffer(batches, tmp_path / "checkpoint-1", 0)
    loaded = buffer.load_buffer(tmp_path / "checkpoint-1", 0, torch.device("cpu"))

    assert loaded is not None
    assert [set(batch) for batch in loaded] == [set(batch) for batch in batches]
    for got, want in zip(loaded, batches, strict=True):
        for key, value in want.items():
            if isinstance(value, torch.Tensor):
                assert got[key].dtype == value.dtype
                assert torch.equal(got[key], value)
            else:
                assert got[key] == value


def test_buffer_is_each_process_its_own(tmp_path: Path):
    for rank in range(2):
        buffer.save_buffer([{"advantages": torch.full((2,), float(rank))}], tmp_path, rank)
    for rank in range(2):
        loaded = buffer.load_buffer(tmp_path, rank, torch.device("cpu"))
        assert loaded is not None
        assert loaded[0]["advantages"].tolist() == [rank, rank]


def test_no_buffer_between_generations(tmp_path: Path):
    assert buffer.load_buffer(tmp_path, 0, torch.device("cpu")) is None


def test_buffer_that_cannot_be_saved_is_announced(tmp_path: Path, caplog):
    buffer.save_buffer([{"image": object()}], tmp_path, 0)
    assert "a resumed run generates them anew" in caplog.text
    assert buffer.load_buffer(tmp_path, 0, torch.device("cpu")) is None
