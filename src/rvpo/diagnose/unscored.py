"""What it cost that a missing reward counted as 0, which is how TRL reads it.

TRL sums the rewards that were scored. A completion without one of them is then compared with completions that had it.
Here the advantages of a run are computed both ways, and those whose sign turns are counted.
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
"""Advantages that agree so far are those of a rule: logs hold single precision."""
_ZERO = (GRPO(), GRPO(whiten="none"), GRPO(whiten="batch"), GDPO(unscored="zero"))
READINGS = tuple(
    (AdvantageConfig(method), AdvantageConfig(dataclasses.replace(method, unscored="left_out"))) for method in _ZERO
)
"""TRL's sums, and each with missing rewards left out."""


class Unscored:
    """Counts over a run, batch by batch.

    Attributes:
        partly: completions with a missing reward beside one that was scored.
        rows: completions in all.
    """

    def __init__(self, run: Run) -> None:
        """Begin; a run whose method is known to leave missing rewards out is not looked at."""
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
        if not partly.any():  # both readings are the same
            return
        of = np.broadcast_to(batch.channel, missing.shape)[missing & partly[:, None]]
        self._missing += np.bincount(of, minlength=len(self._missing))
        for i, (as_zero, left_out) in enumerate(self._readings):
            if self._off[i] >= EQUAL:  # the run did not use this rule
                continue
            zero, _ = advantages_of(batch, as_zero, self._run)
            if used is not None and (known := ~np.isnan(used)).any():
                self._off[i] = max(self._off[i], float(np.abs(zero - used)[known].max()))
            if self._off[i] < EQUAL:
                self._turned[i] += _turned(zero, advantages_of(batch, left_out, self._run)[0])

    def note(self) -> str:
        """Return what a reader has to know; nothing where no reward was counted as 0."""
        fits = [i for i, off in enumerate(self._off) if off < EQUAL]
        if not self.partly or not fits:
            return ""
        best = fits[0]
        as_zero, left_out = self._readings[best]
        worst = self._run.channels[int(self._missing.argmax())]
        whose = "the logged advantages" if self._logged else f"the assumed advantages, of {as_zero},"
        return (
            f"{self.partly:,} of {self.rows:,} completions have a missing reward beside others, mostly {worst!r}, and "
            f"{whose} count it as 0, as TRL does: {self._turned[best]:,} advantages have another sign than if it were "
            f"left out. To leave it out, train with rvpo's method={str(left_out)!r}; or let the reward function say "
            "what a missing reward is worth"
        )


def _turned(one: Array, other: Array) -> int:
    """Return how many advantages have opposite signs, or a sign in one only."""
    a, b = (np.where(np.abs(x) > SAME, np.sign(x), 0.0) for x in (one, other))
    return int((a != b).sum())
