"""Every method on numbers worked by hand: M = 2 channels, G = 3 completions.

The example throughout: channel a = (0, 1, 2), channel b = (2, 0, 1). Both have mean 1, deviations in {-1, 0, 1},
and sample variance (1 + 0 + 1) / (3 - 1) = 1, so with ddof = 1 and eps = 0

    z_a = (-1,  0, 1)
    z_b = ( 1, -1, 0)

All expected values follow from these two rows; the derivation stands above each.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from math import log2, sqrt

import pytest
import torch
from torch import Tensor

import rvpo
from rvpo import AdvantageConfig
from rvpo.core.methods.registry import METHODS, build_method
from rvpo.core.metrics import CHANNEL_METRICS
from rvpo.errors import ConfigError, RewardError, RVPOError

A = [0.0, 1.0, 2.0]
B = [2.0, 0.0, 1.0]
NAN = math.nan
LN2 = math.log(2)


def run(a: list[float], b: list[float], groups: list[int] | None = None, **options) -> rvpo.Advantages:
    """Exact options unless the test says otherwise: eps = 0, ddof = 1."""
    rewards = torch.tensor([a, b], dtype=torch.float64).T
    options = {"eps": 0.0, "ddof": 1} | options
    return rvpo.advantages(rewards, torch.tensor(groups or [0] * len(a)), **options)


def check(actual: Tensor, expected: list) -> None:
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12, equal_nan=True)


# --- the five methods --------------------------------------------------------------------------------------------


def test_z_scores():
    check(run(A, B).z, [[-1, 1], [0, -1], [1, 0]])


def test_gdpo():
    # A = mean of z = (0, -1/2, 1/2); mean 0, variance (1/4 + 1/4) / 2 = 1/4, std 1/2
    out = run(A, B, method="gdpo")
    check(out.aggregated, [0, -1 / 2, 1 / 2])
    check(out.responsibilities, [[1 / 2, 1 / 2]] * 3)
    check(out.advantages, [0, -1, 1])


def test_rvpo():
    # k = ln 2 makes exp(-k z) = 2^-z: rows (2, 1/2), (1, 2), (1/2, 1) with means 5/4, 3/2, 3/4, so
    # A = -log2(mean) = (log2 4/5, log2 2/3, log2 4/3). Responsibilities are those rows scaled to sum to 1.
    out = run(A, B, method="rvpo", k=LN2)
    values = [log2(4 / 5), log2(2 / 3), log2(4 / 3)]
    check(out.aggregated, values)
    check(out.responsibilities, [[4 / 5, 1 / 5], [1 / 3, 2 / 3], [1 / 3, 2 / 3]])
    # Whitening: the mean is log2(4/5 * 2/3 * 4/3) / 3 = log2(32/45) / 3
    mean = log2(32 / 45) / 3
    std = sqrt(sum((v - mean) ** 2 for v in values) / 2)
    check(out.advantages, [(v - mean) / std for v in values])


def test_rvpo_at_its_limits():
    # k = 0 is the mean, k = inf the minimum
    check(run(A, B, method="rvpo", k=0).aggregated, [0, -1 / 2, 1 / 2])
    check(run(A, B, method="rvpo", k=math.inf).aggregated, [-1, -1, 0])


def test_default_is_rvpo_with_k_1():
    # A = -ln((e^1 + e^-1) / 2) = -ln cosh 1; -ln((1 + e) / 2); -ln((e^-1 + 1) / 2)
    expected = [-math.log(math.cosh(1)), -math.log((1 + math.e) / 2), -math.log((1 / math.e + 1) / 2)]
    check(run(A, B).aggregated, expected)


def test_rvpo_explicit():
    # A = m - beta v with m = (z_a + z_b) / 2 and v = ((z_a - z_b) / 2)^2: m = (0, -1/2, 1/2), v = (1, 1/4, 1/4).
    # beta = 1/2: A = (-1/2, -5/8, 3/8); mean -1/4, deviations (-2, -3, 5) / 8, variance 38/64 / 2, std sqrt(19) / 8.
    # dA/dZ_j = (1 - 2 beta (z_j - m)) / 2, with z_a - m = (-1, 1/2, 1/2)
    out = run(A, B, method="rvpo_explicit", beta=0.5)
    check(out.aggregated, [-1 / 2, -5 / 8, 3 / 8])
    check(out.responsibilities, [[1, 0], [1 / 4, 3 / 4], [1 / 4, 3 / 4]])
    check(out.advantages, [-2 / sqrt(19), -3 / sqrt(19), 5 / sqrt(19)])
    check(run(A, B, method="rvpo_explicit").aggregated, [-1 / 2, -5 / 8, 3 / 8])  # 1/2 is the default beta


def test_hard_min():
    # A = (-1, -1, 0); mean -2/3, deviations (-1, -1, 2) / 3, variance 6/9 / 2 = 1/3, std 1/sqrt(3)
    out = run(A, B, method="hard_min")
    check(out.aggregated, [-1, -1, 0])
    check(out.responsibilities, [[1, 0], [0, 1], [0, 1]])
    check(out.advantages, [-1 / sqrt(3), -1 / sqrt(3), 2 / sqrt(3)])


def test_hard_min_ties_share_by_weight():
    out = run(A, A, method="hard_min", weights=[3.0, 1.0])
    check(out.responsibilities, [[3 / 4, 1 / 4]] * 3)


def test_grpo():
    # a + b = (2, 1, 3): mean 2, std 1
    out = run(A, B, method="grpo")
    check(out.aggregated, [2, 1, 3])
    check(out.responsibilities, [[1 / 2, 1 / 2]] * 3)
    check(out.advantages, [0, -1, 1])


def test_grpo_follows_the_largest_scale():
    # 10 a + b = (2, 10, 21): mean 11, deviations (-9, -1, 10), variance 182 / 2 = 91. In units of z the channels
    # count by their standard deviations, 10 and 1.
    out = run([0.0, 10.0, 20.0], B, method="grpo")
    check(out.aggregated, [2, 10, 21])
    check(out.responsibilities, [[10 / 11, 1 / 11]] * 3)
    check(out.advantages, [-9 / sqrt(91), -1 / sqrt(91), 10 / sqrt(91)])


# --- ddof and eps ------------------------------------------------------------------------------------------------


def test_ddof_0():
    # variance 2/3, so z = sqrt(3/2) times the deviations; gdpo A = sqrt(3/2) (0, -1/2, 1/2) has
    # variance 3/2 * 1/2 / 3 = 1/4 and std 1/2
    out = run(A, B, method="gdpo", ddof=0)
    check(out.z, [[-sqrt(1.5), sqrt(1.5)], [0, -sqrt(1.5)], [sqrt(1.5), 0]])
    check(out.advantages, [0, -sqrt(1.5), sqrt(1.5)])


def test_eps_is_added_to_each_std():
    # eps = 1: z = deviation / (1 + 1), A = (0, -1/4, 1/4) with std 1/4. The peers whiten the *sum* of two channels,
    # (0, -1/2, 1/2) with std 1/2 -> 1/2 / (1/2 + 1) = 1/3; for our mean that is eps / W = 1/2: 1/4 / (1/4 + 1/2).
    out = run(A, B, method="gdpo", eps=1.0)
    check(out.z, [[-1 / 2, 1 / 2], [0, -1 / 2], [1 / 2, 0]])
    check(out.aggregated, [0, -1 / 4, 1 / 4])
    check(out.advantages, [0, -1 / 3, 1 / 3])


def test_eps_counts_the_weight_of_the_scored_channels():
    # Weights (3, 5), b never scored: W = 3, A = z_a = (-1/2, 0, 1/2) with std 1/2 -> 1/2 / (1/2 + 1/3) = 3/5
    out = run(A, [NAN] * 3, method="gdpo", eps=1.0, weights=[3.0, 5.0])
    check(out.advantages, [-3 / 5, 0, 3 / 5])


def test_eps_of_grpo_is_not_scaled():
    # a + b has std 1: (0, -1, 1) / (1 + 1)
    check(run(A, B, method="grpo", eps=1.0).advantages, [0, -1 / 2, 1 / 2])


def test_defaults_are_eps_1e_4_and_ddof_1():
    out = rvpo.advantages(torch.tensor([A, B], dtype=torch.float64).T, num_generations=3)
    check(out.z[:, 0], [-1 / 1.0001, 0, 1 / 1.0001])


# --- weights -----------------------------------------------------------------------------------------------------


def test_weights_enter_every_method():
    # Shares (3/4, 1/4).
    weights = [3.0, 1.0]
    # gdpo: -3/4 + 1/4, -1/4, 3/4
    check(run(A, B, method="gdpo", weights=weights).aggregated, [-1 / 2, -1 / 4, 3 / 4])
    # rvpo at k = ln 2: 3/4 (2, 1, 1/2) + 1/4 (1/2, 2, 1) = 13/8, 5/4, 5/8
    out = run(A, B, method="rvpo", k=LN2, weights=weights)
    check(out.aggregated, [log2(8 / 13), log2(4 / 5), log2(8 / 5)])
    check(out.responsibilities, [[12 / 13, 1 / 13], [3 / 5, 2 / 5], [3 / 5, 2 / 5]])
    # explicit: m = (-1/2, -1/4, 3/4); v = 3/4 * 1/4 * (z_a - z_b)^2 = 3/16 (4, 1, 1); A = m - v / 2
    check(
        run(A, B, method="rvpo_explicit", weights=weights).aggregated,
        [-1 / 2 - 3 / 8, -1 / 4 - 3 / 32, 3 / 4 - 3 / 32],
    )
    # hard-min is blind to positive weights
    check(run(A, B, method="hard_min", weights=weights).aggregated, [-1, -1, 0])
    # grpo: 3 a + b = (2, 3, 7)
    check(run(A, B, method="grpo", weights=weights).aggregated, [2, 3, 7])


def test_weights_of_each_row():
    # Row 0 all on a, row 1 equal, row 2 all on b
    out = run(A, B, method="gdpo", weights=torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 5.0]]))
    check(out.aggregated, [-1, -1 / 2, 0])
    check(out.responsibilities, [[1, 0], [1 / 2, 1 / 2], [0, 1]])


def test_weight_0_is_monitored_but_takes_no_part():
    out = run(A, B, method="hard_min", weights=[1.0, 0.0])
    check(out.aggregated, [-1, 0, 1])
    check(out.z[:, 1], [1, -1, 0])
    assert out.live.all()


# --- dead channels -----------------------------------------------------------------------------------------------

DEAD = [5.0, 5.0, 5.0]


def test_dead_channel_dropped_by_default_of_rvpo():
    # Only a is left: A = z_a, at any k
    for method in ("rvpo", "rvpo_explicit", "hard_min"):
        out = run(A, DEAD, method=method)
        check(out.aggregated, [-1, 0, 1])
        check(out.responsibilities, [[1, 0]] * 3)
        check(out.advantages, [-1, 0, 1])
        assert out.live.tolist() == [[True, False]] * 3
        check(out.z[:, 1], [0, 0, 0])


def test_dead_channel_kept():
    # z_b = 0 takes part. k = ln 2: (2 + 1)/2, (1 + 1)/2, (1/2 + 1)/2
    out = run(A, DEAD, method="rvpo", k=LN2, dead_channels="keep")
    check(out.aggregated, [log2(2 / 3), 0, log2(4 / 3)])
    check(out.responsibilities, [[2 / 3, 1 / 3], [1 / 2, 1 / 2], [1 / 3, 2 / 3]])
    check(run(A, DEAD, method="hard_min", dead_channels="keep").aggregated, [-1, 0, 0])
    # gdpo keeps by default: half of z_a
    check(run(A, DEAD, method="gdpo").aggregated, [-1 / 2, 0, 1 / 2])
    check(run(A, DEAD, method="gdpo", dead_channels="drop").aggregated, [-1, 0, 1])


@pytest.mark.parametrize(
    ("noisy", "live"),
    [
        ([0.1, 0.1 + 1e-9, 0.1 - 1e-9], False),  # range 2e-9 <= rtol 1e-6 * 0.1
        ([0.0, 1e-11, 0.0], False),  # around 0 eps = 1e-4 is the magnitude: 1e-11 <= 1e-6 * 1e-4
        ([0.0, 1e-3, 0.0], True),
        ([1e6, 1e6 + 2, 1e6], True),  # 2 > 1e-6 * 1e6
        ([1e6, 1e6 + 0.5, 1e6], False),
    ],
)
def test_zero_variance_is_judged_by_a_relative_tolerance(noisy: list[float], live: bool):
    out = run(A, noisy, eps=1e-4)
    assert out.live[:, 1].tolist() == [live] * 3
    assert (out.z[:, 1] == 0).all() != live


def test_rtol_0_takes_every_difference_for_a_signal():
    assert run(A, [0.1, 0.1 + 1e-9, 0.1], rtol=0.0).live.all()


# --- missing rewards ---------------------------------------------------------------------------------------------


def test_missing_is_left_out():
    # b is scored on rows 1 and 2 only: (0, 2) has mean 1 and std sqrt(2), z_b = (., -1, 1) / sqrt(2)
    out = run(A, [NAN, 0.0, 2.0], method="gdpo")
    h = 1 / sqrt(2)
    check(out.z, [[-1, NAN], [0, -h], [1, h]])
    check(out.aggregated, [-1, -h / 2, (1 + h) / 2])
    check(out.responsibilities, [[1, 0], [1 / 2, 1 / 2], [1 / 2, 1 / 2]])
    assert out.missing.tolist() == [[False, True], [False, False], [False, False]]
    assert out.live.tolist() == [[True, False], [True, True], [True, True]]
    check(run(A, [NAN, 0.0, 2.0], method="hard_min").aggregated, [-1, -h, h])


def test_missing_in_grpo_adds_nothing_as_in_trl():
    # Sums of what was scored: 0, 1 + 0, 2 + 2. (0, 1, 4): mean 5/3, deviations (-5, -2, 7) / 3, variance 78/9 / 2
    out = run([0.0, 1.0, 2.0], [NAN, 0.0, 2.0], method="grpo")
    check(out.aggregated, [0, 1, 4])
    check(out.advantages, [-5 / sqrt(39), -2 / sqrt(39), 7 / sqrt(39)])
    # Around a higher level the row without the reward falls behind: sums 0, 10, 12, mean 22/3.
    out = run([0.0, 1.0, 2.0], [NAN, 9.0, 10.0], method="grpo:whiten=none")
    check(out.advantages, [-22 / 3, 8 / 3, 14 / 3])


def test_missing_in_grpo_can_be_left_out():
    # Both scored channels have mean 1. Row 0: the deviation of a, -1, stands in for b's: 2 + (2/1) * (-1) = 0.
    # The others are plain sums: 1 + 0, 2 + 2. (0, 1, 4): mean 5/3, deviations (-5, -2, 7) / 3, variance 78/9 / 2
    out = run(A, [NAN, 0.0, 2.0], method="grpo:unscored=left_out")
    check(out.aggregated, [0, 1, 4])
    check(out.advantages, [-5 / sqrt(39), -2 / sqrt(39), 7 / sqrt(39)])


def test_grpo_over_the_deviation_of_the_batch_and_over_nothing():
    # Two groups, (0, 2) and (4, 4): deviations from the groups' means (-1, 1, 0, 0). All four: mean 5/2, variance 11/3.
    rewards, groups = torch.tensor([[0.0], [2.0], [4.0], [4.0]], dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    options = {"groups": groups, "eps": 0.0}
    check(rvpo.advantages(rewards, method="grpo:whiten=none", **options).advantages, [-1, 1, 0, 0])
    h = sqrt(3 / 11)
    check(rvpo.advantages(rewards, method="grpo:whiten=batch", **options).advantages, [-h, h, 0, 0])


def test_a_channel_scored_once_in_its_group_is_dead():
    out = run(A, [NAN, 7.0, NAN])
    assert out.live.tolist() == [[True, False]] * 3
    check(out.z, [[-1, NAN], [0, 0], [1, NAN]])
    check(out.aggregated, [-1, 0, 1])


@pytest.mark.parametrize("method", ["rvpo", "rvpo_explicit", "hard_min", "gdpo", "grpo"])
def test_a_row_without_any_reward_gets_0_and_is_not_counted(method: str):
    # A fourth row, unscored: the group's statistics and the whitening are those of the first three
    out, without = run([*A, NAN], [*B, NAN], method=method), run(A, B, method=method)
    check(out.aggregated, [*without.aggregated.tolist(), 0])
    check(out.advantages, [*without.advantages.tolist(), 0])
    assert out.signal.tolist() == [True, True, True, False]


# --- rows without signal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rvpo", "rvpo_explicit", "hard_min"])
def test_group_of_size_1_has_no_signal(method: str):
    out, without = run([*A, 9.0], [*B, 9.0], groups=[0, 0, 0, 1], method=method), run(A, B, method=method)
    check(out.advantages, [*without.advantages.tolist(), 0])
    check(out.z[3], [0, 0])
    assert out.signal.tolist() == [True, True, True, False]


def test_kept_rows_without_signal_are_counted_in_whitening():
    # gdpo as published: A = (0, -1/2, 1/2, 0), mean 0, variance 1/2 / 3 = 1/6
    out = run([*A, 9.0], [*B, 9.0], groups=[0, 0, 0, 1], method="gdpo")
    check(out.advantages, [0, -sqrt(6) / 2, sqrt(6) / 2, 0])
    # dropped: as if the row were not there
    out = run([*A, 9.0], [*B, 9.0], groups=[0, 0, 0, 1], method="gdpo", dead_channels="drop")
    check(out.advantages, [0, -1, 1, 0])


@pytest.mark.parametrize("method", ["rvpo", "rvpo_explicit", "hard_min", "gdpo", "grpo"])
def test_all_dead_gives_0(method: str):
    out = run(DEAD, [0.0, 0.0, 0.0], method=method)
    check(out.advantages, [0, 0, 0])
    check(out.z, [[0, 0]] * 3)
    assert not out.signal.any()
    assert not out.live.any()


@pytest.mark.parametrize("method", ["rvpo", "rvpo_explicit", "hard_min", "gdpo", "grpo"])
def test_all_missing_gives_0(method: str):
    out = run([NAN] * 3, [NAN] * 3, method=method)
    check(out.advantages, [0, 0, 0])
    check(out.aggregated, [0, 0, 0])
    check(out.responsibilities, [[0, 0]] * 3)
    assert out.z.isnan().all()
    assert out.missing.all()


# --- whitening ---------------------------------------------------------------------------------------------------


def test_whiten_none_group_and_batch():
    # Group 0 is the example; in group 1 b is dead, so gdpo gives A = (0, -1/2, 1/2 | -1/2, 0, 1/2).
    a, b, groups = A + A, B + DEAD, [0, 0, 0, 1, 1, 1]
    aggregated = [0, -1 / 2, 1 / 2, -1 / 2, 0, 1 / 2]
    check(run(a, b, groups, method="gdpo", whiten="none").advantages, aggregated)
    # group: each half has mean 0 and std 1/2
    check(run(a, b, groups, method="gdpo", whiten="group").advantages, [0, -1, 1, -1, 0, 1])
    # batch: mean 0, variance 4 * 1/4 / (6 - 1) = 1/5
    check(run(a, b, groups, method="gdpo", whiten="batch").advantages, [sqrt(5) * v for v in aggregated])
    check(run(a, b, groups, method="gdpo").advantages, [sqrt(5) * v for v in aggregated])  # the default


def test_a_constant_aggregate_whitens_to_0():
    # z_b = -z_a: the mean is 0 on every row
    check(run(A, [2.0, 1.0, 0.0], method="gdpo", eps=1e-4).advantages, [0, 0, 0])


def test_group_ids_come_in_any_order_and_are_not_indices():
    out = run([0.0, 10.0, 1.0, 20.0, 2.0], [2.0, 0.0, 0.0, 10.0, 1.0], [7, -3, 7, -3, 7], method="gdpo", whiten="none")
    # group 7 is the example; in group -3 two rows have z = -+1/sqrt(2) on both channels
    check(out.advantages, [0, -1 / sqrt(2), -1 / 2, 1 / sqrt(2), 1 / 2])


# --- the result --------------------------------------------------------------------------------------------------


def test_result_fields_are_the_contract():
    fields = [field.name for field in dataclasses.fields(rvpo.Advantages)]
    assert fields == [
        "advantages", "aggregated", "z", "responsibilities", "live", "missing", "applies", "signal", "takes_part",
        "rewards", "groups", "state", "method_metrics",
    ]  # fmt: skip
    out = run(A, B)
    for name in fields[:-3]:
        value = getattr(out, name)
        assert value.shape[0] == 3, name
        boolean = name in ("live", "missing", "applies", "signal", "takes_part")
        assert value.dtype == (torch.bool if boolean else torch.float64), name
    assert out.groups.index.tolist() == [0, 0, 0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.z = None


def test_signature_is_the_contract():
    parameters = inspect.signature(rvpo.advantages).parameters
    assert list(parameters) == [
        "rewards", "groups", "method", "weights", "num_generations", "applies", "ranges", "progress", "tokens", "state",
        "eps", "ddof", "rtol", "missing", "options",
    ]  # fmt: skip
    assert parameters["method"].default == "rvpo"


def test_ranges_put_channels_on_one_scale():
    """With -3 to 3 declared, the correctness of 0 is half met, behind the format, and so counts more."""
    rewards = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.5, 0.0], [-0.5, 1.0]])
    out = rvpo.advantages(rewards, num_generations=4, method="lift", ranges=[(-3, 3), None], margin=-1.0, state={})
    # Attained are 1/2 and 3/4. Four completions cannot know a correlation of -0.365, so nothing counts as opposed, and
    # lambda is exp(-4 a), here scaled to the mean 1.
    assert out.method_metrics["lift/frontier"] == pytest.approx(1, abs=1e-3)
    behind = 2 / (1 + math.exp(-4 / math.sqrt(out.method_metrics["lift/frontier"]) / 4))
    assert out.method_metrics["0/weight"] == pytest.approx(behind)
    assert out.method_metrics["1/weight"] == pytest.approx(2 - behind)
    assert out.method_metrics["0/attained"] == 0.5
    assert out.method_metrics["1/attained"] == 0.75
    with pytest.raises(ConfigError, match=r"the range of 0 is \(3, -3\); expected a pair"):
        rvpo.advantages(rewards, num_generations=4, method="lift", ranges=[(3, -3), None], state={})


def test_rewards_are_not_changed():
    rewards = torch.tensor([[0.0, NAN], [1.0, 0.0], [2.0, 1.0]])
    before = rewards.clone()
    rvpo.advantages(rewards, num_generations=3)
    torch.testing.assert_close(rewards, before, equal_nan=True, atol=0, rtol=0)


# --- metrics -----------------------------------------------------------------------------------------------------


def two_groups(**options) -> rvpo.Advantages:
    """Group 0 is the example. In group 1 a = (NaN, 1, 1) and b = (0, 0, 0): both dead, no signal."""
    return run([*A, NAN, 1.0, 1.0], [*B, 0.0, 0.0, 0.0], [0, 0, 0, 1, 1, 1], **options)


def test_metric_keys_are_the_contract():
    metrics = two_groups().metrics(["a", "b"])
    kinds = ["mean", "std", "live", "dead", "missing", "responsibility", "bottleneck", "advantage_corr"]
    assert list(CHANNEL_METRICS) == kinds
    expected = [f"{name}/{kind}" for name in "ab" for kind in kinds]
    assert list(metrics) == [*expected, "no_signal/groups", "no_signal/completions", "advantage_std", "aggregated_std"]
    assert all(type(value) is float for value in metrics.values())
    assert list(two_groups().metrics())[:2] == ["0/mean", "0/std"]


def test_metrics():
    metrics = two_groups(method="hard_min").metrics(["a", "b"])
    expected = {
        # a is scored (0, 1, 2, 1, 1): mean 1, variance (1 + 1) / 4
        "a/mean": 1,
        "a/std": sqrt(1 / 2),
        "a/live": 3 / 6,
        "a/dead": 2 / 6,
        "a/missing": 1 / 6,
        # b is (2, 0, 1, 0, 0, 0): mean 1/2, variance (5 - 6/4) / 5 = 7/10
        "b/mean": 1 / 2,
        "b/std": sqrt(7 / 10),
        "b/live": 3 / 6,
        "b/dead": 3 / 6,
        "b/missing": 0,
        # On the three rows with signal the lowest is a, b, b; hard-min gives it all the responsibility
        "a/responsibility": 1 / 3,
        "b/responsibility": 2 / 3,
        "a/bottleneck": 1 / 3,
        "b/bottleneck": 2 / 3,
        # A = (-1, -1, 0) has deviations (-1, -1, 2) / 3 and square sum 2/3. With z_a = (-1, 0, 1): 1 / sqrt(2/3 * 2);
        # with z_b = (1, -1, 0): 0
        "a/advantage_corr": sqrt(3) / 2,
        "b/advantage_corr": 0,
        "no_signal/groups": 1 / 2,
        "no_signal/completions": 3,
        # Three completions take part: A has the variance (2/3) / 2 among them. Whitened they have the square sum 2, and
        # the three without signal are 0: a variance of 2/5 over all six.
        "aggregated_std": sqrt(1 / 3),
        "advantage_std": sqrt(2 / 5),
    }
    assert metrics == pytest.approx(expected, abs=1e-12)


def test_metrics_of_a_soft_minimum():
    # Responsibilities at k = ln 2 are (4/5, 1/3, 1/3) for a, see test_rvpo. The bottleneck is still a, b, b.
    metrics = two_groups(method="rvpo", k=LN2).metrics(["a", "b"])
    assert metrics["a/responsibility"] == pytest.approx(22 / 45)
    assert metrics["b/responsibility"] == pytest.approx(23 / 45)
    assert metrics["a/bottleneck"] == pytest.approx(1 / 3)
    # gdpo: A = (0, -1/2, 1/2) against z_a: 1/2 / sqrt(1/2 * 2)
    assert two_groups(method="gdpo").metrics(["a", "b"])["a/advantage_corr"] == pytest.approx(1 / 2)


def test_metrics_share_ties():
    metrics = run(A, A).metrics()
    assert metrics["0/bottleneck"] == metrics["1/bottleneck"] == pytest.approx(1 / 2)


def test_undefined_metrics_are_nan():
    metrics = run([NAN] * 3, DEAD).metrics(["a", "b"])
    assert math.isnan(metrics["a/mean"])
    assert math.isnan(metrics["a/std"])
    assert math.isnan(metrics["b/responsibility"])
    assert math.isnan(metrics["b/advantage_corr"])
    assert metrics["b/mean"] == 5
    assert metrics["a/missing"] == 1
    assert metrics["no_signal/groups"] == 1


def test_metrics_want_one_name_a_channel():
    with pytest.raises(RewardError, match=r"1 channel names for 2 channels: pass one name per channel"):
        run(A, B).metrics(["a"])


# --- errors ------------------------------------------------------------------------------------------------------

R = torch.zeros(6, 2)


@pytest.mark.parametrize(
    ("rewards", "options", "message"),
    [
        (torch.zeros(6), {}, r"rewards is a torch.float32 tensor of shape \(6,\); expected .* shape \(N, M\)"),
        (
            torch.zeros(6, 2).long(),
            {},
            r"rewards is a torch.int64 tensor of shape \(6, 2\); expected .* floating point",
        ),
        ([[1.0, 2.0]], {}, r"rewards is a list; expected a floating point tensor"),
        ([[1.0, 2.0]], {}, r"Pass torch\.tensor\(.*or use rvpo\.Aggregator"),
        (torch.ones(2, 2, dtype=torch.int64), {}, r"Convert whole numbers with rewards\.double\(\)"),
        (torch.zeros(0, 2), {}, r"rewards is a torch.float32 tensor of shape \(0, 2\); expected .* missing$"),
        (torch.zeros(6, 0), {}, r"rewards is a torch.float32 tensor of shape \(6, 0\); expected"),
        (torch.tensor([[0.0, 1.0], [math.inf, 0.0]]), {"num_generations": 2}, r"rewards\[1, 0\] is inf; expected"),
        (torch.tensor([[0.0, NAN]]), {"num_generations": 1, "missing": "error"}, r"rewards\[0, 1\] is nan.*\"error\""),
        (R, {"num_generations": None}, r"neither of groups and num_generations given: pass exactly one"),
        (R, {"groups": torch.zeros(6).long()}, r"both of groups and num_generations given: pass exactly one"),
        (R, {"num_generations": 4}, r"num_generations is 4, but 6 rows cannot be cut"),
        (R, {"num_generations": 0}, r"num_generations is 0, but 6 rows"),
        (R, {"num_generations": None, "groups": torch.zeros(5).long()}, r"groups has shape \(5,\), but .* 6 rows"),
        (R, {"num_generations": None, "groups": torch.zeros(6)}, r"groups has dtype torch.float32, but .* integers"),
        (R, {"weights": [1.0, 1.0, 1.0]}, r"weights has shape \(3,\); expected \(2,\) or \(6, 2\)"),
        (R, {"weights": [1.0, -1.0]}, r"weights is \[1.0, -1.0\]; .*>= 0.*negate it in its reward function"),
        (R, {"weights": [0.0, 0.0]}, r"weights is \[0.0, 0.0\]; .*at least one above 0"),
        (R, {"weights": [1.0, NAN]}, r"weights is \[1.0, nan\]"),
    ],
)
def test_reward_errors(rewards: Tensor, options: dict, message: str):
    with pytest.raises(RewardError, match=message) as caught:
        rvpo.advantages(rewards, **({"num_generations": 3} | options))
    assert isinstance(caught.value, (RVPOError, ValueError))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "rpvo"},
            r"method is 'rpvo' \(did you mean 'rvpo'\?\); expected one of rvpo, rvpo_explicit, hard_min",
        ),
        (
            {"dead_channel": "drop"},
            r"has no option 'dead_channel' \(did you mean 'dead_channels'\?\); expected one of k",
        ),
        ({"zzz": 1}, r"zzz is 1, but method 'rvpo' has no option 'zzz'; expected one of k"),
        ({"dead_channels": "ignore"}, r"dead_channels is 'ignore'; expected one of None, 'drop', 'keep'"),
        ({"missing": "zero"}, r"missing is 'zero'; expected one of 'drop', 'error'"),
        ({"whiten": True}, r"whiten is True; expected one of None, 'batch', 'group', 'token', 'none'"),
        ({"ddof": 2}, r"ddof is 2; expected one of 0, 1"),
        ({"ddof": True}, r"ddof is True"),
        ({"k": -1}, r"k is -1; expected a number in \[0, inf\]"),
        ({"k": NAN}, r"k is nan"),
        ({"k": "2"}, r"k is '2'"),
        ({"eps": -1e-4}, r"eps is -0.0001; expected a number in \[0, inf\)"),
        ({"rtol": 1.0}, r"rtol is 1.0; expected a number in \[0, 1\)"),
        ({"method": "rvpo_explicit", "beta": math.inf}, r"beta is inf"),
        ({"method": "gdpo", "k": 7}, r"k is 7, but method 'gdpo' has no option 'k'. Use method rvpo for it"),
        ({"method": "rvpo", "beta": 1.0}, r"beta is 1.0, but method 'rvpo' has no option 'beta'.*rvpo_explicit"),
        ({"method": "grpo", "whiten": "token"}, r"'grpo' with whiten='token' .* is not GRPO"),
        ({"method": "grpo", "dead_channels": "drop"}, r"'grpo' with .*dead_channels='drop' is not GRPO"),
    ],
)
def test_config_errors(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        rvpo.advantages(R, num_generations=3, **options)


def test_config_errors_reach_the_caller_of_advantages():
    with pytest.raises(ConfigError, match="did you mean 'whiten'"):
        rvpo.advantages(R, num_generations=3, whitten="none")


@pytest.mark.parametrize("method", ["lift", "ctwa", "lagrangian:thresholds={0:0.5}", "riskpo", "rvpo:k=adaptive"])
def test_a_method_that_remembers_wants_its_state(method: str):
    with pytest.raises(ConfigError, match=r"remembers the run.*rvpo\.Aggregator\('.*', names\).*state=\{\}"):
        rvpo.advantages(R, num_generations=3, method=method)
    first = rvpo.advantages(R, num_generations=3, method=method, state={})
    assert rvpo.advantages(R, num_generations=3, method=method, state=first.state).advantages.shape == (6,)


def test_a_schedule_wants_progress():
    with pytest.raises(ConfigError, match=r"progress is None, but k follows the schedule linear\(0.5,2\)"):
        rvpo.advantages(R, num_generations=3, method="rvpo:k=linear(0.5,2)")
    annealed = run(A, B, method="rvpo:k=linear(0.5,2)", progress=0.5)
    assert annealed.aggregated.tolist() == run(A, B, method="rvpo:k=1.25").aggregated.tolist()
    assert annealed.method_metrics == {"k": 1.25}


def test_whitening_by_token_wants_tokens():
    with pytest.raises(ConfigError, match="whiten is 'token', but tokens is None"):
        rvpo.advantages(R, num_generations=3, method="gdpo:whiten=token")


# --- configs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "whiten", "dead_channels"),
    [
        ("rvpo", {"k": 1.0}, "batch", "drop"),
        ("rvpo_explicit", {"beta": 0.5}, "batch", "drop"),
        ("hard_min", {}, "batch", "drop"),
        ("gdpo", {"unscored": "left_out"}, "batch", "keep"),
        ("grpo", {"unscored": "zero"}, "group", "keep"),
        ("lift", {"kappa": 4.0, "floors": {}, "margin": 0.5, "memory": 640.0}, "batch", "keep"),
        ("lift_z", {"kappa": 6.0, "margin": 0.2, "horizon": 5.0}, "batch", "keep"),
        ("tchebycheff", {"rho": 0.05}, "group", "keep"),
        ("smooth_tchebycheff", {"mu": 0.1}, "group", "keep"),
        ("riskpo", None, "none", "keep"),
        ("riskpo:score=hard_min", None, "none", "drop"),
        ("ctwa", {"target": 0.1, "cap": 0.95, "rate": 0.05, "decay": 0.1}, "batch", "keep"),
    ],
)
def test_config_defaults_are_the_contract(method: str, options, whiten: str, dead_channels: str):
    config = AdvantageConfig(method)  # type: ignore[arg-type]
    assert (config.whiten, config.dead_channels) == (whiten, dead_channels)
    values = config.to_mapping()
    if options is not None:
        assert values.pop("method") == {"name": method, **options}
        assert values == {"eps": 1e-4, "ddof": 1, "rtol": 1e-6, "missing": "drop"}


def test_the_default_method_is_the_papers():
    assert AdvantageConfig().method == build_method("rvpo")
    assert set(METHODS) >= {"rvpo", "lift"}


def test_configs_are_frozen_and_rebuild_from_their_own_mapping():
    config = AdvantageConfig(rvpo.RVPO(2.0, whiten="group"), ddof=0)
    assert AdvantageConfig.from_mapping(config.to_mapping()) == config == AdvantageConfig.of_record(config.to_mapping())
    assert str(config) == "rvpo:k=2,whiten=group"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ddof = 1  # type: ignore[misc]
    with pytest.raises(ConfigError, match="is not a mapping"):
        AdvantageConfig.from_mapping(["rvpo"])  # type: ignore[arg-type]
