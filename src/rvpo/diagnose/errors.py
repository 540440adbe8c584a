"""Standard errors of a diagnosis without resampling, from the influence of each group (the delta method).

A bootstrap needs a thousand draws. The alarm of a training runs after every generation, so it uses these errors
instead. Groups are independent, and a statistic is a smooth function of sums over groups. The squared error is the sum
of the squared influences of the groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rvpo.diagnose.estimates import RIDGE
from rvpo.diagnose.group_sums import SLOT

Array = NDArray[np.float64]


def correlation_errors(table: Array) -> Array:
    """Return the standard error of each channel's correlation with the advantage, (K,); NaN where undefined.

    For r = A / sqrt(B C), with A, B and C the sums of a_g, b_g and c_g, the influence of group g is
    a_g / sqrt(B C) - r / 2 (b_g / B + c_g / C).

    Args:
        table: (P, K, slots) sums per group.
    """
    az, aa, zz = (table[..., SLOT[name]] for name in ("az", "aa", "zz"))
    with np.errstate(invalid="ignore", divide="ignore"):
        total, whole, own = az.sum(0), aa.sum(0), zz.sum(0)
        norm = np.sqrt(whole * own)
        influence = az / norm - (total / norm) / 2 * (aa / whole + zz / own)
        found: Array = np.sqrt((influence**2).sum(0))
    return found


def pulls_with_errors(z: Array, a: Array, group: NDArray[np.int64], alive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return :func:`rvpo.diagnose.estimates.pulls` and its standard errors, (K,) each; NaN where undefined.

    With coefficients beta = C^-1 sum_g Z_g' a_g, the influence of group g on beta is C^-1 Z_g' (a_g - Z_g beta). If
    the regression fits exactly, as for a rule that is linear in z, the errors are 0.

    Args:
        z: (N, K) z-scores, 0 where a channel is not live.
        a: (N,) advantages minus the mean of their group.
        group: (N,) group numbers from 0, ascending.
        alive: (K,) channels that enter the average pull.
    """
    spread = np.sqrt((z**2).sum(0))
    there = spread > 0
    unknown = np.full(z.shape[1], np.nan)
    # A group of n completions has n - 1 degrees of freedom. With few per channel, errors would be too small.
    free = len(z) - (int(group[-1]) + 1 if len(group) else 0) - int(there.sum())
    if not there.any() or free < there.sum():
        return unknown, unknown.copy()
    scale = np.where(there, spread, 1)
    unit = z / scale
    inverse = np.linalg.inv(unit.T @ unit + np.diag(np.where(there, RIDGE, 1.0)))
    beta = inverse @ (unit.T @ a)
    firsts = np.flatnonzero(np.diff(group, prepend=-1))
    scores = np.add.reduceat(unit * (a - unit @ beta)[:, None], firsts, axis=0)
    influence = scores @ inverse / scale
    beta = beta / scale
    counted = there & alive
    number = max(int(counted.sum()), 1)
    average = float(np.abs(beta[counted]).sum()) / number
    if average == 0:
        return np.where(there, 0.0, np.nan), np.where(there, 0.0, np.nan)
    of_average = (influence[:, counted] * np.sign(beta[counted])).sum(1) / number
    pull = beta / average
    errors = np.sqrt((((influence - of_average[:, None] * pull) / average) ** 2).sum(0) * len(z) / free)
    return np.where(there, pull, np.nan), np.where(there, errors, np.nan)
