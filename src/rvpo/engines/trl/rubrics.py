"""Rubric rewards in a step: gathers their channels from all processes, and sums the judges' usage."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from rvpo.core.metrics import JUDGE, PREFIX
from rvpo.core.ragged import Family, Score
from rvpo.errors import EngineError
from rvpo.judges.usage import added
from rvpo.rewards.judged import JudgedReward


def gather_families(rewards: Mapping[str, JudgedReward]) -> list[Family]:
    """Return the scores of the latest call for the completions of all processes, in the order of ranks. Collective.

    Args:
        rewards: the judged rewards by the name of their channel.
    """
    return [
        Family(name, gather_object(list(reward.latest)), only_monitored=reward.only_monitored)
        for name, reward in rewards.items()
    ]


def as_received(
    families: Sequence[Family], names: Sequence[str], scored: Tensor | None, received: Tensor
) -> list[Family]:
    """Apply the changes that an override of TRL's ``_calculate_rewards`` made to the columns of rubrics.

    If the override masked a row, all criteria of that row are missing. Another change is refused, because its meaning
    for the criteria is not known.

    Args:
        families: judged rubrics of all processes.
        names: names of the columns.
        scored: (N, M) rewards that the reward functions returned; None if an override did not call them.
        received: (N, M) rewards that TRL received.

    Raises:
        EngineError: an override changed a rubric's column in another way.
    """
    changed = []
    for family in families:
        if family.only_monitored:  # its column is the channel
            changed.append(family)
            continue
        column = names.index(family.name)
        before = None if scored is None else scored[:, column]
        after = received[:, column]
        masked = after.isnan() if before is None else after.isnan() & ~before.isnan()
        kept = torch.zeros_like(masked) if before is None else (after == before) | (after.isnan() & before.isnan())
        if bool((~(kept | masked)).any()):
            seen = "does not call super()" if before is None else "changes its column"
            raise EngineError(
                f"the rubric reward {family.name!r} is a channel for each criterion, but a _calculate_rewards in front "
                f"of RVPO's {seen}, and what that means for the criteria is unknown; expected its own values, or NaN "
                "for a row that is left out. Change single verdicts in the judge instead"
            )
        rows = [_masked(row) if gone else row for row, gone in zip(family.rows, masked.tolist(), strict=True)]
        changed.append(replace(family, rows=rows))
    return changed


def _masked(row: Sequence[Score]) -> list[Score]:
    return [replace(score, value=None, reason="masked") for score in row]


def judge_totals(rewards: Mapping[str, JudgedReward]) -> dict[str, float]:
    """Return each judge's usage, summed over processes. Unknown values and counts of 0 are left out. Collective."""
    totals: dict[str, float] = {}
    for channel, reward in rewards.items():
        dropped = {"dropped": float(reward.dropped)} if reward.dropout else {}
        usages = gather_object([{**reward.judge.usage(), **dropped}])
        totals |= {f"{PREFIX}{channel}/{JUDGE}/{key}": value for key, value in added(usages).items()}
    return totals


class RandomState:
    """The state of the random generators. With it, a resumed run generates the same completions again."""

    def __init__(self) -> None:
        """Copy the current state."""
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
        self._cuda = torch.cuda.random.get_rng_state_all() if torch.cuda.is_available() else None

    def restore(self) -> None:
        """Set the generators back to this state."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.random.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.random.set_rng_state_all(self._cuda)
