"""LIFT in units of z-scores: the quadratic program against brute force, and what the rule promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference import least
from rvpo.core import AdvantageConfig, Advantages, Channels, compute
from rvpo.core.methods.lift_z import RIDGE, needs, payers
from rvpo.core.methods.registry import build_method
from rvpo.core.nonnegative import least_nonnegative
from rvpo.core.state import plain

examples = settings(max_examples=60, deadline=None)
G = 8


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lift(rewards: Tensor, state: object = None, *, channels: Channels | None = None, **options) -> Advantages:
    shared = {key: options.pop(key) for key in ("eps", "weights") if key in options}
    weights = shared.pop("weights", None)
    config = AdvantageConfig(build_method("lift_z", options), **shared)
    return compute(rewards, config, num_generations=G, channels=channels, weights=weights, state=state)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the quadratic program --------------------------------------------------------------------------------------------


@st.composite
def programs(draw, most: int) -> tuple[Tensor, Tensor]:
    """Draw the covariance of K channels, some of them copies or opposites of others or zero, and K needs."""
    size = draw(st.integers(1, most))
    u = torch.randn(24, size, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))), dtype=torch.float64)
    for j in range(size):
        kind = draw(st.sampled_from(["free"] * 3 + ["copy", "opposite", "zero", "tiny"]))
        factor = {"free": None, "copy": 1.0, "opposite": -1.0, "zero": 0.0, "tiny": 1e-5}[kind]
        if factor is not None:
            u[:, j] = factor * u[:, draw(st.integers(0, j))]
    need = tensor(draw(st.lists(st.sampled_from([0.0, 1e-6, 0.1, 1.0, 3.0]), min_size=size, max_size=size)))
    return u.T @ u / 24, need


def program(covariance: Tensor, need: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Return the matrix and the vector that ``payers`` minimises with, written from the module's text."""
    variance = covariance.diagonal()
    rms = (need @ covariance @ need).clamp(min=0).sqrt()
    return covariance + torch.diag(0.02 * variance), covariance @ need - margin * rms * variance.sqrt()


@examples
@given(programs(most=6), st.sampled_from([-1.0, 0.0, 0.2, 0.9]))
def test_brute_force_over_all_active_sets(drawn: tuple[Tensor, Tensor], margin: float):
    covariance, need = drawn
    q, c = program(covariance, need, margin)
    alive = covariance.diagonal() > 0
    want = torch.zeros_like(need)
    if alive.any():
        want[alive] = tensor(least(q[alive][:, alive].tolist(), c[alive].tolist()))
    got = payers(covariance, need, margin)
    # In units of what each channel moves; a channel of variance 1e-10 has a mu of 1e5 and as many digits fewer.
    scale = covariance.diagonal().sqrt()
    torch.testing.assert_close(got * scale, want * scale, rtol=1e-6, atol=2e-6)


@examples
@given(programs(most=25), st.sampled_from([-1.0, 0.0, 0.2, 0.9]))
def test_optimality_conditions(drawn: tuple[Tensor, Tensor], margin: float):
    q, c = program(*drawn, margin)
    mu = payers(*drawn, margin)
    slope = q @ mu + c
    assert mu.isfinite().all()
    assert (mu >= 0).all()
    assert (slope > -1e-8).all()
    assert (mu * slope).abs().max() < 1e-6


def test_nothing_to_solve():
    assert least_nonnegative(torch.zeros(0, 0), torch.zeros(0)).shape == (0,)
    assert payers(torch.zeros(3, 3, dtype=torch.float64), tensor([1, 2, 3]), 0.2).tolist() == [0, 0, 0]


# --- who needs help ---------------------------------------------------------------------------------------------------


def test_needs_by_hand():
    """exp(-2 a), scaled to a mean of 1 under the weights."""
    raw = [math.exp(-2 * a) for a in (0.0, 0.5, 1.0)]
    average = (1 * raw[0] + 2 * raw[1] + 1 * raw[2]) / 4
    assert needs(tensor([0.0, 0.5, 1.0]), tensor([1, 2, 1]), 2.0).tolist() == pytest.approx([x / average for x in raw])


def test_never_scored_needs_as_much_as_the_average():
    assert needs(tensor([0.2, math.nan]), tensor([1, 1]), 9.0).tolist() == [1, 1]
    assert needs(tensor([math.nan, math.nan]), tensor([1, 1]), 9.0).tolist() == [1, 1]


def test_a_large_kappa_works_on_the_lowest_alone_whatever_lies_lower_without_weight():
    """A channel of weight 0 that is further behind must not make the others' needs underflow."""
    for kappa in (1e4, 1e300):
        assert needs(tensor([0.5, 0.2, 0.0]), tensor([1, 1, 0]), kappa)[:2].tolist() == [0, 2]


# --- what the rule promises -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_no_channel_falls(seed: int):
    """With margin 0 and no memory mean(A Z_j) >= 0 on this very batch, but for the ridge's share: RIDGE var_j mu_j."""
    rewards = uniform(6 * G, 6, seed=seed)
    rewards[:, 1] = (1 - rewards[:, 0] + 0.2 * rewards[:, 1]) / 1.2  # against the first
    rewards[:, 2] = (1.5 - rewards[:, 0] - rewards[:, 3] / 2) / 1.5
    rewards[:, 4] = (rewards[:, 4] < 0.1).double()
    out, unguarded = (lift(rewards, margin=margin, horizon=1.0) for margin in (0.0, -1.0))
    u = out.z / 6
    mu = tensor([out.method_metrics[f"{j}/weight"] - unguarded.method_metrics[f"{j}/weight"] for j in range(6)])
    rate = (out.aggregated[:, None] * u).mean(0)
    assert (rate >= -RIDGE * u.square().mean(0) * mu - 1e-12).all()
    assert mu.min() >= 0


def test_the_guard_is_at_work_in_these_batches():
    rewards = uniform(6 * G, 6, seed=0)
    rewards[:, 1] = (1 - rewards[:, 0] + 0.2 * rewards[:, 1]) / 1.2
    out = lift(rewards, margin=-1.0, horizon=1.0, kappa=60.0)
    assert (out.aggregated[:, None] * out.z).mean(0).min() < -0.05


def test_without_kappa_and_guard_it_is_gdpo():
    rewards = uniform(5 * G, 4)
    rewards[uniform(5 * G, 4, seed=1) < 0.1] = math.nan
    weights = [1.0, 2.0, 0.0, 0.5]
    gdpo = compute(rewards, AdvantageConfig("gdpo"), num_generations=G, weights=weights)
    for kappa in (0, 0.0):
        out = lift(rewards, kappa=kappa, margin=-1, weights=weights)
        assert torch.equal(out.aggregated, gdpo.aggregated)
        assert torch.equal(out.advantages, gdpo.advantages)
        assert torch.equal(out.responsibilities, gdpo.responsibilities)


def test_of_two_opposite_channels_the_one_behind_is_lifted():
    """No step lifts both, so the guard has no answer; what its ridge leaves, and the whitening scales, is lambda's."""
    met = torch.zeros(4 * G, 1, dtype=torch.float64)
    met[::4] = 1.0
    for margin in (0.0, 0.2):
        out = lift(torch.cat([met, 1 - met], 1), margin=margin, horizon=1.0)
        assert out.aggregated.std() < 0.03
        assert (out.advantages[met[:, 0] == 1] > 1).all()
        assert (out.advantages[met[:, 0] == 0] < 0).all()


def test_equal_opposites_cancel_to_no_advantage_not_to_noise():
    """Attained shares that differ by rounding alone are equal: what is left is far below eps, hence constant."""
    graded = uniform(4 * G, 1)
    graded = torch.cat([graded, 1 - graded])  # mean 1/2 up to rounding
    for margin in (-1.0, 0.0, 0.2):
        out = lift(torch.cat([graded, 1 - graded], 1), margin=margin)
        assert out.aggregated.abs().max() < 1e-12
        assert not out.advantages.any()


def test_a_channel_met_by_nobody_takes_no_part_until_it_is():
    rewards = uniform(4 * G, 3)
    rewards[:, 2] = 0.0
    first = lift(rewards)
    assert first.advantages.isfinite().all()
    assert first.method_metrics["2/weight"] > first.method_metrics["0/weight"]  # it needs most
    rewards[3, 2] = 1.0
    second = lift(rewards, first.state)
    share = second.responsibilities[:G, 2]
    assert (share > 0.5).all()
    assert second.advantages[3] == second.advantages[:G].max()


def test_all_dead_has_no_signal():
    out = lift(torch.full((2 * G, 3), 0.5))
    assert not out.advantages.any()
    assert not out.aggregated.any()
    again = lift(uniform(2 * G, 3).float(), out.state)
    assert again.advantages.isfinite().all()
    assert again.advantages.any()


def test_one_channel_is_its_z_score():
    rewards = uniform(3 * G, 1)
    out = lift(rewards)
    gdpo = compute(rewards, AdvantageConfig("gdpo"), num_generations=G)
    torch.testing.assert_close(out.advantages, gdpo.advantages, rtol=1e-9, atol=1e-9)
    assert out.method_metrics["0/weight"] == 1.0


def test_a_channel_long_solved_keeps_a_moderate_weight():
    """Its remembered variance fades batch by batch; the multiplier that this would ask for moves nothing."""
    rewards, state = uniform(4 * G, 2), None
    for step in range(60):
        if step == 3:
            rewards[:, 1] = 1.0
        out = lift(rewards, state)
        state = out.state
    assert out.method_metrics["1/weight"] < 2
    assert out.responsibilities[:, 1].max() < 0.5


def test_scales_do_not_matter():
    rewards, state, wide_state = uniform(4 * G, 3), None, None
    ranges = [(-3.0, 5.0), (0.0, 1e3), (2.0, 2.5)]
    low, width = tensor([a for a, _ in ranges]), tensor([b - a for a, b in ranges])
    for step in range(3):
        rewards = uniform(4 * G, 3, seed=step)
        out = lift(rewards, state, eps=0.0)
        channels = Channels.columns(list("012"), ranges)
        wide = lift(low + width * rewards, wide_state, eps=0.0, channels=channels)
        torch.testing.assert_close(wide.advantages, out.advantages, rtol=1e-9, atol=1e-9)
        state, wide_state = out.state, wide.state


def test_a_reward_without_a_range_is_no_error():
    """A stray reward counts as the end of [0, 1]; a reward that is only monitored is not read."""
    rewards = uniform(2 * G, 2)
    rewards[3, 1] = -0.25
    clipped = rewards.clamp(min=0.0)
    out = lift(rewards)
    assert out.method_metrics["1/attained"] == pytest.approx(clipped[:, 1].mean().item())
    assert out.method_metrics["1/outside"] == 1 / (2 * G)
    assert "1/attained" not in lift(rewards, weights=[1.0, 0.0]).method_metrics


@pytest.mark.parametrize("method", ["lift_z", "ctwa"])
def test_a_channel_without_weight_leaves_no_trace(method: str):
    """Neither what it holds nor its presence changes anything of the others, over batches."""
    states: list = [None, None, None]
    for step in range(4):
        rewards = uniform(4 * G, 3, seed=step)
        other = rewards.clone()
        other[:, 1] = 5 - 90 * other[:, 1]
        results = [
            compute(x, AdvantageConfig(method), num_generations=G, weights=w, state=state, channels=Channels.columns(n))
            for x, w, n, state in (
                (rewards, [1.0, 0.0, 2.0], list("abc"), states[0]),
                (other, [1.0, 0.0, 2.0], list("abc"), states[1]),
                (rewards[:, [0, 2]], [1.0, 2.0], list("ac"), states[2]),
            )
        ]
        states = [out.state for out in results]
        assert torch.equal(results[0].advantages, results[1].advantages)
        torch.testing.assert_close(results[0].advantages, results[2].advantages, rtol=1e-12, atol=1e-12)
    assert plain(states[0]) == plain(states[1])
