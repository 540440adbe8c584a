"""Reward channels. A channel is a callable ``f(completions, **columns) -> list[float | None]``; None = missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rvpo.extras import needs_extra

if TYPE_CHECKING:
    from rvpo.rewards.pairwise import PairwiseReward

__all__ = ["PairwiseReward"]


def __getattr__(name: str) -> object:
    """Load ``PairwiseReward`` on first use: it needs torch, and readers and judges do not."""
    if name == "PairwiseReward":
        with needs_extra("torch", "pairwise rewards"):
            from rvpo.rewards.pairwise import PairwiseReward

        return PairwiseReward
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
