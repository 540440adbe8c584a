"""What rubric rewards add to a step: channels gathered from all processes, and judges' totals."""

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
    """Return the scores of the latest call over the completions of all processes, in order of rank. Collective.

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
    """Return families with what an override of TRL's ``_calculate_rewards`` did to their columns.

    A row that it masked is masked whole: its criteria are missing. What another number should mean for the criteria,
    nobody can say.

    Args:
        families: as judged, of all processes.
        names: of the columns.
        scored: (N, M) as the reward functions returned them; None where an override did not ask them.
        received: (N, M) as TRL received them.

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
    """Return each judge's usage, summed over processes, without what is unknown or never occurred. Collective."""
    totals: dict[str, float] = {}
    for channel, reward in rewards.items():
        dropped = {"dropped": float(reward.dropped)} if reward.dropout else {}
        usages = gather_object([{**reward.judge.usage(), **dropped}])
        totals |= {f"{PREFIX}{channel}/{JUDGE}/{key}": value for key, value in added(usages).items()}
    return totals


class RandomState:
    """The random generators at one moment. A checkpoint that holds it lets a resumed run generate the same again."""

    def __init__(self) -> None:
        """Note the state of now."""
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
        self._cuda = torch.cuda.random.get_rng_state_all() if torch.cuda.is_available() else None

    def restore(self) -> None:
        """Wind the generators back."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.random.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.random.set_rng_state_all(self._cuda)
