"""Student's t and the normal distribution against scipy, from one degree of freedom to a million."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from rvpo.statistics.distributions import normal_below, normal_quantile, t_above, t_quantile

FREEDOM = (1, 1.5, 2, 3, 7.3, 10, 29, 59, 60, 61, 100, 500, 2047, 1e4, 1e5, 1e6)


@pytest.mark.parametrize("df", FREEDOM)
def test_t(df: float):
    for probability in (1e-6, 0.01, 0.3, 0.5, 0.51, 0.6, 0.9, 0.95, 0.975, 0.995, 0.9995):
        assert t_quantile(probability, df) == pytest.approx(special.stdtrit(df, probability), rel=1e-10, abs=1e-12)
    for value in (-30, -3, -0.5, 0, 1e-6, 0.1, 1, 2, 5, 12, 50):
        assert t_above(value, df) == pytest.approx(special.stdtr(df, -value), rel=1e-10, abs=1e-300)


def test_normal():
    for value in np.linspace(-10, 10, 41):
        assert normal_below(value) == pytest.approx(special.ndtr(value), rel=1e-13)
    for probability in (1e-10, 0.01, 0.3, 0.5, 0.99):
        assert normal_quantile(probability) == pytest.approx(special.ndtri(probability), rel=1e-12, abs=1e-15)


def test_ends():
    assert (t_quantile(0, 3), t_quantile(1, 3), t_above(math.inf, 3), t_above(-math.inf, 3)) == (
        -math.inf,
        math.inf,
        0.0,
        1.0,
    )
    assert math.isnan(t_quantile(math.nan, 3))
    assert math.isnan(t_above(math.nan, 3))
