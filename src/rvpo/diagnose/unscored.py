"""The effect of counting a missing reward as 0, as TRL does.

TRL sums the rewards that were scored. A completion with a missing reward is then compared with completions that have
it. This module computes the advantages of a run both ways and counts those whose sign changes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from rvpo.arrays.groups import Array
from rvpo.core import GDPO, GRPO, AdvantageConfig
from rvpo.diagnose.aggregating import advantages_of
from rvpo.diagnose.group_sums import SAME
from rvpo.logs.run import LoggedBatch, Run

EQUAL = 1e-4
"""A smaller difference between advantages is rounding: logs have single precision."""
_ZERO = (GRPO(), GRPO(whiten="none"), GRPO(whiten="batch"), GDPO(unscored="zero"))
READINGS = tuple(
    (AdvantageConfig(method), AdvantageConfig(dataclasses.replace(method, unscored="left_out"))) for method in _ZERO
)
"""TRL's sums, each paired with the same method that leaves missing rewards out."""


class Unscored:
    """Counts over a run, batch by batch.

    Attributes:
        partly: number of completions with both a missing and a scored reward.
        rows: number of all completions.
    """

    def __init__(self, run: Run) -> None:
        """Begin; nothing is counted for a run whose method is known to leave missing rewards out."""
        self._run = run
        known = run.config.method if run.config is not None else None
        self._readings = [pair for pair in READINGS if known is None or pair[0].method == known]
        self._turned = [0] * len(self._readings)
        self._off = [0.0] * len(self._readings)
        self._missing = np.zeros(len(run.channels))
        self.partly = self.rows = 0
        self._logged = False

    def add(self, batch: LoggedBatch) -> None:
        """Count a batch."""
        self.rows += len(batch.groups)
        if not self._readings:
            return
        counts = batch.present if batch.weights is None else batch.present & (batch.weights > 0)
        missing = np.isnan(batch.rewards) & counts
        partly = np.any(missing, 1) & np.any(~missing & counts, 1)
        self.partly += int(partly.sum())
        used = batch.advantages
        self._logged = self._logged or used is not None
        if not partly.any():  # both ways give the same advantages
            return
        of = np.broadcast_to(batch.channel, missing.shape)[missing & partly[:, None]]
        self._missing += np.bincount(of, minlength=len(self._missing))
        for i, (as_zero, left_out) in enumerate(self._readings):
            if self._off[i] >= EQUAL:  # the run did not use this method
                continue
            zero, _ = advantages_of(batch, as_zero, self._run)
            if used is not None and (known := ~np.isnan(used)).any():
                self._off[i] = max(self._off[i], float(np.abs(zero - used)[known].max()))
            if self._off[i] < EQUAL:
                self._turned[i] += _turned(zero, advantages_of(batch, left_out, self._run)[0])

    def note(self) -> str:
        """Return the note for the reader; empty if no missing reward was counted as 0."""
        fits = [i for i, off in enumerate(self._off) if off < EQUAL]
        if not self.partly or not fits:
            return ""
        best = fits[0]
        as_zero, left_out = self._readings[best]
        worst = self._run.channels[int(self._missing.argmax())]
        whose = "the logged advantages" if self._logged else f"the assumed advantages ({as_zero})"
        return (
            f"{self.partly:,} of {self.rows:,} completions have some scored and some missing rewards, mostly "
            f"{worst!r}, and {whose} count a missing reward as 0, as TRL does. If it were left out, "
            f"{self._turned[best]:,} advantages would have a different sign. To leave it out, train with rvpo's "
            f"method={str(left_out)!r}; or return a number for it from the reward function"
        )


def _turned(one: Array, other: Array) -> int:
    """Return how many advantages have opposite signs, or a sign in one only."""
    a, b = (np.where(np.abs(x) > SAME, np.sign(x), 0.0) for x in (one, other))
    return int((a != b).sum())
