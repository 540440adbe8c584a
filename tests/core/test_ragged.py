"""Channels that differ from prompt to prompt: padding is neither a channel nor a missing reward."""

from __future__ import annotations

import math

import pytest
import torch

import rvpo
from reference import reference
from rvpo.core.ragged import Family, Score, assemble
from rvpo.errors import RewardError

NAN = math.nan
METHODS = ["rvpo", "rvpo_explicit", "hard_min", "gdpo", "grpo"]


def scores(*values: float | None, weight: float = 1.0) -> list[Score]:
    return [
        Score(f"c{j}", value, weight, ("odd" if j % 2 else "even",), None if value is not None else "timeout")
        for j, value in enumerate(values)
    ]


def test_layout():
    """Two prompts of two completions: one criterion, then three; beside a reward function of weight 0.5."""
    rewards = torch.tensor([[0.1, 9.0], [0.2, 9.0], [0.3, 9.0], [0.4, 9.0]])
    rows = [scores(1.0), scores(None), scores(0.0, 1.0, 0.5, weight=2.0), scores(1.0, None, 0.25, weight=2.0)]
    table = assemble(rewards, ["len", "r"], [Family("r", rows)], num_generations=2, weights=[0.5, 3.0])
    want = [[0.1, 1.0, NAN, NAN], [0.2, NAN, NAN, NAN], [0.3, 0.0, 1.0, 0.5], [0.4, 1.0, NAN, 0.25]]
    torch.testing.assert_close(table.values, torch.tensor(want), equal_nan=True)
    assert table.applies.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert table.weights.tolist() == [[0.5, 3, 0, 0], [0.5, 3, 0, 0], [0.5, 6, 6, 6], [0.5, 6, 6, 6]]
    assert set(table.cells) == {"len", "r", "r/even", "r/odd"}
    assert table.cells["r/odd"].int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert table.first_column == {"r": 1}


def test_monitored_scores_keep_the_function_and_weigh_nothing():
    rewards = torch.tensor([[0.5], [1.0]])
    family = Family("r", [scores(1.0, 0.0), scores(1.0, 1.0)], only_monitored=True)
    table = assemble(rewards, ["r"], [family], num_generations=2)
    assert table.values.tolist() == [[0.5, 1.0, 0.0], [1.0, 1.0, 1.0]]
    assert table.weights.tolist() == [[1.0, 0.0, 0.0]] * 2
    assert set(table.cells) == {"r", "r/criteria", "r/even", "r/odd"}


def test_two_families_and_a_prompt_without_any():
    rewards = torch.zeros(2, 2)
    families = [Family("a", [[], []]), Family("b", [scores(1.0), scores(0.0)])]
    table = assemble(rewards, ["a", "b"], families, num_generations=1)
    assert table.values.tolist() == [[1.0], [0.0]]
    assert table.first_column == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Family("x", [[], []]), "family 'x' is not a reward function; expected one of r"),
        (Family("r", [[]]), "'r' has scores for 1 completions; expected 2"),
        (
            Family("r", [scores(1.0), scores(1.0, 1.0)]),
            "completions 0 and 1 answer one prompt, but have different channels",
        ),
    ],
)
def test_families_that_do_not_fit(family: Family, message: str):
    with pytest.raises(RewardError, match=message):
        assemble(torch.zeros(2, 1), ["r"], [family], num_generations=2)


# --- rvpo.advantages with `applies` -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_nothing(method: str):
    """Three prompts, 2, 5 and 3 channels, padded to 7 with anything, equal the reference on columns of their own."""
    generator = torch.Generator().manual_seed(0)
    sizes, generations, width = (2, 5, 3), 4, 7
    rows = len(sizes) * generations
    rewards = torch.rand(rows, width, generator=generator, dtype=torch.float64)
    applies = torch.zeros(rows, width, dtype=torch.bool)
    weights = torch.rand(rows, width, generator=generator, dtype=torch.float64) + 0.5
    own = [[NAN] * sum(sizes) for _ in range(rows)]
    own_weights = [[0.0] * sum(sizes) for _ in range(rows)]
    for p, size in enumerate(sizes):
        for i in range(p * generations, (p + 1) * generations):
            applies[i, :size] = True
            weights[i] = weights[p * generations]
            if i % 3 == 0:
                rewards[i, 0] = NAN
            start = sum(sizes[:p])
            own[i][start : start + size] = rewards[i, :size].tolist()
            own_weights[i][start : start + size] = weights[i, :size].tolist()
    rewards[~applies] = torch.tensor([NAN, math.inf, 1e30, -7.0]).double().repeat(rows)[: int((~applies).sum())]
    got = rvpo.advantages(rewards, num_generations=generations, method=method, weights=weights, applies=applies)
    want = reference(own, [i // generations for i in range(rows)], method, weights=own_weights)
    assert got.advantages.tolist() == pytest.approx(want.advantages, abs=1e-9)
    assert got.aggregated.tolist() == pytest.approx(want.aggregated, abs=1e-9)
    assert torch.equal(got.missing, rewards.isnan() & applies)
    assert not got.live[~applies].any()
    assert not got.responsibilities[~applies].any()


def test_missing_error_is_about_channels_only():
    rewards = torch.tensor([[0.0, NAN], [1.0, NAN]])
    applies = torch.tensor([[True, False]] * 2)
    out = rvpo.advantages(rewards, num_generations=2, missing="error", applies=applies)
    assert out.advantages[1] > 0 > out.advantages[0]
    with pytest.raises(RewardError, match=r"rewards\[0, 1\] is nan"):
        rvpo.advantages(rewards, num_generations=2, missing="error")


@pytest.mark.parametrize("applies", [torch.ones(2, 1, dtype=torch.bool), torch.ones(2, 2)])
def test_applies_is_checked(applies: torch.Tensor):
    with pytest.raises(RewardError, match=r"expected a bool tensor of shape \(2, 2\)"):
        rvpo.advantages(torch.zeros(2, 2), num_generations=2, applies=applies)


def test_metrics_of_pooled_cells():
    """Two prompts of two completions; the second channel belongs to the second prompt only."""
    rewards = torch.tensor([[0.0, NAN], [1.0, NAN], [1.0, 0.0], [NAN, 0.5]])
    applies = torch.tensor([[True, False], [True, False], [True, True], [True, True]])
    out = rvpo.advantages(rewards, num_generations=2, method="gdpo", applies=applies)
    metrics = out.metrics({"all": applies, "second": torch.tensor([[False, True]] * 4) & applies})
    assert metrics["all/mean"] == pytest.approx((0 + 1 + 1 + 0 + 0.5) / 5)
    assert metrics["all/missing"] == pytest.approx(1 / 6)
    assert metrics["all/live"] == pytest.approx(4 / 6)  # column 0 of the first prompt, column 1 of the second
    assert metrics["all/dead"] == pytest.approx(1 / 6)  # scored, alone in its group
    assert metrics["second/mean"] == pytest.approx(0.25)
    assert metrics["second/std"] == pytest.approx(math.sqrt(0.125))
    assert metrics["second/missing"] == 0
    assert metrics["all/responsibility"] == pytest.approx(1.0)
    assert metrics["second/responsibility"] == pytest.approx(out.responsibilities[:, 1].sum().item() / 4)
    assert metrics["no_signal/groups"] == 0
    kinds = {key.partition("/")[0] for key in metrics}
    assert kinds == {"all", "second", "no_signal", "advantage_std", "aggregated_std"}
