"""RVPO: train language models on many rewards without neglecting one.

``rvpo.advantages`` is the algorithm (arXiv 2605.05750); ``rvpo.trl`` is the drop-in trainer; ``rvpo.rewards`` and
``rvpo.data`` bring channels and prompts. Names load on first use, so that ``import rvpo`` itself is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rvpo.core import AdaptiveK, AdvantageConfig, Advantages, Channels, Schedule, advantages, schedules

__version__ = "0.1.0"
__all__ = [
    "AdaptiveK",
    "AdvantageConfig",
    "Advantages",
    "Channels",
    "Schedule",
    "__version__",
    "advantages",
    "schedules",
]


def __getattr__(name: str) -> object:
    """Load a public name from ``rvpo.core`` on first use."""
    if name == "schedules":
        return importlib.import_module("rvpo.core.schedules")
    if name == "trl":  # no public name of the core; for whoever writes rvpo.trl after `import rvpo`
        return importlib.import_module("rvpo.trl")
    if name in __all__:
        return getattr(importlib.import_module("rvpo.core"), name)
    raise AttributeError(f"module 'rvpo' has no attribute {name!r}; public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
