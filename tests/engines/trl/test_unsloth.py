"""After ``import unsloth``, RVPO trains on Unsloth's trainer; before it, the script is told what to change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trl
from tiny_run import ON_CPU, make_trainer

import rvpo
from rvpo.engines.trl import seams
from rvpo.errors import ConfigError, EngineError

SCRIPT = Path(__file__).with_name("unsloth_stand_in.py")


def test_it_trains_on_what_unsloth_has_put_in_place_of_the_trainer(tmp_path: Path, tiny_model_dir: Path):
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"model": str(tiny_model_dir), "output": str(tmp_path / "out")}))
    paths = os.pathsep.join([ON_CPU["PYTHONPATH"], str(SCRIPT.parent), *sys.path])
    environment = os.environ | ON_CPU | {"PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(job)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    own = rvpo.Aggregator("lift", ["even", "high"])
    assert len(seen["rewards"]) == 3
    for step, rows in enumerate(seen["rewards"]):
        rewards = torch.tensor(rows)
        out = own(rewards.masked_fill(rewards == -1, torch.nan), num_generations=4, progress=step / 2)
        # TRL shuffles the completions before the loss.
        assert sorted(seen["advantages"][step]) == pytest.approx(sorted(out.advantages.tolist()), abs=1e-6)
    assert json.loads((tmp_path / "out" / "checkpoint-3" / "rvpo_state.json").read_text()) == own.state_dict()


@pytest.mark.parametrize(
    ("name", "module", "next_step"),
    [
        ("UnslothGRPOTrainer", "UnslothGRPOTrainer", "Put `import unsloth` above all other imports"),
        ("GRPOTrainer", "unsloth_compiled_cache.UnslothGRPOTrainer", "Put `import unsloth` above"),
        ("FastTrainer", "somebody.patch", "Put `import somebody.patch` above"),
    ],
)
def test_the_wrong_order_of_imports_is_an_error(monkeypatch, tmp_path: Path, name: str, module: str, next_step: str):
    monkeypatch.setattr(trl, "GRPOTrainer", type(name, (trl.GRPOTrainer,), {"__module__": module}))
    with pytest.raises(ConfigError, match=r"has replaced TRL's own after rvpo\.trl was imported") as error:
        make_trainer(None, tmp_path, method="lift")
    assert next_step in str(error.value)


@pytest.mark.parametrize("name", [seams.GENERATE, seams.REWARDS, seams.PREPARE])
@pytest.mark.parametrize("how", ["gone", "renamed"])
def test_a_trl_that_has_moved_the_seam_is_an_error_at_the_start(monkeypatch, tmp_path: Path, name: str, how: str):
    if how == "gone":
        monkeypatch.delattr(trl.GRPOTrainer, name)
        message = f"has no method {name}|{name} has the parameters self, inputs"  # that of transformers' trainer
    else:
        monkeypatch.setattr(trl.GRPOTrainer, name, lambda self, batch, options: None)
        message = f"{name} has the parameters self, batch, options"
    with pytest.raises(EngineError, match=message):
        make_trainer(None, tmp_path, method="lift")


@pytest.mark.parametrize(
    ("received", "message"),
    [
        ({}, "a batch without advantages"),
        ({"advantages": torch.tensor([0.5, 0.25])}, "hands the loss other advantages"),
        ({"advantages": [0.5]}, "a batch without advantages"),
        ({"advantages": torch.tensor([[0.5, -0.5], [0.1, 0.1]])}, "hands the loss other advantages"),
    ],
)
def test_a_loss_that_gets_other_advantages_is_an_error(received, message: str):
    made = torch.tensor([0.5, -0.5, 0.0])
    seams.check_received({"advantages": torch.tensor([-0.5, 0.0])}, made)
    with pytest.raises(EngineError, match=message):
        seams.check_received(received, made)
