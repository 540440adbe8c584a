"""What must hold for every batch, searched by Hypothesis: the reference, symmetries, bounds, limits, gradients.

Inputs are ragged, shuffled groups with missing rewards, dead channels and float noise around constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import rvpo
from reference import reference
from rvpo.core import aggregate

NAN = math.nan
METHODS = ("rvpo", "rvpo_explicit", "hard_min", "gdpo", "grpo")
SOFT_MINIMA = {"rvpo": {"k": 1.5}, "rvpo_explicit": {"beta": 0.3}, "hard_min": {}, "gdpo": {}}

examples = settings(max_examples=40, deadline=None)


@dataclass
class Batch:
    """An (N, M) float64 matrix of rewards with group ids, and channel weights or None."""

    rewards: Tensor
    groups: Tensor
    weights: list | None = None


@st.composite
def batches(draw, scale: float = 1.0, channels: tuple[int, int] = (1, 4), missing: bool = True) -> Batch:
    """Draw a batch. Rewards are multiples of 1/4 in [-3, 3], so nothing lies near the tolerance of deadness."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    width = draw(st.integers(*channels))
    grid = st.integers(-12, 12).map(lambda i: i / 4 * scale)
    kinds = st.sampled_from(["free"] * 4 + ["binary", "constant", "noise"] + ["missing", "holes"] * missing)
    columns = []
    for size in sizes:
        for _ in range(width):
            kind = draw(kinds)
            if kind == "free":
                columns.append(draw(st.lists(grid, min_size=size, max_size=size)))
            elif kind == "binary":
                columns.append(draw(st.lists(st.sampled_from([0.0, scale]), min_size=size, max_size=size)))
            elif kind == "holes":
                columns.append(draw(st.lists(grid | st.just(NAN), min_size=size, max_size=size)))
            elif kind == "missing":
                columns.append([NAN] * size)
            else:
                level, noise = draw(grid), 1e-9 if kind == "noise" else 0.0
                columns.append([level * (1 + noise * draw(st.integers(-9, 9))) for _ in range(size)])
    blocks = [columns[i * width : (i + 1) * width] for i in range(len(sizes))]
    rows = [[column[n] for column in block] for block, size in zip(blocks, sizes, strict=True) for n in range(size)]
    ids = [group * 7 - 3 for group, size in enumerate(sizes) for _ in range(size)]
    order = draw(st.permutations(range(len(rows))))
    return Batch(torch.tensor([rows[n] for n in order], dtype=torch.float64), torch.tensor([ids[n] for n in order]))


@st.composite
def weighted_batches(draw, **options) -> Batch:
    """Draw a batch with no weights, weights (M,) or weights (N, M); some of them 0."""
    batch = draw(batches(**options))
    rows, channels = batch.rewards.shape
    row = st.lists(st.sampled_from([1.0, 0.5, 3.0, 0.0]), min_size=channels, max_size=channels)
    weights = draw(st.none() | row | st.lists(row, min_size=rows, max_size=rows))
    assume(weights is None or torch.tensor(weights).sum() > 0)
    return Batch(batch.rewards, batch.groups, weights)


def run(batch: Batch, method: str = "rvpo", **options) -> rvpo.Advantages:
    return rvpo.advantages(batch.rewards, batch.groups, method=method, weights=batch.weights, **options)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance, equal_nan=True)


def parameters(draw, method: str) -> dict:
    """Draw the options of a method."""
    options = {
        "eps": draw(st.sampled_from([1e-4, 1e-6, 0.1])),
        "ddof": draw(st.sampled_from([0, 1])),
        "rtol": draw(st.sampled_from([1e-6, 1e-3])),
    }
    if method == "rvpo":
        options["k"] = draw(st.sampled_from([0.0, 1e-3, 0.5, 1.0, 2.0, 50.0, 1e4, math.inf]))
    if method == "rvpo_explicit":
        options["beta"] = draw(st.sampled_from([0.0, 0.25, 1.0]))
    if method in ("gdpo", "grpo"):
        options["unscored"] = draw(st.sampled_from(["zero", "left_out"]))
    if method == "grpo":
        options["whiten"] = draw(st.sampled_from(["batch", "group", "none"]))
    else:
        options["whiten"] = draw(st.sampled_from(["batch", "group", "none"]))
        options["dead_channels"] = draw(st.sampled_from(["drop", "keep"]))
    return options


# --- the reference -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_agrees_with_the_loop_reference(method: str, dtype: torch.dtype, data: st.DataObject):
    batch = data.draw(weighted_batches())
    batch.rewards = batch.rewards.to(dtype)
    options = parameters(data.draw, method)

    out = run(batch, method, **options)
    slow = reference(batch.rewards.tolist(), batch.groups.tolist(), method, weights=batch.weights, **options)

    assert out.live.tolist() == slow.live
    assert out.missing.tolist() == batch.rewards.isnan().tolist()
    for name in ("z", "aggregated", "responsibilities", "advantages"):
        close(getattr(out, name).double(), torch.tensor(getattr(slow, name), dtype=torch.float64), 1e-6)


@given(batch=weighted_batches(), data=st.data())
@examples
def test_signal_is_any_live_channel_of_positive_weight(batch: Batch, data: st.DataObject):
    out = run(batch, data.draw(st.sampled_from(METHODS)))
    rows, channels = batch.rewards.shape
    weights = torch.ones(channels) if batch.weights is None else torch.tensor(batch.weights)
    assert (out.signal == (out.live & (weights.expand(rows, channels) > 0)).any(-1)).all()


# --- symmetries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@given(batch=batches(), data=st.data())
@examples
def test_permuting_channels_permutes_the_result(method: str, batch: Batch, data: st.DataObject):
    order = torch.tensor(data.draw(st.permutations(range(batch.rewards.shape[1]))))
    weights = torch.tensor(data.draw(st.lists(st.floats(0.1, 3), min_size=len(order), max_size=len(order))))
    out = run(Batch(batch.rewards, batch.groups, weights), method)
    permuted = run(Batch(batch.rewards[:, order], batch.groups, weights[order]), method)
    close(permuted.advantages, out.advantages)
    close(permuted.responsibilities, out.responsibilities[:, order])
    close(permuted.z, out.z[:, order])


@pytest.mark.parametrize("method", METHODS)
@given(batch=batches(), data=st.data())
@examples
def test_permuting_rows_permutes_the_result(method: str, batch: Batch, data: st.DataObject):
    order = torch.tensor(data.draw(st.permutations(range(batch.rewards.shape[0]))))
    out = run(batch, method)
    permuted = run(Batch(batch.rewards[order], batch.groups[order]), method)
    for name in ("advantages", "aggregated", "responsibilities", "z"):
        close(getattr(permuted, name), getattr(out, name)[order])


@pytest.mark.parametrize("method", METHODS)
@given(p=st.integers(1, 4), g=st.integers(1, 5), seed=st.integers(0, 99))
@examples
def test_num_generations_equals_explicit_groups(method: str, p: int, g: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 4, (p * g, 3), generator=generator).double()
    rewards[torch.rand(rewards.shape, generator=generator) < 0.1] = NAN
    blocks = rvpo.advantages(rewards, num_generations=g, method=method)
    ids = rvpo.advantages(rewards, torch.arange(p).repeat_interleave(g), method=method)
    for name in ("advantages", "aggregated", "responsibilities", "z", "live"):
        close(getattr(blocks, name), getattr(ids, name))
    assert blocks.metrics() == pytest.approx(ids.metrics(), nan_ok=True, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
@given(batch=batches(), other=batches())
@examples
def test_another_group_changes_nothing_before_whitening(method: str, batch: Batch, other: Batch):
    width = min(batch.rewards.shape[1], other.rewards.shape[1])
    mine, theirs = batch.rewards[:, :width], other.rewards[:, :width]
    alone = run(Batch(mine, batch.groups), method)
    together = run(Batch(torch.cat([theirs, mine]), torch.cat([other.groups + 1000, batch.groups])), method)
    for name in ("z", "aggregated", "responsibilities"):
        close(getattr(together, name)[len(theirs) :], getattr(alone, name))


@pytest.mark.parametrize("method", METHODS)
@given(batch=batches(), data=st.data())
@examples
def test_a_channel_that_is_missing_throughout_changes_nothing(method: str, batch: Batch, data: st.DataObject):
    rows, channels = batch.rewards.shape
    at = data.draw(st.integers(0, channels))
    padding = torch.full((rows, 1), NAN, dtype=torch.float64)
    padded = torch.cat([batch.rewards[:, :at], padding, batch.rewards[:, at:]], dim=1)
    kept = [j for j in range(channels + 1) if j != at]
    out, more = run(batch, method), run(Batch(padded, batch.groups), method)
    close(more.advantages, out.advantages)
    close(more.aggregated, out.aggregated)
    close(more.responsibilities[:, kept], out.responsibilities)
    assert (more.responsibilities[:, at] == 0).all()


@given(batch=batches(), scale=st.floats(0.01, 100), data=st.data())
@examples
def test_z_forgets_the_scale_of_a_channel(batch: Batch, scale: float, data: st.DataObject):
    j = data.draw(st.integers(0, batch.rewards.shape[1] - 1))
    scaled = batch.rewards.clone()
    scaled[:, j] *= scale
    close(run(Batch(scaled, batch.groups), eps=0.0).z, run(batch, eps=0.0).z)
    # With eps the order remains.
    z, z_scaled = run(batch).z[:, j], run(Batch(scaled, batch.groups)).z[:, j]
    same_group = batch.groups[:, None] == batch.groups
    order, order_scaled = ((x[:, None] - x).sign()[same_group] for x in (z, z_scaled))
    close(order_scaled, order)


@given(batch=weighted_batches(), factor=st.sampled_from([0.25, 4.0, 1024.0]))
@examples
def test_the_scale_of_the_weights_does_not_matter_before_whitening(batch: Batch, factor: float):
    assume(batch.weights is not None)
    scaled = Batch(batch.rewards, batch.groups, (torch.tensor(batch.weights) * factor).tolist())
    for method in SOFT_MINIMA:
        close(run(scaled, method).aggregated, run(batch, method).aggregated)


# --- bounds and limits -------------------------------------------------------------------------------------------


def bounds(out: rvpo.Advantages) -> tuple[Tensor, Tensor]:
    """Return min and mean of z over the live channels, 0 where there are none."""
    none = ~out.live.any(-1)
    low = out.z.masked_fill(~out.live, math.inf).amin(-1).masked_fill(none, 0.0)
    mean = out.z.masked_fill(~out.live, 0.0).sum(-1) / out.live.sum(-1).clamp(min=1)
    return low, mean


@given(batch=batches(), k=st.floats(1e-6, 1e4))
@examples
def test_lies_between_minimum_and_mean(batch: Batch, k: float):
    out = run(batch, k=k)
    low, mean = bounds(out)
    assert (out.aggregated >= low - 1e-12).all()
    assert (out.aggregated <= mean + 1e-9).all()


@given(batch=batches(), k=st.sampled_from([5e-324, 1e-310, 1e-300, 1e-21, 1e-19, 1e-13]))
@examples
def test_a_tiny_k_is_the_mean(batch: Batch, k: float):
    close(run(batch, k=k).aggregated, run(batch, k=0.0).aggregated)


@given(batch=weighted_batches(), ks=st.tuples(st.floats(0, 100), st.floats(0, 100)))
@examples
def test_falls_as_k_rises(batch: Batch, ks: tuple[float, float]):
    low, high = sorted(ks)
    assert (run(batch, k=high).aggregated <= run(batch, k=low).aggregated + 1e-9).all()


@pytest.mark.parametrize("dead_channels", ["drop", "keep"])
@given(batch=weighted_batches())
@examples
def test_limits_of_k(dead_channels: str, batch: Batch):
    mean = run(batch, "gdpo", dead_channels=dead_channels)
    low = run(batch, "hard_min", dead_channels=dead_channels)
    close(run(batch, k=0.0, dead_channels=dead_channels).advantages, mean.advantages)
    close(run(batch, k=math.inf, dead_channels=dead_channels).advantages, low.advantages)
    # Off the limit by at most k var(Z) / 2, and by ln(1 / share) / k. Shares here are at least 1/40.
    near_mean = run(batch, k=1e-9, dead_channels=dead_channels)
    near_low = run(batch, k=1e9, dead_channels=dead_channels)
    close(near_mean.aggregated, mean.aggregated, 1e-8)
    close(near_low.aggregated, low.aggregated, 1e-8)
    close(near_mean.responsibilities, mean.responsibilities, 1e-7)


@given(batch=batches(), beta=st.floats(0, 5))
@examples
def test_explicit_is_at_most_the_mean(batch: Batch, beta: float):
    out = run(batch, "rvpo_explicit", beta=beta)
    assert (out.aggregated <= bounds(out)[1] + 1e-9).all()


@pytest.mark.parametrize("method", METHODS)
@given(batch=weighted_batches(scale=1e6 / 3), data=st.data())
@examples
def test_everything_is_finite(method: str, batch: Batch, data: st.DataObject):
    options = {"k": data.draw(st.sampled_from([0.0, 1e-12, 1.0, 1e4, 1e30]))} if method == "rvpo" else {}
    batch.rewards = batch.rewards.to(data.draw(st.sampled_from([torch.float32, torch.float64])))
    out = run(batch, method, **options)
    for name in ("advantages", "aggregated", "responsibilities"):
        assert getattr(out, name).isfinite().all(), name
    assert (out.z.isnan() == out.missing).all()
    assert (out.z.nan_to_num().abs() < 1e3).all()


@given(shares=st.sampled_from([1e-20, 1e-300, 1e-9]), k=st.sampled_from([1e-3, 1.0, 1e4]))
@examples
def test_a_bottleneck_of_tiny_weight_stays_finite(shares: float, k: float):
    rewards = torch.tensor([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    out = rvpo.advantages(rewards, num_generations=3, k=k, weights=[shares, 1.0])
    slow = reference(rewards.tolist(), [0, 0, 0], k=k, weights=[shares, 1.0])
    close(out.aggregated, torch.tensor(slow.aggregated, dtype=torch.float64), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@given(level=st.floats(-1e6, 1e6), seed=st.integers(0, 99))
@examples
def test_float_noise_around_a_constant_is_dead(dtype: torch.dtype, level: float, seed: int):
    noise = torch.rand(6, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    constant = (level * (1 + 1e-7 * noise)).to(dtype)
    clear = torch.arange(6, dtype=dtype)[:, None]
    out = rvpo.advantages(torch.cat([constant, clear], dim=1), num_generations=6)
    assert not out.live[:, 0].any()
    assert (out.z[:, 0] == 0).all()
    assert (out.responsibilities == torch.tensor([0.0, 1.0], dtype=dtype)).all()


# --- responsibilities and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@given(batch=weighted_batches())
@examples
def test_responsibilities_sum_to_1_where_there_is_signal(method: str, batch: Batch):
    out = run(batch, method)
    total = out.responsibilities.sum(-1)
    close(total[out.signal], torch.ones_like(total[out.signal]))
    assert (out.responsibilities[out.missing] == 0).all()
    if method in ("rvpo", "rvpo_explicit", "hard_min"):  # these drop dead channels
        assert (out.responsibilities[~out.live] == 0).all()
        assert (total[~out.signal] == 0).all()
    if method != "rvpo_explicit":
        assert (out.responsibilities >= 0).all()


RULES = {
    "soft_min": lambda z, p: aggregate.soft_min(z, p, 1.5),
    "soft_min k=1e-6": lambda z, p: aggregate.soft_min(z, p, 1e-6),
    "soft_min k=1e4": lambda z, p: aggregate.soft_min(z, p, 1e4),
    "explicit": lambda z, p: aggregate.explicit(z, p, 0.7),
    "mean": aggregate.mean,
    "hard_min": aggregate.hard_min,
}


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 999), rows=st.integers(1, 6), channels=st.integers(1, 5), dropped=st.booleans())
@examples
def test_gradient_with_respect_to_z_is_the_responsibilities(
    rule: str, seed: int, rows: int, channels: int, dropped: bool
):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, channels, generator=generator, dtype=torch.float64, requires_grad=True)
    p = torch.rand(rows, channels, generator=generator, dtype=torch.float64) + 0.01
    if dropped:
        p = p * (torch.rand(rows, channels, generator=generator) < 0.6)  # some channels, perhaps whole rows, out
    p = aggregate.normalised(p)
    value, responsibilities = RULES[rule](z, p)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    close(gradient, responsibilities)


@pytest.mark.parametrize("method", METHODS)
def test_advantages_are_differentiable_in_the_rewards(method: str):
    """Numerical derivatives, where the method is smooth: distinct rewards, one missing, a dead channel."""
    rewards = torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    holes = torch.zeros_like(rewards, dtype=torch.bool)
    holes[2, 1] = True
    groups = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])

    def advantages(free: Tensor) -> Tensor:
        full = torch.cat([free.masked_fill(holes, NAN), torch.ones(8, 1, dtype=torch.float64)], dim=1)
        return rvpo.advantages(full, groups, method=method).advantages

    assert torch.autograd.gradcheck(advantages, rewards.requires_grad_())


@pytest.mark.parametrize("method", METHODS)
@given(batch=weighted_batches())
@examples
def test_gradients_are_finite_everywhere(method: str, batch: Batch):
    rewards = batch.rewards.clone().requires_grad_()
    out = run(Batch(rewards, batch.groups, batch.weights), method)
    (gradient,) = torch.autograd.grad((out.advantages * torch.arange(1.0, len(rewards) + 1)).sum(), rewards)
    assert gradient.isfinite().all()


# --- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_dtype_is_preserved(method: str, dtype: torch.dtype):
    rewards = torch.tensor([[0.0, NAN], [1.0, 0.5], [2.0, 1.0]], dtype=dtype)
    out = rvpo.advantages(rewards, num_generations=3, method=method)
    for name in ("advantages", "aggregated", "z", "responsibilities"):
        assert getattr(out, name).dtype == dtype, name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
def test_cuda_equals_cpu(method: str):
    rewards = torch.randn(48, 3, generator=torch.Generator().manual_seed(0))
    rewards[3, 1] = NAN
    groups = torch.arange(48) % 7
    ours = rvpo.advantages(rewards.cuda(), groups.cuda(), method=method)
    cpu = rvpo.advantages(rewards, groups, method=method)
    for name in ("advantages", "aggregated", "z", "responsibilities"):
        value = getattr(ours, name)
        assert value.is_cuda, name
        close(value.cpu(), getattr(cpu, name), 1e-6)
    assert ours.metrics() == pytest.approx(cpu.metrics(), abs=1e-6)
