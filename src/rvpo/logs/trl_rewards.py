"""Decide which columns of TRL's completions are rewards, and which ``log_extra`` added: both are numbers.

TRL also logs the advantages, which show it: a column that contributes to them is a reward. If no weighted sum explains
the advantages, as for custom methods, names decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvpo.logs.guess import Guess
from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.rewards import Chosen, Numbers, of_advantages

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def choose(path: Path, parts: Iterable[tuple[Array, Ints, Array]], candidates: Sequence[str]) -> Chosen:
    """Find the rewards.

    Args:
        path: path of the logs.
        parts: rewards (N, M), groups (N,) and advantages (N,) of some files.
        candidates: names of the M columns with numbers.
    """
    rewards, groups, advantages, start = [], [], [], 0
    for values, ids, known in parts:
        rewards.append(values)
        groups.append(ids + start)
        advantages.append(known)
        start += int(ids.max()) + 1
    if not rewards or len(candidates) == 1:
        return Chosen(list(candidates))
    whole: Array = np.concatenate(rewards)
    columns = {name: _column(name, whole[:, j]) for j, name in enumerate(candidates)}
    by_name = {name: whole[:, j] for j, name in enumerate(candidates)}
    numbers = Numbers(path, columns, by_name, np.concatenate(groups), np.concatenate(advantages), candidates)
    found = of_advantages(numbers)
    if found is not None and found.rewards:
        return found
    kept = [name for name in candidates if numbers.kind(name) not in ("foreign", "total")]
    if not kept or len(kept) == len(candidates):
        return Chosen(list(candidates))
    left = ", ".join(name for name in candidates if name not in kept)
    why = "their names are not names of rewards, and no weighted sum explains the advantages"
    return Chosen(kept, guesses=[Guess(f"{left} left out", why, "--rewards", trust=0.9)])


def _column(name: str, values: Array) -> Column:
    known = values[np.isfinite(values)]
    if not len(known):
        return Column(name, "empty")
    whole = bool((known == np.floor(known)).all())
    return Column(name, "number", numbers=len(known), whole=whole, low=float(known.min()), high=float(known.max()))
