"""Find numbers that stand for a missing reward: -999 among rewards from 0 to 1, or -1 among fractions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvpo.errors import DataError
from rvpo.logs.guess import Guess

Array = NDArray[np.float64]

FAR = 10.0  # times the range of all other values
MOSTLY = 0.5  # share of the rows
FEW = 0.1  # share of the rows
FEWEST_VALUES = 5  # with fewer different values, -1 is probably one of a few grades


def marks_of_missing(path: Path, rewards: Mapping[str, Array], named: bool) -> Iterator[Guess]:
    """Yield guesses about numbers that may stand for a missing reward.

    Args:
        path: path of the logs, for messages.
        rewards: (N,) values of each reward, NaN = missing.
        named: whether the user named the rewards; then nothing is refused.

    Raises:
        DataError: a reward has a number that certainly marks a missing value, such as -999.
    """
    for name, values in rewards.items():
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        for mark in {float(values.min()), float(values.max())}:
            others = values[values != mark]
            count = len(values) - len(others)
            if not len(others) or count > MOSTLY * len(values):
                continue
            low, high = float(others.min()), float(others.max())
            seen = f"{mark:g} in {count:,} of {len(values):,} rows, and {low:g} to {high:g} in all others"
            distance = max(low - mark, mark - high)
            if _is_nines(mark) and distance > FAR * max(high - low, 1e-9):
                if not named:
                    raise DataError(
                        f"{path}: the reward {name!r} is {seen}; expected null if a reward is missing. Write null "
                        f"instead of {mark:g}, or pass --rewards if it is a reward"
                    )
                yield _guess(name, mark, seen)
            elif mark == -1 and low >= 0 and count <= FEW * len(values) and len(np.unique(others)) >= FEWEST_VALUES:
                yield _guess(name, mark, seen)


def _guess(name: str, mark: float, seen: str) -> Guess:
    return Guess(f"{mark:g} is a reward of {name!r}, not a missing one", f"it is {seen}", "log null if missing", 0.9)


def _is_nines(mark: float) -> bool:
    """Return whether a number has only nines, at least two: the usual mark of a missing number."""
    digits = f"{abs(mark):g}"
    return len(digits) >= 2 and set(digits) == {"9"}
