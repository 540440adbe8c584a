"""The estimator lays advantages out over tokens; against verl's own GDPO on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from verl.trainer.ppo import core_algos

import rvpo
from rvpo.core.normalize import whiten_by_token
from rvpo.engines.verl.estimator import estimate, handing_over
from rvpo.engines.verl.spelling import REGISTERED
from rvpo.errors import EngineError


def batch(seed: int, prompts: int, generations: int, channels: int, width: int = 9):
    """Draw rewards, group ids in any order, and masks with at least one response token."""
    generator = torch.Generator().manual_seed(seed)
    rows = prompts * generations
    rewards = torch.randn(rows, channels, generator=generator, dtype=torch.float64)
    groups = torch.arange(prompts).repeat_interleave(generations)[torch.randperm(rows, generator=generator)]
    lengths = torch.randint(1, width + 1, (rows, 1), generator=generator)
    return rewards, groups, (torch.arange(width) < lengths).long()


@pytest.mark.parametrize("weights", [None, [2.0, 0.5, 1.0]])
@pytest.mark.parametrize("seed", range(5))
def test_whitening_by_token_equals_verls_gdpo(seed: int, weights: list[float] | None):
    """The function that verl 0.9.1 cannot reach in its own trainer, called by hand with what it asks for."""
    rewards, groups, mask = batch(seed, 6, 4, 3)
    names = ["a", "b", "c"]
    rows, width = mask.shape
    theirs, _ = core_algos.compute_gdpo_outcome_advantage(
        token_level_rewards=torch.zeros(rows, width),
        response_mask=mask,
        index=groups.numpy(),
        config={"gdpo_reward_keys": names, "gdpo_reward_weights": weights},
        non_tensor_batch={name: rewards[:, j].numpy() for j, name in enumerate(names)},
        batch={
            "prompts": torch.zeros(rows, 2),
            "attention_mask": torch.cat([torch.ones(rows, 2, dtype=torch.long), mask], 1),
        },
    )
    aggregator = rvpo.Aggregator("gdpo:whiten=token", names, eps=1e-6, weights=weights)
    with handing_over(lambda given: aggregator(rewards, groups=groups, tokens=given.sum(1)).advantages):
        ours, returns = estimate(torch.zeros(rows, width), mask)
    assert ours is returns
    assert ours.shape == theirs.shape
    # Theirs is in float32.
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=5e-6)


@pytest.mark.parametrize("method", ["gdpo", "rvpo", "lift"])
def test_whitening_by_token_in_the_core_is_whitening_after_it(method: str):
    """The aggregate of ``whiten=none``, whitened by hand: the numbers of before it was an option of methods."""
    rewards, groups, mask = batch(11, 5, 4, 3)
    rewards = rewards.sigmoid()  # lift compares how far channels are met, in [0, 1]
    tokens = mask.sum(1)
    plain = rvpo.advantages(rewards, groups, method=f"{method}:whiten=none", state={})
    expected = whiten_by_token(plain.aggregated, plain.takes_part, tokens)
    aggregator = rvpo.Aggregator(f"{method}:whiten=token", ["a", "b", "c"])
    ours = aggregator(rewards, groups=groups, tokens=tokens).advantages
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-14)


def test_whitening_by_token_against_a_loop():
    generator = torch.Generator().manual_seed(7)
    a = torch.randn(20, generator=generator, dtype=torch.float64)
    mask = (torch.rand(20, 6, generator=generator) < 0.5).long()
    takes_part = torch.rand(20, generator=generator) < 0.7
    values = [a[i].item() for i in range(20) for t in range(6) if mask[i, t] and takes_part[i]]
    mean = sum(values) / len(values)
    variance = sum((x - mean) ** 2 for x in values) / (len(values) - 1)
    expected = [
        (x.item() - mean) / (variance + 1e-8) ** 0.5 if part else 0.0 for x, part in zip(a, takes_part, strict=True)
    ]
    np.testing.assert_allclose(whiten_by_token(a, takes_part, mask.sum(1)).numpy(), expected, rtol=1e-12, atol=1e-15)


def test_too_few_tokens_say_nothing():
    mask = torch.tensor([[1, 0], [0, 0]])
    assert whiten_by_token(torch.tensor([1.0, 2.0]), torch.tensor([True, True]), mask.sum(1)).tolist() == [0.0, 0.0]


def test_tokens_outside_the_mask_get_nothing():
    """Also the ones that verl's rollout correction takes out after the rewards are known."""
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]])
    with handing_over(lambda given: torch.tensor([2.0, 5.0, -1.0], dtype=torch.float64)):
        tokens, _ = estimate(torch.zeros(3, 3), mask)
    assert tokens.dtype == torch.float32
    assert tokens.tolist() == [[2, 0, 2], [0, 0, 0], [-1, -1, -1]]


def test_the_estimator_outside_of_our_trainer_says_how_to_start():
    with pytest.raises(EngineError, match=r"python -m rvpo\.verl"):
        estimate(torch.zeros(2, 3), torch.ones(2, 3))
    with handing_over(lambda mask: torch.zeros(2)):
        estimate(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(EngineError):
        estimate(torch.zeros(2, 3), torch.ones(2, 3))


def test_one_name_is_registered_beside_verls_own():
    assert core_algos.get_adv_estimator_fn(REGISTERED) is estimate
    assert core_algos.get_adv_estimator_fn("gdpo") is core_algos.compute_gdpo_outcome_advantage
