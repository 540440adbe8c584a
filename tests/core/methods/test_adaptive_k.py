"""The k that sets itself, against closed forms.

Two channels of equal share at distance d have responsibilities in the ratio x = exp(-k d), so

    n_eff = (1 + x)^2 / (1 + x^2),  s = (n_eff - 1) / (2 - 1) = 2 x / (1 + x^2) = 1 / cosh(k d)
    bottleneck = 1 / (1 + x) = sigmoid(k d)
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from rvpo.core.aggregate import soft_min
from rvpo.core.methods.adaptive_k import AdaptiveK, measured, next_k, solve_k
from rvpo.errors import ConfigError, RewardError

NAN = math.nan


def batch(*rows: list[float]) -> tuple[Tensor, Tensor]:
    """Z-scores with equal shares; NaN marks a channel that takes no part."""
    z = torch.tensor(rows, dtype=torch.float64)
    takes_part = (~z.isnan()).double()
    return z, takes_part / takes_part.sum(-1, keepdim=True).clamp(min=1)


def pair(distance: float = 1.0) -> tuple[Tensor, Tensor]:
    return batch([0.3, 0.3 + distance])


# --- the measures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0.1, 1.0, 3.0])
def test_two_channels(k: float):
    assert measured(*pair(1.5), k) == pytest.approx(1 / math.cosh(1.5 * k), abs=1e-12)
    assert measured(*pair(1.5), k, "bottleneck") == pytest.approx(1 / (1 + math.exp(-1.5 * k)), abs=1e-12)


def test_equal_shares_count_effective_channels():
    z, p = batch([0.0, 1.0, 2.0, -1.5, 0.4], [1.0, 0.0, NAN, 0.7, NAN])
    _, r = soft_min(z.nan_to_num(), p, 1.3)
    expected = [(1 / sum(x * x for x in row) - 1) / (m - 1) for row, m in zip(r.tolist(), (5, 3), strict=True)]
    assert measured(z, p, 1.3) == pytest.approx(sum(expected) / 2, abs=1e-12)


def test_channels_that_tie_for_the_lowest_are_one():
    # z = (0, 0, 1), x = exp(-k): e = ((2 + x) / 3)^2 / ((2 + x^2) / 3), its limit is 2/3
    x = math.exp(-0.8)
    e = ((2 + x) / 3) ** 2 / ((2 + x * x) / 3)
    z, p = batch([0.0, 0.0, 1.0])
    assert measured(z, p, 0.8) == pytest.approx((e - 2 / 3) / (1 / 3), abs=1e-12)
    assert measured(z, p, 1e3) == pytest.approx(0, abs=1e-12)
    assert measured(z, p, 0.8, "bottleneck") == pytest.approx(2 / (2 + x), abs=1e-12)


def test_unequal_shares_stay_monotone_where_the_plain_count_does_not():
    z, p = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    ks = [0.01, 0.5, 1.0, 2.0, 3.0, 5.0, 9.0]
    plain = [1 / (soft_min(z, p, k)[1] ** 2).sum().item() for k in ks]
    assert plain[3] > plain[0]  # at k = ln 9 both responsibilities are 1/2: two effective channels
    ours = [measured(z, p, k) for k in ks]
    assert ours == sorted(ours, reverse=True)
    assert ours[0] == pytest.approx(1, abs=0.01)
    assert ours[-1] == pytest.approx(0, abs=0.01)


def test_rows_without_two_channels_that_differ_do_not_count():
    z, p = batch([0.0, 1.0, NAN], [2.0, NAN, NAN], [NAN, NAN, NAN], [0.5, 0.5, 0.5])
    assert measured(z, p, 1.0) == pytest.approx(1 / math.cosh(1), abs=1e-12)
    assert math.isnan(measured(z[1:], p[1:], 1.0))


# --- the solution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0.4, 1.0, 2.5])
def test_solution_in_closed_form(distance: float):
    assert solve_k(*pair(distance), AdaptiveK(target=0.6)) == pytest.approx(math.acosh(1 / 0.6) / distance, rel=1e-9)
    adaptive = AdaptiveK(target=0.8, measure="bottleneck")
    assert solve_k(*pair(distance), adaptive) == pytest.approx(math.log(0.8 / 0.2) / distance, rel=1e-9)


def test_a_target_beyond_the_bounds_gives_the_bound_exactly():
    # 1/cosh(d) at k = 1: 0.04 for d = 4, and 1 - 5e-7 for d = 1e-3
    bounds = {"k_min": 1.0, "k_max": 3.0}
    assert solve_k(*pair(4.0), AdaptiveK(target=0.5, **bounds)) == 1.0
    assert solve_k(*pair(1e-3), AdaptiveK(target=0.5, **bounds)) == 3.0
    # Two channels: the lowest never has less than half.
    bottleneck = AdaptiveK(target=0.4, measure="bottleneck", **bounds)
    assert solve_k(*pair(), bottleneck) == 1.0
    k, _, reached = next_k(*pair(), bottleneck, None)
    assert k == pytest.approx(1)
    assert reached == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-12)


def test_a_channel_without_share_is_not_looked_at():
    z, p = pair()
    wide = torch.cat((z, torch.tensor([[NAN]])), 1), torch.cat((p, torch.tensor([[0.0]])), 1)
    assert solve_k(*wide, AdaptiveK()) == solve_k(z, p, AdaptiveK())


def test_single_precision_input_is_solved_in_double():
    z, p = pair(2.0)
    assert solve_k(z.float(), p.float(), AdaptiveK()) == pytest.approx(solve_k(z, p, AdaptiveK()), rel=1e-6)


# --- over steps --------------------------------------------------------------------------------------------------


def test_log_k_is_averaged_over_steps():
    adaptive = AdaptiveK(target=0.6, horizon=4)
    solved = [math.acosh(1 / 0.6) / d for d in (1.0, 2.0, 0.5)]
    state, expected = None, None
    for distance, k_now in zip((1.0, 2.0, 0.5), solved, strict=True):
        k, state, reached = next_k(*pair(distance), adaptive, state)
        expected = math.log(k_now) if expected is None else 0.75 * expected + 0.25 * math.log(k_now)
        assert math.log(k) == pytest.approx(expected, abs=1e-9)
        assert state == pytest.approx(expected, abs=1e-9)
        assert reached == pytest.approx(1 / math.cosh(distance * k), abs=1e-12)


def test_horizon_one_follows_each_batch():
    _, state, _ = next_k(*pair(3.0), AdaptiveK(horizon=1), None)
    k, _, reached = next_k(*pair(0.7), AdaptiveK(horizon=1), state)
    assert k == pytest.approx(solve_k(*pair(0.7), AdaptiveK()), rel=1e-12)
    assert reached == pytest.approx(AdaptiveK().target, abs=1e-9)


def test_no_signal_keeps_k():
    nothing = batch([1.0, NAN], [0.5, 0.5])
    k, state, reached = next_k(*nothing, AdaptiveK(), math.log(2.5))
    assert (k, state) == (pytest.approx(2.5), math.log(2.5))
    assert math.isnan(reached)
    k, state, _ = next_k(*nothing, AdaptiveK(), None)
    assert (k, state) == (1.0, None)
    assert next_k(*nothing, AdaptiveK(k_min=1.5), None)[0] == 1.5


def test_a_state_from_wider_bounds_is_brought_inside():
    nothing = batch([1.0, NAN])
    adaptive = AdaptiveK(k_max=4.0, horizon=1e6)
    assert next_k(*nothing, adaptive, 1e9)[0] == 4.0
    k, state, _ = next_k(*pair(), adaptive, 1e9)
    assert k == 4.0
    assert state == math.log(4.0)


def test_resuming_from_json_changes_nothing():
    batches = [pair(d) for d in (0.3, 1.1, 2.0, 0.9)]
    straight, resumed = None, None
    for z, p in batches:
        straight = next_k(z, p, AdaptiveK(), straight)[1]
        resumed = next_k(z, p, AdaptiveK(), json.loads(json.dumps(resumed)))[1]
    assert straight == resumed


# --- refusals ----------------------------------------------------------------------------------------------------


def test_defaults_depend_on_the_measure():
    assert AdaptiveK().target == 0.55
    assert AdaptiveK(measure="bottleneck").target == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "entropy"}, "adaptive measure is 'entropy'; expected one of 'effective', 'bottleneck'"),
        ({"target": 1.0}, r"adaptive target is 1.0; expected a number in \[0, 1\)"),
        ({"target": 0}, "adaptive target is 0; expected a number above 0"),
        ({"target": "half"}, "adaptive target is 'half'"),
        ({"k_min": 0.0}, "adaptive k_min is 0; expected a number above 0"),
        ({"k_max": math.inf}, "adaptive k_max is inf"),
        ({"k_min": 2.0, "k_max": 2.0}, "k_min is 2.0 and k_max 2.0; expected k_min < k_max"),
        ({"horizon": 0.5}, "adaptive horizon is 0.5; expected a number of steps >= 1"),
        ({"horizon": True}, "adaptive horizon is True"),
    ],
)
def test_config_refuses(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        AdaptiveK(**options)


def test_refuses_what_it_cannot_judge():
    z, p = pair()
    with pytest.raises(RewardError, match=r"z has shape \(1, 2\) and p \(2,\)"):
        next_k(z, p[0], AdaptiveK(), None)
    with pytest.raises(RewardError, match="z is not finite where p > 0"):
        next_k(z.masked_fill(z > 1, NAN), p, AdaptiveK(), None)
    with pytest.raises(ConfigError, match="adaptive state is nan; expected log k"):
        next_k(z, p, AdaptiveK(), NAN)
