"""``skip_dead_groups``: the gradients of every loss stay those of TRL; and what is refused. ``wanted`` in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import features
import pytest
import torch
from tiny_run import from_table, make_trainer, run_job_twice

from rvpo.engines.trl import dead_groups
from rvpo.errors import ConfigError, EngineError
from rvpo.trl import RVPOTrainer

TABLE = [
    [[1, 0.2], [1, 0.2], [1, 0.2], [1, 0.2], [1, 0], [0, 0.4], [1, 0.9], [0, 0.1]],
    [[1, 0.2], [0, 0.5], [0, 0.2], [1, 0.2], [1, 0.3], [1, 0.3], [1, 0.3], [1, 0.3]],
    [[1, 0.3]] * 8,
]
"""Two groups of four: one, then the other, then both are dead."""


@pytest.fixture
def run(tiny_model_dir: Path, tmp_path: Path):
    def train(number: int, table: list = TABLE, **options: Any) -> tuple[torch.Tensor, Any]:
        options = {"method": "gdpo", "max_steps": 3, "optim": "sgd", "learning_rate": 0.5, **options}
        trainer = make_trainer(tiny_model_dir, tmp_path / str(number), from_table(table, 0), **options)
        trainer.train()
        return torch.cat([p.detach().flatten().double() for p in trainer.model.parameters()]), trainer

    return train


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"])
def test_the_gradient_of_every_loss_stays(run, loss: str):
    more = {"importance_sampling_level": "sequence"} if loss == "luspo" else {}
    whole, _ = run(0, loss_type=loss, **more)
    skipped, trainer = run(1, loss_type=loss, skip_dead_groups=True, **more)
    torch.testing.assert_close(skipped, whole, rtol=0, atol=2e-6)
    shares = [log["rvpo/skipped/share"] for log in trainer.state.log_history if "rvpo/skipped/share" in log]
    assert shares == [0.5, 0.5, 7 / 8]  # one row stays where none is alive


def test_a_run_of_small_batches_stays(run):
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_iterations": 2, "max_steps": 4}
    whole, _ = run(0, **options)
    skipped, _ = run(1, skip_dead_groups=True, **options)
    torch.testing.assert_close(skipped, whole, rtol=0, atol=2e-6)


class OwnLoss(RVPOTrainer):
    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.1}, "beta is 0.1, whose KL penalty"),
        pytest.param(
            {"entropy_coef": 0.01},
            "an entropy bonus",
            marks=pytest.mark.skipif(not features.ENTROPY_BONUS, reason="this TRL has no entropy bonus"),
        ),
        ({"top_entropy_quantile": 0.5}, "top_entropy_quantile is 0.5"),
        ({"trainer": OwnLoss}, "OwnLoss computes a loss of its own"),
    ],
)
def test_what_acts_on_every_completion_is_refused(tiny_model_dir, tmp_path, options, message):
    with pytest.raises(ConfigError, match=f"skip_dead_groups is True, but {message}.*Drop skip_dead_groups"):
        make_trainer(tiny_model_dir, tmp_path, from_table(TABLE, 0), skip_dead_groups=True, **options)


@pytest.mark.parametrize("key", ["pixel_values", "image_sizes", "num_images"])
def test_images_are_refused(key: str):
    inputs = {"completion_ids": torch.zeros(4, 2), key: [1, 1, 1, 1] if key == "num_images" else torch.zeros(4, 3)}
    with pytest.raises(EngineError, match=f"{key!r} of TRL's batch is not laid out by completions"):
        dead_groups.smaller(inputs, torch.tensor([0]))


def test_wanted_channels_decide_which_groups_are_trained_on(run):
    # In the first step both groups of the table differ in r1, the first one in r1 alone.
    changed = [[[1, 0.2], [1, 0.7], *TABLE[0][2:]], *TABLE[1:]]
    _, trainer = run(0, changed, wanted=["r0"], given={"reward_names": ["r0", "r1"]}, skip_dead_groups=True)
    logs = [log for log in trainer.state.log_history if "rvpo/unwanted/groups" in log]
    assert [log["rvpo/unwanted/groups"] for log in logs] == [0.5, 0.0, 0.0]
    assert [log["rvpo/skipped/share"] for log in logs] == [0.5, 0.5, 7 / 8]
    with pytest.raises(ConfigError, match="wanted names the channel 'other'"):
        run(1, wanted=["other"], given={"reward_names": ["r0", "r1"]})


def test_weights_follow_the_training(run):
    # Steps 1, 2, 3 are at progress 0, 0.5, 1.
    weights = {"r1": "linear(0,1)"}
    _, trainer = run(0, reward_weights=weights, given={"reward_names": ["r0", "r1"]}, log_completions=True)
    assert trainer.args.reward_weights == weights
    assert trainer.reward_weights.tolist() == [1.0, 1.0]  # of the last step
    logs = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    half = sum(a + 0.5 * b for a, b in TABLE[1]) / 8
    assert logs == pytest.approx([6 / 8, half, 1.3], abs=1e-6)


@pytest.mark.xdist_group("processes")
def test_two_processes_of_which_one_has_nothing_to_learn_from_stay_in_step(tiny_model_dir: Path, tmp_path: Path):
    """Each process has one group. Skipping leaves the weights, and `wanted` leaves the same groups out in both."""
    table = [[*rows, *rows[::-1]] for rows in TABLE]  # 16 rows: 2 groups in each process, in mirrored order
    table[0] = [[1, 0.2]] * 8 + table[0][8:]  # nothing at all in the first process
    found = {}
    for skip in (False, True):
        folder = tmp_path / str(skip)
        folder.mkdir()
        options = {
            "method": "gdpo",
            "max_steps": 3,
            "optim": "sgd",
            "learning_rate": 0.5,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "wanted": ["channel_0"],
            "skip_dead_groups": skip,
        }
        job = {"model": str(tiny_model_dir), "output": str(folder), "table": table, "options": options}
        first, second = run_job_twice(job)
        assert first["parameters"] == second["parameters"]
        found[skip] = first
    whole, skipped = (torch.tensor(found[skip]["parameters"], dtype=torch.float64) for skip in (False, True))
    torch.testing.assert_close(skipped, whole, rtol=0, atol=2e-6)
    shares = [step["rvpo/skipped/share"] for step in found[True]["steps"].values()]
    # Both processes keep as many rows as the one with more groups: one of two, one of two, and one row of eight.
    assert shares == [0.5, 0.5, 7 / 8]
