"""Rewards that all engines' tests feed in, what ``rvpo.Aggregator`` makes of them, and stand-ins for engines.

A test takes an engine's own types where they can be imported, and else small ones with the same fields.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import rvpo
from dict_rewards import GROUPS

# Two batches of two groups of four. Missing in all three ways; the second group of the first batch is tied in its sum.
BATCHES: list[list[dict[str, float | None]]] = [
    [
        {"correct": 3.0, "safe": 0.0},
        {"correct": -1.0, "safe": 1.0},
        {"correct": 0.5, "safe": None},
        {"correct": 0.0},
        {"correct": 1.0, "safe": 0.0},
        {"correct": 0.0, "safe": 1.0},
        {"correct": math.nan, "safe": 1.0},
        {"correct": 1.0, "safe": 0.0},
    ],
    [
        {"correct": 1.0, "safe": 1.0},
        {"correct": -2.0, "safe": 0.0},
        {"correct": 0.5, "safe": 0.0},
        {"safe": 1.0},
        {"correct": 2.0, "safe": 0.5},
        {"correct": 2.0, "safe": 1.0},
        {"correct": -3.0, "safe": None},
        {"correct": 1.0, "safe": 0.25},
    ],
]


def aggregator(method: str = "lift") -> rvpo.Aggregator:
    return rvpo.Aggregator(method, ["correct", "safe"], ranges={"correct": (-3, 3)}, weights={"correct": 2.0})


@pytest.fixture
def batches() -> list[list[dict[str, float | None]]]:
    return [[dict(row) for row in batch] for batch in BATCHES]


@pytest.fixture
def expected() -> list[list[float]]:
    """The advantages of both batches, the second with the memory of the first."""
    agg = aggregator()
    found = [agg(batch, groups=GROUPS).advantages for batch in BATCHES]
    fresh = aggregator()(BATCHES[1], groups=GROUPS).advantages
    assert found[1] != pytest.approx(fresh, abs=1e-6), "the memory decides something"
    return found


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Return a function that imports the engine's module, or else puts a stand-in with these attributes there."""

    ours: set[str] = set()

    def take(name: str, **attributes: Any) -> bool:
        try:
            if name in ours:
                raise ImportError(f"{name} is a stand-in")
            importlib.import_module(name)
        except ImportError:
            parts = name.split(".")
            for i in range(1, len(parts) + 1):
                path = ".".join(parts[:i])
                if path not in sys.modules:
                    module = ModuleType(path)
                    module.__path__ = []
                    ours.add(path)
                    monkeypatch.setitem(sys.modules, path, module)
                    if i > 1:
                        monkeypatch.setattr(sys.modules[".".join(parts[: i - 1])], parts[i - 1], module, raising=False)
            for key, value in attributes.items():
                monkeypatch.setattr(sys.modules[name], key, value, raising=False)
            return False
        return True

    return take
