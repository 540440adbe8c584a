"""Channel weights that follow the run, on numbers worked by hand."""

from __future__ import annotations

from math import exp, nan

import pytest
import torch
from torch import Tensor

from rvpo.core.groups import Groups
from rvpo.core.methods.ctwa import CTWAState, group_covariance, move_weights
from rvpo.core.methods.lagrangian import move_multipliers
from rvpo.errors import RewardError

NONE = [nan, nan]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, *expected: float) -> None:
    torch.testing.assert_close(actual, tensor(*expected), rtol=1e-13, atol=1e-15, equal_nan=True)


def step(multipliers: list[float], attained: list[float], thresholds: list[float]) -> Tensor:
    before = tensor(*multipliers)
    after = move_multipliers(before, tensor(*attained), tensor(*thresholds), rate=0.5, ceiling=1.0)
    close(before, *multipliers)  # left as they were
    return after


def test_multipliers_follow_the_shortfall():
    # 0.1 + 0.5 (0.9 - 0.5) = 0.3;   0.4 + 0.5 (0.2 - 0.6) = 0.2;   on the threshold: as before
    close(step([0.1, 0.4, 0.7], [0.5, 0.6, 0.25], [0.9, 0.2, 0.25]), 0.3, 0.2, 0.7)


def test_multipliers_stay_between_zero_and_the_ceiling():
    # 0.1 + 0.5 (0.2 - 0.9) = -0.25 -> 0;   0.9 + 0.5 (0.8 - 0) = 1.3 -> 1
    close(step([0.1, 0.9], [0.9, 0.0], [0.2, 0.8]), 0.0, 1.0)


def test_objectives_and_unscored_channels_keep_theirs():
    close(step([0.0, 0.4], [0.3, nan], [nan, 0.8]), 0.0, 0.4)


def test_dual_steps_find_the_saddle_point():
    # maximise 1 - s^2 subject to s >= 0.7. L = 1 - s^2 + lambda (s - 0.7): dL/ds = -2 s + lambda = 0 at s = 0.7 gives
    # lambda = 1.4. Objective a_1 = 1 - s^2 with da_1/ds = -2 s, constrained a_2 = s with da_2/ds = 1, weights (1, 0).
    state, s, weights = tensor(0.0, 0.0), 0.0, tensor(1.0, 0.0)
    for _ in range(2000):
        attained = tensor(1 - s**2, s)
        state = move_multipliers(state, attained, tensor(nan, 0.7), rate=0.05, ceiling=10.0)
        s += 0.05 * float((weights + state) @ tensor(-2 * s, 1.0))
    assert s == pytest.approx(0.7, abs=1e-9)
    close(state.round(decimals=9), 0.0, 1.4)


def test_covariance_is_averaged_over_groups():
    # Channel 0: group 0 has A = (1, -1, 0, 0), x - 1/2 = (1, -1, 1, -1)/2, Cov = (1/2 + 1/2)/4 = 1/4; group 1 is
    # constant and counts as 0. Mean 1/8. Channel 1: the negative of channel 0 in group 0, and in group 1
    # A - 2 = (1, -1), x - 1/4 = (1, -1)/4, Cov = (1/4 + 1/4)/2 = 1/4. Mean (-1/4 + 1/4)/2 = 0.
    x = tensor(1, 0, 1, 0, 0.5, 0.5, 0, 1, 0, 1, 0.5, 0.0).reshape(2, 6).T
    a = tensor(1, -1, 0, 0, 3, 1)
    ids = torch.tensor([7, 7, 7, 7, 2, 2])
    close(group_covariance(a, x, Groups.from_ids(ids, 6)), 1 / 8, 0.0)
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    close(group_covariance(a[order], x[order], Groups.from_ids(ids[order], 6)), 1 / 8, 0.0)


def test_covariance_leaves_missing_completions_out():
    # Channel 0: over the completions 0, 1, 3 of group 0, A = (2, -1, -1) has mean 0, x = (1, 0, 0.5) mean 1/2:
    # (2/2 + 1/2 + 0)/3 = 1/2; group 1 has one scored completion and does not count. Channel 1 was never scored.
    x = torch.tensor([[1, nan], [0, nan], [nan, nan], [0.5, nan], [1, nan], [nan, nan], [nan, nan], [nan, nan]])
    a = tensor(2, -1, 5, -1, 1, 2, 3, 4)
    close(group_covariance(a, x.double(), Groups.from_blocks(8, 4, x.device)), 0.5, nan)


def test_the_first_batch_starts_the_running_covariance():
    # Below its target by 0.15 - 0.05 = 0.1: w = 2 exp(0.05 * 0.1). Above its target: w stays.
    start = CTWAState(tensor(2, 3), tensor(*NONE))
    state = move_weights(start, tensor(0.05, 0.2), tensor(0.5, 0.5), tensor(0.15, 0.1), tensor(*NONE))
    close(state.weights, 2 * exp(0.005), 3)
    close(state.covariance, 0.05, 0.2)


def test_later_batches_move_it_by_a_tenth():
    # E = 0.9 * 0.1 + 0.1 * (-0.1) = 0.08, 0.02 short of its target; 0.9 * 0.2 + 0.1 * 0.5 = 0.23, above it.
    before = CTWAState(tensor(1, 1), tensor(0.1, 0.2))
    state = move_weights(before, tensor(-0.1, 0.5), tensor(0.5, 0.5), tensor(0.1, 0.1), tensor(*NONE))
    close(state.covariance, 0.08, 0.23)
    close(state.weights, exp(0.05 * 0.02), 1)
    close(before.covariance, 0.1, 0.2)


def test_caps_missing_batches_and_zero_weights_hold_the_weight():
    # At its cap; unscored; of weight 0; just below its cap. All are 0.2 short of their targets, or nearly.
    state = move_weights(
        CTWAState(tensor(1, 1, 0, 1), tensor(0, 0.01, 0, 0)),
        tensor(0, nan, 0, 0),
        tensor(0.95, nan, 0.1, 0.94),
        targets=tensor(0.2, 0.2, 0.2, 0.2),
        caps=tensor(0.95, 0.95, 0.95, 0.95),
        rate=1.0,
    )
    close(state.weights, 1, 1, 0, exp(0.2))
    close(state.covariance, 0, 0.01, 0, 0)


def test_a_state_of_other_channels_is_refused():
    with pytest.raises(RewardError, match=r"multipliers \(2,\), attained \(1,\).* start a new state"):
        move_multipliers(tensor(0, 0), tensor(0.5), tensor(0.5, 0.5), rate=0.1, ceiling=1.0)
    with pytest.raises(RewardError, match=r"caps \(1,\)"):
        move_weights(CTWAState(tensor(1, 1), tensor(0, 0)), tensor(0, 0), tensor(0, 0), tensor(0, 0), tensor(1))
