"""RVPO: train language models on many rewards without neglecting one.

``rvpo.Aggregator`` turns the rewards of a batch into advantages, in any training loop. ``rvpo.advantages`` does the
same without a state between batches. ``rvpo.trl`` is the drop-in trainer for TRL. ``rvpo.rewards`` and ``rvpo.data``
provide reward functions and prompts. Methods are objects: ``rvpo.LIFT()``, ``rvpo.RVPO(k=2.0)`` … Names load on first
use, so ``import rvpo`` itself is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rvpo.core import (
        CTWA,
        DARA,
        DVAO,
        GD2PO,
        GDPO,
        GRPO,
        LIFT,
        LIFTZ,
        MGDA,
        RVPO,
        SAMRPO,
        SAW,
        AdaptiveK,
        AdvantageConfig,
        Advantages,
        Batch,
        Channels,
        CorrGRPO,
        Cosine,
        HardMin,
        Lagrangian,
        Linear,
        Method,
        Outcome,
        RiskPO,
        RVPOExplicit,
        SmoothTchebycheff,
        Tchebycheff,
        VeRPO,
        advantages,
    )
    from rvpo.step.aggregator import Aggregated, Aggregator

    __version__: str

__all__ = [
    "CTWA",
    "DARA",
    "DVAO",
    "GD2PO",
    "GDPO",
    "GRPO",
    "LIFT",
    "LIFTZ",
    "MGDA",
    "RVPO",
    "SAMRPO",
    "SAW",
    "AdaptiveK",
    "AdvantageConfig",
    "Advantages",
    "Aggregated",
    "Aggregator",
    "Batch",
    "Channels",
    "CorrGRPO",
    "Cosine",
    "HardMin",
    "Lagrangian",
    "Linear",
    "Method",
    "Outcome",
    "RVPOExplicit",
    "RiskPO",
    "SmoothTchebycheff",
    "Tchebycheff",
    "VeRPO",
    "__version__",
    "advantages",
]
_OF_THE_STEP = ("Aggregated", "Aggregator")


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name == "__version__":
        return _written_version()
    if name == "trl":  # not a public name, but code may use rvpo.trl after `import rvpo`
        return importlib.import_module("rvpo.trl")
    if name in __all__:
        home = "rvpo.step.aggregator" if name in _OF_THE_STEP else "rvpo.core"
        from rvpo.extras import needs_extra

        with needs_extra("torch", "advantages"):
            value: object = getattr(importlib.import_module(home), name)
        globals()[name] = value  # so that the next use costs nothing
        return value
    raise AttributeError(f"module 'rvpo' has no attribute {name!r}; public names are {', '.join(__all__)}")


def _written_version() -> str:
    """Return the version that the install wrote. A checkout that was never installed does not know its version."""
    try:
        written = importlib.import_module("rvpo._version")
    except ModuleNotFoundError:
        return "0+unknown"
    return str(written.__version__)


def __dir__() -> list[str]:
    return sorted(__all__)
