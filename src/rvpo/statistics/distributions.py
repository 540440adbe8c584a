"""Student's t and the normal distribution, from ``scipy.special``.

``scipy.stats`` gives the same numbers and takes half a second to import, ``scipy.special`` a tenth of that. Both are
imported on first use: most commands need neither.
"""

from __future__ import annotations

import math
from typing import Any


def t_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's t with ``df`` degrees of freedom at this probability."""
    if probability == 0:  # for which SciPy returns +inf
        return -math.inf
    return float(_special().stdtrit(df, probability))


def t_above(value: float, df: float) -> float:
    """Return the probability that a t variable with ``df`` degrees of freedom lies above a value."""
    return float(_special().stdtr(df, -value))


def normal_below(value: float) -> float:
    """Return the probability that a standard normal variable lies below a value."""
    return float(_special().ndtr(value))


def normal_quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution at this probability."""
    return float(_special().ndtri(probability))


def _special() -> Any:
    from scipy import special  # from the extras `report` and `eval`; the alarm during training works without it

    return special
