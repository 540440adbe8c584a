"""The state of a method as plain data for a checkpoint."""

from __future__ import annotations

import copy
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
