"""``gdpo`` and ``grpo`` equal the advantages that the installed TRL computes on the same rewards, in all its variants.

TRL's own trainer does the work here: a real GRPOTrainer generates with a tiny model, scores with reward functions that
return a chosen matrix, and hands out its advantages. None of TRL's formulas is restated.

Where we deliberately differ is left out: ``gdpo`` where a channel is missing for *part* of the rows (TRL counts it as 0
in the sum, as ``gdpo:unscored=zero`` does), and constants that float32 cannot average exactly (TRL amplifies the
rounding noise).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import rvpo

trl = pytest.importorskip("trl")

P, G, M = 4, 6, 3
N = P * G
VARIANTS = {
    "gdpo": {"multi_objective_aggregation": "normalize_then_sum"},
    "gdpo:unscored=zero": {"multi_objective_aggregation": "normalize_then_sum"},
    "grpo": {"multi_objective_aggregation": "sum_then_normalize"},
    "grpo:whiten=batch": {"scale_rewards": "batch"},
    "grpo:whiten=none": {"scale_rewards": "none"},  # Dr. GRPO
}
NAN = float("nan")


@pytest.fixture(scope="module", params=list(VARIANTS))
def peer(request: pytest.FixtureRequest, tiny_model_dir: Path, prompt_dataset: Callable, tmp_path_factory) -> object:
    """Return ``method`` and ``advantages(rewards, weights)``, TRL's own advantages of an (N, M) matrix."""
    method = request.param
    chosen = SimpleNamespace(rewards=None)

    def channel(j: int) -> Callable:
        def reward(completions: list, **_: object) -> list[float | None]:
            assert len(completions) == N
            return [None if value != value else value for value in chosen.rewards[:, j].tolist()]

        reward.__name__ = f"channel_{j}"
        return reward

    trainer = trl.GRPOTrainer(
        model=str(tiny_model_dir),
        reward_funcs=[channel(j) for j in range(M)],
        args=trl.GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            **VARIANTS[method],
            reward_weights=[1.0] * M,
            per_device_train_batch_size=N,
            num_generations=G,
            max_completion_length=2,
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=prompt_dataset(P),
    )
    trainer.model.train()
    inputs = [row for row in trainer.train_dataset for _ in range(G)]

    def advantages(rewards: Tensor, weights: list[float]) -> Tensor:
        chosen.rewards = rewards
        trainer.reward_weights = torch.tensor(weights)
        return trainer._generate_and_score_completions([dict(row) for row in inputs])["advantages"]

    return SimpleNamespace(method=method, advantages=advantages)


def random_rewards(seed: int) -> Tensor:
    """Channels of different kinds: binary, in [-3, 3], Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    binary = torch.randint(0, 2, (N,), generator=generator).float()
    graded = torch.rand(N, generator=generator) * 6 - 3
    gaussian = torch.randn(N, generator=generator)
    return torch.stack([binary, graded, gaussian], dim=1)


def with_dead_channels(rewards: Tensor) -> Tensor:
    """Constants in some groups, one group constant throughout."""
    rewards[:G, 0] = 1.0
    rewards[G : 2 * G, 2] = -0.5
    rewards[2 * G : 3 * G] = torch.tensor([0.0, 2.0, 0.25])
    return rewards


def with_channel_none(rewards: Tensor) -> Tensor:
    rewards[:, 1] = NAN
    return rewards


def with_rows_none(rewards: Tensor) -> Tensor:
    """Two unscored rows in one group, a group with a single scored row, and a group with none."""
    rewards[[0, 3]] = NAN
    rewards[G + 1 : 2 * G] = NAN
    rewards[2 * G : 3 * G] = NAN
    return rewards


def with_cells_none(rewards: Tensor) -> Tensor:
    """Some rewards of a row, in a group of positive and in one of negative rewards, and nearly a whole channel."""
    rewards[0, 1] = rewards[G + 2, 0] = rewards[G + 2, 2] = rewards[2 * G + 1, 0] = NAN
    rewards[: G - 1, 2] = NAN
    return rewards


def with_all_of_it(rewards: Tensor) -> Tensor:
    return with_rows_none(with_channel_none(with_dead_channels(rewards)))


def with_cells_and_rows_none(rewards: Tensor) -> Tensor:
    return with_cells_none(with_rows_none(with_dead_channels(rewards)))


CASES = [random_rewards, with_dead_channels, with_channel_none, with_rows_none, with_all_of_it]
PARTLY = [with_cells_none, with_cells_and_rows_none]
"""Rows of which some rewards are missing."""


@pytest.mark.parametrize(
    "weights", [[1.0, 1.0, 1.0], [0.5, 2.0, 1.0], [1.0, 0.0, 2.0]], ids=["equal", "weighted", "monitored"]
)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", [*CASES, *PARTLY], ids=lambda case: case.__name__)
def test_equals_trl(peer, case: Callable, seed: int, weights: list[float]):
    rewards = random_rewards(seed) if case is random_rewards else case(random_rewards(seed))

    theirs = peer.advantages(rewards, weights)
    ours = rvpo.advantages(rewards, num_generations=G, method=peer.method, weights=weights).advantages

    # Both sides are float32. TRL also computes in float32, so its rounding is the whole difference: advantages are of
    # order 1, and 1e-6 is about 8 units in the last place there.
    assert theirs.abs().max() > 0.5
    if peer.method == "gdpo" and case in PARTLY:
        if all(weights):  # else little is left of what is missing
            assert (ours - theirs).abs().max() > 0.01  # ours leaves out what is missing
    else:
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_default_eps_is_the_one_that_equals_trl(peer):
    """A spread of the size of eps makes the value and the place of eps visible."""
    rewards = random_rewards(0) * 1e-4

    theirs = peer.advantages(rewards, [1.0, 1.0, 1.0])
    ours = rvpo.advantages(rewards, num_generations=G, method=peer.method)
    without = rvpo.advantages(rewards, num_generations=G, method=peer.method, eps=0.0)

    torch.testing.assert_close(ours.advantages, theirs, atol=1e-6, rtol=1e-6)
    if peer.method == "grpo:whiten=none":
        return  # divides by nothing
    assert (without.advantages - theirs).abs().max() > 0.01
