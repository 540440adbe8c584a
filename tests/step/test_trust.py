"""Trust: shrinkage on numbers worked by hand, the model behind it by simulation, and the estimate from pairs."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import Tensor

from rvpo.core.aggregate import mean, soft_min
from rvpo.core.groups import Groups
from rvpo.errors import ConfigError, RewardError
from rvpo.step.trust import Trust, flip_reliability, next_reliability, shrink

NAN = math.nan
EXACT = Trust(horizon=1, prior=0, floor=0)


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def check(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)


# --- shrinkage ---------------------------------------------------------------------------------------------------


def test_shrink_by_hand():
    # sqrt(1/4) = 1/2: z halves, and shares 1/2 : 1/2 become 1/2 : 1/4 = 2/3 : 1/3
    z, p = shrink(matrix([2.0, -3.0]), matrix([0.5, 0.5]), [1.0, 0.25])
    check(z, matrix([2.0, -1.5]))
    check(p, matrix([2 / 3, 1 / 3]))


def test_reliability_of_single_rows():
    z, p = shrink(matrix([2.0, 2.0], [2.0, 2.0]), matrix([0.5, 0.5], [0.5, 0.5]), matrix([1.0, 0.25], [0.25, 1.0]))
    check(z, matrix([2.0, 1.0], [1.0, 2.0]))
    check(p, matrix([2 / 3, 1 / 3], [1 / 3, 2 / 3]))


def test_full_trust_changes_no_bit():
    draw = torch.Generator().manual_seed(0)
    z, p = torch.randn(50, 7, generator=draw), torch.rand(50, 7, generator=draw).softmax(-1)
    for reliability in ([1.0] * 7, torch.ones(50, 7)):
        z_out, p_out = shrink(z, p, reliability)
        assert torch.equal(z_out, z)
        assert torch.equal(p_out, p)


@pytest.mark.parametrize("k", [0.0, 1.0, 5.0, math.inf])
def test_no_trust_is_the_dropped_channel(k: float):
    z, p = matrix([3.0, 2.0, -9.0], [-1.0, 0.5, 9.0]), matrix([1 / 3] * 3, [0.2, 0.3, 0.5])
    aggregated, responsibilities = soft_min(*shrink(z, p, [1.0, 1.0, 0.0]), k)
    expected, expected_responsibilities = soft_min(z[:, :2], p[:, :2] / p[:, :2].sum(-1, keepdim=True), k)
    check(aggregated, expected)
    check(responsibilities[:, :2], expected_responsibilities)
    check(responsibilities[:, 2], torch.zeros(2, dtype=torch.float64))


def test_shrinking_z_alone_would_leave_a_cap():
    # p = 1/2 each, k = 2: with Z' = 0 taking part, A <= -(1/2) ln(1/2) = 0.347 however large the other Z
    cap = math.log(2) / 2
    z, p = matrix([50.0, 1.0]), matrix([0.5, 0.5])
    alone, _ = soft_min(z * matrix([1.0, 0.0]), p, 2.0)
    assert alone.item() == pytest.approx(cap, abs=1e-9)
    ours, _ = soft_min(*shrink(z, p, [1.0, 1e-9]), 2.0)
    assert ours.item() > cap + 4  # the cap is -(1/2) ln p' with p' about 3e-5


def test_nobody_is_trusted():
    z, p = shrink(matrix([1.0, -1.0]), matrix([0.5, 0.5]), [0.0, 0.0])
    check(p, matrix([0.0, 0.0]))
    assert soft_min(z, p, 1.0)[0].item() == 0


def test_rows_without_shares_stay_so():
    _, p = shrink(matrix([1.0, 2.0]), matrix([0.0, 0.0]), [0.5, 0.5])
    check(p, matrix([0.0, 0.0]))


def test_shrunken_z_is_the_regression_of_the_true_z_on_the_observed():
    draw = torch.Generator().manual_seed(1)
    sd_true, sd_noise = 3.0, 2.0
    truth = sd_true * torch.randn(200_000, generator=draw, dtype=torch.float64)
    observed = truth + sd_noise * torch.randn(200_000, generator=draw, dtype=torch.float64)
    rho = sd_true**2 / (sd_true**2 + sd_noise**2)
    z, z_true = observed / observed.std(), truth / sd_true
    slope = (z * z_true).mean() / z.square().mean()
    expected = shrink(z[:, None], torch.ones_like(z)[:, None], [rho])[0][:, 0]
    assert (expected / z).mean().item() == pytest.approx(slope.item(), abs=0.01)
    assert slope.item() == pytest.approx(math.sqrt(9 / 13), abs=0.01)


def test_to_second_order_the_shrunken_z_give_the_best_guess_of_the_aggregate():
    # T_j = sqrt(rho_j) Z_j +- sqrt(1 - rho_j): two equal points have a normal's mean and variance, so the mean over
    # all sign patterns is exact for the quadratic part of the soft minimum. What is left is O(k^2).
    k, rho = 0.01, torch.tensor([1.0, 0.6, 0.2], dtype=torch.float64)
    z = torch.randn(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    p = torch.full_like(z, 1 / 3)
    signs = matrix(*([float(s) for s in pattern] for pattern in itertools.product((-1, 1), repeat=3)))
    best = torch.stack([soft_min(z * rho.sqrt() + s * (1 - rho).sqrt(), p, k)[0] for s in signs]).mean(0)
    guess, _ = soft_min(z * rho.sqrt(), p, k)
    gap = best - guess
    # The gap is -(k/2) sum_j p_j (1 - p_j) (1 - rho_j) for every completion, which whitening removes.
    expected = -k / 2 * sum(1 / 3 * 2 / 3 * (1 - r) for r in rho.tolist())
    assert gap.mean().item() == pytest.approx(expected, rel=0.05)
    assert gap.std().item() < 0.05 * abs(expected)


def test_shrinking_helps_against_noise():
    """The noise-free order of completions is closer with trust, for the mean and for the soft minimum."""
    draw = torch.Generator().manual_seed(3)
    truth = torch.randn(4000, 3, generator=draw, dtype=torch.float64)
    noise = torch.randn(4000, generator=draw, dtype=torch.float64)
    z = truth.clone()
    z[:, 0] = (truth[:, 0] + 2 * noise) / math.sqrt(5)
    p = torch.full_like(z, 1 / 3)
    for rule in (mean, lambda z, p: soft_min(z, p, 2.0)):
        clean = rule(truth, p)[0]
        without, with_trust = (
            torch.corrcoef(torch.stack((rule(*channels)[0], clean)))[0, 1]
            for channels in ((z, p), shrink(z, p, [0.2, 1.0, 1.0]))
        )
        assert with_trust > without + 0.01


# --- reliability from pairs --------------------------------------------------------------------------------------


def test_reliability_by_hand():
    # pairs (0, 1), (2, 2), (1, 0): squared differences 1 + 0 + 1, noise variance 2 / (2 * 3) = 1/3
    # rewards 0, 2 | 1, 5: squares about the group means 2 and 8, 1 + 1 degrees of freedom, variance 5
    first, second = matrix([0.0], [2.0], [1.0]), matrix([1.0], [2.0], [0.0])
    rewards, groups = matrix([0.0], [2.0], [1.0], [5.0]), Groups.from_blocks(4, 2, torch.device("cpu"))
    rho, state = next_reliability(first, second, rewards, groups, EXACT, None)
    check(rho, torch.tensor([1 - (1 / 3) / 5], dtype=torch.float64))
    assert state == {"noise": [1.0], "pairs": [3.0], "spread": [10.0], "dof": [2.0]}

    # Three pairs without noise in front: noise 1 / 6
    rho, _ = next_reliability(first, second, rewards, groups, Trust(horizon=1, prior=3, floor=0), None)
    check(rho, torch.tensor([1 - (1 / 6) / 5], dtype=torch.float64))


def test_the_past_decays():
    groups = Groups.from_blocks(2, 2, torch.device("cpu"))
    first, second, rewards = matrix([0.0]), matrix([2.0]), matrix([0.0], [4.0])
    trust = Trust(horizon=4, prior=0, floor=0)
    _, state = next_reliability(first, second, rewards, groups, trust, None)
    assert state == {"noise": [2.0], "pairs": [1.0], "spread": [8.0], "dof": [1.0]}
    # 3/4 of it stays; the new batch has no pairs, and squares of 1/2 + 1/2
    rho, state = next_reliability(first[:0], second[:0], matrix([0.0], [math.sqrt(2)]), groups, trust, state)
    assert state == {"noise": [1.5], "pairs": [0.75], "spread": [pytest.approx(7.0)], "dof": [1.75]}
    check(rho, torch.tensor([1 - 2 / 4], dtype=torch.float64))


def test_without_evidence_channels_are_trusted():
    groups = Groups.from_blocks(2, 2, torch.device("cpu"))
    rewards = matrix([0.0, 1.0], [1.0, 1.0])
    none = torch.empty(0, 2, dtype=torch.float64)
    for trust in (Trust(), EXACT):
        rho, _ = next_reliability(none, none, rewards, groups, trust, None)
        check(rho, torch.ones(2, dtype=torch.float64))


def test_missing_judgements_are_no_evidence():
    groups = Groups.from_blocks(4, 4, torch.device("cpu"))
    rewards = matrix([0.0, 1.0], [2.0, NAN], [NAN, NAN], [4.0, NAN])
    first, second = matrix([0.0, 1.0], [NAN, 1.0]), matrix([1.0, NAN], [2.0, NAN])
    rho, state = next_reliability(first, second, rewards, groups, EXACT, None)
    assert state == {"noise": [0.5, 0.0], "pairs": [1.0, 0.0], "spread": [8.0, 0.0], "dof": [2.0, 0.0]}
    check(rho, torch.tensor([1 - 0.5 / 4, 1.0], dtype=torch.float64))


def test_more_noise_than_spread_is_the_floor():
    groups = Groups.from_blocks(2, 2, torch.device("cpu"))
    rho, _ = next_reliability(matrix([0.0]), matrix([9.0]), matrix([0.0], [1.0]), groups, Trust(1, 0, 0.1), None)
    check(rho, torch.tensor([0.1], dtype=torch.float64))


@pytest.mark.parametrize(("rate", "flip"), [(0.8, 0.1), (0.5, 0.3), (0.95, 0.05)])
def test_flipped_verdicts(rate: float, flip: float):
    """The closed form is what pairs find, and the squared correlation of verdict and truth."""
    prompts, g = 20_000, 8
    draw = torch.Generator().manual_seed(4)
    truth = (torch.rand(prompts * g, 1, generator=draw, dtype=torch.float64) < rate).double()
    first, second = ((truth - (torch.rand(truth.shape, generator=draw) < flip).double()).abs() for _ in range(2))
    groups = Groups.from_blocks(prompts * g, g, truth.device)
    rho, _ = next_reliability(first, second, first, groups, EXACT, None)
    expected = flip_reliability(rate, flip)
    assert rho.item() == pytest.approx(expected, abs=0.02)
    correlation = torch.corrcoef(torch.cat((first, truth), 1).T)[0, 1].item()
    assert correlation**2 == pytest.approx(expected, abs=0.02)


def test_flip_reliability_at_its_ends():
    assert flip_reliability(0.7, 0.0) == pytest.approx(1)
    assert flip_reliability(0.7, 0.5) == 0
    assert flip_reliability(1.0, 0.1) == 0  # all spread is noise
    assert flip_reliability(1.0, 0.0) == 1  # no spread, no noise
    # By hand: q = 1/2, e = 1/4: (1/2)^2 (1/4) / (1/4) = 1/4
    assert flip_reliability(0.5, 0.25) == pytest.approx(1 / 4)


def test_an_error_that_repeats_is_not_seen():
    """A limit of the method: a judge that answers the same both times looks reliable, however wrong."""
    groups = Groups.from_blocks(4, 4, torch.device("cpu"))
    wrong = matrix([1.0], [0.0], [0.0], [1.0])
    rho, _ = next_reliability(wrong, wrong, wrong, groups, EXACT, None)
    assert rho.item() == 1


def test_the_prior_keeps_a_few_pairs_from_swinging_it():
    groups = Groups.from_blocks(4, 4, torch.device("cpu"))
    rewards = matrix([0.0], [1.0], [1.0], [0.0])  # variance 1/3
    rho, _ = next_reliability(matrix([0.0]), matrix([1.0]), rewards, groups, Trust(), None)
    # one pair that disagrees against twenty that would not: 1 - (1/2 / 21) / (1/3)
    assert rho.item() == pytest.approx(1 - 3 / 42)


def test_resuming_from_json_changes_nothing():
    draw = torch.Generator().manual_seed(5)
    groups = Groups.from_blocks(12, 4, torch.device("cpu"))
    straight, resumed = None, None
    for _ in range(5):
        first, second = torch.randn(2, 3, 2, generator=draw, dtype=torch.float64)
        rewards = torch.randn(12, 2, generator=draw, dtype=torch.float64)
        rho, straight = next_reliability(first, second, rewards, groups, Trust(), straight)
        again, resumed = next_reliability(first, second, rewards, groups, Trust(), json.loads(json.dumps(resumed)))
        assert torch.equal(rho, again)
    assert straight == resumed


# --- refusals ----------------------------------------------------------------------------------------------------


def test_shrink_refuses():
    z, p = matrix([1.0, 2.0]), matrix([0.5, 0.5])
    with pytest.raises(RewardError, match=r"shapes \(1, 2\), \(1, 2\) and \(3,\); expected"):
        shrink(z, p, [1.0, 1.0, 1.0])
    for bad in (-0.1, 1.1, NAN):
        with pytest.raises(RewardError, match=rf"reliability has the value {bad:.1f}.*expected numbers in \[0, 1\]"):
            shrink(z, p, torch.tensor([1.0, bad], dtype=torch.float64))


def test_pairs_are_checked():
    groups = Groups.from_blocks(2, 2, torch.device("cpu"))
    rewards, one = matrix([0.0, 1.0], [1.0, 0.0]), matrix([0.0, 1.0])
    with pytest.raises(RewardError, match=r"shapes \(1, 2\), \(2, 2\) and \(2, 2\)"):
        next_reliability(one, rewards, rewards, groups, EXACT, None)
    with pytest.raises(RewardError, match="infinite"):
        next_reliability(one / 0, one, rewards, groups, EXACT, None)
    with pytest.raises(ConfigError, match="trust state has the lists"):
        next_reliability(one, one, rewards, groups, EXACT, {"noise": [0.0], "pairs": [0.0]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0.5}, "trust horizon is 0.5; expected a number of steps >= 1"),
        ({"prior": -1.0}, "trust prior is -1.0"),
        ({"floor": 1.0}, r"trust floor is 1.0; expected a number in \[0, 1\)"),
        ({"floor": "low"}, "trust floor is 'low'"),
    ],
)
def test_config_refuses(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Trust(**options)


@pytest.mark.parametrize(("rate", "flip"), [(-0.1, 0.1), (1.2, 0.1), (0.5, 0.6), (0.5, NAN)])
def test_flip_reliability_refuses(rate: float, flip: float):
    with pytest.raises(ConfigError, match="expected a number in"):
        flip_reliability(rate, flip)
