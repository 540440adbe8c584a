"""What must hold of adaptive k and trust for every batch, searched by Hypothesis, beside loop-only references."""

from __future__ import annotations

import itertools
import math
from math import exp, fsum, isnan

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rvpo.core.aggregate import soft_min
from rvpo.core.groups import Groups
from rvpo.core.methods.adaptive_k import AdaptiveK, measured, next_k, solve_k
from rvpo.step.trust import Trust, next_reliability, shrink

examples = settings(max_examples=60, deadline=None)
MEASURES = st.sampled_from(["effective", "bottleneck"])
# Multiples of 1/4: two values tie exactly or differ by far more than the tolerance of ties.
SCORES = st.integers(-12, 12).map(lambda i: i / 4)
WEIGHTS = st.sampled_from([0.0, 0.25, 1.0, 1.0, 1.0, 4.0])
RELIABILITIES = st.sampled_from([0.01, 0.2, 0.5, 0.9, 1.0])


@st.composite
def channels(draw) -> tuple[Tensor, Tensor]:
    """Draw z-scores and shares (N, M); rows may have no channel, one, or several that tie."""
    rows, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))

    def matrix(values: st.SearchStrategy[float]) -> Tensor:
        row = st.lists(values, min_size=width, max_size=width)
        return torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)), dtype=torch.float64)

    z, w = matrix(SCORES), matrix(WEIGHTS)
    total = w.sum(-1, keepdim=True)
    return z, w / total.masked_fill(total == 0, 1)


def reference_measure(z: Tensor, p: Tensor, k: float, measure: str) -> float:
    """The docstring's definition, one row at a time, without the anchoring at the lowest channel."""
    values = []
    for z_row, p_row in zip(z.tolist(), p.tolist(), strict=True):
        pairs = [(a, b) for a, b in zip(z_row, p_row, strict=True) if b > 0]
        if len({a for a, _ in pairs}) < 2:
            continue
        total = fsum(b * exp(-k * a) for a, b in pairs)
        r = [b * exp(-k * a) / total for a, b in pairs]
        lowest = min(a for a, _ in pairs)
        if measure == "bottleneck":
            values.append(fsum(x for x, (a, _) in zip(r, pairs, strict=True) if a == lowest))
        else:
            effective = 1 / fsum(x * x / b for x, (_, b) in zip(r, pairs, strict=True))
            q = fsum(b for a, b in pairs if a == lowest)
            values.append((effective - q) / (1 - q))
    return fsum(values) / len(values) if values else math.nan


# --- adaptive k --------------------------------------------------------------------------------------------------


@examples
@given(channels(), st.sampled_from([0.05, 0.7, 2.0, 20.0]), MEASURES)
def test_the_measure_is_the_reference(batch, k, measure):
    actual, expected = measured(*batch, k, measure), reference_measure(*batch, k, measure)
    assert isnan(actual) == isnan(expected)
    assert isnan(expected) or math.isclose(actual, expected, abs_tol=1e-9)


@examples
@given(channels(), MEASURES)
def test_the_measure_is_bounded_and_monotone_in_k(batch, measure):
    ks = [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0, 200.0]
    values = [measured(*batch, k, measure) for k in ks]
    assume(not isnan(values[0]))
    assert all(-1e-9 <= v <= 1 + 1e-9 for v in values)
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert all(step >= -1e-9 for step in steps) if measure == "bottleneck" else all(step <= 1e-9 for step in steps)


@examples
@given(channels(), MEASURES, st.floats(0.05, 0.95))
def test_the_solution_meets_the_target_or_is_at_the_bound_nearest_to_it(batch, measure, target):
    adaptive = AdaptiveK(target=target, measure=measure)
    k = solve_k(*batch, adaptive)
    assume(k is not None)
    missed = measured(*batch, k, measure) - target
    grows = 1 if measure == "bottleneck" else -1
    if k == adaptive.k_min:
        assert grows * missed >= 0
    elif k == adaptive.k_max:
        assert grows * missed <= 0
    else:
        assert abs(missed) < 1e-8


@examples
@given(channels(), MEASURES, st.randoms(use_true_random=False))
def test_order_of_rows_and_channels_does_not_matter(batch, measure, random):
    z, p = batch
    rows, columns = list(range(z.shape[0])), list(range(z.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    adaptive = AdaptiveK(measure=measure)
    k, shuffled = solve_k(z, p, adaptive), solve_k(z[rows][:, columns], p[rows][:, columns], adaptive)
    assert (k is None) == (shuffled is None)
    assert k is None or math.isclose(k, shuffled, rel_tol=1e-6)


@examples
@given(channels(), st.sampled_from([0.5, 2.0, 4.0]))
def test_k_takes_back_the_scale_of_z(batch, scale):
    z, p = batch
    adaptive = AdaptiveK(k_min=1e-3, k_max=1e3)
    k, scaled = solve_k(z, p, adaptive), solve_k(z * scale, p, adaptive)
    assume(k is not None)
    assert math.isclose(scaled * scale, k, rel_tol=1e-6)


@examples
@given(st.lists(channels(), min_size=1, max_size=5), st.floats(1, 50), MEASURES)
def test_k_stays_within_bounds_and_no_step_is_longer_than_the_horizon_allows(batches, horizon, measure):
    adaptive = AdaptiveK(measure=measure, horizon=horizon, k_min=0.2, k_max=5.0)
    state = None
    for z, p in batches:
        k, new, reached = next_k(z, p, adaptive, state)
        assert 0.2 <= k <= 5.0
        assert isnan(reached) == (solve_k(z, p, adaptive) is None)
        if state is not None:
            assert abs(new - state) <= math.log(25) / horizon + 1e-9
        state = new


# --- trust -------------------------------------------------------------------------------------------------------


@st.composite
def trusted(draw) -> tuple[Tensor, Tensor, Tensor]:
    z, p = draw(channels())
    rho = draw(st.lists(RELIABILITIES, min_size=z.shape[1], max_size=z.shape[1]))
    return z, p, torch.tensor(rho, dtype=torch.float64)


@examples
@given(trusted())
def test_shrinking_keeps_order_signs_and_row_sums_and_pulls_towards_zero(batch):
    z, p, rho = batch
    z_out, p_out = shrink(z, p, rho)
    assert bool((z_out.abs() <= z.abs()).all())
    assert bool((z_out * z >= 0).all())
    assert torch.equal(z_out.argsort(dim=0, stable=True), z.argsort(dim=0, stable=True))
    torch.testing.assert_close(p_out.sum(-1), p.sum(-1))
    assert torch.equal(p_out > 0, p > 0)
    # More trusted channels win share from less trusted ones.
    ratio = p_out / p.masked_fill(p == 0, 1)
    for row, mask in zip(ratio.tolist(), (p > 0).tolist(), strict=True):
        seen = sorted((r, x) for r, x, m in zip(rho.tolist(), row, mask, strict=True) if m)
        assert all(b[1] >= a[1] - 1e-12 for a, b in itertools.pairwise(seen))


@examples
@given(trusted())
def test_shrinking_is_the_loop(batch):
    z, p, rho = batch
    z_out, p_out = shrink(z, p, rho)
    for n in range(z.shape[0]):
        shares = [p[n, j].item() * math.sqrt(rho[j].item()) for j in range(z.shape[1])]
        for j in range(z.shape[1]):
            assert math.isclose(z_out[n, j].item(), z[n, j].item() * math.sqrt(rho[j].item()), abs_tol=1e-12)
            expected = shares[j] / fsum(shares) if any(shares) else 0.0
            assert math.isclose(p_out[n, j].item(), expected, abs_tol=1e-12)


@examples
@given(channels(), RELIABILITIES, st.sampled_from([0.5, 1.0, 3.0]))
def test_the_same_distrust_of_all_channels_is_a_smaller_k(batch, rho, k):
    """A(sqrt(rho) Z; k) = sqrt(rho) A(Z; sqrt(rho) k): noise everywhere moves the soft minimum towards the mean."""
    z, p = batch
    actual, _ = soft_min(*shrink(z, p, [rho] * z.shape[1]), k)
    expected, _ = soft_min(z, p, math.sqrt(rho) * k)
    torch.testing.assert_close(actual, math.sqrt(rho) * expected, atol=1e-9, rtol=1e-9)


@examples
@given(st.data())
def test_reliability_is_the_loop_over_several_steps(data):
    """Ragged, shuffled groups and missing judgements against plain lists."""
    width = data.draw(st.integers(1, 3))
    trust = Trust(
        horizon=data.draw(st.sampled_from([1.0, 2.0, 50.0])),
        prior=data.draw(st.sampled_from([0.5, 20.0])),
        floor=data.draw(st.sampled_from([0.0, 0.3])),
    )
    value = SCORES | st.just(math.nan)
    state, sums = None, [[0.0] * 4 for _ in range(width)]
    for _ in range(data.draw(st.integers(1, 3))):
        ids = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=8))

        def table(rows: int) -> list[list[float]]:
            return data.draw(st.lists(st.lists(value, min_size=width, max_size=width), min_size=rows, max_size=rows))

        rewards, pairs = table(len(ids)), data.draw(st.integers(0, 4))
        first, second = table(pairs), table(pairs)
        as_tensor = [torch.tensor(x, dtype=torch.float64).reshape(-1, width) for x in (first, second, rewards)]
        rho, state = next_reliability(*as_tensor, Groups.from_ids(torch.tensor(ids), len(ids)), trust, state)

        for j in range(width):
            both = [(a[j], b[j]) for a, b in zip(first, second, strict=True) if not isnan(a[j]) and not isnan(b[j])]
            new = [fsum((a - b) ** 2 / 2 for a, b in both), len(both), 0.0, 0.0]
            for group in set(ids):
                scored = [r[j] for r, i in zip(rewards, ids, strict=True) if i == group and not isnan(r[j])]
                centre = fsum(scored) / len(scored) if scored else 0.0
                new[2] += fsum((x - centre) ** 2 for x in scored)
                new[3] += max(len(scored) - 1, 0)
            sums[j] = [(1 - 1 / trust.horizon) * old + fresh for old, fresh in zip(sums[j], new, strict=True)]
            noise, count, spread, dof = sums[j]
            # Rewards that are equal but for rounding have no spread: there the ratio is not defined.
            expected = 1.0 if spread == 0 else 1 - (noise / (count + trust.prior)) / (spread / dof)
            assert 1e-9 > spread > 0 or math.isclose(rho[j].item(), min(max(expected, trust.floor), 1), abs_tol=1e-9)
