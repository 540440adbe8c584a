"""Numbers that were read from a text: JSON and YAML allow integers that no float can hold."""

from __future__ import annotations

import math


def is_finite(value: float) -> bool:
    """Return whether a number is one as a float: not NaN, not infinite, and not an integer beyond about 1.8e308."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
