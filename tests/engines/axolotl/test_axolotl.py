"""axolotl itself: a YAML file with a section ``rvpo``, through its own config, builder and trainer, on the CPU.

``make test-axolotl`` makes the environment. axolotl's command wants a GPU before it reads a model, so the parts that
it calls are called here: configuration with plug-ins, validation, the builder, ``train``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import rvpo

pytest.importorskip("axolotl.integrations.base", reason="needs axolotl: make test-axolotl")

RUN = Path(__file__).with_name("tiny_run.py")


def run(folder: Path, model: Path, resume: Path | None = None, **changed: Any) -> Any:
    """Train in a process of its own, and return the finished process."""
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "model": str(model),
        "output": str(folder / "out"),
        "resume": str(resume) if resume else None,
        "config": changed,
    }
    (folder / "job.json").write_text(json.dumps(job))
    paths = [str(Path(rvpo.__file__).parents[1]), str(RUN.parent), str(RUN.parents[2])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "AXOLOTL_DO_NOT_TRACK": "1",
    }
    command = [sys.executable, str(RUN), str(folder / "job.json")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)


def batches(folder: Path) -> dict[int, tuple[torch.Tensor, list[float]]]:
    """Return rewards (N, M), NaN = missing, and what the loss got, by step."""
    found = {}
    for line in (folder / "out" / "seen.jsonl").read_text().splitlines():
        seen = json.loads(line)
        rewards = torch.tensor([[torch.nan if x is None else x for x in row] for row in seen["rewards"]])
        found[seen["step"]] = (rewards, seen["advantages"])
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("axolotl")
    done = run(folder, tiny_model_dir)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_loss_gets_the_advantages_of_the_aggregator(whole: Path):
    own = rvpo.Aggregator("lift", ["many_words", "has_the", "maybe"], ranges={"many_words": (0, 3)})
    seen = batches(whole)
    assert sorted(seen) == [1, 2, 3, 4]
    assert any(rewards.isnan().any() for rewards, _ in seen.values())
    for step, (rewards, received) in seen.items():
        out = own(rewards, num_generations=4, progress=(step - 1) / 3)
        assert sorted(received) == pytest.approx(sorted(out.advantages.tolist()), abs=1e-6)
    assert json.loads((whole / "out" / "checkpoint-4" / "rvpo_state.json").read_text()) == own.state_dict()


def test_a_resumed_run_continues_what_lift_remembers(whole: Path, tmp_path: Path, tiny_model_dir: Path):
    checkpoint = tmp_path / "out" / "checkpoint-2"
    shutil.copytree(whole / "out" / "checkpoint-2", checkpoint)
    done = run(tmp_path, tiny_model_dir, resume=checkpoint)
    assert done.returncode == 0, done.stderr
    state = "checkpoint-4/rvpo_state.json"
    assert (tmp_path / "out" / state).read_text() == (whole / "out" / state).read_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rvpo": {"metod": "lift"}}, "section rvpo: unknown key 'metod' (did you mean 'method'?)"),
        ({"rvpo": None}, "there is no section 'rvpo'"),
        ({"rvpo": {"method": "lift", "reward_ranges": {"many_word": [0, 3]}}}, "did you mean 'many_words'?"),
    ],
)
def test_mistakes_stop_before_training(tmp_path: Path, tiny_model_dir: Path, changed, message):
    done = run(tmp_path, tiny_model_dir, **changed)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "out" / "seen.jsonl").exists()
