"""Tchebycheff scalarisations on numbers worked by hand; D_j = M' p_j (1 - x_j) throughout."""

from __future__ import annotations

from decimal import Decimal, localcontext
from itertools import product
from math import log, nan

import pytest
import torch
from torch import Tensor

from rvpo.core.methods.tchebycheff import smooth_tchebycheff, tchebycheff


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, *expected: float | list[float]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=1e-15)


def test_equal_weights_measure_the_plain_shortfall():
    # D = 2 * 1/2 * (0.8, 0.1) = (0.8, 0.1): the first decides alone.
    value, responsibilities = tchebycheff(rows([0.2, 0.9]), rows([0.5, 0.5]), rho=0.0)
    close(value, -0.8)
    close(responsibilities, [1.0, 0.0])


def test_augmentation_adds_the_weighted_shortfall():
    # 0.8 + 0.5 * (0.5 * 0.8 + 0.5 * 0.1) = 0.8 + 0.225. dS/dx = (1 + 0.5 * 0.5, 0.5 * 0.5) = (1.25, 0.25).
    value, responsibilities = tchebycheff(rows([0.2, 0.9]), rows([0.5, 0.5]), rho=0.5)
    close(value, -1.025)
    close(responsibilities, [5 / 6, 1 / 6])


def test_weights_scale_the_distances():
    # D = 2 * (3/4 * 0.3, 1/4 * 0.8) = (0.45, 0.4): weight makes the smaller shortfall the larger distance.
    value, responsibilities = tchebycheff(rows([0.7, 0.2]), rows([0.75, 0.25]), rho=0.0)
    close(value, -0.45)
    close(responsibilities, [1.0, 0.0])


def test_ties_share_in_proportion_to_p():
    # D = 2 * (3/4 * 0.2, 1/4 * 0.6) = (0.3, 0.3). Shares 1/2 each; dS/dx = M' p_j / 2 = p_j.
    value, responsibilities = tchebycheff(rows([0.8, 0.4]), rows([0.75, 0.25]), rho=0.0)
    close(value, -0.3)
    close(responsibilities, [0.75, 0.25])


def test_smooth_on_powers_of_two():
    # D = (ln 2, 0), mu = 1: S = -ln(2 + 1), softmax = (2/3, 1/3).
    value, responsibilities = smooth_tchebycheff(rows([1 - log(2), 1.0]), rows([0.5, 0.5]), mu=1.0)
    close(value, -log(3))
    close(responsibilities, [2 / 3, 1 / 3])
    # D = 2 * 3/4 * (1 - x) = ln 2 again; dS/dx in proportion to (3/4 * 2/3, 1/4 * 1/3) = (6, 1) / 12.
    value, responsibilities = smooth_tchebycheff(rows([1 - log(2) / 1.5, 1.0]), rows([0.75, 0.25]), mu=1.0)
    close(value, -log(3))
    close(responsibilities, [6 / 7, 1 / 7])


@pytest.mark.parametrize("mu", [1e-6, 1e-3, 0.1, 1.0, 30.0, 1e3])
def test_smooth_keeps_its_digits_at_every_temperature(mu: float):
    x, p = [0.125, 0.1250005, 0.75, 1.0], [0.25, 0.25, 0.375, 0.125]
    value, responsibilities = smooth_tchebycheff(rows(x), rows(p), mu)
    with localcontext(prec=60):  # the formula as written, without an anchor: exp(10^6) is no trouble here
        odds = [(4 * Decimal(b) * (1 - Decimal(a)) / Decimal(mu)).exp() for a, b in zip(x, p, strict=True)]
        expected = float(-Decimal(mu) * sum(odds).ln())
        parts = [Decimal(b) * o for b, o in zip(p, odds, strict=True)]
        shares = [float(part / sum(parts)) for part in parts]
    assert value.item() == pytest.approx(expected, rel=1e-14)
    torch.testing.assert_close(responsibilities, rows(shares), rtol=1e-9, atol=1e-300)


def test_all_attained_is_the_best_value():
    x, p = rows([1.0, 1.0, 1.0]), rows([0.5, 0.25, 0.25])
    assert tchebycheff(x, p, rho=0.3)[0].item() == 0
    close(smooth_tchebycheff(x, p, mu=0.5)[0], -0.5 * log(3))


def test_plain_on_binary_channels_is_a_conjunction():
    x = torch.tensor(list(product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    value, _ = tchebycheff(x, torch.full_like(x, 1 / 3), rho=0.0)
    close(value, *[-1.0] * 7, 0.0)


@pytest.mark.parametrize(("rule", "option"), [(tchebycheff, 0.2), (smooth_tchebycheff, 0.2)])
def test_channels_without_share_are_ignored_and_rows_without_any_are_zero(rule, option):
    x = rows([0.25, nan, 0.5], [nan, nan, nan]).requires_grad_()
    value, responsibilities = rule(x, rows([0.5, 0.0, 0.5], [0.0, 0.0, 0.0]), option)
    alone_value, alone = rule(rows([0.25, 0.5]), rows([0.5, 0.5]), option)
    close(value.detach(), alone_value.item(), 0.0)
    close(responsibilities.detach(), [alone[0, 0].item(), 0.0, alone[0, 1].item()], [0.0, 0.0, 0.0])
    value.sum().backward()
    assert x.grad[:, 1].eq(0).all()
    assert x.grad[1].eq(0).all()
    assert (x.grad[0, [0, 2]] > 0).all()
