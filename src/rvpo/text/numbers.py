"""Numbers that were read from a text. JSON and YAML allow integers that are too large for a float."""

from __future__ import annotations

import math


def is_finite(value: float) -> bool:
    """Return whether a number is finite as a float: not NaN, not infinite, not an integer beyond about 1.8e308."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
