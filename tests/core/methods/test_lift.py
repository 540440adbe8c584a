"""LIFT: what its module promises, theorem by theorem; test_memory_properties.py compares it with plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rvpo
from rvpo.core import LIFT, AdvantageConfig, Advantages, Channels, compute
from rvpo.core.methods.lift import (
    NEVER_TRADED,
    RESTORING,
    RIDGE,
    SMALL,
    TAU,
    Weighed,
    common_direction,
    correlations,
    floors_kept,
    own_shares,
    size_of,
)
from rvpo.core.methods.registry import build_method
from rvpo.core.state import plain
from rvpo.errors import ConfigError
from rvpo.step.trust import Reliability

examples = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
G = 8
ALONG_ALIKE = 2e-7  # of advantages: channels that are copies are told apart with 1e-8 on the diagonal


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return uniform numbers in [0, 1)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lift(
    rewards: Tensor,
    state: object = None,
    *,
    names: list[str] | None = None,
    ranges: list | None = None,
    weights: list[float] | None = None,
    groups: Tensor | None = None,
    rho: list[float] | None = None,
    **options,
) -> Advantages:
    return compute(
        rewards,
        AdvantageConfig(build_method("lift", options)),
        groups=groups,
        num_generations=None if groups is not None else G,
        channels=Channels.columns(names or [str(j) for j in range(rewards.shape[1])], ranges),
        weights=weights,
        reliability=None if rho is None else tensor(rho),
        state=state,
    )


def deviations(rewards: Tensor) -> Tensor:
    grouped = rewards.view(-1, G, rewards.shape[1])
    return (grouped - grouped.mean(1, keepdim=True)).view_as(rewards)


def with_channels(out: Advantages, rewards: Tensor) -> Tensor:
    """Return (K,) the correlation of the advantage with each channel's deviations."""
    d = deviations(rewards)
    return (out.aggregated[:, None] * d).mean(0) / (out.aggregated.square().mean() * d.square().mean(0)).sqrt()


def moments(size: int, seed: int, opposed: float = 0.0) -> Tensor:
    """Return moments of correlated channels of different spreads; some are copies or opposites of others."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u = normal(60, max(size // 2, 2)) @ normal(max(size // 2, 2), size) + normal(60, size)
    kinds = torch.rand(size, generator=generator)
    for j in range(1, size):
        if kinds[j] < opposed:
            u[:, j] = -u[:, j - 1]
        elif kinds[j] < 1.5 * opposed:
            u[:, j] = u[:, j - 1]
    u = u * normal(size).exp() * 0.1
    return u.T @ u / 60


def weighed(q: Tensor, seed: int, *, floors: dict[int, float] | None = None, **options) -> Weighed:
    """Weigh K channels by moments, with attained shares and weights drawn at random."""
    size = len(q)
    floor = tensor([(floors or {}).get(j, math.nan) for j in range(size)])
    ones = torch.ones(size, dtype=torch.float64)
    known = torch.inf * ones  # no sampling error
    return LIFT(**options)._weigh(q, random(size, seed=seed), 0.5 + random(size, seed=seed + 1), ones, floor, known)


# --- What it ascends --------------------------------------------------------------------------------------------------


@examples
@given(seeds, st.integers(1, 20), st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([0.0, 0.5, 0.99]))
def test_what_it_ascends(seed: int, size: int, opposed: float, margin: float):
    """lambda' Q (lambda + mu) >= (1 - tau) |lambda|^2 > 0 for any channels, also opposed ones."""
    q = moments(size, seed, opposed)
    found = weighed(q, seed, margin=margin)
    squared = float(found.need @ q @ found.need)
    assert squared > 0
    assert float(found.need @ q @ (found.need + found.guard)) >= (1 - TAU) * squared * (1 - 1e-9)
    assert (found.need > 0).all()
    assert (found.guard >= 0).all()


@examples
@given(seeds, st.integers(1, 20), st.sampled_from([0.0, 0.2, 0.5]))
def test_the_turn_is_bounded(seed: int, size: int, opposed: float):
    """cos(A, A_lambda) >= sqrt(1 - tau^2), which is what rvpo/lift/turn logs."""
    found = weighed(moments(size, seed, opposed), seed, margin=0.99)
    assert found.turn >= math.sqrt(1 - TAU**2) - 1e-9
    assert found.metrics([str(j) for j in range(size)])["lift/turn"] == found.turn
    total = found.total * found.spread
    assert size_of(found.correlations, total) == pytest.approx(1.0, abs=1e-6)


def test_the_turn_of_a_run_is_bounded():
    state = None
    for seed in range(5):
        rewards = random(4 * G, 6, seed=seed)
        rewards[:, 1:4] = 0.8 * (1 - rewards[:, :1]) + 0.2 * rewards[:, 1:4]
        out = lift(rewards, state, margin=0.99)
        state = out.state
        assert out.method_metrics["lift/turn"] >= math.sqrt(1 - TAU**2) - 1e-9
        assert lift(rewards, margin=-1).method_metrics["lift/turn"] == pytest.approx(1.0)


# --- What it forbids --------------------------------------------------------------------------------------------------


@examples
@given(seeds, st.integers(2, 60))
def test_such_an_advantage_exists_for_every_number_of_channels(seed: int, size: int):
    """The min-norm combination has at least the correlation t with every channel; t = 1 / sqrt(K) if unrelated."""
    q = moments(size, seed)
    c = correlations(q, q.diagonal().sqrt())
    t, nu = common_direction(c, torch.full((size,), SMALL, dtype=torch.float64))
    assert nu.sum() == pytest.approx(1.0)
    assert (nu >= 0).all()
    of_all = (c @ nu) / max(size_of(c, nu), 1e-12)
    assert of_all.min() >= t - 1e-6 - SMALL / max(t, 1e-4)
    unrelated, _ = common_direction(torch.eye(size).double(), torch.zeros(size, dtype=torch.float64))
    assert unrelated == pytest.approx(1 / math.sqrt(size))


def positive_moments(size: int, seed: int) -> Tensor:
    """Return moments of channels that are not on a frontier: weakly related ones."""
    c = torch.eye(size).double() + 0.1 * (random(size, size, seed=seed) - 0.45)
    c = torch.triu(c, 1) + torch.triu(c, 1).T + torch.eye(size).double()
    s = 0.05 + random(size, seed=seed + 7)
    return c * s * s[:, None]


@examples
@given(seeds, st.integers(2, 8), st.sampled_from([0.1, 0.5, 0.9]))
def test_every_channel_rises(seed: int, size: int, margin: float):
    """E[A D_j] >= margin t |lambda| s_j less the ridge's share, wherever the bound tau is not reached."""
    q = positive_moments(size, seed)
    found = weighed(q, seed, margin=margin)
    c, guard = found.correlations, found.guard * found.spread
    own = own_shares(c)
    t, _ = common_direction(c, SMALL / own)
    rises = c @ ((found.need + found.guard) * found.spread)
    if size_of(c, guard) < TAU - 1e-9 and found.frontier > 0.999:
        assert (rises >= margin * t - (RIDGE + 1e-6) / own * guard - 1e-9).all()
    assert rises.min() > 0  # also where it is


@pytest.mark.parametrize("seed", range(6))
def test_no_channel_of_a_batch_falls(seed: int):
    """One batch, no memory: no channel has a negative correlation with the advantage although most are outvoted."""
    rewards = random(12 * G, 5, seed=seed)
    rewards[:, 1:4] = 0.5 * (1 - rewards[:, :1]) + 0.5 * rewards[:, 1:4]
    rewards[:, 0] = 0.5 + 0.5 * rewards[:, 0]  # the one that the others are against is far ahead
    assert with_channels(lift(rewards, margin=-1, memory=1), rewards).min() < -0.2
    guarded = lift(rewards, memory=1)
    assert with_channels(guarded, rewards).min() > with_channels(lift(rewards, margin=-1, memory=1), rewards).min()
    assert with_channels(guarded, rewards)[1:].min() > 0


@pytest.mark.parametrize("seed", range(6))
def test_opposed_channels_do_not_switch_off_the_guard_of_the_others(seed: int):
    """t = 0 because of two channels; the others still do not fall."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(128 * G, 5, generator=generator, dtype=torch.float64)
    others = [x[:, 1] + 0.3 * x[:, i] for i in (2, 3, 4)] + [-x[:, 1] + 0.5 * x[:, 2]]
    rewards = (0.5 + 0.1 * torch.stack([x[:, 0], -x[:, 0], *others], 1)).clamp(0, 1)
    rewards[:, 0] = (rewards[:, 0] - 0.3).clamp(min=0.0)
    out, unguarded = lift(rewards), lift(rewards, margin=-1)
    assert out.method_metrics["lift/frontier"] < 0.05
    assert with_channels(unguarded, rewards)[2:].min() < 0
    assert with_channels(out, rewards)[2:].min() > 0


# --- On a frontier ----------------------------------------------------------------------------------------------------


def frontier(weights: tuple[float, float], **options) -> list[float]:
    """Train a policy over x on rewards sqrt(x) and sqrt(1 - x) of its completions; return what each attains at the end.

    The policy is softmax over 41 values of x. Its gradient is exact up to the sampling of 512 completions a step.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, 41, dtype=torch.float64)
    reward = torch.stack([x.sqrt(), (1 - x).sqrt()], 1)
    logits, state, tail = -8 * (x - 0.5).square(), None, []
    for step in range(300):
        p = torch.softmax(logits, 0)
        chosen = torch.multinomial(p, 64 * G, replacement=True, generator=generator)
        out = lift(reward[chosen], state, weights=list(weights), **options)
        state = out.state
        gradient = torch.zeros_like(x).index_add_(0, chosen, out.advantages) / len(chosen) - p * out.advantages.mean()
        logits = logits + 6 * (1 - step / 320) * gradient
        if step >= 200:
            tail.append(p @ reward)
    return torch.stack(tail).mean(0).tolist()


def test_a_weight_is_an_allowance():
    """A channel of weight w ends ln(w) / kappa of attained share above one of weight 1."""
    ends = {w: frontier((w, 1.0)) for w in (1.0, 2.0, 4.0)}
    for w, (first, second) in ends.items():
        assert first - second == pytest.approx(math.log(w) / 4, abs=0.03), w


def test_weights_change_where_it_ends():
    assert frontier((10.0, 1.0))[0] > frontier((1.0, 1.0))[0] + 0.1


def test_equal_opposites_cancel_to_no_advantage_not_to_noise():
    """Attained shares that differ by rounding alone are equal: what is left of A is far below eps."""
    graded = random(4 * G, 1)
    graded = torch.cat([graded, 1 - graded])  # mean 1/2 up to rounding
    for margin in (-1, 0, 0.5):
        out = lift(torch.cat([graded, 1 - graded], 1), margin=margin)
        assert out.aggregated.abs().max() < 1e-10
        assert not out.advantages.any()


def test_of_two_opposite_channels_the_one_behind_is_lifted():
    met = torch.zeros(4 * G, 1, dtype=torch.float64)
    met[::4] = 1.0
    out = lift(torch.cat([met, 1 - met], 1))
    assert (out.advantages[met[:, 0] == 1] > 1).all()
    assert (out.advantages[met[:, 0] == 0] < 0).all()


# --- What must not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opposed", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("copied", [[0], [1], [2], [1, 1, 1], [0, 0, 2], [1] * 12])
def test_copies_change_nothing(opposed: float, copied: list[int]):
    """n copies of a channel get the advantages of one, over batches and with weights, also on a frontier."""
    state = more = None
    for seed in range(3):
        rewards = random(8 * G, 3, seed=seed)
        rewards[:, 1] = opposed * (1 - rewards[:, 0]) + (1 - opposed) * rewards[:, 1]
        weights = [1.0, 3.0, 0.5]
        one = lift(rewards, state, weights=weights)
        several = lift(
            torch.cat([rewards, rewards[:, copied]], 1), more, weights=weights + [weights[j] for j in copied]
        )
        state, more = one.state, several.state
        torch.testing.assert_close(several.advantages, one.advantages, rtol=0, atol=ALONG_ALIKE)
        for metric in ("lift/frontier", "lift/channels", "lift/turn"):
            assert several.method_metrics[metric] == pytest.approx(one.method_metrics[metric], abs=1e-6)


@given(st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_the_size_of_weights_does_not_matter(factor: float):
    rewards = random(4 * G, 3)
    one, other = (lift(rewards, weights=[f * w for w in (1.0, 2.0, 0.3)]) for f in (1.0, factor))
    torch.testing.assert_close(other.advantages, one.advantages, rtol=0, atol=ALONG_ALIKE)


@pytest.mark.parametrize("factor", [10.0, 1e-3, 1e6])
def test_the_scale_of_a_declared_range_does_not_matter(factor: float):
    state = wide_state = None
    for seed in range(3):
        rewards = random(4 * G, 3, seed=seed)
        rewards[:, 1] = 1 - rewards[:, 0] ** 2
        out = lift(rewards, state, ranges=[(0, 1)] * 3)
        wide = lift(factor * rewards - 3, wide_state, ranges=[(-3, factor - 3)] * 3)
        torch.testing.assert_close(wide.advantages, out.advantages, rtol=0, atol=1e-6)
        state, wide_state = out.state, wide.state


def test_the_order_of_rows_groups_and_names_does_not_matter():
    """Rows within and of groups, as of other processes; ids of groups; and the order of the channels."""
    generator = torch.Generator().manual_seed(0)
    names, states = ["a", "b", "c", "d"], [None, None, None]
    for seed in range(4):
        rewards = random(6 * G, 4, seed=seed)
        rewards[:, 3] = 1 - rewards[:, 0]
        rewards[random(6 * G, 4, seed=99 + seed) < 0.1] = math.nan
        groups = torch.arange(6).repeat_interleave(G)
        rows = torch.randperm(6 * G, generator=generator)
        ids = torch.tensor([40, -7, 3, 1000, 0, 12])
        columns = torch.randperm(4, generator=generator).tolist()
        one = lift(rewards, states[0], names=names, groups=groups)
        shuffled = lift(rewards[rows], states[1], names=names, groups=ids[groups][rows])
        turned = lift(rewards[:, columns], states[2], names=[names[j] for j in columns], groups=groups)
        torch.testing.assert_close(shuffled.advantages, one.advantages[rows], rtol=0, atol=ALONG_ALIKE)
        torch.testing.assert_close(turned.advantages, one.advantages, rtol=0, atol=ALONG_ALIKE)
        states = [one.state, shuffled.state, turned.state]


def test_an_average_reward_is_not_a_missing_one():
    """A completion on its group's mean takes part with an advantage near 0; it is not left out of the whitening."""
    rewards = tensor([[0.0], [0.5], [1.0], [0.0], [0.5], [1.0], [0.0], [1.0]])
    exact, moved = lift(rewards), lift(rewards + 1e-7 * (rewards == 0.5))
    assert exact.takes_part.all()
    torch.testing.assert_close(exact.advantages, moved.advantages, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["lift", "ctwa"])
def test_a_channel_without_weight_leaves_no_trace(method: str):
    """Neither what it holds nor its presence changes anything of the others, over batches."""
    states: list = [None, None, None]
    for step in range(4):
        rewards = random(4 * G, 3, seed=step)
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


# --- The ends ---------------------------------------------------------------------------------------------------------


def test_one_channel_is_its_deviation():
    rewards = random(3 * G, 1)
    out = lift(rewards)
    assert out.method_metrics["0/weight"] == 1.0
    assert out.method_metrics["lift/frontier"] == pytest.approx(1.0)
    d = deviations(rewards)[:, 0]
    torch.testing.assert_close(out.advantages, d / d.std(), rtol=1e-3, atol=1e-3)


def test_without_a_signal_there_is_none():
    """All dead; only NaN; weights that leave nothing. The next batch goes on."""
    nothing = torch.full((2 * G, 3), math.nan, dtype=torch.float64)
    for rewards, weights in ((torch.full((2 * G, 3), 0.5), None), (nothing, None)):
        out = lift(rewards, weights=weights)
        assert not out.advantages.any()
        assert not out.aggregated.any()
        assert not out.takes_part.any()
        again = lift(random(2 * G, 3).float(), out.state)
        assert again.advantages.isfinite().all()
        assert again.advantages.any()


def test_more_channels_than_completions():
    for seed in range(4):
        out = lift(random(G, 40, seed=seed))
        assert out.advantages.isfinite().all()
        assert out.advantages.std() == pytest.approx(1.0, abs=1e-2)


def test_a_channel_met_by_nobody_takes_no_part_until_it_is():
    rewards = random(4 * G, 3)
    rewards[:, 2] = 0.0
    first = lift(rewards)
    assert first.advantages.isfinite().all()
    assert "2/weight" not in first.method_metrics
    rewards[3, 2] = 1.0
    second = lift(rewards, first.state)
    assert second.method_metrics["2/need"] > second.method_metrics["0/need"]
    assert second.advantages[3] == second.advantages[:G].max()


def test_a_reward_without_a_range_is_no_error():
    """A stray reward counts as the end of [0, 1]; a reward that is only monitored is not read."""
    rewards = random(2 * G, 2)
    rewards[3, 1] = -0.25
    out = lift(rewards)
    assert out.method_metrics["1/attained"] == pytest.approx(rewards.clamp(min=0.0)[:, 1].mean().item())
    assert out.method_metrics["1/outside"] == 1 / (2 * G)
    assert "1/attained" not in lift(rewards, weights=[1.0, 0.0]).method_metrics


# --- Floors -----------------------------------------------------------------------------------------------------------


@examples
@given(seeds, st.integers(2, 8), st.floats(0.0, 1.0))
def test_a_floor_is_kept(seed: int, size: int, level: float):
    """The correlation is at least 0.9 at the floor and below, 0.2 at 0.05 above it, and free from 0.1 above it on."""
    q = moments(size, seed, 0.2)
    c = correlations(q, q.diagonal().sqrt())
    floors = torch.full((size,), math.nan, dtype=torch.float64)
    attained = random(size, seed=seed)
    floors[0], attained[0] = 0.6, level
    weights = random(size, seed=seed + 1)
    total = weights + floors_kept(c, weights, attained, floors)
    found = float((c @ total)[0]) / max(size_of(c, total), 1e-12)
    wanted = float(np.interp(level, [0.6, 0.65, 0.7], [RESTORING, NEVER_TRADED, -1.0]))
    assert found >= wanted - 5e-3


@pytest.mark.parametrize("seed", range(4))
def test_a_channel_below_its_floor_is_raised_first(seed: int):
    """Against three channels that are further behind and opposed to it."""
    rewards = random(8 * G, 4, seed=seed)
    rewards[:, 1:] = 0.4 * (1 - rewards[:, :1]) + 0.1 * rewards[:, 1:]
    assert with_channels(lift(rewards), rewards)[0] < 0.2
    assert with_channels(lift(rewards, floors={"0": 0.9}), rewards)[0] > RESTORING - 0.02
    kept = with_channels(lift(rewards, floors={"0": rewards[:, 0].mean().item() - 0.05}), rewards)[0]
    assert NEVER_TRADED - 0.02 < kept < NEVER_TRADED + 0.15  # and no more than that
    far = with_channels(lift(rewards, floors={"0": 0.05}), rewards)[0]
    assert far == pytest.approx(with_channels(lift(rewards), rewards)[0])  # a floor far below asks for nothing


def test_opposed_floors_do_not_crash():
    graded = random(4 * G, 1)
    for rest in (random(4 * G, 1, seed=1), torch.cat([graded, 1 - graded], 1)):
        rewards = torch.cat([graded, 1 - graded, rest], 1)
        out = lift(rewards, floors={str(j): 1.0 - 0.1 * j for j in range(rewards.shape[1])})
        assert out.advantages.isfinite().all()
        assert out.advantages.abs().max() < 10


def test_a_floor_names_a_channel():
    with pytest.raises(ConfigError, match="floors names the channel 'x'; expected one of 0, 1"):
        lift(random(G, 2), floors={"x": 0.5})
    with pytest.raises(ConfigError, match=r"names the channel 'sfae'.*did you mean 'safe'"):
        rvpo.Aggregator("lift:floors={sfae:0.9}", ["correct", "safe"])


# --- Noise ------------------------------------------------------------------------------------------------------------


def test_full_trust_changes_nothing():
    state = trusted = None
    for seed in range(3):
        rewards = random(4 * G, 3, seed=seed)
        one, other = lift(rewards, state), lift(rewards, trusted, rho=[1.0, 1.0, 1.0])
        assert torch.equal(one.advantages, other.advantages)
        assert one.method_metrics == other.method_metrics
        state, trusted = one.state, other.state
    assert plain(state) == plain(trusted)


def test_a_channel_that_is_not_trusted_has_no_need():
    rewards = random(4 * G, 3)
    rewards[:, 2] *= 0.2  # furthest behind
    shares = [lift(rewards, rho=[1.0, 1.0, rho]) for rho in (1.0, 0.3, 0.03, 0.0)]
    needs = [out.method_metrics.get("2/need", 0.0) / out.method_metrics["0/need"] for out in shares]
    assert needs == sorted(needs, reverse=True)
    assert needs[2] < 0.1 * needs[0]
    assert needs[3] == 0
    without = lift(rewards[:, :2])
    torch.testing.assert_close(shares[3].advantages, without.advantages, rtol=0, atol=1e-6)


def test_noise_does_not_hide_a_frontier():
    """With the true reliability, phi is near that of the channels without noise."""
    generator = torch.Generator().manual_seed(0)
    x = 0.3 + 0.4 * random(200 * G, 1)
    clean = torch.cat([x, 1 - 0.8 * x - 0.05 * random(200 * G, 1, seed=5)], 1)
    spread = deviations(clean).std(0)
    noisy = clean + spread * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    noisy = noisy.clamp(0, 1)
    of_clean = lift(clean).method_metrics["lift/frontier"]
    true = (deviations(clean).square().mean(0) / deviations(noisy).square().mean(0)).tolist()
    assert of_clean < 0.02
    assert lift(noisy).method_metrics["lift/frontier"] > 0.4
    assert abs(lift(noisy, rho=true).method_metrics["lift/frontier"] - of_clean) < 0.1


@examples
@given(seeds, st.integers(1, 12), st.floats(0.01, 1.0))
def test_too_little_trust_is_no_crash(seed: int, size: int, rho: float):
    """Copies and opposites with a reliability below 1 have correlations beyond 1, which no channels have."""
    rewards = random(2 * G, size, seed=seed)
    rewards = torch.cat([rewards, rewards[:, :1], 1 - rewards[:, :1]], 1)
    trust = [rho] * (size + 2)
    out = lift(rewards, rho=trust)
    assert out.advantages.isfinite().all()
    d = deviations(rewards)
    q = d.T @ d / len(d)
    c = correlations(q, (q.diagonal() * rho).sqrt())
    assert torch.linalg.eigvalsh(c).min() > -1e-9
    assert c.diagonal().tolist() == [1.0] * len(c)
    assert c.abs().max() <= 1 + 1e-9


def test_reliability_reaches_it_also_inside_riskpo():
    rewards = random(4 * G, 3)
    for method in ("lift", "riskpo:score=lift"):
        plain_, trusted = (
            rvpo.Aggregator(method, list("abc"), reliability=given)(rewards, num_generations=G)
            for given in (None, Reliability({"a": 0.2}))
        )
        before, after = (out.metrics["rvpo/a/need"] / out.metrics["rvpo/b/need"] for out in (plain_, trusted))
        assert after < before
        assert not torch.equal(trusted.advantages, plain_.advantages)


# --- Rubrics ----------------------------------------------------------------------------------------------------------


def test_cells_of_a_channel_are_pooled_and_channels_come_and_go():
    """Two criteria of one channel in a row count as their sum; what is absent keeps its place in the memory."""
    channels = Channels(("a", "b"), torch.tensor([[0, 0, 1]] * G + [[1, 1, 1]] * G), (None, None))
    config, rewards = AdvantageConfig("lift"), random(2 * G, 3)
    first = compute(rewards, config, num_generations=G, channels=channels)
    assert first.advantages.isfinite().all()
    assert {"a/need", "b/need", "b/guard"} <= set(first.method_metrics)
    only = replace(channels, names=("b",), index=torch.zeros(2 * G, 3, dtype=torch.int64), ranges=(None,))
    second = compute(random(2 * G, 3, seed=1), config, num_generations=G, channels=only, state=first.state)
    before, after = plain(first.state), plain(second.state)
    assert after["attained"]["total"][0] == before["attained"]["total"][0]
    assert after["moments"]["total"][0][0] == before["moments"]["total"][0][0]
