"""What must hold of the rules to compare with, searched by Hypothesis: loop references, bounds, limits, symmetries."""

from __future__ import annotations

from math import exp, fsum, isnan, log, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rvpo.core.groups import Groups
from rvpo.core.methods.ctwa import CTWAState, group_covariance, move_weights
from rvpo.core.methods.lagrangian import move_multipliers
from rvpo.core.methods.tchebycheff import smooth_tchebycheff, tchebycheff

examples = settings(max_examples=60, deadline=None)
shares_of_one = st.integers(0, 16).map(lambda i: i / 16)
temperatures = st.sampled_from([1e-6, 1e-3, 0.05, 1.0, 20.0, 1e3])
penalties = st.sampled_from([0.0, 0.05, 1.0, 10.0])


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=atol, equal_nan=True)


@st.composite
def cells(draw) -> tuple[Tensor, Tensor]:
    """Draw attained shares (N, M) and channel shares (N, M); NaN stands only where p = 0."""
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    weight = st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])
    w = [draw(st.lists(weight, min_size=m, max_size=m)) for _ in range(n)]
    x = [[nan if wj == 0 and draw(st.booleans()) else draw(shares_of_one) for wj in row] for row in w]
    return tensor(x), tensor([[wj / (sum(row) or 1.0) for wj in row] for row in w])


# --- Tchebycheff -----------------------------------------------------------------------------------------------------


def tchebycheff_reference(x: list[float], p: list[float], rho: float) -> tuple[float, list[float]]:
    part = [j for j in range(len(p)) if p[j] > 0]
    if not part:
        return 0.0, [0.0] * len(p)
    distance = {j: len(part) * p[j] * (1 - x[j]) for j in part}
    worst = max(distance.values())
    tied = [j for j in part if worst - distance[j] <= 1e-6]
    gradient = [0.0] * len(p)
    for j in part:
        gradient[j] = rho * p[j] + (len(part) * p[j] / len(tied) if j in tied else 0.0)
    value = -(worst + rho * fsum(p[j] * (1 - x[j]) for j in part))
    return value, [g / fsum(gradient) for g in gradient]


def smooth_reference(x: list[float], p: list[float], mu: float) -> tuple[float, list[float]]:
    part = [j for j in range(len(p)) if p[j] > 0]
    if not part:
        return 0.0, [0.0] * len(p)
    distance = {j: len(part) * p[j] * (1 - x[j]) for j in part}
    worst = max(distance.values())
    odds = {j: exp((distance[j] - worst) / mu) for j in part}
    gradient = [p[j] * odds[j] if j in odds else 0.0 for j in range(len(p))]
    return -(worst + mu * log(fsum(odds.values()))), [g / fsum(gradient) for g in gradient]


@examples
@given(cells(), penalties, temperatures)
def test_equal_the_loops(batch, rho, mu):
    x, p = batch
    for rule, reference, option in (
        (tchebycheff, tchebycheff_reference, rho),
        (smooth_tchebycheff, smooth_reference, mu),
    ):
        value, responsibilities = rule(x, p, option)
        expected = [reference(*row, option) for row in zip(x.tolist(), p.tolist(), strict=True)]
        close(value, tensor([v for v, _ in expected]))
        close(responsibilities, tensor([r for _, r in expected]), atol=1e-9)


@examples
@given(cells(), penalties)
def test_tchebycheff_is_bounded_and_best_where_all_is_attained(batch, rho):
    x, p = batch
    value, _ = tchebycheff(x, p, rho)
    assert (value <= 0).all()
    assert (tchebycheff(torch.ones_like(x), p, rho)[0] == 0).all()


@examples
@given(cells(), penalties, temperatures, shares_of_one, st.randoms(use_true_random=False))
def test_a_channel_that_rises_never_costs(batch, rho, mu, share, random):
    x, p = batch
    higher, j = x.clone(), random.randrange(x.shape[1])
    higher[:, j] += share * (1 - x[:, j])
    for rule, option in ((tchebycheff, rho), (smooth_tchebycheff, mu)):
        assert (rule(higher, p, option)[0] >= rule(x, p, option)[0] - 1e-12).all()


@examples
@given(cells(), penalties, temperatures, st.randoms(use_true_random=False))
def test_the_order_of_channels_does_not_matter(batch, rho, mu, random):
    x, p = batch
    order = random.sample(range(x.shape[1]), x.shape[1])
    for rule, option in ((tchebycheff, rho), (smooth_tchebycheff, mu)):
        value, responsibilities = rule(x, p, option)
        permuted_value, permuted = rule(x[:, order], p[:, order], option)
        close(permuted_value, value)
        close(permuted, responsibilities[:, order], atol=1e-9)


@examples
@given(cells(), temperatures)
def test_smooth_lies_between_plain_and_plain_less_mu_ln_m(batch, mu):
    """At mu = 1e-6 this is the limit: the two ends are 1e-6 ln M' apart."""
    x, p = batch
    plain, _ = tchebycheff(x, p, 0.0)
    smooth, _ = smooth_tchebycheff(x, p, mu)
    width = mu * (p > 0).sum(-1).double().clamp(min=1).log()
    assert (smooth <= plain + 1e-12).all()
    assert (smooth >= plain - width - 1e-12 * (1 + mu)).all()


@examples
@given(cells())
def test_smooth_becomes_the_weighted_sum(batch):
    """By Jensen and Hoeffding, mu ln mean exp(D / mu) lies in [mean D, mean D + range(D)^2 / (8 mu)]."""
    x, p = batch
    mu, m = 1e3, (p > 0).sum(-1).double()
    centred = smooth_tchebycheff(x, p, mu)[0] + mu * m.clamp(min=1).log()
    weighted_sum = -(p * (1 - x)).nan_to_num(nan=0.0).sum(-1)
    assert (centred <= weighted_sum + 1e-9).all()
    assert (centred >= weighted_sum - m**2 / (8 * mu) - 1e-9).all()


@examples
@given(cells(), penalties, temperatures)
def test_responsibilities_are_the_gradient_scaled_to_sum_to_one(batch, rho, mu):
    for rule, option in ((tchebycheff, rho), (smooth_tchebycheff, mu)):
        x, p = batch[0].clone().requires_grad_(), batch[1]
        value, responsibilities = rule(x, p, option)
        value.sum().backward()
        total = x.grad.sum(-1, keepdim=True)
        close(responsibilities.detach(), x.grad / total.masked_fill(total == 0, 1.0), atol=1e-9)
        close(responsibilities.detach().sum(-1), (p > 0).any(-1).double())


# --- Lagrangian ------------------------------------------------------------------------------------------------------

unscored = st.just(nan)


@st.composite
def duals(draw) -> tuple[list[float], list[float], list[float]]:
    """Draw multipliers in [0, 2], attained means and thresholds, some NaN."""
    k = draw(st.integers(1, 5))
    return tuple(  # type: ignore[return-value]
        draw(st.lists(values, min_size=k, max_size=k))
        for values in (shares_of_one.map(lambda i: 2 * i), shares_of_one | unscored, shares_of_one | unscored)
    )


@examples
@given(duals(), st.sampled_from([0.01, 0.5, 8.0]))
def test_multipliers_rise_exactly_while_a_channel_falls_short(drawn, rate):
    before, attained, thresholds = drawn
    given = tensor(before)
    after = move_multipliers(given, tensor(attained), tensor(thresholds), rate=rate, ceiling=2.0).tolist()
    assert given.tolist() == before
    for old, a, tau, new in zip(before, attained, thresholds, after, strict=True):
        assert 0 <= new <= 2
        assert (new > old) == (a < tau and old < 2)
        assert (new < old) == (a > tau and old > 0)
        expected = old if isnan(a) or isnan(tau) else min(max(old + rate * (tau - a), 0.0), 2.0)
        assert new == pytest.approx(expected, rel=1e-14)


# --- CTWA ------------------------------------------------------------------------------------------------------------


def covariance_reference(a: list[float], x: list[list[float]], ids: list[int]) -> list[float]:
    result = []
    for j in range(len(x[0])):
        found = []
        for group in sorted(set(ids)):
            rows = [n for n in range(len(a)) if ids[n] == group and not isnan(x[n][j])]
            if len(rows) < 2:
                continue
            mean_a = fsum(a[n] for n in rows) / len(rows)
            mean_x = fsum(x[n][j] for n in rows) / len(rows)
            found.append(fsum((a[n] - mean_a) * (x[n][j] - mean_x) for n in rows) / len(rows))
        result.append(fsum(found) / len(found) if found else nan)
    return result


@st.composite
def scored_groups(draw) -> tuple[list[float], list[list[float]], list[int]]:
    n, k = draw(st.integers(1, 10)), draw(st.integers(1, 3))
    a = draw(st.lists(st.floats(-3, 3), min_size=n, max_size=n))
    x = [draw(st.lists(shares_of_one | unscored, min_size=k, max_size=k)) for _ in range(n)]
    return a, x, draw(st.lists(st.sampled_from([-2, 5, 9]), min_size=n, max_size=n))


@examples
@given(scored_groups())
def test_group_covariance_equals_the_loop(drawn):
    a, x, ids = drawn
    groups = Groups.from_ids(torch.tensor(ids), len(ids))
    close(group_covariance(tensor(a), tensor(x), groups), tensor(covariance_reference(a, x, ids)))
    blocks = Groups.from_blocks(len(ids), len(ids), torch.device("cpu"))
    close(group_covariance(tensor(a), tensor(x), blocks), tensor(covariance_reference(a, x, [0] * len(ids))))


@examples
@given(scored_groups(), st.floats(-5, 5))
def test_group_covariance_ignores_a_constant_added_to_the_advantages(drawn, constant):
    a, x, ids = drawn
    groups = Groups.from_ids(torch.tensor(ids), len(ids))
    close(group_covariance(tensor(a) + constant, tensor(x), groups), group_covariance(tensor(a), tensor(x), groups))


signed = st.integers(-8, 8).map(lambda i: i / 32)


@st.composite
def runs(draw) -> tuple[list[float], list[list[float]], list[list[float]], list[float], list[float]]:
    """Draw initial weights, covariances and means of several batches, targets and caps."""
    k, batches = draw(st.integers(1, 4)), draw(st.integers(1, 5))

    def row(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=k, max_size=k))

    covariances = [row(signed | unscored) for _ in range(batches)]
    means = [row(shares_of_one | unscored) for _ in range(batches)]
    weights = row(st.sampled_from([0.0, 0.5, 1.0, 4.0]))
    return weights, covariances, means, row(signed), row(shares_of_one | unscored)


@examples
@given(runs())
def test_ctwa_equals_the_loop_and_no_weight_falls(drawn):
    weights, covariances, means, targets, caps = drawn
    state = CTWAState(tensor(weights), torch.full((len(weights),), nan, dtype=torch.float64))
    running: list[float | None] = [None] * len(weights)
    for batch, mean in zip(covariances, means, strict=True):
        before, state = state, move_weights(state, tensor(batch), tensor(mean), tensor(targets), tensor(caps))
        assert (state.weights >= before.weights).all()
        for j, c in enumerate(batch):
            if isnan(c):
                continue
            running[j] = c if running[j] is None else 0.9 * running[j] + 0.1 * c
            if not mean[j] >= caps[j]:
                weights[j] *= exp(0.05 * max(targets[j] - running[j], 0.0))
        close(state.weights, tensor(weights))
        close(state.covariance, tensor([nan if c is None else c for c in running]))


@examples
@given(runs(), st.floats(0, 1))
def test_ctwa_is_still_where_all_covariances_reach_their_targets(drawn, margin):
    weights, covariances, means, _, caps = drawn
    lowest = [min((c for c in column if not isnan(c)), default=0.0) for column in zip(*covariances, strict=True)]
    targets = tensor(lowest) - margin - 1e-12  # below the lowest covariance by more than the rounding of a mean of them
    state = CTWAState(tensor(weights), torch.full((len(weights),), nan, dtype=torch.float64))
    for batch, mean in zip(covariances, means, strict=True):
        state = move_weights(state, tensor(batch), tensor(mean), targets, tensor(caps))
    assert state.weights.tolist() == weights
