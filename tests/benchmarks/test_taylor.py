"""The error bounds of the soft minimum's second-order form: they hold, they are tight, and the tables use them."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

import rvpo
from rvpo.logs.demo import write_demo

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import taylor

KS = (1e-3, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0)


def random_channels(rows: int, channels: int, seed: int):
    """Return z-scores of very different spread and skew, and shares, some of which are tiny or 0."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, channels, generator=generator, dtype=torch.float64)
    z = torch.where(torch.rand(rows, 1, generator=generator) < 0.3, z.exp(), z)  # skewed
    z = torch.where(torch.rand(rows, 1, generator=generator) < 0.3, (z > 1).double(), z)  # two values
    z = z * 10 ** (4 * torch.rand(rows, 1, generator=generator, dtype=torch.float64) - 3)
    p = torch.rand(rows, channels, generator=generator, dtype=torch.float64) ** 8
    p = p.masked_fill(torch.rand(rows, channels, generator=generator) < 0.2, 0.0)
    p[:, 0] += 1e-12  # at least one takes part
    return z, p / p.sum(-1, keepdim=True)


@pytest.mark.parametrize("k", KS)
def test_the_bounds_hold(k: float):
    for channels in (2, 3, 8, 17):
        z, p = random_channels(4_000, channels, seed=channels)
        error = (taylor.soft_minimum(z, p, k) - taylor.quadratic(z, p, k)).abs()
        # Rounding in ln E[exp(-k Z)] is divided by k.
        rounding = 1e-13 * (1 / k + k * z.abs().amax(-1).square() + z.abs().amax(-1))
        assert (error <= taylor.bound_by_moment(z, p, k) * (1 + 1e-9) + rounding).all()
        assert (error <= taylor.bound_by_range(z, p, k) * (1 + 1e-9) + rounding).all()


def test_the_bounds_are_tight():
    """The largest third moment is that of two points with p = (1 - 1/sqrt 3)/2: no smaller constant would do."""
    low = (1 - 1 / math.sqrt(3)) / 2
    z = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    for p in (torch.tensor([[low, 1 - low]]).double(), torch.tensor([[1 - low, low]]).double()):
        error = (taylor.soft_minimum(z, p, 0.01) - taylor.quadratic(z, p, 0.01)).abs()
        for bound in (taylor.bound_by_moment, taylor.bound_by_range):
            assert 0.99 < float(error / bound(z, p, 0.01)) <= 1


def test_no_distribution_has_larger_cumulants():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200_000, 4, generator=generator, dtype=torch.float64) ** 4
    p = p / p.sum(-1, keepdim=True)
    x = torch.rand(200_000, 4, generator=generator, dtype=torch.float64)
    x[:, 0], x[:, 1] = 0, 1
    d = x - (p * x).sum(-1, keepdim=True)
    second, third, fourth = ((p * d**n).sum(-1) for n in (2, 3, 4))
    assert 0.99 * taylor.LARGEST_MOMENT < third.abs().max() <= taylor.LARGEST_MOMENT
    cumulant = (fourth - 3 * second.square()).abs()
    assert 0.95 * taylor.LARGEST_CUMULANT < cumulant.max() <= taylor.LARGEST_CUMULANT


def test_the_remainder_starts_with_the_third_moment():
    z, p = random_channels(500, 5, seed=1)
    z = z / taylor.spread(z, p).clamp(min=1e-6)[:, None]
    k = 1e-2
    error = taylor.soft_minimum(z, p, k) - taylor.quadratic(z, p, k)
    # The next term of the series is at most k^3 / 24 times the largest fourth cumulant.
    left = (error - k**2 / 6 * taylor.third_moment(z, p, 0.0)).abs()
    assert (left <= k**3 / 24 * taylor.LARGEST_CUMULANT + 1e-11).all()


def test_the_tables_of_a_run(tmp_path: Path):
    write_demo(tmp_path / "demo")
    found = taylor.measured(tmp_path / "demo", [0.5, 2.0])
    assert all(line["beyond_a_bound"] == 0 for line in found["taylor"])
    assert all(0 < line["mean_error"] <= line["mean_bound_by_moment"] for line in found["taylor"])
    assert found["taylor"][0]["mean_error"] < found["taylor"][1]["mean_error"]
    (pair,) = found["sensitivity"]
    assert 0 < pair["correlation"] < 1
    assert 0 < pair["another_best"] < 1
    assert len(taylor.tables(found)) == 4 + 1 + 3


def test_the_parts_are_those_of_the_methods():
    generator = torch.Generator().manual_seed(3)
    rewards = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    weights = [1.0, 2.0, 0.5, 1.0, 1.0]
    p = torch.tensor([weights], dtype=torch.float64).expand(64, 5) / sum(weights)
    soft = rvpo.advantages(rewards, num_generations=8, method="rvpo:k=2", weights=weights)
    explicit = rvpo.advantages(rewards, num_generations=8, method="rvpo_explicit:beta=1", weights=weights)
    torch.testing.assert_close(soft.aggregated, taylor.soft_minimum(soft.z, p, 2.0))
    torch.testing.assert_close(explicit.aggregated, taylor.quadratic(soft.z, p, 2.0))


def test_ranks_and_best_completions():
    group = torch.tensor([0, 0, 0, 1, 1])
    one, other = torch.tensor([1.0, 2.0, 2.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 3.0, 1.0, 0.0])
    assert taylor.ranks(one, group).tolist() == [0, 1, 1, 0, 1]
    assert taylor.other_best(one, other, group) == (1, 2)  # group 0 shares its third completion
