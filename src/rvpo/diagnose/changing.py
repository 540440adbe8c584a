"""Channels that lost or gained their influence during the run.

The verdict on a channel is about the whole run. A channel that moves the advantage in most of the run and not at all
at its end, for example because its weight was set to 0, is healthy on average. So the pull of the first third of the
run is compared with that of the last third. A change is named if the two intervals lie on different sides of the
threshold of *ignored*.

The stretches of time of :class:`rvpo.diagnose.sums.Sums` are the sample: the interval is from a jackknife over them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rvpo.diagnose.diagnosis import Estimate
from rvpo.diagnose.estimates import LEVEL, Array, pulls
from rvpo.diagnose.verdicts import RULES, Judged, times
from rvpo.statistics.distributions import t_quantile

LEAST = 4
"""Fewest stretches of a third: with fewer, the jackknife knows too little about the spread."""


def pulls_of_thirds(
    stretches: Array, ranked: Array, alive: NDArray[np.bool_], level: float = LEVEL
) -> list[list[Estimate]] | None:
    """Return the pull of each channel in the first and in the last third of the run; None if the run is too short.

    Args:
        stretches: (B, K, K + 1) sums per stretch of time, see :func:`rvpo.diagnose.estimates.pulls`.
        ranked: (B, K) number of groups per stretch within which the rewards of the channel differ.
        alive: (K,) bool, channels that enter the average of the pulls.
        level: level of the intervals.
    """
    third = len(stretches) // 3
    if third < LEAST:
        return None
    return [_estimates(stretches[part], ranked[part], alive, level) for part in (slice(0, third), slice(-third, None))]


def _estimates(stretches: Array, ranked: Array, alive: NDArray[np.bool_], level: float) -> list[Estimate]:
    n, total = len(stretches), stretches.sum(0)
    value = pulls(total, alive)
    without = pulls(total - stretches, alive)  # (n, K), each without one stretch
    error = np.sqrt((n - 1) / n * ((without - without.mean(0)) ** 2).sum(0))
    wide = t_quantile((1 + level) / 2, n - 1) * error
    known = np.isfinite(value) & np.isfinite(wide) & ((ranked > 0).sum(0) >= LEAST)
    return [
        Estimate(float(x), float(x - w), float(x + w)) if there else Estimate(None)
        for x, w, there in zip(value, wide, known, strict=True)
    ]


def has_faded(early: Estimate, late: Estimate) -> bool:
    """Return whether a channel moved the advantage at first, and is ignored or reversed at the end."""
    if early.low is None or late.high is None:
        return False
    return early.low > RULES.neglected > late.high


def with_change(judged: Judged, early: Estimate, late: Estimate) -> Judged:
    """Add to the sentence of a verdict how the pull changed, if the channel lost or gained its influence."""
    if judged.verdict not in ("healthy", "neglected"):
        return judged
    if not has_faded(early, late) and not has_faded(late, early):
        return judged
    end = "it lost its influence" if has_faded(early, late) else "it gained its influence later"
    change = f"{end}: {times(early)} in the first third of the steps, {times(late)} in the last"
    return replace(judged, rule=f"{judged.rule}; {change}")
