"""Two processes (gloo) compute the advantages of one process on the same rewards, and resume in step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

import features
from tiny_run import G, from_table, make_trainer, recording, run_job_twice, steps

import rvpo

pytestmark = pytest.mark.xdist_group("processes")
"""On one worker, because the training with two processes that all of them look at takes half a minute."""

# 12 completions in groups of 4: the middle group lies half in each process.
ROWS, STEPS = 3 * G, 4


def rewards_by_step() -> torch.Tensor:
    """(steps, N, M), with cells that are missing, a row that nothing scored, and a dead channel across processes."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(STEPS, ROWS, 3, generator=generator)
    rewards[..., 0] = (rewards[..., 0] > 0).float()
    rewards[torch.rand(rewards.shape, generator=generator) < 0.1] = torch.nan
    rewards[0, 5] = torch.nan
    rewards[1, G : 2 * G, 1] = 2.0
    return rewards


@pytest.fixture(scope="module")
def runs(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of one process and of both of two."""
    rewards = rewards_by_step()
    table = [[[None if x != x else x for x in row] for row in step] for step in rewards.tolist()]
    folder = tmp_path_factory.mktemp("processes")
    options = {"max_steps": STEPS, "num_generations": G, "reward_weights": [1.0, 2.0, 0.5]}

    threads, seen = torch.get_num_threads(), []
    torch.set_num_threads(1)
    one = make_trainer(
        tiny_model_dir,
        folder / "one",
        from_table(table, 0),
        trainer=recording(seen),
        per_device_train_batch_size=ROWS,
        **options,
    )
    one.train()
    torch.set_num_threads(threads)

    resumption = {"reward_weights": None, "num_iterations": 2, "save_strategy": "steps", "save_steps": 3}
    two = run_job_twice(
        {
            "model": str(tiny_model_dir),
            "output": str(folder),
            "table": table,
            "options": options | {"per_device_train_batch_size": ROWS // 2},
            **({"then_resume": resumption} if features.RESUMES_ON_SEVERAL_CPUS else {}),
        }
    )
    return {"rewards": rewards, "one": {"advantages": seen, "steps": steps(one)}, "two": two}


def test_there_were_two(runs: dict):
    assert [result["processes"] for result in runs["two"]] == [2, 2]


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_gets_its_slice(runs: dict, rank: int):
    mine = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    for step in range(STEPS):
        weights = [1.0, 2.0, 0.5]
        want = rvpo.advantages(runs["rewards"][step], num_generations=G, weights=weights).advantages
        one, two = runs["one"]["advantages"][step], runs["two"][rank]["advantages"][step]
        assert two["all"] == one["all"]
        assert two["local"] == one["local"][mine] == two["all"][mine]
        torch.testing.assert_close(torch.tensor(two["all"]), want)


def test_metrics_are_those_of_one_process(runs: dict):
    want = runs["one"]["steps"]
    got = runs["two"][0]["steps"]  # the main process logs
    for step, entry in want.items():
        for key, value in entry.items():
            if key.startswith("rvpo/"):
                assert got[str(step)][key] == pytest.approx(value), (step, key)


def test_processes_stay_in_step(runs: dict):
    first, second = (result["parameters"] for result in runs["two"])
    assert first == second


@pytest.mark.skipif(not features.RESUMES_ON_SEVERAL_CPUS, reason="this transformers cannot resume on several CPUs")
def test_resumes_inside_a_generation_cycle(runs: dict):
    """Each process gets its own completions back: same parameters at the end as without the interruption."""
    for result in runs["two"]:
        assert result["resumed_from_buffer"]
        assert result["parameters_resumed"] == result["parameters_whole"]
