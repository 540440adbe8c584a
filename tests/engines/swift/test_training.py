"""A real GRPO training of ms-swift on the CPU, with its own command and trainer: ``make test-swift``.

Three rewards, one of them missing for some completions, method ``lift``: what reaches the loss is compared with an
``rvpo.Aggregator`` that sees the same rewards.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import rvpo

pytest.importorskip("swift.rl_core", reason="needs ms-swift: make test-swift")

HERE = Path(__file__).parent
NAMES = ["many_words", "has_the", "maybe"]
OPTIONS = {"method": "lift", "reward_ranges": {"many_words": [0, 3], "maybe": [0, 2]}}


def run(folder: Path, model: Path, *, processes: int = 1, options: Any = OPTIONS, **arguments: Any) -> Any:
    """Train, and return the finished process."""
    folder.mkdir(parents=True, exist_ok=True)
    job = folder / "job.json"
    job.write_text(json.dumps({"model": str(model), "output": str(folder / "out"), "arguments": arguments}))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(rvpo.__file__).parents[1]), str(HERE.parents[1])]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "USE_HF": "1",
        "MODELSCOPE_CACHE": str(folder / "cache"),
        "TINY_TABLE": str(folder / "table.jsonl"),
        "TINY_OPTIONS": json.dumps(options),
    }
    launch = [sys.executable, str(HERE / "tiny_run.py")]
    if processes > 1:
        launch[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.run(
        [*launch, str(job)], env=environment, capture_output=True, text=True, check=False, timeout=900
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def made(folder: Path, rank: int = 0) -> dict[int, list[float]]:
    """Return the advantages that the loss got, by step."""
    return {line["step"]: line["advantages"] for line in lines(folder / "out" / f"made.jsonl.{rank}")}


def rewards(folder: Path, ranks: int = 1) -> list[torch.Tensor]:
    """Return the rewards (N, 3) of each batch as the reward functions returned them, NaN = None."""
    batches: list[torch.Tensor] = []
    tables = [lines(folder / f"table.jsonl.{rank}") for rank in range(ranks)]
    for start in range(0, len(tables[0]), len(NAMES)):
        parts = []
        for table in tables:
            calls = table[start : start + len(NAMES)]
            assert [call["name"] for call in calls] == NAMES
            columns = [[math.nan if value is None else value for value in call["values"]] for call in calls]
            parts.append(torch.tensor(columns, dtype=torch.float32).T.contiguous())
        batches.append(torch.cat(parts))
    return batches


def aggregator() -> rvpo.Aggregator:
    return rvpo.Aggregator("lift", NAMES, ranges={"many_words": (0, 3), "maybe": (0, 2)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """Return the folder of a training of four steps with a checkpoint after the second one."""
    folder = tmp_path_factory.mktemp("swift")
    done = run(folder, tiny_model_dir)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_loss_gets_the_advantages_of_the_aggregator(whole: Path):
    own, batches = aggregator(), rewards(whole)
    assert len(batches) == 4
    assert any(batch.isnan().any() for batch in batches)
    assert any(batch.isnan().any() and batch[:, 2].nan_to_num().any() for batch in batches)
    for step, batch in enumerate(batches):
        out = own(batch, num_generations=4, progress=step / 3)
        assert torch.equal(torch.tensor(made(whole)[step + 1]), out.advantages)
    assert json.loads((whole / "out" / "checkpoint-4" / "rvpo_state.json").read_text()) == own.state_dict()


def test_a_missing_reward_stays_missing_in_the_record_and_the_metrics(whole: Path):
    table = pd.concat(pd.read_parquet(path) for path in sorted((whole / "out" / "channels").glob("*.parquet")))
    missing = table[table.channel == "maybe"].reward.isna().to_numpy()
    assert missing.tolist() == torch.cat(rewards(whole))[:, 2].isnan().tolist()
    logged = [line for line in lines(whole / "out" / "logging.jsonl") if "rvpo/maybe/missing" in line]
    shares = [float(batch[:, 2].isnan().float().mean()) for batch in rewards(whole)]
    assert [float(line["rvpo/maybe/missing"]) for line in logged] == pytest.approx(shares, abs=1e-4)


def test_a_resumed_run_continues_what_lift_remembers(whole: Path, tmp_path: Path, tiny_model_dir: Path):
    again = tmp_path / "again"
    shutil.copytree(whole / "out" / "checkpoint-2", again / "out" / "checkpoint-2")
    done = run(again, tiny_model_dir, resume_from_checkpoint=str(again / "out" / "checkpoint-2"))
    assert done.returncode == 0, done.stderr
    state = "checkpoint-4/rvpo_state.json"
    assert (again / "out" / state).read_text() == (whole / "out" / state).read_text()
    assert made(again) == {step: made(whole)[step] for step in (3, 4)}


def test_two_processes_agree(tmp_path: Path, tiny_model_dir: Path):
    done = run(tmp_path, tiny_model_dir, processes=2, ddp_backend="gloo", per_device_train_batch_size=4, max_steps=2)
    assert done.returncode == 0, done.stderr
    own = aggregator()
    for step, batch in enumerate(rewards(tmp_path, ranks=2)):
        expected = own(batch, num_generations=4, progress=float(step)).advantages.tolist()
        assert made(tmp_path, 0)[step + 1] + made(tmp_path, 1)[step + 1] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale_rewards": "gdpo"}, "scale_rewards is 'gdpo'; expected 'group'"),
        ({"advantage_estimator": "rloo"}, "advantage_estimator is 'rloo'; expected 'grpo'"),
        ({"rlhf_type": "gkd", "reward_funcs": None}, "GKDTrainer trains, which does not use its method"),
    ],
)
def test_setups_that_would_train_without_it_are_refused(tmp_path: Path, tiny_model_dir: Path, arguments, message):
    if arguments.get("rlhf_type") == "gkd":
        arguments = arguments | {
            "teacher_model": str(tiny_model_dir),
            "teacher_model_type": "llama",
            "num_generations": None,
        }
    done = run(tmp_path, tiny_model_dir, **arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "out" / "made.jsonl.0").exists()


def test_a_function_that_something_else_has_replaced_is_an_error():
    code = (
        "from swift.rlhf_trainers import grpo_trainer\n"
        "grpo_trainer.compute_advantages = lambda *args, **kwargs: None\n"
        "import rvpo.swift\n"
        "rvpo.swift.use(method='lift')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "because something else has replaced it" in done.stderr
