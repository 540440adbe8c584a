"""What rubric rewards add to a step: channels gathered from all processes, and judges' totals."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np
import torch
from accelerate.utils import gather_object

from rvpo.core.metrics import JUDGE, PREFIX
from rvpo.core.ragged import Family
from rvpo.rewards.rubric import RubricReward


def gather_families(rewards: Mapping[str, RubricReward]) -> list[Family]:
    """Return the scores of the latest call over the completions of all processes, in order of rank. Collective.

    Args:
        rewards: the rubric rewards by the name of their channel.
    """
    return [
        Family(name, gather_object(list(reward.latest)), only_monitored=reward.only_monitored)
        for name, reward in rewards.items()
    ]


def judge_totals(rewards: Mapping[str, RubricReward]) -> dict[str, float]:
    """Return each judge's usage, summed over processes, without what is unknown or never occurred. Collective."""
    totals: dict[str, float] = {}
    for channel, reward in rewards.items():
        for usage in gather_object([reward.judge.usage()]):
            for key, value in usage.items():
                if math.isnan(value) or (value == 0 and "missing/" in key):  # no prices; a reason that did not occur
                    continue
                name = f"{PREFIX}{channel}/{JUDGE}/{key}"
                if name not in totals:
                    totals[name] = value
                elif key.startswith("all/") or "/all/" in key:  # all processes read it from one cache file
                    totals[name] = max(totals[name], value)
                else:
                    totals[name] += value
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
