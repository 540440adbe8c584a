"""Numbers that were read from a text. JSON and YAML allow integers that are too large for a float."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any


def is_finite(value: float) -> bool:
    """Return whether a number is finite as a float: not NaN, not infinite, not an integer beyond about 1.8e308."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def answer_text(value: Any) -> Any:
    """Return a number as text, and any other value unchanged. Whole numbers that a table stored as decimals are whole.

    Example:
        >>> answer_text(3.0), answer_text(0.5), answer_text("x")
        ('3', '0.5', 'x')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, float) and math.isfinite(value):
        # Not in the form 1e-07, which is not LaTeX.
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    return str(value)
