"""Student's t and the normal distribution, without SciPy: its import takes longer than a diagnosis of a small run."""

from __future__ import annotations

import math

_LARGE = 30.0
"""From this on, the ratio of two gamma functions is a short series, which keeps more digits than their logarithms."""


def t_quantile(probability: float, df: float) -> float:
    """Return the value that a t variable with ``df`` degrees of freedom stays below with this probability."""
    if not 0 < probability < 1:
        return math.inf if probability == 1 else -math.inf if probability == 0 else math.nan
    if probability < 0.5:
        return -_t_tail_quantile(probability, df)
    return _t_tail_quantile(1 - probability, df)


def t_above(value: float, df: float) -> float:
    """Return the probability that a t variable with ``df`` degrees of freedom lies above a value."""
    if math.isnan(value) or math.isinf(value):
        return math.nan if math.isnan(value) else float(value < 0)
    square = value * value
    tail = 0.5 * _beta_share(df / 2, df / (df + square), square / (df + square))
    return tail if value > 0 else 1 - tail


def normal_below(value: float) -> float:
    """Return the probability that a standard normal variable lies below a value."""
    return 0.5 * math.erfc(-value / math.sqrt(2))


def normal_quantile(probability: float) -> float:
    """Return the value that a standard normal variable stays below with this probability."""
    from statistics import NormalDist  # takes longer to import than all else here

    return NormalDist().inv_cdf(probability)


def _t_tail_quantile(tail: float, df: float) -> float:
    """Return the value >= 0 above which a share of at most 0.5 lies, by bisection to the last digit."""
    low, high = 0.0, 1.0
    while t_above(high, df) > tail:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if t_above(middle, df) > tail else (low, middle)


def _beta_share(a: float, x: float, rest: float) -> float:
    """Return the regularised incomplete beta function I_x(a, 1/2), where ``rest`` is 1 - x without its rounding."""
    if x == 0:
        return 0.0
    if rest == 0:
        return 1.0
    log_x = math.log(x) if x < 0.5 else math.log1p(-rest)
    log_rest = math.log(rest) if rest < 0.5 else math.log1p(-x)
    front = math.exp(a * log_x + 0.5 * log_rest + _log_gamma_ratio(a)) / math.sqrt(math.pi)
    if x < (a + 1) / (a + 2.5):
        return front * _fraction(a, 0.5, x) / a
    return 1 - front * _fraction(0.5, a, rest) / 0.5


def _log_gamma_ratio(a: float) -> float:
    """Return ln(Gamma(a + 1/2) / Gamma(a))."""
    if a < _LARGE:
        return math.lgamma(a + 0.5) - math.lgamma(a)
    return 0.5 * math.log(a) - 1 / (8 * a) + 1 / (192 * a**3) - 1 / (640 * a**5) + 17 / (14336 * a**7)


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    found = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            found *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return found
