"""The state of a method as plain data for a checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from rvpo.core.lazy import Tensor


def plain(state: Any) -> Any:
    """Return a copy of a state for JSON: tensors and tuples become lists, mappings become dicts.

    float64 numbers keep every bit. Values of other types are copied unchanged.
    """
    if isinstance(state, Tensor):
        return state.tolist()
    if isinstance(state, Mapping):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [plain(value) for value in state]
    return copy.deepcopy(state)


def not_finite(state: Any, place: str = "") -> str:
    """Return where a state of plain data has a NaN or an infinite number, such as ``scales/a/0``; "" if nowhere."""
    if isinstance(state, float) and not math.isfinite(state):
        return place
    parts: Any = ()
    if isinstance(state, Mapping):
        parts = state.items()
    elif isinstance(state, list | tuple):
        parts = enumerate(state)
    found = (not_finite(value, f"{place}/{key}" if place else str(key)) for key, value in parts)
    return next(filter(None, found), "")
